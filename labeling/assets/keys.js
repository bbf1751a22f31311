// Keys: one register, safe while somebody types. Loaded after core.js.

(() => {
  "use strict";
  const palate = window.palate;
  const keys = []; // {key, string, fn, modal, when}
  const FIELDS = "input, textarea, select, [contenteditable=true]";

  function add(key, string, fn, { modal = false, when = () => true } = {}) {
    keys.push({ key, string, fn, modal, when });
  }

  // An answer's letter comes first: where there is an answer D, the differences are on Shift+D.
  const isLetter = (key) => Boolean(palate.page.item?.answers.some((answer) => answer.letter === key));
  const needsShift = (key) => isLetter(key) && palate.page.item.answers.length > 2;

  function list() {
    return keys.map(({ key, string, modal }) => ({ key, string, modal, shift: needsShift(key) }));
  }

  const modal = () => document.querySelector("[data-modal]:not([hidden])");

  function onKey(event) {
    palate.emit("alive");
    if (event.defaultPrevented) return; // a part of the page that has the focus took it
    if (event.isComposing || event.keyCode === 229 || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.(FIELDS);
    if (event.key === "Escape") {
      typing?.blur();
      palate.emit(typing ? "left" : "escape", { field: typing });
      return;
    }
    if (event.repeat || (typing && !(event.key === "Enter" && typing.id === "p-why"))) return;
    const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
    const pressable = event.target.closest?.("button:not(.p-chip), a, [role=radio], summary"); // a chip only moves
    if (pressable && (key === "Enter" || key === " ")) return; // reached with Tab: its own key
    const open = modal();
    for (const entry of keys) {
      if (entry.key !== key || !entry.when() || (open && !entry.modal)) continue;
      if (/^[A-Z]$/.test(key) && needsShift(key) && !event.shiftKey) continue;
      event.preventDefault();
      return entry.fn(event);
    }
    if (open || !palate.answerKey) return;
    if (palate.answerKey(key, event)) event.preventDefault();
  }

  document.addEventListener("keydown", onKey);
  Object.assign(palate, { keys: { add, list } });
})();
