// The beginning: the colours before anything is drawn, then the page when Gradio has laid it out, then the first item.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, byId } = palate;

  // -- dark or light: the system's wish until somebody chooses ------------------------------------------------

  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (page.settings.theme ? page.settings.theme === "dark" : system.matches);

  function paint() {
    for (const element of [document.documentElement, document.body]) {
      if (element && element.classList.contains("dark") !== dark()) element.classList.toggle("dark", dark());
    }
  }

  function theme() {
    palate.set("theme", dark() ? "light" : "dark");
    paint();
    palate.emit("theme", { dark: dark() });
  }

  paint();
  system.addEventListener("change", () => setTimeout(paint)); // after Gradio's own listener
  new MutationObserver((_, watch) => { // the body before its first paint, then whenever Gradio sets its own idea
    if (!document.body) return;
    watch.disconnect();
    paint();
    new MutationObserver(paint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }).observe(document.documentElement, { childList: true });

  // -- what buttons do ----------------------------------------------------------------------------------------

  const actions = {
    theme,
    tie: () => palate.tie(),
    back: () => palate.back(),
    all_bad: () => palate.give("all_bad"),
    skip: () => palate.menus.skip(),
    flags: () => palate.menus.flags(),
    undo: () => palate.undo(),
    submit: () => palate.submit(),
    offer: () => palate.takeOffer(),
    fast: () => palate.set("fast", !page.settings.fast),
    menu: () => document.querySelector(".p-bar").classList.toggle("p-open"),
  };
  const tools = {
    differences: () => palate.differences.toggle(),
    alone: (letter) => { palate.cards.bring(letter, false); palate.cards.read(); },
    copy: (letter) => palate.cards.copy(letter),
    edit: (letter) => palate.cards.edit(letter),
    done: () => palate.cards.doneEditing(),
    discard: () => palate.cards.discard(),
    flags: (letter) => palate.menus.flags(letter),
    whole: (letter) => palate.drawing.toggleWhole(letter),
  };

  function pressed(button) {
    const data = button.dataset;
    if (palate.menus.onClick(button)) return;
    if (data.choice) palate.choose(Number(data.choice));
    else if (data.letter) palate.pick(data.letter);
    else if (data.tab) palate.cards.bring(data.tab);
    else if (data.rate) palate.ratings.rate(button, Number(data.rate));
    else if (button.matches(".p-rating")) palate.ratings.toggle(button);
    else if (data.tool) tools[data.tool](palate.cards.cardOf(button) || palate.current());
    else if (data.do && palate.actions[data.do]) palate.actions[data.do]();
  }

  let closing = false; // whether this press only closes what is open over the cards

  function onDown() {
    closing = Boolean(document.querySelector("body.p-compact .p-rate.p-open, .p-menu:not([hidden]), .p-bar.p-open"));
  }

  function onClick(event) {
    const button = event.target.closest?.("button");
    if (!event.target.closest?.(".p-nav, [data-do=menu]")) document.querySelector(".p-bar")?.classList.remove("p-open");
    const clicked = document.activeElement?.matches?.("#question, .p-card > .p-answer") && event.detail > 0;
    if (clicked) document.activeElement.blur(); // a click is no wish to scroll this one from now on; Tab is
    if (button) {
      if (event.detail > 0 && !button.matches(".p-chip, .p-rating")) button.blur(); // Enter must submit, not press it again
      if (event.detail > 0 && document.activeElement?.matches?.(".p-rate") && button.dataset.rate) document.activeElement.blur(); // Safari
      return pressed(button);
    }
    if (event.target.closest?.("#history")) {
      const open = byId("history").classList.toggle("p-open");
      return byId("history").setAttribute("aria-expanded", String(open));
    }
    const card = event.target.closest?.(".p-card");
    if (closing || !card || event.target.closest("a, textarea, .p-criteria") || String(window.getSelection())) return;
    const letter = palate.cards.cardOf(card);
    palate.cards.bring(letter, false);
    if (palate.many() && !palate.cards.narrow() && !document.body.classList.contains("p-alone")) palate.pick(letter);
  }

  function registerKeys() {
    const { add } = palate.keys;
    const many = { when: palate.many };
    add("Enter", "help.submit", () => palate.submit());
    add("=", "help.tie", palate.tie, many);
    add("Backspace", "help.back", palate.back);
    add("X", "help.all_bad", actions.all_bad);
    add("S", "help.skip", actions.skip);
    add("F", "help.flags", actions.flags);
    add("R", "help.why", () => byId("p-why").focus());
    add("E", "help.edit", () => palate.cards.edit());
    add("D", "help.differences", tools.differences);
    add("T", "help.rate", palate.ratings.start, { when: () => Boolean(page.item && page.me?.criteria?.length) });
    add(" ", "help.alone", () => palate.cards.read());
    add("ArrowLeft", "help.turn", () => palate.cards.turn(-1));
    add("ArrowRight", "help.turn", () => palate.cards.turn(1));
    add("ArrowUp", "help.scroll", () => palate.cards.scroll(-1));
    add("ArrowDown", "help.scroll", () => palate.cards.scroll(1));
    add("PageUp", "help.scroll", () => palate.cards.scroll(-1, true));
    add("PageDown", "help.scroll", () => palate.cards.scroll(1, true));
    add("C", "help.copy", () => palate.cards.copy(palate.current()));
    add("H", "help.history", () => byId("history").click());
    add("U", "help.undo", actions.undo);
  }

  // -- the page -------------------------------------------------------------------------------------------------

  function label() { // what Gradio's containers do not say by themselves
    palate.translate();
    for (const letter of "ABCDEFGHI") {
      const card = byId(`card-${letter}`);
      card.setAttribute("role", "group");
      card.setAttribute("aria-label", t("card.label", { letter }));
      card.querySelector("textarea").setAttribute("aria-label", t("edit.label", { letter }));
    }
    byId("question").setAttribute("role", "region");
    byId("question").setAttribute("aria-label", t("prompt.label"));
    byId("question").tabIndex = 0; // can be scrolled by keyboard
    for (const text of document.querySelectorAll(".p-card > .p-answer")) text.tabIndex = 0;
  }

  function typed(event) {
    if (event.target.id === "p-why") page.ballot.why = event.target.value;
    else if (event.target.matches?.(".p-edit textarea") && page.ballot.edit) page.ballot.edit.text = event.target.value;
    else return;
    palate.changed();
  }

  async function meet() { // who is here; asked until the server answers
    for (let wait = 500; ; wait = Math.min(wait * 2, 15000)) {
      try {
        page.me = await palate.api("me");
        return;
      } catch (error) {
        if (error.status === 401) byId("p-login").hidden = false;
        palate.status(error.status === 401 ? t("status.login", { n: 0 }) : error.message, true);
        await new Promise((done) => setTimeout(done, wait));
      }
    }
  }

  async function begin() {
    label();
    palate.menus.start();
    registerKeys();
    byId("cards").addEventListener("touchstart", palate.cards.onTouch, { passive: true });
    byId("cards").addEventListener("touchend", palate.cards.onTouch, { passive: true });
    palate.ratings.begin();
    byId("p-ranking").addEventListener("keydown", palate.chipKey);
    document.addEventListener("pointerdown", onDown, { capture: true });
    document.addEventListener("click", onClick);
    document.addEventListener("input", typed);
    new MutationObserver(palate.cards.afterTexts).observe(byId("cards"), { childList: true, subtree: true, characterData: true });
    await meet();
    const { name, project } = page.me;
    byId("p-login").hidden = true;
    byId("p-name").textContent = name;
    byId("p-project").textContent = project;
    document.title = project ? `${project} · Palate` : "Palate";
    palate.prune();
    palate.status("");
    palate.emit("ready", { me: page.me });
    await palate.outbox.flush();
    await first();
  }

  async function first() {
    for (let wait = 1000; !page.item; wait = Math.min(wait * 2, 15000)) {
      try {
        return await palate.next();
      } catch (error) {
        palate.status(error.message, true);
        await new Promise((done) => setTimeout(done, wait));
      }
    }
  }

  palate.actions = actions;
  const laidOut = () => ["bar", "cards", "p-render", "p-why", "p-panels"].every(byId) && document.querySelectorAll(".p-card > .p-answer").length === 9;
  const wait = setInterval(() => { if (laidOut()) { clearInterval(wait); begin(); } }, 20);
})();
