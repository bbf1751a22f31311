// Drawing what the annotator has answered so far, and the controls that change it.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, byId, el, ballots } = palate;
  const WORDS = { 1: "slightly", 2: "better", 3: "much" };

  const pair = () => page.item?.answers.length === 2;
  const many = () => Boolean(page.item) && !pair();
  const letters = () => palate.letters();

  // -- steps; each one is drawn, kept, and said to a screen reader ------------------------------------------

  function change(step, { decides = false, quiet = false } = {}) {
    if (!page.item) return;
    step(page.ballot);
    palate.changed();
    if (!quiet) palate.announce(words() || t("ranking.none"));
    if (decides && page.settings.fast && complete()) palate.submit();
  }

  function complete() { // for fast mode: nothing is left to say
    const { answer } = ballots.answer(page.ballot, letters(), false);
    const rated = (page.me?.criteria || []).every((name) => letters().every((letter) => page.ballot.criteria[name]?.[letter]));
    if (!answer || (answer.verdict !== "skip" && !rated)) return false;
    return page.ballot.verdict !== null || pair() || !ballots.missing(page.ballot, letters()).length;
  }

  const choose = (number) => change((b) => ballots.choose(b, number), { decides: true });
  const give = (verdict, reason) => change((b) => ballots.give(b, verdict, reason), { decides: true });
  const tie = () => change((b) => ballots.tie(b, letters()));
  const back = () => change((b) => ballots.back(b));

  function pick(letter) {
    if (!letters().includes(letter)) return;
    if (pair()) return choose(letter === "A" ? 2 : 6);
    change((b) => ballots.pick(b, letter), { decides: true });
  }

  // -- words: what will be sent, as a line ------------------------------------------------------------------

  function words() {
    const b = page.ballot;
    if (b.verdict === "all_bad") return t("foot.all_bad");
    if (b.verdict === "skip") return `${t("foot.skip")}: ${t(`reason.${b.reason}`)}`;
    if (pair()) {
      if (b.choice === null) return "";
      if (b.choice === 4) return t("scale.4");
      const [letter, strength] = ballots.STRENGTHS[b.choice];
      return `${letter} ${t(`words.${WORDS[strength]}`)}`;
    }
    return b.tiers.map((tier) => tier.join(" = ")).join(" > ") + tail();
  }

  function tail() { // what follows the chips: the open "=", the answer that is left
    const b = page.ballot;
    if (!b.tiers.length) return "";
    const rest = ballots.missing(b, letters());
    const last = rest.length === 1 && !page.me?.partial ? `(${rest[0]})` : "";
    if (b.joining) return ` = ${last || "…"}`;
    return last && ` > ${last}`;
  }

  // -- drawing ------------------------------------------------------------------------------------------

  function press(selector, on) {
    for (const element of document.querySelectorAll(selector)) element.setAttribute("aria-pressed", String(on(element)));
  }

  function letterButtons() {
    const box = document.querySelector(".p-letters");
    if (box.childElementCount === letters().length) return;
    box.replaceChildren(...letters().map((letter) => el("button", { "data-letter": letter, "aria-keyshortcuts": letter }, letter)));
  }

  function chips() { // the ranking as chips to drag, with the keyboard's way to move them
    const box = byId("p-ranking");
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.chip : null;
    const parts = [];
    page.ballot.tiers.forEach((tier, at) => {
      if (at) parts.push(el("span", { class: "p-sign" }, ">"));
      tier.forEach((letter, index) => {
        if (index) parts.push(el("span", { class: "p-sign" }, "="));
        const label = t("chip.label", { letter, place: at + 1 });
        parts.push(el("button", { class: "p-chip", "data-chip": letter, "aria-label": label, title: t("chip.hint") }, letter));
      });
    });
    if (tail()) parts.push(el("span", { class: "p-sign p-tail" }, tail()));
    const verdict = page.ballot.verdict;
    const left = verdict ? words() : page.ballot.tiers.length ? notRanked() : t("ranking.start");
    if (left) parts.push(el("span", { class: verdict ? "p-verdict" : "p-left" }, left));
    box.replaceChildren(...parts);
    if (focused) box.querySelector(`[data-chip="${focused}"]`)?.focus();
  }

  function notRanked() {
    const rest = ballots.missing(page.ballot, letters());
    if (!rest.length || (!page.me?.partial && rest.length === 1)) return "";
    return t("ranking.left", { letters: rest.join(", ") });
  }

  function cardMarks(letter) {
    const b = page.ballot;
    const card = byId(`card-${letter}`);
    const place = b.tiers.findIndex((tier) => tier.includes(letter));
    const preferred = pair() && b.choice !== null && b.choice !== 4 && ballots.STRENGTHS[b.choice][0] === letter;
    card.classList.toggle("p-picked", place >= 0 || preferred);
    card.querySelector(".p-place").textContent = place >= 0 ? String(place + 1) : "";
    const flags = b.flags.filter((one) => one.letter === letter).map((one) => t(`flag.${one.flag}`));
    card.querySelector(".p-marks").textContent = flags.join(", ");
  }

  function draw() {
    document.body.dataset.answers = String(letters().length);
    document.body.dataset.kind = page.item ? (pair() ? "pair" : "many") : document.body.dataset.kind === "waiting" ? "waiting" : "none";
    const b = page.ballot;
    letterButtons();
    letters().forEach(cardMarks);
    press("[data-choice]", (e) => Number(e.dataset.choice) === b.choice);
    press("[data-letter]", (e) => ballots.ranked(b).includes(e.dataset.letter));
    press("[data-do=tie]", () => b.joining);
    press("[data-do=all_bad]", () => b.verdict === "all_bad");
    press("[data-do=skip]", () => b.verdict === "skip");
    press("[data-do=flags]", () => b.flags.length > 0);
    press("[data-do=fast]", () => Boolean(page.settings.fast));
    byId("p-flag-count").textContent = b.flags.length ? String(b.flags.length) : "";
    byId("p-skip-reason").textContent = b.verdict === "skip" ? t(`reason.${b.reason}`) : "";
    if (many()) chips();
    const why = byId("p-why");
    if (why.value !== b.why) why.value = b.why;
    byId("submit").classList.toggle("p-ready", Boolean(ballots.answer(b, letters(), page.me?.partial).answer));
    palate.emit("drawn");
  }

  function progress() {
    const p = page.progress;
    if (!p || !byId("p-progress")) return;
    const parts = [t("progress.done", { n: p.done }), t("progress.left", { n: p.left })];
    if (p.today !== p.done) parts.splice(1, 0, t("progress.today", { n: p.today }));
    if (p.median_seconds != null) parts.push(t("progress.median", { n: Math.round(p.median_seconds) }));
    byId("p-progress").textContent = parts.join(" · ");
  }

  function chipKey(event) { // a focused chip moves with the arrows
    const letter = event.target.dataset.chip;
    if (!letter || event.ctrlKey || event.metaKey || event.altKey) return;
    const rtl = getComputedStyle(byId("p-ranking")).direction === "rtl" ? -1 : 1;
    const steps = {
      ArrowLeft: (b) => ballots.step(b, letter, -rtl), ArrowRight: (b) => ballots.step(b, letter, rtl),
      "=": (b) => ballots.joinLeft(b, letter), Delete: (b) => ballots.remove(b, letter), Backspace: (b) => ballots.remove(b, letter),
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    change(steps[event.key]);
  }

  function answerKey(key) { // letters and digits: what they mean depends on the item
    if (!page.item) return false;
    if (pair() && key >= "1" && key <= "7") choose(Number(key));
    else if (many() && key >= "1" && key <= "9" && letters()[key - 1]) pick(letters()[key - 1]);
    else if (key.length === 1 && letters().includes(key)) pick(key);
    else return false;
    return true;
  }

  palate.on("item", () => { document.body.dataset.kind = ""; });
  palate.on("waiting", () => { document.body.dataset.kind = "waiting"; });
  palate.on("empty", () => { document.body.dataset.kind = "none"; });
  palate.on("ballot", draw);
  palate.on("settings", draw);
  palate.on("progress", progress);

  Object.assign(palate, { change, choose, give, pick, tie, back, words, draw, chipKey, answerKey, pair, many });
})();
