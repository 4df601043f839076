"use strict";
/* The run: asks for the newest figures again and again; a slow page gets fewer of them. */
const Train = {
  version: -1, generation: -1, points: [], now: null, looking: 0, weightsAt: 0,

  begin() {
    if (!App.hello.views.includes("train")) return;
    const act = (what) => this.order("train", { do: what });
    $("run").onclick = () => act(this.now && this.now.state === "running" ? "pause" : "start");
    for (const what of ["step", "epoch"]) $(what).onclick = () => act(what);
    $("reset").onclick = () => act("reset");
    $("reset").hidden = !App.hello.own;
    $("keep").hidden = !App.hello.saves || Boolean(SAVED);
    for (const [id, name] of [["lr", "lr"], ["hidden", "hidden"], ["batch", "batch_size"]]) {
      const input = $(id);
      input.onchange = () => {
        $("trouble").textContent = input.value === "" ? "" : input.validationMessage;
        if (input.value !== "" && input.checkValidity()) this.order("set", { [name]: Number(input.value) });
      };
      input.onblur = () => setTimeout(() => this.fill());
    }
    $("optimizer").onchange = () => this.order("set", { optimizer: $("optimizer").value });
    $("look").onclick = () => this.look();
    $("weights-card").hidden = !App.hello.units;
    $("mistakes-card").hidden = !App.hello.side;
    if (SAVED) for (const e of document.querySelectorAll(".live")) e.hidden = true;
    App.shown.train = () => { this.render(); this.weights(); if (!$("mistakes").children.length) this.look(); };
    App.redraw.push(() => { this.render(); this.weights(); if (this.found) this.gallery(this.found); });
    this.listen();
  },

  async order(name, message) {
    say($("trouble"), "");
    try { this.now = await ask(name, message); this.render(); }
    catch (e) { $("trouble").textContent = e.message; }
  },

  async listen() {
    for (;;) {
      let news;
      try { news = await ask("news", { seen: this.version, points: this.points.length, generation: this.generation }); }
      catch (e) { await new Promise((f) => setTimeout(f, 2000)); continue; }
      if (news.generation !== this.generation) this.points = [];
      this.points.push(...news.points);
      this.version = news.version;
      this.generation = news.generation;
      const ended = this.now && this.now.state === "running" && news.state !== "running";
      this.now = news;
      if (App.view === "train") {
        this.render();
        const now = performance.now();
        if (ended || now - this.weightsAt > 500) this.weights();
        if (ended || now - this.looking > 5000) this.look();
      } else if (App.view === "draw") Draw.read();
      if (SAVED) return;
      await new Promise((f) => (document.hidden ? setTimeout(f, 1000) : requestAnimationFrame(f)));
    }
  },

  fill() {  // what the server has, but for the field that has the cursor
    const s = this.now.settings;
    for (const [id, name] of [["lr", "lr"], ["hidden", "hidden"], ["batch", "batch_size"], ["optimizer", "optimizer"]]) {
      if (s[name] === undefined) { if (id === "hidden") $("hidden-label").hidden = true; continue; }
      if (document.activeElement !== $(id)) $(id).value = s[name];
    }
  },

  render() {
    const n = this.now;
    if (!n) return;
    $("run").textContent = word(n.state === "running" ? "pause" : "start");
    this.fill();
    if (n.message) $("trouble").textContent = n.state === "diverged" ? word("diverged_text", n.message) : n.message;
    else if ($("trouble").textContent && n.state === "running") say($("trouble"), "");
    const r2 = n.metric === "r2";
    say($("metric-title"), r2 ? "r2_curve" : "accuracy_curve");
    const figures = [
      ["f_state", word(n.state)], ["f_epoch", n.epoch.toFixed(2)], ["f_samples", count(n.samples)], ["f_loss", number(n.loss)],
      [r2 ? "f_r2" : "f_accuracy", r2 ? number(n.accuracy) : percent(n.accuracy)], ["f_rate", count(Math.round(n.rate))], ["f_net", n.net],
    ];
    $("figures").replaceChildren(...figures.map(([key, value]) => {
      const div = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = word(key);
      dd.textContent = value;
      div.append(dt, dd);
      return div;
    }));
    if (App.view !== "train") return;
    this.plot($("loss-plot"), 1, true);
    this.plot($("accuracy-plot"), 2, false);
  },

  plot(canvas, column, logarithmic) {
    const width = canvas.clientWidth, height = canvas.clientHeight, density = devicePixelRatio || 1;
    if (!width) return;
    canvas.width = width * density;
    canvas.height = height * density;
    const c = canvas.getContext("2d");
    c.scale(density, density);
    c.font = "12px system-ui, sans-serif";
    const rows = this.points.filter((p) => p[column] !== null);
    const finite = rows.filter((p) => typeof p[column] === "number" && (!logarithmic || p[column] > 0));
    const left = 52, right = width - 10, top = 10, bottom = height - 24;
    const end = Math.max(1, rows.length ? rows[rows.length - 1][0] : 1);
    const f = logarithmic ? Math.log10 : (v) => v;
    let low = Math.min(...finite.map((p) => f(p[column]))), high = Math.max(...finite.map((p) => f(p[column])));
    if (!finite.length) { low = logarithmic ? -2 : 0; high = 1; }
    if (!logarithmic) { high = Math.max(high, 1); low = Math.max(-1, Math.min(low, 0.9)); }
    if (high - low < 0.2) { low -= 0.1; high += logarithmic ? 0.1 : 0; }
    const x = (s) => left + (right - left) * s / end;
    const y = (v) => bottom - (bottom - top) * (f(v) - low) / (high - low);
    c.strokeStyle = colour("line");
    c.fillStyle = colour("dim");
    c.textAlign = "right";
    c.textBaseline = "middle";
    const ticks = [];
    if (logarithmic) {
      for (let k = Math.floor(low); k <= Math.ceil(high); k++) for (const m of high - low < 2.2 ? [1, 2, 5] : [1]) ticks.push(m * 10 ** k);
    } else for (let k = 0; k <= 4; k++) ticks.push(low + (high - low) * k / 4);
    for (const v of ticks) {
      if (f(v) < low - 1e-9 || f(v) > high + 1e-9) continue;
      c.beginPath();
      c.moveTo(left, y(v));
      c.lineTo(right, y(v));
      c.stroke();
      c.fillText(logarithmic ? number(v) : v.toFixed(2), left - 6, y(v));
    }
    c.textAlign = "left";
    c.fillText("0", left, height - 9);
    c.textAlign = "right";
    c.fillText(count(end), right, height - 9);
    c.strokeStyle = colour("main");
    c.lineWidth = 2;
    c.lineJoin = "round";
    c.beginPath();
    let on = false;
    for (const p of rows) {
      if (typeof p[column] !== "number" || (logarithmic && p[column] <= 0)) { on = false; continue; }
      if (on) c.lineTo(x(p[0]), y(p[column])); else c.moveTo(x(p[0]), y(p[column]));
      on = true;
    }
    c.stroke();
    c.fillStyle = colour("bad");
    for (const p of rows) if (p[column] === "inf") { c.fillRect(x(p[0]) - 2, top, 4, bottom - top); c.fillText("∞", x(p[0]) - 5, top + 8); }
    if (finite.length) {
      const p = finite[finite.length - 1];
      c.fillStyle = colour("main");
      c.beginPath();
      c.arc(x(p[0]), y(p[column]), 3.5, 0, 7);
      c.fill();
    }
  },

  async weights() {
    if (!App.hello.units || App.view !== "train") return;
    this.weightsAt = performance.now();
    let answer;
    try { answer = await ask("weights"); } catch (e) { return; }
    const { side, count: n } = answer, values = bytes(answer.images, true), columns = Math.min(8, n), gap = 2;
    const canvas = $("weights"), rows = Math.ceil(n / columns);
    canvas.width = columns * (side + gap) - gap;
    canvas.height = rows * (side + gap) - gap;
    const c = canvas.getContext("2d", { willReadFrequently: true });
    c.fillStyle = colour("line");
    c.fillRect(0, 0, canvas.width, canvas.height);
    const image = c.getImageData(0, 0, canvas.width, canvas.height);
    for (let k = 0; k < n; k++) paint(image, values, side, (k % columns) * (side + gap), Math.floor(k / columns) * (side + gap), true, k * side * side);
    c.putImageData(image, 0, 0);
  },

  async look() {
    if (!App.hello.side) return;
    this.looking = performance.now();
    try { this.gallery(await ask("mistakes")); } catch (e) { $("mistakes-card").hidden = true; }
  },

  gallery(found) {
    this.found = found;
    const { side } = found, values = bytes(found.images, false);
    say($("wrong"), found.wrong ? "wrong" : "none_wrong", found.wrong ? count(found.wrong) : count(found.of), count(found.of));
    $("mistakes").replaceChildren(...found.labels.map((label, k) => {
      const item = document.createElement("li"), canvas = document.createElement("canvas"), text = document.createElement("span");
      canvas.width = canvas.height = side;
      const c = canvas.getContext("2d"), image = c.createImageData(side, side);
      for (let i = 0; i < side * side; i++) {
        const v = values[k * side * side + i];
        image.data.set([v, v, v, 255], 4 * i);
      }
      c.putImageData(image, 0, 0);
      canvas.setAttribute("aria-hidden", "true");
      text.textContent = word("taken", label, found.taken[k]);
      item.append(canvas, text);
      return item;
    }));
  },
};
