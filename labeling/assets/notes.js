// What needs more words than the status line: there is nothing to rank and what would change that, the server is
// away, an answer was not needed, a break would help.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, byId, el } = palate;
  const { note, button } = palate.panels;
  const MINUTE = 60000; // ms
  const WORK = 90; // minutes of work without a pause, after which a break is worth a word
  const PAUSE = 10; // minutes without a sign of life that count as a break
  const TOLD = ["filled", "answered", "not_yours", "lost"];

  const closed = new Set(); // notes that were closed stay so until something is saved again

  const shut = (id) => button("note.close", () => { closed.add(id); note(id, null); });

  function tell(id, text) { // once: a screen reader says what is new on the page
    if (!closed.has(id) && !byId(`p-note-${id}`)) note(id, text, shut(id));
  }

  // -- nothing to rank -------------------------------------------------------------------------------------------------

  function empty() {
    const { done = 0, today = 0 } = page.progress || {};
    const kind = done ? "done" : "none";
    const lead = page.me && page.me.role !== "annotator";
    gone();
    byId("p-panels").append(el("section", { id: "p-empty", role: "status" },
      el("h2", {}, t(`empty.${kind}`)), el("p", {}, t(`empty.${kind}.text`)),
      done ? el("p", {}, t("empty.today", { n: today, done })) : null,
      el("p", { class: "p-soft" }, t(lead ? "empty.lead" : "empty.more")),
      el("p", { class: "p-buttons" },
        button("empty.look", () => palate.next().catch((error) => palate.status(error.message, true))),
        done ? button("empty.votes", () => palate.actions.votes()) : null)));
  }

  const gone = () => byId("p-empty")?.remove();

  // -- the server, and others ------------------------------------------------------------------------------------------

  function kept() {
    tell("offline", t("note.offline"));
  }

  function saved() {
    closed.clear();
    for (const id of ["offline", "login", "lost"]) if (byId(`p-note-${id}`)) note(id, null);
  }

  function refused({ error }) {
    if (TOLD.includes(error.code)) note("refused", t(`note.${error.code}`), shut("refused"));
  }

  // -- a break ----------------------------------------------------------------------------------------------------------

  let worked = 0; // minutes since the last pause
  let sign = 0; // when there was the last sign of life
  let told = false;

  function minute() {
    const idle = Date.now() - sign;
    if (idle >= PAUSE * MINUTE) [worked, told] = [0, false];
    else if (idle <= MINUTE) worked += 1;
    if (worked < WORK || told || page.settings.breaks === false) return;
    told = true;
    note("break", t("note.break"), shut("break"), button("note.break.off", () => { palate.set("breaks", false); note("break", null); }));
  }

  const alive = () => { sign = Date.now(); };
  for (const name of ["pointermove", "pointerdown", "keydown", "wheel", "touchmove"]) {
    document.addEventListener(name, alive, { capture: true, passive: true });
  }
  setInterval(minute, MINUTE);

  palate.on("empty", empty);
  palate.on("progress", () => { if (byId("p-empty") && !page.item) empty(); });
  palate.on("item", ({ item }) => { if (item) gone(); });
  palate.on("kept", kept);
  palate.on("saved", saved);
  palate.on("refused", refused);
  palate.on("logged-out", () => { note("offline", null); tell("login", t("note.login")); });
  palate.on("lost", () => note("lost", t("note.lost"), shut("lost")));
})();
