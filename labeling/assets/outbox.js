// Ballots on their way: kept here until the server has acknowledged them, sent in order, each under one id.
// A ballot lives in localStorage under the person's name, so a closed page or a stopped server costs nothing.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t } = palate;
  const WAITS = [1000, 2000, 4000, 8000, 15000, 30000]; // ms between tries while the server is away
  const LOGIN = 3000; // ms between looks whether somebody has logged in again
  const tab = palate.newId();
  const own = new Map(); // vote id -> entry, of this tab; also where nothing can be kept
  let sending = null; // the promise of the round under way
  let tries = 0;
  let timer = 0;
  let doubted = false; // whether it is still the same person who is logged in
  let leaving = false;

  // A tab holds its lock as long as it lives; so others see whether its ballots still have a sender.
  const locks = navigator.locks;
  locks?.request(`palate-tab-${tab}`, () => new Promise(() => {}));

  const others = () => palate.keptNames("out:").map((name) => palate.kept(name)).filter((entry) => entry && entry.tab !== tab);
  const waiting = () => [...own.values()].sort((a, b) => a.at - b.at);

  function exclusive(name, work) { // runs `work`, or nothing when another tab is at it
    if (!locks) return work();
    return locks.request(name, { ifAvailable: true }, (lock) => (lock ? work() : undefined));
  }

  function put(entry) {
    own.set(entry.id, { ...entry, tab });
    palate.kept(`out:${entry.id}`, { ...entry, tab });
  }

  function drop(entry) {
    own.delete(entry.id);
    palate.kept(`out:${entry.id}`, null);
  }

  async function adopt() { // ballots that a closed tab has left
    for (const entry of others()) {
      await exclusive(`palate-tab-${entry.tab}`, () => { if (palate.kept(`out:${entry.id}`)?.tab === entry.tab) put(entry); });
    }
  }

  const login = (shown) => { if (palate.byId("p-login")) palate.byId("p-login").hidden = !shown; };

  // One ballot: true when it is settled (stored or refused), false when it has to wait.
  async function send(entry) {
    if (!doubted) palate.status(t("status.saving"));
    try {
      if (doubted && !(await samePerson())) return false;
      doubted = false;
      const reply = await palate.api("votes", { ...entry.ballot, have: palate.have() });
      drop(entry);
      page.online = true;
      login(false);
      tries = 0;
      palate.kept("answered", { assignment: entry.assignment, tab });
      palate.take(reply);
      palate.status(t("status.saved"));
      palate.emit("saved", { vote: reply.saved, assignment: entry.assignment, progress: reply.progress });
      return true;
    } catch (error) {
      return failed(entry, error);
    }
  }

  // A ballot is only sent by the person who made it. Another one who has logged in here gets a page of their own;
  // what waits stays under the name it was made by.
  async function samePerson() {
    const { name } = await palate.api("me");
    if (name === page.me.name) return true;
    leaving = true;
    window.location.reload();
    return false;
  }

  const passing = (error) => error.status === 0 || error.status >= 500 || error.status === 429 || error.status === 408;

  async function failed(entry, error) {
    if (error.status === 401) {
      doubted = true;
      login(true);
      palate.status(t("status.login", { n: own.size }), true);
      palate.emit("logged-out");
      again(LOGIN);
      return false;
    }
    if (passing(error)) {
      page.online = error.status !== 0;
      const why = error.status ? `${error.message} · ` : "";
      palate.status(why + t("status.kept", { n: own.size }), true);
      palate.emit("kept", { ballots: own.size });
      again(WAITS[Math.min(tries++, WAITS.length - 1)] * (0.8 + 0.4 * Math.random()));
      return false;
    }
    if (error.code === "answered" && entry.replaces?.length && !entry.reopened) {
      for (const earlier of [...entry.replaces].reverse()) { // one of these had arrived after all
        try {
          await palate.api(`votes/${earlier}/reopen`, {});
        } catch (reason) {
          if (passing(reason) || reason.status === 401) return failed(entry, reason);
          continue;
        }
        put({ ...entry, reopened: true });
        return send(own.get(entry.id));
      }
    }
    if (error.code === "not_yours" && !(await samePerson().catch(() => true))) return false;
    drop(entry);
    palate.refuse(entry, error);
    return true;
  }

  function again(wait) {
    clearTimeout(timer);
    timer = setTimeout(flush, wait);
  }

  // Send what waits, oldest first. Resolves when all is settled or has to wait.
  function flush() {
    clearTimeout(timer);
    sending ||= round().finally(() => { sending = null; });
    return sending;
  }

  async function round() {
    await adopt();
    for (let next = waiting()[0]; next; next = waiting()[0]) {
      let settled = false;
      await exclusive(`palate-out-${next.id}`, async () => { settled = await send(next); });
      if (!settled) return;
    }
  }

  function add(entry) {
    put(entry);
    const busy = sending;
    return busy ? busy.then(flush) : flush();
  }

  // The newest ballot that has not been sent, taken out again; its page may change it under a new id.
  function recall() {
    const entry = waiting().at(-1);
    if (entry) drop(entry);
    return entry || null;
  }

  page.unsent = () => own.size;
  const holds = (assignment) => waiting().concat(others()).some((entry) => entry.assignment === assignment);

  window.addEventListener("online", flush);
  window.addEventListener("focus", () => { if (own.size) flush(); });
  window.addEventListener("beforeunload", (event) => { if (own.size && !leaving) event.preventDefault(); });
  window.addEventListener("storage", (event) => { // another tab of the same person has answered
    if (event.key !== `${palate.prefix()}answered` || !event.newValue) return;
    const { assignment, tab: from } = JSON.parse(event.newValue);
    if (from !== tab) palate.answeredElsewhere(assignment);
  });

  Object.assign(palate, { outbox: { add, flush, recall, holds, size: () => own.size, busy: () => sending } });
})();
