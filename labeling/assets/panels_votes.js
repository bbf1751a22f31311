// One's own votes, newest first, to be searched, read and changed; and one's own pace. Nobody else's figures are here.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, byId, el } = palate;
  const PAGE = 50; // votes drawn at once
  const FETCHED = 200; // votes asked for at once
  const WORDS = { 1: "words.slightly", 2: "words.better", 3: "words.much" };
  const SLOT = 30 * 60000; // ms that one bar of the pace stands for
  let votes = [];
  let ended = false; // nothing older is there
  let shown = PAGE;
  let wanted = ""; // what is searched for
  let asked = 0; // number of the latest request: an older answer is dropped

  function answerOf(vote) {
    if (vote.verdict === "all_bad") return t("votes.all_bad");
    if (vote.verdict === "skip") return vote.reason ? `${t("votes.skip")}: ${t(`reason.${vote.reason}`)}` : t("votes.skip");
    if (vote.verdict === "tie") return t("votes.equal");
    if (vote.strength && vote.ranking.length === 2) return `${vote.ranking[0][0]} ${t(WORDS[vote.strength])}`;
    return vote.ranking.map((tier) => tier.join(" = ")).join(" > ");
  }

  function extras(vote) {
    const flags = vote.flags.map(({ flag, letter }) => t(`flag.${flag}`) + (letter ? ` (${letter})` : ""));
    return [...flags, vote.edited ? t("votes.edited") : ""].filter(Boolean).join(" · ");
  }

  const heap = (vote) => [vote.prompt, answerOf(vote), extras(vote), vote.rationale || ""].join("\n").toLocaleLowerCase();
  const matching = () => votes.filter((vote) => wanted.split(/\s+/).every((word) => heap(vote).includes(word)));

  // -- pace -------------------------------------------------------------------------------------------------------

  function figure(value, string) {
    return el("div", {}, el("dd", {}, String(value)), el("dt", {}, t(string)));
  }

  function chart() { // votes of today by half hour; nothing to see with one bar
    const times = votes.map((vote) => palate.panels.when(vote.created_at).date).filter((date) => date.toDateString() === new Date().toDateString());
    if (times.length < 2) return null;
    const first = Math.floor(Math.min(...times) / SLOT);
    const counts = new Array(Math.floor(Date.now() / SLOT) - first + 1).fill(0);
    for (const time of times) counts[Math.min(counts.length - 1, Math.floor(time / SLOT) - first)] += 1;
    if (counts.length < 2) return null;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const clock = (slot) => new Date(slot * SLOT).toLocaleTimeString(window.palateLanguage, { hour: "2-digit", minute: "2-digit" });
    const label = t("pace.chart", { from: clock(first), to: clock(first + counts.length), counts: counts.join(", ") });
    for (const [name, value] of Object.entries({ viewBox: `0 0 ${counts.length * 10} 32`, role: "img", "aria-label": label, class: "p-pace", preserveAspectRatio: "none" })) svg.setAttribute(name, value);
    counts.forEach((count, at) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = count ? Math.max(2, (30 * count) / Math.max(...counts)) : 1;
      for (const [name, value] of Object.entries({ x: at * 10 + 1, y: 32 - height, width: 8, height })) bar.setAttribute(name, value);
      svg.append(bar);
    });
    svg.style.width = `${Math.min(100, counts.length * 4)}%`;
    return svg;
  }

  function pace() {
    const progress = page.progress;
    if (!progress) return null;
    const { done, today, left, median_seconds: median } = progress;
    const figures = [figure(today, "pace.today"), figure(done, "pace.done"), figure(left, "pace.left")];
    if (median != null) figures.push(figure(t("pace.seconds", { n: Math.round(median) }), "pace.median"));
    return el("div", { class: "p-figures" }, el("dl", {}, ...figures), chart());
  }

  // -- the list -----------------------------------------------------------------------------------------------------

  function row(vote) {
    const when = palate.panels.when(vote.created_at).text;
    const button = el("button", { class: "p-vote", "aria-label": t("votes.change", { answer: answerOf(vote), when, prompt: vote.prompt.slice(0, 80) }) },
      el("span", { class: "p-vote-prompt", dir: "auto" }, vote.prompt),
      el("span", { class: "p-vote-answer" }, el("b", {}, answerOf(vote)), el("time", {}, when)),
      vote.rationale ? el("span", { class: "p-vote-why", dir: "auto" }, vote.rationale) : null,
      extras(vote) ? el("span", { class: "p-vote-more" }, extras(vote)) : null);
    button.addEventListener("click", () => change(vote));
    return el("li", {}, button);
  }

  async function change(vote) {
    try {
      await palate.reopen(vote.id);
      panel.close();
      document.activeElement?.blur?.(); // keys belong to the item now
    } catch (error) {
      say(error.message, true);
    }
  }

  function say(text, bad = false) {
    const line = byId("p-votes-line");
    if (!line) return;
    line.textContent = text;
    line.classList.toggle("p-bad", bad);
  }

  function list() {
    const found = matching();
    const rest = found.length > shown || !ended;
    byId("p-votes-list")?.replaceChildren(...found.slice(0, shown).map(row));
    const more = byId("p-votes-more");
    if (more) more.hidden = !rest;
    if (!votes.length) say(t("votes.none"));
    else say(found.length ? t("votes.found", { n: ended ? found.length : `${found.length}+` }) : t("votes.nothing"));
  }

  async function more() {
    shown += PAGE;
    if (!ended && matching().length < shown) await fetchVotes();
    list();
  }

  async function fetchVotes() {
    const number = ++asked;
    const before = votes.length ? `&before=${encodeURIComponent(votes.at(-1).created_at)}` : "";
    try {
      const reply = await palate.api(`votes/mine?limit=${FETCHED}${before}`);
      if (number !== asked) return;
      const known = new Set(votes.map((vote) => vote.id));
      votes = [...votes, ...reply.votes.filter((vote) => !known.has(vote.id))];
      ended = reply.votes.length < FETCHED;
      list();
      byId("p-votes-pace")?.replaceChildren(...[pace()].filter(Boolean));
    } catch (error) {
      if (number === asked) say(t("votes.failed", { why: error.message }), true);
    }
  }

  function draw(body) {
    [votes, ended, shown, wanted] = [[], false, PAGE, ""];
    const search = el("input", { type: "search", id: "p-votes-search", placeholder: t("votes.search"), "aria-label": t("votes.search"), autocomplete: "off" });
    search.addEventListener("input", () => { wanted = search.value.trim().toLocaleLowerCase(); shown = PAGE; list(); });
    const next = palate.panels.button("votes.more", more, { id: "p-votes-more", class: "p-wide", hidden: true });
    body.replaceChildren(el("div", { id: "p-votes-pace" }, pace()), search,
      el("p", { id: "p-votes-line", class: "p-soft", role: "status" }, t("votes.loading")), el("ul", { id: "p-votes-list" }), next);
    fetchVotes();
  }

  const panel = palate.panels.make("votes", "votes.title", draw);
  palate.actions.votes = panel.toggle;
  palate.keys.add("V", "help.votes", panel.toggle, { modal: true });
})();
