// The live screen's behaviour: a question goes out, answers arrive as lines of JSON and grow in their cards, the
// ranking page takes over when all are there. Text is only ever set as text. What the server sends holds letters
// and text, nothing about who wrote them.

(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const strings = JSON.parse(byId("strings").textContent);
  const t = (key, values = {}) => (strings[key] ?? key).replace(/\{(\w+)\}/g, (hole, name) => values[name] ?? hole);
  const DRAFT = "palate-live-draft"; // what is typed, until it is answered
  const RANKING = "palate-live"; // the assignment whose vote leads back here, see live_link.js

  let can = null; // what the server says this person can do
  let after = null; // the assignment whose best answer the next question continues
  let asked = ""; // the question that is being answered
  let stop = null; // AbortController while answers arrive
  let ready = null; // the assignment to rank, once all answers are there
  const cards = new Map(); // letter -> {card, head, text}

  function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function status(text, bad = false) {
    byId("status").textContent = text;
    byId("status").title = text;
    byId("status").classList.toggle("bad", bad);
  }

  function stored(name, value) { // sessionStorage of this tab; a private window may refuse it
    try {
      if (value === undefined) return sessionStorage.getItem(name);
      if (value === null) sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, value);
    } catch { /* kept on the page only */ }
    return null;
  }

  async function api(path, body, signal) {
    const how = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const response = await fetch(`api/v1/${path}`, { ...how, signal, credentials: "same-origin" });
    if (response.ok) return response;
    const found = await response.json().catch(() => null);
    const error = new Error(response.status === 401 ? t("live.logged_out") : found?.error?.message || t("live.away"));
    error.told = true;
    throw error;
  }

  const words = (error) => (error.told ? error.message : t("live.away"));

  // -- what is on the screen ------------------------------------------------------------------------------

  function turn(role, content, preferred = false) {
    const name = t(preferred ? "live.preferred" : `role.${role}`);
    return el("div", { class: `turn ${role}${preferred ? " preferred" : ""}` }, el("h2", {}, name), el("p", {}, content));
  }

  function showTalk(question = null) {
    const talk = after || (question === null && can.latest && !can.latest.vote) ? can.latest : null;
    const turns = (talk?.messages || []).map((message) => turn(message.role, message.content));
    if (after) turns.push(turn("assistant", talk.preferred, true));
    if (question !== null) turns.push(turn("user", question));
    byId("talk").replaceChildren(...turns);
    byId("talk").hidden = !turns.length;
    byId("talk").lastElementChild?.scrollIntoView({ block: "nearest" });
  }

  function showCards(letters) {
    cards.clear();
    byId("answers").replaceChildren(...letters.map((letter) => {
      const [head, text] = [el("h2", {}, letter), el("p", { tabindex: "0", role: "region", "aria-label": t("live.answer", { letter }) })];
      const card = el("article", { class: "card" }, head, text);
      cards.set(letter, { card, head, text });
      return card;
    }));
    byId("answers").dataset.count = letters.length;
    byId("answers").hidden = !letters.length;
  }

  // One of: loading, resting, asking, ready. What may be pressed follows from it.
  const hints = { asking: "live.hint_asking", ready: "live.hint_ready" };

  function become(state) {
    document.body.dataset.state = state;
    byId("stop").hidden = state !== "asking";
    byId("send").hidden = state === "ready";
    byId("send").disabled = state !== "resting" || !can.answers.most;
    byId("rank").hidden = state !== "ready";
    byId("number").hidden = state !== "resting" || can.answers.most < 3;
    byId("text").readOnly = state !== "resting";
    byId("text").placeholder = t(hints[state] || (after ? "live.hint_on" : "live.hint"));
    if (state !== "resting") byId("note").hidden = true;
    byId("intro").hidden = state !== "resting" || !byId("talk").hidden;
  }

  // Nothing is being asked: the person may begin, go on, or rank what they asked last.
  function rest(fresh = false) {
    const latest = can.latest;
    const waits = latest && !latest.vote;
    after = !fresh && latest?.preferred ? latest.assignment : null;
    showTalk();
    showCards([]);
    byId("intro").firstElementChild.textContent = t(can.answers.most ? "live.intro" : "live.none");
    const note = waits ? "live.waits" : after ? "live.continues" : latest?.vote && !fresh ? "live.none_good" : null;
    byId("note").hidden = !note;
    byId("note").firstElementChild.textContent = note ? t(note) : "";
    byId("last").hidden = !waits;
    byId("change").hidden = !latest?.vote;
    byId("afresh").hidden = !after;
    become("resting");
    byId("text").focus();
  }

  // -- asking -----------------------------------------------------------------------------------------------

  async function ask(event) {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (stop || ready || !can?.answers.most) return; // also while the page loads
    if (!text) return status(t("live.empty"), true);
    stop = new AbortController();
    asked = text;
    showTalk(text);
    showCards([]);
    byId("text").value = "";
    become("asking");
    status(t("live.writing"));
    let end = null;
    try {
      const answers = Number(byId("number").lastElementChild.value) || undefined;
      const response = await api("live", { text, after, answers }, stop.signal);
      for await (const found of lines(response)) end = take(found) || end;
      if (!end) failed(t("live.broke"));
    } catch (error) {
      failed(stop.signal.aborted ? t("live.stopped") : words(error), !stop.signal.aborted);
    } finally {
      stop = null;
    }
  }

  async function* lines(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest_ = "";
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      const found = (rest_ + piece.value).split("\n");
      rest_ = found.pop();
      for (const line of found) if (line) yield JSON.parse(line);
    }
  }

  // One line of the server. True when it was the last word.
  function take(found) {
    if (found.event === "asked") showCards(found.letters);
    if (found.event === "text") {
      for (const [letter, piece] of Object.entries(found.add)) cards.get(letter)?.text.append(piece);
      status(t("live.arriving"));
    }
    if (found.event === "again") {
      cards.get(found.letter).text.replaceChildren();
      status(t("live.again"));
    }
    if (found.event === "withdrawn") {
      cards.get(found.letter).card.classList.add("out");
      cards.get(found.letter).text.textContent = t(`live.out_${found.why}`);
    }
    if (found.event === "done") arrived(found);
    if (found.event === "failed") failed(t(`live.failed_${found.code}`));
    return found.event === "done" || found.event === "failed";
  }

  function arrived(found) {
    ready = found.assignment;
    const left = [...cards].filter(([letter]) => !(letter in found.letters));
    for (const [letter, { card, head }] of cards) {
      if (letter in found.letters) head.textContent = found.letters[letter];
      else card.remove();
    }
    byId("answers").dataset.count = cards.size - left.length;
    stored(DRAFT, null);
    status(left.length ? t("live.ready_without", { n: left.length }) : t("live.ready"));
    become("ready");
    byId("rank").focus();
  }

  function failed(text, bad = true) { // nothing was stored; the question goes back to where it was typed
    byId("text").value = asked;
    stored(DRAFT, asked);
    rest(!after);
    status(text, bad);
  }

  // -- leaving for the ranking page, and coming back ----------------------------------------------------------

  function rank(assignment) {
    stored(RANKING, assignment);
    window.location.assign("./");
  }

  async function change() {
    try {
      await api(`votes/${encodeURIComponent(can.latest.vote)}/reopen`, {});
      rank(can.latest.assignment);
    } catch (error) {
      status(words(error), true);
    }
  }

  byId("ask").addEventListener("submit", ask);
  byId("stop").addEventListener("click", () => stop?.abort());
  byId("rank").addEventListener("click", () => rank(ready));
  byId("last").addEventListener("click", () => rank(can.latest.assignment));
  byId("change").addEventListener("click", change);
  byId("afresh").addEventListener("click", () => { rest(true); status(""); });
  byId("text").addEventListener("input", () => stored(DRAFT, byId("text").value));
  byId("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!event.repeat) byId("ask").requestSubmit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && stop) stop.abort();
  });

  try { // the theme that was chosen on the ranking page
    const theme = JSON.parse(localStorage.getItem("palate:settings"))?.theme;
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch { /* none was chosen */ }

  async function start() {
    stored(RANKING, null);
    become("loading");
    try {
      can = await (await api("live")).json();
    } catch (error) {
      return status(words(error), true);
    }
    byId("text").maxLength = can.longest;
    for (let n = 2; n <= can.answers.most; n++) byId("number").lastElementChild.append(el("option", { value: n }, String(n)));
    byId("number").lastElementChild.value = can.answers.usual;
    byId("text").value = stored(DRAFT) || "";
    byId("text").disabled = !can.answers.most;
    return rest();
  }
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); }); // back: ask anew what can be done
  start();
})();
