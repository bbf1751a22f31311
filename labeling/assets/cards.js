// What an annotator does with one answer: read it alone, copy it, write a better one.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, byId, el, ballots } = palate;
  const SWIPE = 60; // px
  let front = "A"; // the answer in front: on a phone the one on the screen

  const card = (letter) => byId(`card-${letter}`);
  const cardOf = (element) => element.closest?.(".p-card")?.id.slice(-1);
  const narrow = () => window.matchMedia("(max-width: 640px)").matches;

  // -- the answer in front --------------------------------------------------------------------------------

  function bring(letter, say = true) {
    if (!palate.letters().includes(letter)) return;
    front = letter;
    marks();
    palate.emit("current", { letter });
    if (say) palate.announce(t("card.front", { letter }));
  }

  function turn(by) { // the next or the previous answer
    const all = palate.letters();
    bring(all[(all.indexOf(front) + by + all.length) % all.length]);
    card(front)?.scrollIntoView({ block: "nearest" });
    const focused = document.activeElement?.closest?.(".p-card > .p-answer");
    if (focused && cardOf(focused) !== front) focused.blur(); // the arrows scroll what is in front now
  }

  function marks() {
    for (const letter of "ABCDEFGHI") card(letter)?.classList.toggle("p-current", letter === front);
    for (const tab of document.querySelectorAll("[data-tab]")) tab.setAttribute("aria-pressed", String(tab.dataset.tab === front));
  }

  function tabs() {
    const box = byId("p-tabs");
    box.replaceChildren(...palate.letters().map((letter) =>
      el("button", { "data-tab": letter, "aria-label": t("card.show", { letter }) }, letter)));
  }

  function read(alone = !document.body.classList.contains("p-alone")) { // one answer over the full width
    document.body.classList.toggle("p-alone", alone && Boolean(page.item));
    for (const button of document.querySelectorAll("[data-tool=alone]")) button.setAttribute("aria-pressed", String(alone));
    palate.emit("alone");
    if (alone) palate.announce(t("card.front", { letter: front }));
  }

  function scroll(by, whole = false) { // what has the focus, else the answer in front
    const focused = document.activeElement?.closest?.("#question, .p-card > .p-answer");
    const text = focused || card(front)?.querySelector(":scope > .p-answer");
    text?.scrollBy({ top: by * (whole ? text.clientHeight * 0.9 : 60) });
  }

  async function copy(letter) {
    const text = page.item?.answers.find((answer) => answer.letter === letter)?.text;
    if (text === undefined) return;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // without https a page may only copy what is selected
      const field = el("textarea", { class: "p-unseen" });
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    palate.status(t("card.copied", { letter }));
  }

  // -- a better answer --------------------------------------------------------------------------------------

  const textOf = (letter) => page.item.answers.find((answer) => answer.letter === letter).text;
  const changed = () => page.ballot.edit && page.ballot.edit.text !== textOf(page.ballot.edit.letter);

  function wanted() { // the answer that is best so far, else the one in front
    const b = page.ballot;
    if (palate.pair() && b.choice && b.choice !== 4) return ballots.STRENGTHS[b.choice][0];
    return b.tiers[0]?.length === 1 && !narrow() ? b.tiers[0][0] : front;
  }

  function edit(letter = page.ballot.edit?.letter || wanted()) {
    if (!page.item) return;
    const other = page.ballot.edit?.letter;
    if (other && other !== letter && changed()) return palate.status(t("edit.one", { letter: other }), true);
    if (!other || other !== letter) palate.change((b) => { b.edit = { letter, text: textOf(letter) }; }, { quiet: true });
    bring(letter, false);
    open(letter);
    const field = card(letter).querySelector("textarea");
    field.focus();
    field.setSelectionRange(0, 0);
    field.scrollTop = 0;
  }

  function open(letter) { // null closes
    for (const one of palate.letters()) {
      card(one).classList.toggle("p-editing", one === letter);
      if (one === letter) card(one).querySelector("textarea").value = page.ballot.edit.text;
    }
  }

  function doneEditing() {
    if (page.ballot.edit && (!changed() || !page.ballot.edit.text.trim())) page.ballot.edit = null;
    open(null);
    palate.changed();
    document.activeElement?.blur?.();
  }

  function discard() {
    page.ballot.edit = null;
    doneEditing();
    palate.status(t("edit.discarded"));
  }

  function editMarks() {
    for (const button of document.querySelectorAll("[data-tool=edit]")) {
      const letter = cardOf(button) || front;
      button.setAttribute("aria-pressed", String(Boolean(changed()) && page.ballot.edit.letter === letter));
    }
  }

  // -- reading: what is long, which way it runs ---------------------------------------------------------------

  function afterTexts() {
    for (const letter of palate.letters()) {
      const whole = card(letter).querySelector("[data-tool=whole]");
      whole.hidden = !palate.drawing.canOpen(letter);
      card(letter).classList.toggle("p-long", !whole.hidden);
      const label = t(palate.drawing.isOpen(letter) ? "card.less" : "card.whole");
      if (whole.textContent !== label) whole.textContent = label; // a change is watched, and would come back here
    }
    for (const text of document.querySelectorAll("#question [dir], .p-answer [dir]")) text.dir = "auto";
    palate.emit("texts");
  }

  function onItem() {
    const letters = palate.letters();
    read(false);
    front = letters[0] || "A";
    if (byId("p-tabs").childElementCount !== letters.length) tabs();
    for (const letter of letters) card(letter).classList.remove("p-editing");
    marks();
    for (const box of document.querySelectorAll("#question, #cards, .p-card > .p-answer")) box.scrollTop = 0;
    byId("history").classList.remove("p-open");
    const turns = (page.item?.messages.length || 1) - 1;
    byId("history").dataset.turns = turns > 0 ? t(turns > 1 ? "turns.many" : "turns.one", { n: turns }) : "";
  }

  let swipe = null;
  function onTouch(event) {
    const touch = event.changedTouches[0];
    if (event.type === "touchstart") {
      let wide = event.target;
      while (wide && wide.id !== "cards" && wide.scrollWidth <= wide.clientWidth) wide = wide.parentElement;
      swipe = event.touches.length === 1 && (!wide || wide.id === "cards") ? { x: touch.clientX, y: touch.clientY } : null;
    } else if (swipe && event.type === "touchend") {
      const [dx, dy] = [touch.clientX - swipe.x, touch.clientY - swipe.y];
      if (Math.abs(dx) > SWIPE && Math.abs(dx) > 2 * Math.abs(dy) && (narrow() || document.body.classList.contains("p-alone"))) turn(dx < 0 ? 1 : -1);
      swipe = null;
    }
  }

  palate.on("item", onItem);
  palate.on("drawn", editMarks);
  palate.on("current", editMarks);
  palate.on("escape", () => read(false));
  palate.on("left", ({ field }) => { if (field.matches(".p-edit textarea")) doneEditing(); });
  Object.assign(palate, {
    current: () => front,
    cards: { bring, turn, narrow, read, scroll, copy, edit, doneEditing, discard, afterTexts, onTouch, cardOf },
  });
})();
