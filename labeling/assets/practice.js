// The first visit: three sentences, then an item to practise on, of constant texts, which is never stored. It walks
// through choosing, flagging, submitting and taking back. Who has been here is remembered by name in this browser.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, el } = palate;
  const MET = "palate:met"; // names of those who have seen the welcome
  const STEPS = ["choose", "flag", "submit", "undo", "done"];
  let step = -1; // index of the step; -1: not practising
  let submitted = null; // what was answered on the first practice item

  const item = (ending, earlier = null) => ({
    practice: true, assignment: `practice${ending}`, earlier, lease_seconds: 600,
    messages: [{ role: "user", content: t(`practice.prompt${ending}`) }],
    answers: [{ letter: "A", text: t(`practice.a${ending}`) }, { letter: "B", text: t(`practice.b${ending}`) }],
  });

  const met = () => palate.read(MET) || [];

  function remember() {
    if (!met().includes(page.me.name)) palate.write(MET, [...met(), page.me.name]);
  }

  // -- the three sentences -------------------------------------------------------------------------------------------

  function draw(body) {
    body.replaceChildren(
      el("ol", { class: "p-welcome" }, ...[1, 2, 3].map((n) => el("li", {}, t(`welcome.${n}`)))),
      el("p", { class: "p-buttons" },
        palate.panels.button("welcome.practice", () => { panel.close(); practise(); }, { class: "p-go" }),
        palate.panels.button("welcome.begin", () => panel.close())));
    body.querySelector("button").focus();
  }

  function welcome() {
    if (!page.me || met().includes(page.me.name) || page.progress?.done || step >= 0 || palate.panels.anyOpen()) return;
    remember();
    panel.dialog.querySelector("h2").textContent = t("welcome.title", { name: page.me.name });
    panel.open();
  }

  // -- practice ------------------------------------------------------------------------------------------------------

  function tell() {
    const last = step === STEPS.length - 1;
    const words = el("div", {}, el("b", {}, t("practice.title", { n: step + 1 })), el("p", {}, t(`practice.${STEPS[step]}`)));
    if (step === 0) words.append(el("small", {}, t("practice.stored")));
    palate.panels.note("practice", words, palate.panels.button(last ? "practice.begin" : "practice.skip", end, last ? { class: "p-go" } : {}));
  }

  function go(to) {
    if (step === to) return;
    step = to;
    tell();
  }

  function practise() {
    submitted = null;
    step = -1;
    palate.show(item(""));
    go(0);
  }

  function end() {
    step = -1;
    submitted = null;
    palate.panels.note("practice", null);
    palate.resume();
    palate.status("");
    document.activeElement?.blur?.();
  }

  function onBallot() { // a step is done when the ballot says so
    if (step < 0 || !page.item?.practice || submitted) return;
    const b = page.ballot;
    if (b.choice === null && !b.verdict) go(0);
    else go(b.flags.length ? 2 : 1);
  }

  function onPractice({ answer, ballot }) { // submitted: nothing is sent
    if (submitted) return end();
    submitted = { ...answer, ranking: answer.ranking || [], flags: ballot.flags, rationale: ballot.why };
    palate.show(item("2"));
    palate.status(t("practice.stored"));
    go(3);
  }

  const undo = palate.undo;
  palate.undo = () => { // while practising, the practice vote is taken back
    if (step < 0) return undo();
    if (!submitted || page.item?.assignment === "practice") return palate.status(t("status.nothing_to_undo"), true);
    palate.show(item("", submitted));
    palate.status(t("status.back"));
    return go(4);
  };

  const panel = palate.panels.make("welcome", "welcome.title", draw);
  palate.on("item", () => setTimeout(welcome));
  palate.on("empty", () => setTimeout(welcome));
  palate.on("ballot", onBallot);
  palate.on("practice", onPractice);
  Object.assign(palate, { practise });
})();
