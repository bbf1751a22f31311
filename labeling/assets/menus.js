// The two small menus above the controls: why an item is skipped, and what is wrong with it or with an answer.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, byId, el, ballots } = palate;
  const REASON_KEYS = { U: "unclear", L: "language", E: "expertise", B: "broken", O: "other" };
  const FLAG_KEYS = { U: "unsafe", B: "broken", P: "personal", L: "language", I: "identical" };
  let scope = null; // whose flags the menu shows: a letter, or null for the whole item
  let opener = null; // where the focus goes back to

  const menus = () => [byId("p-skip"), byId("p-flags")];

  function close() {
    const open = menus().find((menu) => !menu.hidden);
    if (!open) return;
    open.hidden = true;
    opener?.focus?.({ preventScroll: true });
    opener = null;
    if (document.activeElement?.matches?.("button")) document.activeElement.blur(); // Enter submits again
  }

  function show(menu) {
    const again = !menu.hidden;
    close();
    if (again || !page.item) return;
    opener = document.activeElement;
    menu.hidden = false;
    menu.focus({ preventScroll: true });
  }

  const skip = () => show(byId("p-skip"));

  function flags(letter = null) {
    scope = letter;
    drawFlags();
    show(byId("p-flags"));
  }

  function reason(name) {
    close();
    palate.give("skip", name);
  }

  function flag(name) {
    palate.change((b) => ballots.toggleFlag(b, name, scope), { quiet: true });
    const on = ballots.hasFlag(page.ballot, name, scope);
    palate.announce(t(on ? "flag.on" : "flag.off", { flag: t(`flag.${name}`), where: scope || t("flag.item") }));
  }

  function drawFlags() {
    const choices = [null, ...palate.letters()].map((letter) => {
      const count = page.ballot.flags.filter((one) => one.letter === letter).length;
      const name = letter || t("flag.item");
      return el("button", { "data-scope": letter || "", "aria-pressed": String(letter === scope) }, count ? `${name} · ${count}` : name);
    });
    byId("p-scopes").replaceChildren(...choices);
    for (const button of document.querySelectorAll("[data-flag]")) {
      button.setAttribute("aria-pressed", String(ballots.hasFlag(page.ballot, button.dataset.flag, scope)));
    }
  }

  function onKey(event) { // an open menu has the keyboard to itself
    if (event.ctrlKey || event.metaKey || event.altKey || event.key === "Tab") return;
    event.stopPropagation();
    const key = event.key.toUpperCase();
    const inSkip = event.currentTarget.id === "p-skip";
    if (event.key === "Escape" || key === (inSkip ? "S" : "F")) close();
    else if ((event.key === "Enter" || event.key === " ") && event.target.matches("button")) return; // its own key
    else if (event.key === "Enter") close();
    else if (inSkip && (REASON_KEYS[key] || ballots.REASONS[key - 1])) reason(REASON_KEYS[key] || ballots.REASONS[key - 1]);
    else if (!inSkip && FLAG_KEYS[key]) flag(FLAG_KEYS[key]);
    else if (!inSkip && (key === "0" || palate.letters()[key - 1])) { scope = palate.letters()[key - 1] || null; drawFlags(); }
    event.preventDefault();
  }

  function onClick(button) { // true when the press was for a menu
    if (button.dataset.reason) reason(button.dataset.reason);
    else if (button.dataset.flag) flag(button.dataset.flag);
    else if ("scope" in button.dataset) { scope = button.dataset.scope || null; drawFlags(); }
    else return false;
    const open = menus().find((menu) => !menu.hidden);
    if (open && !open.contains(document.activeElement)) open.focus({ preventScroll: true }); // the keys stay with it
    return true;
  }

  function start() {
    for (const menu of menus()) menu.addEventListener("keydown", onKey);
    document.addEventListener("pointerdown", (event) => {
      if (!event.target.closest?.("#p-skip, #p-flags, [data-do=skip], [data-do=flags], [data-tool=flags]")) close();
    });
  }

  palate.on("drawn", () => { if (!byId("p-flags").hidden) drawFlags(); });
  palate.on("item", () => { for (const menu of menus()) menu.hidden = true; });
  palate.on("escape", close);
  Object.assign(palate, { menus: { skip, flags, close, onClick, start } });
})();
