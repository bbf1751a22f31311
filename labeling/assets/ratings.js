// Criteria: every answer on every one, 1 to 5. All of them are always in view: where they don't fit into one line of
// a card, each is one button that opens its five steps over the text.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, el, byId, ballots } = palate;
  const card = (letter) => byId(`card-${letter}`);
  const cardOf = (element) => palate.cards.cardOf(element);
  const valueOf = (group) => page.ballot.criteria[group.dataset.name]?.[cardOf(group)];
  let measured = false; // whether it is known for this item if the criteria fit into a line

  function draw() {
    const names = page.me?.criteria || [];
    document.body.classList.toggle("p-rated", names.length > 0);
    for (const letter of palate.letters()) {
      card(letter).querySelector(".p-criteria").replaceChildren(...names.map((name) => {
        const steps = [1, 2, 3, 4, 5].map((value) =>
          el("button", { "data-rate": value, "aria-label": t("criteria.label", { name, value, letter }) }, String(value)));
        return el("div", { class: "p-rate", role: "group", tabindex: "-1", "data-name": name, "aria-label": `${name}, ${letter}` },
          el("button", { class: "p-rating", "aria-haspopup": "true", "aria-expanded": "false" }, el("span", {}, name), el("b", {})),
          el("span", { class: "p-criterion" }, name), el("div", { class: "p-five" }, ...steps));
      }));
    }
    measured = false;
  }

  function fit() { // one line or buttons; the browser paints only after that is settled
    const box = page.me?.criteria?.length && card(palate.current())?.querySelector(".p-criteria");
    if (!box?.clientWidth) return;
    document.body.classList.remove("p-compact");
    const [first, last] = [box.firstElementChild, box.lastElementChild];
    const wraps = first.offsetTop !== last.offsetTop || box.scrollWidth > box.clientWidth;
    document.body.classList.toggle("p-compact", wraps);
    measured = true;
  }

  function marks() {
    if (!measured) fit();
    for (const group of document.querySelectorAll(".p-card .p-rate")) {
      const value = valueOf(group);
      for (const button of group.querySelectorAll("[data-rate]")) button.setAttribute("aria-pressed", String(value === Number(button.dataset.rate)));
      const button = group.querySelector(".p-rating");
      button.lastElementChild.textContent = value ?? "–";
      button.setAttribute("aria-label", t("criteria.label", { name: group.dataset.name, letter: cardOf(group), value: value ?? "–" }));
      button.setAttribute("aria-pressed", String(value !== undefined));
    }
  }

  function open(group) { // null closes
    for (const one of document.querySelectorAll(".p-rate.p-open")) expand(one, false);
    if (group) expand(group, true);
  }

  function expand(group, on) {
    group.classList.toggle("p-open", on);
    group.querySelector(".p-rating").setAttribute("aria-expanded", String(on));
  }

  function toggle(button) {
    const group = button.closest(".p-rate");
    if (!group.classList.contains("p-open")) return visit(group);
    open(null);
    document.activeElement?.blur?.();
  }

  function rate(button, value) {
    const group = button.closest(".p-rate");
    const [name, letter] = [group.dataset.name, cardOf(group)];
    if (document.activeElement === button && group.classList.contains("p-open")) group.querySelector(".p-rating").focus(); // by Enter
    open(null);
    palate.change((b) => ballots.rate(b, name, letter, value), { quiet: true });
    palate.announce(t("criteria.label", { name, letter, value: page.ballot.criteria[name]?.[letter] ?? "–" }));
  }

  const groups = () => palate.letters().flatMap((letter) => [...card(letter).querySelectorAll(".p-rate")]);

  function visit(group) { // its letter comes to the front first: on a phone the others are not shown
    if (!group) return;
    palate.cards.bring(cardOf(group), false);
    card(cardOf(group)).scrollIntoView({ block: "nearest" });
    open(group);
    group.focus({ preventScroll: true });
  }

  function start() {
    const all = groups();
    visit(all.find((group) => !valueOf(group)) || all[0]);
  }

  function onKey(event) { // in a group: 1 to 5 rates and goes on, the arrows walk
    const group = event.target.closest?.(".p-rate");
    if (!group || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = groups();
    const at = all.indexOf(group);
    if (/^[0-9]$/.test(event.key)) { // also those that mean nothing here: they must not choose an answer
      const value = Number(event.key);
      if (!event.repeat && value >= 1 && value <= 5) {
        if (valueOf(group) !== value) rate(group, value); // the same once more confirms it
        if (at + 1 < all.length) visit(all[at + 1]);
        else document.activeElement.blur();
      }
    } else if (event.key === "ArrowRight" || event.key === "ArrowDown") visit(all[at + 1]);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") visit(all[at - 1]);
    else if (event.key === "Escape") document.activeElement.blur();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function begin() {
    byId("cards").addEventListener("keydown", onKey);
    byId("cards").addEventListener("focusout", (event) => {
      if (event.target.closest?.(".p-rate.p-open") && !event.relatedTarget?.closest?.(".p-rate.p-open")) open(null);
    });
    document.addEventListener("pointerdown", (event) => { if (!event.target.closest?.(".p-rate.p-open")) open(null); });
    window.addEventListener("resize", fit);
  }

  palate.on("item", draw);
  palate.on("drawn", marks);
  palate.on("alone", fit);
  Object.assign(palate, { ratings: { begin, rate, start, toggle } });
})();
