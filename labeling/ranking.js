// The ranking screen's behaviour: keys and clicks become a ballot; one call per answer brings the next item.
// The page's elements are drawn by Gradio (screen.py). Text is only ever set as textContent.
//
//   palate.show(found)   an item (or none) has arrived     palate.ballot()   what the annotator answers
//   palate.failed()      the server did not answer; the ballot and its id are kept for the next try

window.palate = (() => {
  "use strict";
  const PATIENCE = 8000; // ms without an answer of the server until the annotator is told
  const IDLE = 20000; // ms without a sign of life after which reading time is not counted as active
  const byId = (id) => document.getElementById(id);
  const STRENGTHS = { 1: ["A", 3], 2: ["A", 2], 3: ["A", 1], 5: ["B", 1], 6: ["B", 2], 7: ["B", 3] };
  const WORDS = { 1: "slightly better", 2: "better", 3: "much better" };

  let found = { assignment: null, letters: [] };
  let tiers = []; // letters, best first; equal within a tier
  let joining = false; // the next letter is equal to the last
  let choice = null; // 1..7 between two answers
  let verdict = null; // all_bad or skip
  let sending = false;
  let voteId = null;
  let clock = null;
  let patience = 0; // timer: how long to wait for "saved"

  const pair = () => found.letters.length === 2;
  const ranked = () => tiers.flat();
  const missing = () => found.letters.filter((letter) => !ranked().includes(letter));

  function newId() {
    if (window.crypto.randomUUID) return window.crypto.randomUUID(); // needs https or localhost
    const bytes = window.crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  // -- time ---------------------------------------------------------------------------------------------

  function tick() { // adds the time since the last tick
    const now = performance.now();
    if (clock && !clock.hidden) {
      clock.visible += now - clock.last;
      clock.active += Math.max(0, Math.min(now, clock.sign + IDLE) - clock.last);
    }
    if (clock) { clock.last = now; clock.hidden = document.visibilityState === "hidden"; }
  }

  function alive() {
    tick();
    if (clock) clock.sign = performance.now();
  }

  function startClock() {
    const now = performance.now();
    clock = { visible: 0, active: 0, last: now, sign: now, hidden: document.visibilityState === "hidden" };
  }

  // -- the draft: a reload or a restarted server costs nothing, and the same vote keeps its id --------------

  function keep() {
    if (!found.assignment) return;
    const draft = { assignment: found.assignment, voteId, tiers, choice, verdict, why: byId("p-why")?.value };
    try { sessionStorage.setItem("palate-draft", JSON.stringify(draft)); } catch { /* private window */ }
  }

  function restore() {
    let draft = null;
    try { draft = JSON.parse(sessionStorage.getItem("palate-draft")); } catch { /* none, or not ours */ }
    if (draft?.assignment !== found.assignment || found.earlier) return;
    ({ voteId, tiers, choice, verdict } = draft);
    byId("p-why").value = draft.why || "";
  }

  // -- the answer ---------------------------------------------------------------------------------------

  function clear() { tiers = []; joining = false; choice = null; verdict = null; }

  function pick(letter) {
    if (sending || !found.letters.includes(letter)) return;
    if (pair()) return choose(letter === "A" ? 2 : 6);
    if (ranked().includes(letter)) {
      if (letter === ranked().at(-1)) back(); // a second click on the last card takes it back
      return;
    }
    verdict = null;
    if (joining && tiers.length) tiers.at(-1).push(letter);
    else tiers.push([letter]);
    joining = false;
    draw();
  }

  function tie() {
    if (pair()) return choose(4);
    if (tiers.length && missing().length) joining = !joining;
    draw();
  }

  function back() {
    if (joining) joining = false;
    else if (verdict) verdict = null;
    else if (tiers.length) {
      tiers.at(-1).pop();
      if (!tiers.at(-1).length) tiers.pop();
    } else choice = null;
    draw();
  }

  function choose(number) {
    if (sending || !pair()) return;
    verdict = null;
    choice = choice === number ? null : number;
    draw();
  }

  function give(name) {
    if (sending || !found.assignment) return;
    verdict = verdict === name ? null : name;
    choice = null; tiers = []; joining = false;
    draw();
  }

  // The answer in the server's words, or null while it is incomplete. A last letter that is left goes last.
  function answer() {
    if (!found.assignment) return null;
    if (verdict) return { verdict };
    if (pair()) {
      if (choice === null) return null;
      if (choice === 4) return { verdict: "tie", ranking: [["A", "B"]] };
      const [better, strength] = STRENGTHS[choice];
      return { verdict: "ranked", ranking: better === "A" ? [["A"], ["B"]] : [["B"], ["A"]], strength };
    }
    const rest = missing();
    if (rest.length > 1 || !tiers.length) return null;
    const all = tiers.map((tier) => [...tier]);
    if (rest.length && joining) all.at(-1).push(rest[0]);
    else if (rest.length) all.push([rest[0]]);
    return all.length === 1 ? { verdict: "tie", ranking: all } : { verdict: "ranked", ranking: all };
  }

  function hint() {
    if (pair()) return "choose first: 1 to 7, X or S";
    return `not ranked yet: ${missing().join(", ")}`;
  }

  // -- drawing ------------------------------------------------------------------------------------------

  function words() {
    if (verdict) return verdict === "skip" ? "skip" : "all bad";
    if (pair()) {
      if (choice === null) return "";
      return choice === 4 ? "A = B" : `${STRENGTHS[choice][0]} ${WORDS[STRENGTHS[choice][1]]}`;
    }
    const rest = missing();
    let text = tiers.map((tier) => tier.join(" = ")).join(" > ");
    if (joining) text += rest.length === 1 ? ` = (${rest[0]})` : " = …";
    else if (tiers.length && rest.length === 1) text += ` > (${rest[0]})`;
    return text;
  }

  function press(selector, on) {
    for (const element of document.querySelectorAll(selector)) element.setAttribute("aria-pressed", String(on(element)));
  }

  function letterButtons() {
    const box = document.querySelector(".p-letters");
    if (!box || box.childElementCount === found.letters.length) return;
    box.replaceChildren(...found.letters.map((letter) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.letter = letter;
      button.setAttribute("aria-keyshortcuts", letter);
      button.textContent = letter;
      return button;
    }));
  }

  function draw() {
    document.body.dataset.answers = String(found.letters.length);
    document.body.dataset.kind = found.assignment ? (pair() ? "pair" : "many") : "none";
    letterButtons();
    for (const letter of found.letters) {
      const place = tiers.findIndex((tier) => tier.includes(letter));
      const card = byId(`card-${letter}`);
      if (!card) continue;
      const preferred = pair() && choice !== null && choice !== 4 && STRENGTHS[choice][0] === letter;
      card.classList.toggle("p-picked", place >= 0 || preferred);
      card.querySelector(".p-place").textContent = place >= 0 ? String(place + 1) : "";
    }
    press("[data-choice]", (e) => Number(e.dataset.choice) === choice);
    press("[data-letter]", (e) => ranked().includes(e.dataset.letter));
    press("[data-do=tie]", () => joining);
    press("[data-do=all_bad]", () => verdict === "all_bad");
    press("[data-do=skip]", () => verdict === "skip");
    if (byId("p-ranking")) byId("p-ranking").textContent = words();
    byId("submit")?.classList.toggle("p-ready", answer() !== null && !sending);
    keep();
  }

  function status(text, bad = false) {
    const element = byId("p-status");
    if (!element) return;
    element.textContent = text;
    element.classList.toggle("p-bad", bad);
  }

  function show(next) {
    const known = next.assignment === found.assignment && next.refused;
    sending = false;
    clearTimeout(patience);
    found = next;
    document.title = next.project ? `${next.project} · Palate` : "Palate";
    byId("p-project").textContent = next.project;
    byId("p-name").textContent = next.annotator;
    byId("p-progress").textContent = next.assignment || next.left ? `${next.done} done · ${next.left} waiting` : `${next.done} done`;
    status(next.refused ? next.refused : next.saved ? "saved ✓" : next.earlier ? "taken back" : "", Boolean(next.refused));
    byId("p-empty").hidden = Boolean(next.assignment);
    if (!known) {
      clear();
      startClock();
      voteId = newId();
      byId("p-why").value = "";
      recall(next.earlier);
      restore();
      byId("history").classList.toggle("p-open", false);
      byId("history").dataset.turns = next.turns > 0 ? `${next.turns} earlier turn${next.turns > 1 ? "s" : ""}` : "";
      for (const box of document.querySelectorAll("#question, #cards, .p-card")) box.scrollTop = 0;
    }
    draw();
  }

  function recall(earlier) { // an item that was taken back shows what was answered
    if (!earlier) return;
    if (earlier.verdict === "all_bad" || earlier.verdict === "skip") verdict = earlier.verdict;
    else if (!pair()) tiers = earlier.ranking.map((tier) => [...tier]);
    else if (earlier.verdict === "tie") choice = 4;
    else choice = earlier.ranking[0][0] === "A" ? 4 - (earlier.strength || 2) : 4 + (earlier.strength || 2);
  }

  function failed() {
    if (!sending) return;
    sending = false;
    clearTimeout(patience);
    status("not saved: the server does not answer. Your answer is kept, Enter tries again", true);
    draw();
  }

  function ballot() {
    tick();
    sending = true;
    clearTimeout(patience);
    patience = setTimeout(failed, PATIENCE);
    status("saving …");
    draw();
    return {
      ...answer(),
      vote_id: voteId,
      assignment: found.assignment,
      rationale: byId("p-why").value.trim() || null,
      seconds_visible: clock.visible / 1000,
      seconds_active: clock.active / 1000,
    };
  }

  function toggleHelp(open) {
    const help = byId("p-help");
    help.hidden = open === undefined ? !help.hidden : !open;
  }

  function theme() {
    const dark = document.body.classList.toggle("dark");
    try { localStorage.setItem("palate-theme", dark ? "dark" : "light"); } catch { /* private window */ }
  }

  // -- keys and clicks ----------------------------------------------------------------------------------

  const DO = { help: () => toggleHelp(), theme, tie, back, all_bad: () => give("all_bad"), skip: () => give("skip") };

  function onKey(event) {
    alive();
    if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, textarea, select, [contenteditable=true]");
    if (event.key === "Escape") { toggleHelp(false); typing?.blur(); return; }
    if (event.repeat || (typing && event.key !== "Enter")) return;
    if (!byId("p-help") || !byId("p-help").hidden) {
      if (event.key === "?") toggleHelp(false);
      return;
    }
    const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
    if (key === "Enter") {
      if (event.target.closest?.("button, a") && event.target.id !== "submit") return; // reached with Tab: its own key
      byId("submit")?.click();
    } else if (key === "?") toggleHelp();
    else if (key === "U") byId("undo")?.click();
    else if (key === "X") give("all_bad");
    else if (key === "S") give("skip");
    else if (key === "R") byId("p-why")?.focus();
    else if (key === "=") tie();
    else if (key === "Backspace") back();
    else if (pair() && key >= "1" && key <= "7") choose(Number(key));
    else if (found.letters.includes(key)) pick(key);
    else return;
    event.preventDefault();
  }

  function onClick(event) {
    alive();
    const target = event.target;
    const button = target.closest?.("button");
    if (button && event.detail > 0) button.blur(); // a mouse click must not make Enter press it again
    if (button?.id === "submit" && (sending || answer() === null)) {
      event.stopImmediatePropagation();
      event.preventDefault();
      if (!sending && found.assignment) status(hint(), true);
      return;
    }
    if (button?.id === "undo" && sending) { event.stopImmediatePropagation(); return; }
    if (button?.dataset.choice) return choose(Number(button.dataset.choice));
    if (button?.dataset.letter) return pick(button.dataset.letter);
    if (button?.dataset.do) return DO[button.dataset.do]();
    if (target.closest?.("#history")) return byId("history").classList.toggle("p-open");
    const card = target.closest?.(".p-card");
    if (card && !pair() && !target.closest("a") && !String(window.getSelection())) pick(card.id.slice(-1));
  }

  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick, true);
  for (const sign of ["pointermove", "wheel", "touchmove", "scroll"]) document.addEventListener(sign, alive, { capture: true, passive: true });
  document.addEventListener("input", keep);
  document.addEventListener("visibilitychange", tick);
  document.addEventListener("DOMContentLoaded", () => {
    let wanted = null;
    try { wanted = localStorage.getItem("palate-theme"); } catch { /* private window */ }
    if (wanted) new MutationObserver((_, watch) => { // Gradio sets the system's theme once, when it mounts
      if (document.body.classList.contains("dark") !== (wanted === "dark")) document.body.classList.toggle("dark", wanted === "dark");
      if (byId("p-project")?.textContent) watch.disconnect();
    }).observe(document.body, { attributes: true, childList: true, subtree: true });
  });
  return { show, ballot, failed };
})();
