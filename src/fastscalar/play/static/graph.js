"use strict";
/* A graph: boxes in columns by depth, played forward and backward one operation at a time, or backward by hand. */
const Graph = {
  W: 138, H: 58, drawing: null, key: null, group: null, at: 0, position: 0, hand: null, chosen: null, view: null, timer: null, asked: 0,

  begin() {
    const ns = App.hello.graphs;
    for (const key of ns) {
      const option = document.createElement("option");
      option.value = key;
      option.dataset.word = "g_" + key;
      $("which").append(option);
    }
    this.key = ns[0];
    $("which").onchange = () => this.load($("which").value);
    $("sample").onchange = () => this.load(this.key);
    $("first").onclick = () => this.go(0);
    $("previous").onclick = () => this.go(this.position - 1);
    $("following").onclick = () => this.go(this.position + 1);
    $("last").onclick = () => this.go(this.steps());
    $("scrub").oninput = () => this.go(Number($("scrub").value));
    $("play").onclick = () => this.play();
    $("by-hand").onclick = () => this.byHand(!this.hand);
    $("outer").onclick = () => this.load(this.key);
    $("more").onclick = () => this.open(this.group, this.at + Math.floor(this.drawing.boxes.filter((b) => !b.outside).length));
    $("closer").onclick = () => this.zoom(1.3);
    $("farther").onclick = () => this.zoom(1 / 1.3);
    $("fit").onclick = () => this.fit();
    const svg = $("picture");
    svg.onwheel = (e) => { e.preventDefault(); this.zoom(Math.exp(-e.deltaY / 400), e); };
    let from = null;
    svg.onpointerdown = (e) => { if (!e.target.closest(".box")) { from = [e.clientX, e.clientY]; svg.setPointerCapture(e.pointerId); } };
    svg.onpointermove = (e) => {
      if (!from) return;
      this.view.x += e.clientX - from[0];
      this.view.y += e.clientY - from[1];
      from = [e.clientX, e.clientY];
      this.move();
    };
    svg.onpointerup = svg.onpointercancel = () => { from = null; };
    App.shown.graph = () => { if (!this.drawing) this.load(this.key); else this.fit(); };
    App.redraw.push(() => { if (this.drawing && App.view === "graph") { this.counts(); this.paint(); this.move(); this.render(); } });
  },

  async load(key) {
    this.stop();
    this.key = key;
    $("which").value = key;
    $("sample-label").hidden = key !== "net" || Boolean(SAVED);
    await this.draw(ask("graph", { graph: key, sample: Number($("sample").value) || 0 }), null);
  },

  async open(group, at = 0) {
    if (await this.draw(ask("inside", { graph: this.key, box: group, at }), group)) this.at = at;
  },

  async draw(answer, group) {  // the last that was asked for, whichever comes first
    const asked = ++this.asked;
    try {
      const drawing = await answer;
      if (asked !== this.asked) return false;
      this.take(drawing, group);
      return true;
    } catch (e) {
      if (asked === this.asked) $("doing").textContent = e.message;
      return false;
    }
  },

  take(drawing, group) {
    this.drawing = drawing;
    this.group = group;
    this.hand = this.chosen = null;
    $("details").dataset.word = "hover";
    say($("details"), "hover");
    $("outer").hidden = group === null;
    $("more").hidden = group === null || drawing.at + drawing.boxes.filter((b) => !b.outside).length >= drawing.count;
    this.order = drawing.boxes.filter((b) => b.op && b.kind !== "const" && !b.outside).map((b) => b.id);
    this.scalar = drawing.boxes.every((b) => !this.isOp(b) || b.partials);
    $("by-hand").disabled = !this.scalar || !drawing.frames;
    $("scrub").max = this.steps();
    this.position = this.steps();
    this.counts();
    this.layout();
    this.paint();
    this.listing();
    this.fit();
    this.render();
  },

  isOp: (b) => Boolean(b.op) && b.kind !== "const",
  steps() { return 2 * this.order.length + 1; },  // each forward, the seed, each backward

  counts() {
    say($("counts"), this.drawing.folded ? "counts_folded" : "counts", count(this.drawing.nodes), count(this.drawing.operations));
    $("by-hand").title = this.scalar ? "" : word("hand_no");
  },

  name(b) {
    if (b.count > 1 && b.line) return b.code || `${b.file}:${b.line}`;
    return b.label || (this.isOp(b) ? b.op : b.kind === "const" ? number(b.data[0]) : word(b.kind === "array" ? "array" : "leaf"));
  },

  /* Columns by depth; leaves stand just before the first that uses them; in a column each box near what it is made of. */
  layout() {
    const boxes = this.drawing.boxes, depth = boxes.map(() => 0), users = boxes.map(() => []);
    for (const b of boxes) for (const p of b.parents) users[p].push(b.id);
    const cyclic = this.drawing.folded;
    for (const b of boxes) for (const p of b.parents) if (!cyclic || p < b.id) depth[b.id] = Math.max(depth[b.id], depth[p] + 1);
    for (const b of boxes) if (!b.parents.length && users[b.id].length) depth[b.id] = Math.max(0, Math.min(...users[b.id].map((u) => depth[u])) - 1);
    const columns = [];
    for (const b of boxes) (columns[depth[b.id]] ??= []).push(b.id);
    const rows = boxes.map(() => 0);
    for (let d = 0; d < columns.length; d++) (columns[d] ??= []).forEach((id, k) => { rows[id] = k; });
    const mean = (ids) => ids.reduce((s, p) => s + rows[p], 0) / ids.length;
    for (let round = 0; round < 6; round++) {
      const forward = round % 2 === 0;
      for (const column of forward ? columns : [...columns].reverse()) {
        const near = new Map(column.map((id) => { const ids = forward ? boxes[id].parents : users[id]; return [id, ids.length ? mean(ids) : rows[id]]; }));
        column.sort((a, b) => near.get(a) - near.get(b));
        column.forEach((id, k) => { rows[id] = k - (column.length - 1) / 2; });
      }
    }
    this.W = boxes.some((b) => b.size > 1 || b.count > 1) ? 196 : 138;
    const stepX = this.W + 62, stepY = this.H + 18;
    this.place = boxes.map((b) => [depth[b.id] * stepX, rows[b.id] * stepY]);
  },

  paint() {
    const svg = $("picture"), made = (tag, attributes, parent) => {
      const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
      parent.append(e);
      return e;
    };
    svg.replaceChildren();
    this.root = made("g", {}, svg);
    this.edges = [];
    for (const b of this.drawing.boxes) {
      b.parents.forEach((p) => {
        const [x1, y1] = this.place[p], [x2, y2] = this.place[b.id], from = [x1 + this.W, y1 + this.H / 2], to = [x2, y2 + this.H / 2];
        const bend = Math.max(30, Math.abs(to[0] - from[0]) / 2);
        const past = Math.abs(y2 - y1) < 1 && x2 - x1 > this.W + 70 ? 1.3 * this.H : 0;  // around the boxes between
        const path = made("path", { class: "edge", d: `M${from} C${from[0] + bend},${from[1] - past} ${to[0] - bend},${to[1] - past} ${to}` }, this.root);
        this.edges.push([p, b.id, path]);
      });
    }
    this.nodes = this.drawing.boxes.map((b) => {
      const [x, y] = this.place[b.id];
      const g = made("g", { class: "box", transform: `translate(${x},${y})`, tabindex: "0", role: "button" }, this.root);
      const low = b.kind === "const";
      made("rect", { width: this.W, height: low ? 26 : this.H, y: low ? (this.H - 26) / 2 : 0, rx: 9 }, g);
      const lines = [made("text", { class: "head", x: 9, y: low ? 34 : 17 }, g), made("text", { x: 9, y: 34 }, g), made("text", { class: "g", x: 9, y: 50 }, g)];
      const op = this.isOp(b) ? b.op : b.kind === "const" ? "" : b.kind === "array" ? b.shape.join(" × ") : "";
      const many = b.count > 1 ? `× ${count(b.count)}` : "";
      const head = many && b.line ? `${many}  ${this.name(b)}` : [b.label, op, many].filter(Boolean).join("  ");
      lines[0].textContent = (head || this.name(b)).slice(0, this.W > 140 ? 28 : 19) + " ";  // a box is read out as its lines
      g.onpointerenter = g.onfocus = () => this.point(b);
      g.onclick = () => this.click(b);
      g.onkeydown = (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); this.click(b); } };
      return { g, lines };
    });
  },

  /* --- where the program is --- */

  gradients() {
    const d = this.drawing, n = this.order.length, zero = d.boxes.map(() => null);
    if (this.hand) return this.hand.grads.map((v) => [v, v]);
    const done = this.position - n - 1;  // backward steps
    if (done < 0) return zero;
    if (done >= n) return d.boxes.map((b) => b.grad);
    const grads = d.boxes.map(() => [0, 0]);
    const back = [...this.order].reverse().slice(0, done);
    const root = this.order.length ? this.order[this.order.length - 1] : 0;
    if (this.scalar && d.frames) {
      const g = d.boxes.map(() => 0);
      g[root] = 1;
      for (const id of back) this.pass(g, d.boxes[id]);
      return g.map((v) => [v, v]);
    }
    if (d.frames) {
      grads[root] = [1, 1];
      for (const frame of d.frames.slice(0, done)) for (const [p, v] of Object.entries(frame.grads)) grads[p] = v;
      return grads;
    }
    for (const b of d.boxes) if (b.id === root || b.parents.length === 0 || back.includes(b.id)) grads[b.id] = b.grad;
    return grads;
  },

  pass(g, box) {  // zero sends zero
    if (g[box.id] !== 0) box.parents.forEach((p, i) => { if (typeof box.partials[i] === "number") g[p] += box.partials[i] * g[box.id]; });
  },

  go(position) {
    this.hand = null;
    this.position = Math.min(this.steps(), Math.max(0, position));
    if (this.position === this.steps()) this.stop();
    this.render();
  },

  play() {
    if (this.timer) { this.stop(); return; }
    if (this.position === this.steps()) this.position = 0;
    $("play").textContent = word("stop");
    const wait = Math.max(60, Math.min(700, 16000 / this.steps()));
    this.timer = setInterval(() => this.go(this.position + 1), wait);
  },

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    $("play").textContent = word("play");
  },

  byHand(on) {
    this.stop();
    this.hand = null;
    if (on) {
      const grads = this.drawing.boxes.map(() => 0);
      if (this.order.length) grads[this.order[this.order.length - 1]] = 1;
      this.hand = { grads, done: new Set(), last: null };
    } else this.position = this.steps();
    this.render();
  },

  click(b) {
    this.point(b);
    if (this.drawing.folded && b.count > 1) { if (!SAVED) this.open(b.id); return; }
    if (!this.hand || !this.isOp(b)) return;
    this.pass(this.hand.grads, b);
    this.hand.done.add(b.id);
    this.hand.last = b.id;
    this.render();
  },

  status() {
    const d = this.drawing, n = this.order.length;
    if (this.hand) {
      if (this.hand.last === null) return word("hand_start");
      if (this.hand.done.size < n) return word("hand_did", this.name(d.boxes[this.hand.last]));
      const near = (a, b) => typeof b !== "number" || Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b));
      const wrong = d.boxes.filter((b) => b.kind !== "const" && !near(this.hand.grads[b.id], b.grad[0]));
      return wrong.length ? word("hand_wrong", wrong.map((b) => `${this.name(b)}.grad ${number(this.hand.grads[b.id])} ≠ ${number(b.grad[0])}`).join(", ")) : word("hand_right");
    }
    if (this.position === 0) return word("at_start");
    if (this.position <= n) return word("now_forward", this.title(d.boxes[this.order[this.position - 1]]));
    if (this.position === n + 1) return word("seed");
    if (this.position === this.steps()) return word("at_end");
    return word("now_backward", this.name(d.boxes[this.order[2 * n + 1 - this.position]]));
  },

  title(b) { return b.code || this.name(b); },

  render() {
    const d = this.drawing;
    if (!d) return;
    const n = this.order.length, p = this.hand ? this.steps() : this.position;
    const there = new Set(d.boxes.filter((b) => !this.isOp(b) || b.outside).map((b) => b.id));
    this.order.slice(0, Math.min(p, n)).forEach((id) => there.add(id));
    const grads = this.gradients();
    let now = null;
    if (this.hand) now = this.hand.last;
    else if (p > 0 && p <= n) now = this.order[p - 1];
    else if (p > n + 1 && p < this.steps()) now = this.order[2 * n + 1 - p];
    else if (p === n + 1 && n) now = this.order[n - 1];
    const span = (v) => (v[0] === v[1] ? number(v[0]) : `${number(v[0])} … ${number(v[1])}`);
    d.boxes.forEach((b, id) => {
      const { g, lines } = this.nodes[id], here = there.has(id);
      const kind = b.kind === "scalar" || b.kind === "group" ? "" : b.kind;
      g.setAttribute("class", ["box", kind, b.count > 1 ? "many" : "", here ? "" : "later", b.outside ? "outside" : "", id === now ? "now" : "",
        this.hand && this.hand.done.has(id) ? "done" : "", this.chosen === id ? "chosen" : ""].join(" "));
      lines[1].textContent = here && b.kind !== "const" ? `data ${span(b.data)} ` : "";
      lines[2].textContent = b.kind === "const" || !grads[id] ? "" : "grad " + span(grads[id]);
    });
    const forward = p <= n;
    for (const [from, to, path] of this.edges) {
      path.setAttribute("class", "edge" + (to === now && !(p === n + 1 && !this.hand) ? " now" : "") + (there.has(to) || !forward ? "" : " later"));
    }
    $("scrub").value = this.hand ? this.steps() : this.position;
    $("scrub").setAttribute("aria-valuetext", this.status());
    $("by-hand").setAttribute("aria-pressed", String(Boolean(this.hand)));
    $("doing").textContent = this.status();
    const line = now === null ? null : d.boxes[now].line;
    if (line !== null && this.chosen === null) this.mark(line);
    if (this.chosen !== null) this.details(d.boxes[this.chosen], grads[this.chosen]);
    document.documentElement.dataset.position = this.position;
  },

  point(b) {
    if (this.chosen === b.id) return;
    if (this.chosen !== null) this.nodes[this.chosen].g.classList.remove("chosen");
    this.chosen = b.id;
    this.nodes[b.id].g.classList.add("chosen");
    this.details(b, this.gradients()[b.id]);
    this.mark(b.line);
  },

  details(b, grad) {
    const span = (v) => (!v ? "–" : v[0] === v[1] ? number(v[0]) : `${number(v[0])} … ${number(v[1])}`);
    const rows = [[word("k_op"), this.isOp(b) ? b.op : word(b.kind === "const" ? "const" : b.kind === "array" ? "array" : "leaf")], [word("k_data"), span(b.data)]];
    if (b.kind !== "const") rows.push([word("k_grad"), span(grad)]);
    if (b.size > 1) rows.push([word("k_shape"), b.shape.join(" × ") || count(b.size)]);
    if (b.count > 1) rows.push([word("k_count"), count(b.count)]);
    if (b.plain) rows.push([word("k_numbers"), count(b.plain)]);
    if (b.classes && b.classes.length) rows.push([word("k_label"), b.classes.join(", ")]);
    (b.partials || []).forEach((s, i) => rows.push([word("k_slope", this.name(this.drawing.boxes[b.parents[i]])), number(s)]));
    if (b.line) rows.push([`${b.file}:${b.line}`, b.code]);
    const table = document.createElement("table");
    for (const [head, value] of rows) {
      const tr = table.insertRow(), th = document.createElement("th"), td = document.createElement("td");
      th.scope = "row";
      th.textContent = head;
      td.textContent = value;
      tr.append(th, td);
    }
    const title = document.createElement("strong");
    title.textContent = this.name(b);
    delete $("details").dataset.word;
    $("details").replaceChildren(title, table);
  },

  listing() {
    const lines = this.drawing.source;
    $("source-card").hidden = !lines.length;
    $("source").replaceChildren(...lines.map((text) => {
      const li = document.createElement("li");
      li.textContent = text || " ";
      return li;
    }));
  },

  mark(line) { [...$("source").children].forEach((li, k) => li.classList.toggle("here", k + 1 === line)); },

  /* --- the picture's place --- */

  fit() {
    const svg = $("picture"), xs = this.place.map((p) => p[0]), ys = this.place.map((p) => p[1]);
    const width = Math.max(...xs) - Math.min(...xs) + this.W, height = Math.max(...ys) - Math.min(...ys) + this.H;
    const room = [svg.clientWidth || 800, svg.clientHeight || 500];
    const scale = Math.min(1.5, Math.max(0.02, Math.min((room[0] - 40) / width, (room[1] - 40) / height)));
    this.view = { scale, x: (room[0] - width * scale) / 2 - Math.min(...xs) * scale, y: (room[1] - height * scale) / 2 - Math.min(...ys) * scale };
    this.move();
  },

  zoom(by, event) {
    const r = $("picture").getBoundingClientRect(), v = this.view;
    const x = event ? event.clientX - r.left : r.width / 2, y = event ? event.clientY - r.top : r.height / 2;
    const scale = Math.min(4, Math.max(0.02, v.scale * by));
    v.x = x - (x - v.x) * scale / v.scale;
    v.y = y - (y - v.y) * scale / v.scale;
    v.scale = scale;
    this.move();
  },

  move() {
    this.root.setAttribute("transform", `translate(${this.view.x},${this.view.y}) scale(${this.view.scale})`);
    $("picture").classList.toggle("far", this.view.scale < 0.3);
  },
};
