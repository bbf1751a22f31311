// The ranking page's ground: one namespace, events, strings, storage, calls to the server.
// Text of prompts, answers and people is only ever set as textContent or handed to Gradio's Markdown.
//
// What other scripts of the page may use:
//   palate.t(key, {n: 3})         an interface string; {n} is filled in
//   palate.api(path, body, how)   fetch under /api/v1: GET without a body, POST with one, or `how`; resolves to the
//                                 JSON, rejects with an Error that has .status (0: no answer) and .code
//   palate.on(event, fn)          ready {me} · item {item} · empty {progress} · ballot {} · saved {vote, progress}
//                                 · kept {ballots} · refused {error} · practice {ballot} · theme {dark}
//   palate.state()                {me, item, progress, settings, online, unsent}: a copy
//   palate.keys.add(key, string, fn, {modal, when})   a key by the name KeyboardEvent gives it, upper case; `string`
//                                 is the key of its text in the help. Where an answer has that letter, Shift + key
//   palate.keys.list()            [{key, string, modal, shift}] in the order added
//   palate.reopen(voteId)         bring one of the annotator's own votes back to be changed (a promise)
//   palate.show(item)             show an item; one with `practice: true` is answered but never sent
//   palate.status(text, bad)      the line in the bar; palate.announce(text): said by screen readers, not shown
//   palate.kept(name[, value])    small values of this person in this project, in localStorage
//   palate.set(name, value)       settings of this browser ("fast", "theme", ...)
//   palate.el(tag, attributes, ...children)   an element; strings become text
//   An element with `data-modal` that is not hidden takes the keyboard: only Escape and `modal` keys work then.

window.palate = (() => {
  "use strict";
  const listeners = new Map();
  const page = { me: null, item: null, progress: null, settings: {}, unsent: () => 0, online: true };

  const byId = (id) => document.getElementById(id);

  function t(key, values = {}) {
    const words = window.palateStrings || {};
    const text = words[key] ?? words[`${key}.${values.n === 1 ? "one" : "many"}`] ?? key;
    return text.replace(/\{(\w+)\}/g, (hole, name) => (name in values ? String(values[name]) : hole));
  }

  function on(event, fn) {
    listeners.set(event, [...(listeners.get(event) || []), fn]);
  }

  function emit(event, detail = {}) {
    for (const fn of listeners.get(event) || []) {
      try { fn(detail); } catch (error) { console.error(error); } // one listener's fault stays its own
    }
  }

  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    if (tag === "button") element.type = "button";
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  }

  // -- storage: what belongs to a person is kept under the project and the person ------------------------------

  const prefix = () => (page.me ? `palate:${page.me.project}:${page.me.name}:` : "palate:");

  function read(name) {
    try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } // a private window, or not ours
  }

  function write(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, JSON.stringify(value));
      return true;
    } catch { return false; } // full, or a private window
  }

  function kept(name, value) {
    return value === undefined ? read(prefix() + name) : write(prefix() + name, value);
  }

  function keptNames(start) { // what is kept for this person, by the beginning of its name
    const whole = prefix() + start;
    try {
      return Object.keys(localStorage).filter((name) => name.startsWith(whole)).map((name) => name.slice(prefix().length));
    } catch { return []; }
  }

  function set(name, value) {
    page.settings = { ...page.settings, [name]: value };
    write("palate:settings", page.settings);
    emit("settings", page.settings);
  }
  page.settings = read("palate:settings") || {};

  function newId() {
    if (window.crypto.randomUUID) return window.crypto.randomUUID(); // needs https or localhost
    const bytes = window.crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // -- the server -------------------------------------------------------------------------------------------

  const PATIENCE = 15000; // ms without an answer, after which the server counts as away
  const base = () => window.location.pathname.replace(/[^/]*$/, "") + "api/v1/";

  async function api(path, body, how) {
    const request = { method: how || (body === undefined ? "GET" : "POST"), credentials: "same-origin" };
    if (body !== undefined) {
      request.headers = { "Content-Type": "application/json" };
      request.body = JSON.stringify(body);
    }
    const giveUp = new AbortController();
    const timer = setTimeout(() => giveUp.abort(), PATIENCE);
    let response = null;
    let found = null;
    try {
      response = await fetch(base() + path, { ...request, signal: giveUp.signal });
      found = await response.json().catch(() => null);
    } catch { /* no answer: told below */ } finally { clearTimeout(timer); }
    if (response?.ok && found !== null) return found;
    const said = window.palateStrings?.[`error.${found?.error?.code}`]; // what the server says is English
    const error = new Error(said || found?.error?.message || t("status.away"));
    error.status = response && !response.ok ? response.status : 0; // "ok" without its body is no answer either
    error.code = found?.error?.code || "";
    throw error;
  }

  // -- words ------------------------------------------------------------------------------------------------

  function status(text, bad = false) {
    const element = byId("p-status");
    if (!element) return;
    element.textContent = text;
    element.title = text;
    element.classList.toggle("p-bad", bad);
  }

  let said = 0; // timer: what follows quickly is said once
  function announce(text) {
    clearTimeout(said);
    said = setTimeout(() => { if (byId("p-live")) byId("p-live").textContent = text; }, 150);
  }

  // Elements say their text by key: data-t for the content, data-t-label and data-t-title for the attributes.
  function translate(root = document) {
    for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
    for (const element of root.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
    for (const element of root.querySelectorAll("[data-t-title]")) element.title = t(element.dataset.tTitle);
    for (const element of root.querySelectorAll("[data-t-hint]")) element.placeholder = t(element.dataset.tHint);
  }

  function state() {
    const { me, item, progress, settings, online } = page;
    return { me, item, progress, settings: { ...settings }, online, unsent: page.unsent() };
  }

  return { page, byId, t, on, emit, el, kept, keptNames, read, write, prefix, set, newId, api, status, announce, translate, state };
})();
