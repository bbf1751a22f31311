// Which item is on the screen and which comes next: asking, showing, submitting, going back, signs of life.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, ballots, outbox } = palate;
  const IDLE = 20000; // ms without a sign of life, after which reading time is not counted as active
  const BEAT = 60000; // ms between signs of life to the server
  const DRAFTS = { days: 14, number: 100 };
  page.queue = []; // items held for this person, the one on the screen first
  page.ballot = ballots.fresh();
  const seen = new Map(); // assignment -> item: for going back without the server
  let asked = null; // the doubt that was put to the annotator
  let dirty = false; // whether the ballot was changed here: another tab's draft of this item is left alone
  const lost = new Set(); // assignments of which the server has said that others have them
  let clock = null;
  let offer = null; // what the button beside the status does

  const letters = () => (page.item?.answers || []).map((answer) => answer.letter);
  const held = () => [page.item, ...page.queue].filter((item, index, all) => item && !item.practice && all.indexOf(item) === index);
  const have = () => held().map((item) => item.assignment);

  // -- time ---------------------------------------------------------------------------------------------

  function tick() { // adds the time since the last tick to the ballot on the screen
    const now = performance.now();
    if (clock && !clock.hidden) {
      page.ballot.visible += now - clock.last;
      page.ballot.active += Math.max(0, Math.min(now, clock.sign + IDLE) - clock.last);
    }
    if (clock) Object.assign(clock, { last: now, hidden: document.visibilityState === "hidden" });
  }

  function alive() {
    tick();
    if (clock) clock.sign = performance.now();
  }

  function startClock() {
    const now = performance.now();
    clock = { last: now, sign: now, hidden: document.visibilityState === "hidden" };
  }

  // -- drafts: a reload, a restarted server or another login costs nothing ---------------------------------

  function keep() {
    if (!dirty || !page.item || page.item.practice) return;
    const name = `draft:${page.item.assignment}`;
    if (!ballots.empty(page.ballot)) palate.kept(name, { at: Date.now(), ballot: page.ballot });
    else if (palate.kept(name)) palate.kept(name, null);
  }

  function prune() {
    const drafts = palate.keptNames("draft:").map((name) => [name, palate.kept(name)?.at || 0]).sort((a, b) => b[1] - a[1]);
    drafts.forEach(([name, at], index) => {
      if (index >= DRAFTS.number || at < Date.now() - DRAFTS.days * 86400000) palate.kept(name, null);
    });
  }

  // -- showing ------------------------------------------------------------------------------------------

  function show(item) {
    tick();
    keep();
    dirty = false;
    page.item = item;
    asked = null;
    offerTo(null);
    if (item) {
      const draft = item.practice ? null : palate.kept(`draft:${item.assignment}`)?.ballot;
      const known = draft && (draft.replaces || null) === (item.earlier?.vote_id || draft.replaces || null);
      page.ballot = known ? { ...ballots.fresh(), ...draft } : ballots.from(item.earlier, letters());
      if (!item.practice) seen.set(item.assignment, item);
      if (seen.size > 30) seen.delete(seen.keys().next().value);
      startClock();
    } else {
      page.ballot = ballots.fresh();
      clock = null;
    }
    palate.drawing.start();
    palate.emit("item", { item });
    palate.emit("ballot");
  }

  // The first item that is held; without one, wait for those that are asked for, or say that there is none.
  function go(settled = true) {
    const open = page.queue.filter((item) => !outbox.holds(item.assignment));
    const begun = seen.size ? null : open.find((item) => palate.kept(`draft:${item.assignment}`)); // after a reload
    const next = begun || open[0];
    if (next) return show(next);
    show(null);
    if (settled) palate.emit("empty", { progress: page.progress });
    else palate.emit("waiting");
  }

  // A reply of the server: what this person holds now, and how far they are.
  function take(reply) {
    if (reply.progress) page.progress = reply.progress;
    if (reply.items) {
      const known = new Map(held().map((item) => [item.assignment, item]));
      page.queue = reply.items.map((item) => (item.messages ? item : known.get(item.assignment) || seen.get(item.assignment)))
        .filter((item) => item && !outbox.holds(item.assignment));
      for (const item of page.queue) lost.delete(item.assignment);
      if (!page.item) go(outbox.size() === 0);
    }
    palate.emit("progress", { progress: page.progress });
  }

  async function next() {
    const reply = await palate.api("next", { have: have() });
    page.online = true;
    take(reply);
  }

  // -- submitting ----------------------------------------------------------------------------------------

  function submit() {
    if (!page.item) return;
    const { answer, problem, letters: which } = ballots.answer(page.ballot, letters(), page.me?.partial);
    if (!answer) {
      leaveWhy();
      return say(t(problem, { letters: (which || []).join(", ") }));
    }
    const doubt = ballots.doubt(page.ballot, letters(), answer);
    if (doubt && asked !== doubt.problem) {
      asked = doubt.problem;
      return say(t(doubt.problem, { letters: doubt.letters.join(", ") }));
    }
    tick();
    const b = page.ballot;
    const shown = page.item;
    leaveWhy();
    if (shown.practice) return palate.emit("practice", { item: shown, answer, ballot: b });
    const ballot = {
      vote_id: palate.newId(), assignment: shown.assignment, ranking: [], strength: null, reason: null, ...answer, flags: b.flags,
      criteria: askedFor(b.criteria), rationale: b.why.trim() || null, edit: edited(b, shown), seconds_visible: seconds(b.visible),
      seconds_active: seconds(b.active), guideline_version: page.me?.guideline_version ?? null,
    };
    palate.kept(`draft:${shown.assignment}`, null);
    const entry = { id: ballot.vote_id, assignment: shown.assignment, at: Date.now(), ballot, form: b, replaces: b.sent || null };
    page.queue = page.queue.filter((item) => item.assignment !== shown.assignment);
    page.item = null; // its draft is gone: nothing of it is kept by the next `show`
    const sent = outbox.add(entry);
    palate.status(t("status.saving"));
    go(false);
    return sent;
  }

  const seconds = (ms) => Math.round(ms) / 1000;

  function leaveWhy() { // the next keys choose, they are not more of the reason
    if (document.activeElement?.matches?.("#p-why")) document.activeElement.blur();
  }

  function askedFor(criteria) { // a draft may rate what is not asked for any more
    return Object.fromEntries(Object.entries(criteria).filter(([name]) => (page.me?.criteria || []).includes(name)));
  }

  function edited(b, item) {
    const before = b.edit && item.answers.find((answer) => answer.letter === b.edit.letter);
    return before && b.edit.text.trim() && b.edit.text !== before.text ? { letter: b.edit.letter, text: b.edit.text } : null;
  }

  function say(text) {
    palate.status(text, true);
    palate.announce(text);
  }

  function offerTo(string, fn = null) {
    offer = fn;
    const button = palate.byId("p-offer");
    if (!button) return;
    button.hidden = !string;
    button.textContent = string ? t(string) : "";
  }

  // The server does not take the ballot: it becomes a draft again, and the way back to it is offered.
  function refuse(entry, error) {
    palate.kept(`draft:${entry.assignment}`, { at: Date.now(), ballot: entry.form });
    say(t("status.refused", { why: error.message }));
    palate.emit("refused", { error, assignment: entry.assignment });
    const gone = ["filled", "answered", "not_yours", "lost"].includes(error.code);
    const item = seen.get(entry.assignment);
    if (item && !gone) {
      page.queue.push(item);
      offerTo("offer.back", () => show(item));
    }
    const known = error.code === "invalid" ? palate.api("me").then(({ criteria, partial }) => Object.assign(page.me, { criteria, partial })) : Promise.resolve();
    known.then(next).catch(() => null); // what is asked for may have changed while the page was open
  }

  // -- going back ---------------------------------------------------------------------------------------

  async function bringBack(path) {
    if (outbox.busy()) await outbox.busy();
    const reply = await palate.api(path, { have: have() });
    page.progress = reply.progress || page.progress;
    const item = reply.item;
    palate.kept(`draft:${item.assignment}`, null);
    page.queue = [item, ...held().filter((one) => one.assignment !== item.assignment)];
    show(item);
    palate.status(t("status.back"));
    palate.emit("progress", { progress: page.progress });
  }

  let undoing = Promise.resolve(); // one after the other: twice quickly is two steps back
  const undo = () => (undoing = undoing.then(undoOne));

  async function undoOne() {
    if (outbox.busy()) await outbox.busy();
    const entry = outbox.recall();
    if (entry) { // not acknowledged: it may have arrived, so a changed ballot knows which ones it may replace
      palate.kept(`draft:${entry.assignment}`, { at: Date.now(), ballot: { ...entry.form, sent: [...(entry.form.sent || []), entry.id], touched: true } });
      const item = seen.get(entry.assignment);
      if (item) page.queue = [item, ...held()];
      if (item) show(item);
      return palate.status(t("status.back"));
    }
    try {
      await bringBack("undo");
    } catch (error) {
      say(error.code === "nothing_to_undo" ? t("status.nothing_to_undo") : error.message);
    }
  }

  const reopen = (voteId) => bringBack(`votes/${encodeURIComponent(voteId)}/reopen`);

  function answeredElsewhere(assignment) {
    page.queue = page.queue.filter((item) => item.assignment !== assignment);
    palate.kept(`draft:${assignment}`, null);
    if (page.item?.assignment !== assignment) return;
    page.item = null;
    go(false);
    palate.status(t("status.other_tab"));
    next().catch(() => null);
  }

  // -- signs of life --------------------------------------------------------------------------------------

  async function beat() {
    tick();
    const assignments = have().filter((assignment) => !lost.has(assignment));
    if (!page.me || document.visibilityState === "hidden") return;
    if (!page.item && !outbox.size()) return next().catch(() => null); // nothing to rank: is there by now?
    if (!assignments.length) return;
    const gone = (await palate.api("heartbeat", { assignments }).catch(() => null))?.lost || [];
    for (const assignment of gone) lost.add(assignment);
    page.queue = page.queue.filter((item) => !gone.includes(item.assignment));
    if (!gone.includes(page.item?.assignment)) return;
    keep();
    say(t("status.lost"));
    palate.emit("lost");
    offerTo("offer.next", () => { page.item = null; go(false); next().catch((error) => say(error.message)); });
  }

  function changed() { // by the annotator: what was asked is asked again
    asked = null;
    dirty = true;
    if (page.item && page.ballot) palate.emit("ballot");
    keep();
  }

  palate.on("alive", alive);
  for (const sign of ["pointermove", "pointerdown", "wheel", "touchmove", "scroll"]) {
    document.addEventListener(sign, alive, { capture: true, passive: true });
  }
  document.addEventListener("visibilitychange", () => { tick(); keep(); if (document.visibilityState === "visible") beat(); });
  window.addEventListener("pagehide", () => { tick(); keep(); });
  setInterval(beat, BEAT);

  Object.assign(palate, {
    letters, have, take, show, resume: () => go(outbox.size() === 0), next, submit, refuse, undo, reopen, answeredElsewhere, changed, keep,
    prune, beat, takeOffer: () => { const fn = offer; offerTo(null); fn?.(); },
  });
})();
