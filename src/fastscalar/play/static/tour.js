"use strict";
/* The article's walk: each step has a text and what is shown with it. */
const Tour = {
  at: null,

  begin() {
    const views = App.hello.views;
    this.stops = [
      ["hand", async () => { show("graph"); await Graph.load("hand"); Graph.byHand(true); }, 1],
      ["diamond", async () => { show("graph"); await Graph.load("diamond"); Graph.byHand(true); }, 2],
      ["regression", async () => { show("graph"); await Graph.load("regression"); Graph.go(0); }, 3],
      ...(views.includes("train") && !SAVED ? [["train", async () => show("train"), 4]] : []),
      ...(views.includes("draw") ? [["draw", async () => show("draw"), 5]] : []),
    ];
    $("tour-open").onclick = () => (this.at === null ? this.go(0) : this.close());
    $("tour-close").onclick = () => this.close();
    $("tour-next").onclick = () => (this.at + 1 < this.stops.length ? this.go(this.at + 1) : this.close());
    $("tour-back").onclick = () => this.go(this.at - 1);
    App.redraw.push(() => this.words());
  },

  words() {
    if (this.at === null) return;
    const text = this.stops[this.at][2];
    $("tour-title").textContent = word("t" + text);
    $("tour-body").innerHTML = word("b" + text);  // our own words, with their <code>
    $("tour-at").textContent = `${this.at + 1} / ${this.stops.length}`;
    $("tour-back").disabled = this.at === 0;
  },

  go(at) {
    this.at = at;
    $("tour").hidden = false;
    this.words();
    this.stops[at][1]();
  },

  close() {
    this.at = null;
    $("tour").hidden = true;
    $("tour-open").focus();
  },
};
