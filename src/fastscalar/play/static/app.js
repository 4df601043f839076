"use strict";
/* What all views share: words, colours, questions to the server, tabs. */
const $ = (id) => document.getElementById(id);
const SAVED = window.SAVED || null;  // a page in a file: the answers that it had when it was saved
const App = { hello: null, view: null, shown: {}, redraw: [], lang: "en" };

function kept(name, value) {  // a frame of another site may have no storage
  try {
    if (value === undefined) return localStorage.getItem("fastscalar-" + name);
    localStorage.setItem("fastscalar-" + name, value);
  } catch (e) { /* then it is forgotten */ }
  return null;
}

function word(key, ...values) {
  const text = WORDS[App.lang][key] ?? WORDS.en[key] ?? key;
  return text.replace(/\{(\d)\}/g, (all, i) => values[i] ?? "");
}

function say(element, key, ...values) {
  element.textContent = key ? word(key, ...values) : "";
}

function translate() {
  document.documentElement.lang = App.lang === "zh" ? "zh-CN" : "en";
  for (const e of document.querySelectorAll("[data-word]")) e.textContent = word(e.dataset.word);
  for (const e of document.querySelectorAll("[data-label]")) e.setAttribute("aria-label", word(e.dataset.label));
  $("lang").textContent = word("other");
  $("lang").lang = App.lang === "zh" ? "en" : "zh-CN";
  const hello = App.hello;
  if (hello && hello.note) say($("note"), "note", hello.title, hello.note);
  for (const redraw of App.redraw) redraw();
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function rgb(name) {
  const hex = colour(name).replace("#", "");
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

/* The answer of the server, or of the file; an Error with its text. */
async function ask(name, message = {}) {
  if (SAVED) {
    if (name === "graph") return SAVED.graphs[message.graph];
    if (SAVED[name]) return SAVED[name];
    throw new Error("not in this file");
  }
  let response;
  try {
    response = await fetch("api/" + name, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(message),
    });
  } catch (e) {
    $("gone").hidden = false;
    throw e;
  }
  $("gone").hidden = true;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function bytes(text, signed) {
  const raw = atob(text);
  const found = signed ? new Int8Array(raw.length) : new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

function number(x) {
  if (x === null || x === undefined) return "–";
  if (typeof x === "string") return x === "inf" ? "∞" : x;
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-3) return x.toExponential(2).replace("e+", "e");
  return String(Number(x.toPrecision(4)));
}

const percent = (p) => (typeof p === "number" ? (100 * p).toFixed(1) + " %" : "–");
const count = (n) => n.toLocaleString("en");

/* Grey images of one byte a pixel, or signed ones in two colours, into image data from pixel (left, top) on. */
function paint(image, values, side, left, top, signed, at = 0) {
  const ground = rgb("paper"), ink = rgb("ink"), plus = rgb("for"), minus = rgb("against");
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const v = values[at + y * side + x];
      const to = signed ? (v < 0 ? minus : plus) : ink;
      const share = Math.abs(v) / (signed ? 127 : 255);
      const k = 4 * ((top + y) * image.width + left + x);
      for (let c = 0; c < 3; c++) image.data[k + c] = ground[c] + share * (to[c] - ground[c]);
      image.data[k + 3] = 255;
    }
  }
}

function show(view) {
  if (!App.hello.views.includes(view)) return;
  App.view = view;
  for (const name of ["draw", "train", "graph"]) {
    $(name).hidden = name !== view;
    $("tab-" + name).setAttribute("aria-selected", String(name === view));
    $("tab-" + name).tabIndex = name === view ? 0 : -1;
  }
  kept("view", view);
  if (App.shown[view]) App.shown[view]();
}

async function begin() {
  App.lang = kept("lang") || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  const theme = kept("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  $("lang").onclick = () => { App.lang = App.lang === "zh" ? "en" : "zh"; kept("lang", App.lang); translate(); };
  $("theme").onclick = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
    kept("theme", document.documentElement.dataset.theme);
    for (const redraw of App.redraw) redraw();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => App.redraw.forEach((f) => f()));
  addEventListener("resize", () => App.redraw.forEach((f) => f()));
  App.hello = await ask("hello");
  const views = App.hello.views;
  for (const view of views) {
    $("tab-" + view).hidden = false;
    $("tab-" + view).onclick = () => show(view);
  }
  $("tabs").onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = views[(views.indexOf(App.view) + by + views.length) % views.length];
    show(next);
    $("tab-" + next).focus();
  };
  $("note").hidden = !App.hello.note;
  Draw.begin();
  Train.begin();
  Graph.begin();
  Tour.begin();
  translate();
  const last = kept("view");
  show(views.includes(last) ? last : views[0]);
  document.documentElement.dataset.ready = "yes";
}

document.addEventListener("DOMContentLoaded", begin);
