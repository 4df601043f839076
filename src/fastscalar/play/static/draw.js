"use strict";
/* A digit is drawn; the net reads it after every movement, one question at a time, the newest drawing first. */
const Draw = {
  SIDE: 56, pen: null, cursor: [140, 140], down: false, score: null, busy: false, waiting: false, answer: null, empty: true, asked: 0,

  begin() {
    if (!App.hello.views.includes("draw")) return;
    this.paper = $("paper").getContext("2d", { willReadFrequently: true });
    this.small = document.createElement("canvas");
    this.small.width = this.small.height = this.SIDE;
    this.ink = document.createElement("canvas");  // opaque where there is ink
    this.ink.width = this.ink.height = 280;
    const canvas = $("paper");
    canvas.onpointerdown = (e) => { canvas.setPointerCapture(e.pointerId); this.pen = this.place(e); this.stroke(this.pen, this.pen); };
    canvas.onpointermove = (e) => {
      if (!this.pen) return;
      for (const one of e.getCoalescedEvents?.() ?? [e]) { const to = this.place(one); this.stroke(this.pen, to); this.pen = to; }
    };
    canvas.onpointerup = canvas.onpointercancel = () => { this.pen = null; };
    canvas.onkeydown = (e) => this.key(e);
    canvas.onblur = () => { this.down = false; this.repaint(); };
    canvas.onfocus = () => this.repaint();
    $("clear").onclick = () => this.clear();
    for (let d = 0; d < 10; d++) {
      const row = document.createElement("li"), button = document.createElement("button");
      button.innerHTML = '<span class="digit"></span><span class="track"><span class="fill"></span></span><span class="percent"></span>';
      button.querySelector(".digit").textContent = d;
      button.querySelector(".fill").style.display = "block";
      button.onclick = () => { this.score = this.score === d ? null : d; this.read(); };
      row.append(button);
      $("bars").append(row);
      const teach = document.createElement("button");
      teach.textContent = d;
      teach.onclick = () => this.teach(d);
      $("labels").append(teach);
    }
    App.shown.draw = () => this.read();
    App.redraw.push(() => { this.repaint(); this.words(); if (this.answer) this.render(this.answer); });
    this.repaint();
  },

  words() {
    [...$("labels").children].forEach((b, d) => b.setAttribute("aria-label", word("it_is", d)));
    say($("pull-title"), "pull", this.answer ? this.answer.score : "?");
  },

  place(e) {
    const r = $("paper").getBoundingClientRect();
    return [(e.clientX - r.left) * 280 / r.width, (e.clientY - r.top) * 280 / r.height];
  },

  stroke(from, to) {
    const c = this.ink.getContext("2d");
    c.lineCap = c.lineJoin = "round";
    c.lineWidth = 22;
    c.beginPath();
    c.moveTo(...from);
    c.lineTo(to[0] + 0.01, to[1]);
    c.stroke();
    this.empty = false;
    this.repaint();
    this.read();
  },

  key(e) {
    const by = { ArrowLeft: [-7, 0], ArrowRight: [7, 0], ArrowUp: [0, -7], ArrowDown: [0, 7] }[e.key];
    if (by) {
      const to = this.cursor.map((v, i) => Math.min(270, Math.max(10, v + by[i])));
      if (this.down) this.stroke(this.cursor, to);
      this.cursor = to;
    } else if (e.key === " " || e.key === "Enter") {
      this.down = !this.down;
      if (this.down) this.stroke(this.cursor, this.cursor);
    } else if (e.key === "Delete" || e.key === "Backspace") {
      this.clear();
    } else return;
    e.preventDefault();
    this.repaint();
  },

  clear() {
    this.ink.getContext("2d").clearRect(0, 0, 280, 280);
    this.empty = true;
    this.score = null;
    say($("taught"), "");
    this.repaint();
    this.read();
  },

  repaint() {
    const c = this.paper;
    c.clearRect(0, 0, 280, 280);
    c.drawImage(this.ink, 0, 0);
    c.globalCompositeOperation = "source-in";
    c.fillStyle = colour("ink");
    c.fillRect(0, 0, 280, 280);
    c.globalCompositeOperation = "source-over";
    if (document.activeElement === $("paper") && $("paper").matches(":focus-visible")) {
      c.strokeStyle = colour(this.down ? "for" : "main");
      c.lineWidth = 2;
      c.beginPath();
      c.arc(...this.cursor, 11, 0, 7);
      c.stroke();
    }
  },

  pixels() {
    const c = this.small.getContext("2d", { willReadFrequently: true });
    c.clearRect(0, 0, this.SIDE, this.SIDE);
    c.imageSmoothingQuality = "high";
    c.drawImage(this.ink, 0, 0, this.SIDE, this.SIDE);
    const rgba = c.getImageData(0, 0, this.SIDE, this.SIDE).data;
    let text = "";
    for (let k = 3; k < rgba.length; k += 4) text += String.fromCharCode(rgba[k]);
    return btoa(text);
  },

  async read() {
    if (App.view !== "draw") return;
    if (this.busy) { this.waiting = true; return; }
    this.busy = true;
    const start = performance.now();
    try {
      const answer = await ask("read", { pixels: this.pixels(), score: this.score });
      this.render(answer);
      say($("took"), "took", (performance.now() - start).toFixed(0));
      document.documentElement.dataset.took = performance.now() - start;
    } catch (e) { /* the page says that the server has gone */ }
    this.busy = false;
    if (this.waiting) { this.waiting = false; this.read(); }
  },

  render(answer) {
    this.answer = answer;
    [...$("bars").children].forEach((row, d) => {
      const p = answer.empty ? 0 : answer.chances[d] ?? 0;
      const button = row.firstChild;
      row.hidden = d >= answer.chances.length;
      button.querySelector(".fill").style.transform = `scaleX(${p})`;
      button.querySelector(".percent").textContent = answer.empty ? "–" : percent(answer.chances[d]);
      button.setAttribute("aria-pressed", String(this.score === d));
      button.classList.toggle("best", !answer.empty && d === answer.best);
    });
    [...$("labels").children].forEach((b, d) => { b.hidden = d >= answer.chances.length; });
    for (const [id, signed] of [["seen", false], ["pull", true]]) {
      const c = $(id).getContext("2d"), image = c.createImageData(28, 28);
      const values = bytes(answer[id], signed);
      paint(image, answer.empty && signed ? values.fill(0) : values, 28, 0, 0, signed);
      c.putImageData(image, 0, 0);
    }
    say($("pull-title"), "pull", answer.score);
    clearTimeout(this.telling);
    this.telling = setTimeout(() => say($("guess"), answer.empty ? "" : "guess", answer.best, percent(answer.chances[answer.best])), 600);
  },

  async teach(label) {
    if (this.empty) { say($("taught"), "nothing"); return; }
    const before = this.answer ? this.answer.chances[label] : null;
    try {
      const answer = await ask("teach", { pixels: this.pixels(), label });
      this.render(answer);
      say($("taught"), "taught", number(answer.loss), label, percent(before), percent(answer.chances[label]));
    } catch (e) { $("taught").textContent = e.message; }
  },
};
