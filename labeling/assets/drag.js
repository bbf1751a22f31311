// Dragging: a letter, a chip of the ranking or a card's head, onto the strip. By mouse, pen and touch alike.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, byId, el, ballots } = palate;
  const FAR = 7; // px before a press becomes a drag
  const REACH = 28; // px around the strip in which a drop still counts
  let drag = null; // {letter, from, x, y, ghost, where}

  function letterOf(target) {
    const source = target.closest?.("[data-chip], [data-letter], .p-card .p-head");
    if (!source || (source.matches(".p-head") && target.closest("button"))) return null;
    return source.dataset.chip || source.dataset.letter || source.closest(".p-card").id.slice(-1);
  }

  const inside = (box, x, y, reach) => x >= box.left - reach && x <= box.right + reach && y >= box.top - reach && y <= box.bottom + reach;

  // Where a letter would go if it were dropped here; null is nowhere.
  function target(letter, x, y) {
    if (!inside(document.querySelector(".p-strip").getBoundingClientRect(), x, y, REACH)) return null;
    const pool = [...document.querySelectorAll(".p-letters button")].map((button) => button.getBoundingClientRect());
    if (pool.some((box) => inside(box, x, y, 2))) return ballots.ranked(page.ballot).includes(letter) ? { out: true } : null;
    const tiers = page.ballot.tiers;
    for (let at = 0; at < tiers.length; at++) {
      const boxes = tiers[at].map((one) => document.querySelector(`[data-chip="${one}"]`).getBoundingClientRect());
      const left = boxes[0].left;
      const right = boxes.at(-1).right;
      const edge = boxes[0].width * 0.2; // the outer fifth of a chip still means "beside it"
      if (x < left + edge) return { at };
      if (x <= right - edge) return tiers[at].length === 1 && tiers[at][0] === letter ? null : { tie: tiers[at].find((one) => one !== letter) };
    }
    return { at: tiers.length };
  }

  function mark(where) { // shows where the letter would go, without moving anything
    for (const chip of document.querySelectorAll("[data-chip]")) chip.classList.toggle("p-onto", chip.dataset.chip === where?.tie);
    const tier = where?.at === undefined ? null : page.ballot.tiers[where.at];
    const chips = [...document.querySelectorAll("[data-chip]")];
    for (const chip of chips) chip.classList.toggle("p-before", tier?.[0] === chip.dataset.chip);
    chips.at(-1)?.classList.toggle("p-after", where?.at === page.ballot.tiers.length);
    document.querySelector(".p-letters").classList.toggle("p-onto", Boolean(where?.out));
    byId("p-ranking").classList.toggle("p-onto", where?.at === 0 && !chips.length);
  }

  function begin() {
    drag.ghost = el("span", { class: "p-chip p-ghost", "aria-hidden": "true" }, drag.letter);
    document.body.append(drag.ghost);
    document.body.classList.add("p-dragging");
    window.getSelection().removeAllRanges();
  }

  function end() {
    drag?.ghost?.remove();
    document.body.classList.remove("p-dragging");
    mark(null);
    drag = null;
  }

  function onDown(event) {
    if (!palate.many() || event.button !== 0 || !event.isPrimary) return;
    const letter = letterOf(event.target);
    if (letter) drag = { letter, x: event.clientX, y: event.clientY, ghost: null, where: null };
  }

  function onMove(event) {
    if (!drag || !event.isPrimary) return;
    if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < FAR) return;
    if (!drag.ghost) begin();
    event.preventDefault();
    drag.ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px) translate(-50%, -120%)`;
    drag.where = target(drag.letter, event.clientX, event.clientY);
    mark(drag.where);
  }

  function onUp(event) {
    if (!drag || !event.isPrimary) return;
    const { letter, where, ghost } = drag;
    end();
    if (!ghost) return;
    document.activeElement?.closest?.("[data-letter]")?.blur(); // Enter must submit, not press the letter again
    // the click that follows belongs to the drag
    const swallow = (click) => { click.stopImmediatePropagation(); click.preventDefault(); };
    document.addEventListener("click", swallow, { capture: true, once: true });
    setTimeout(() => document.removeEventListener("click", swallow, { capture: true }), 50);
    if (where) palate.change((b) => ballots.place(b, letter, where));
  }

  document.addEventListener("pointerdown", onDown);
  document.addEventListener("pointermove", onMove, { passive: false });
  document.addEventListener("pointerup", onUp);
  document.addEventListener("pointercancel", end);
  palate.on("item", end);
  palate.on("escape", end);
})();
