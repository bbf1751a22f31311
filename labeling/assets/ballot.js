// What the annotator says about the item on the screen: pure steps on one plain object, no page in here.

(() => {
  "use strict";
  const STRENGTHS = { 1: ["A", 3], 2: ["A", 2], 3: ["A", 1], 5: ["B", 1], 6: ["B", 2], 7: ["B", 3] };
  const FLAGS = ["unsafe", "broken", "personal", "language", "identical"];
  const REASONS = ["unclear", "language", "expertise", "broken", "other"];

  function fresh() {
    return {
      voteId: null, tiers: [], joining: false, choice: null, verdict: null, reason: null, flags: [], criteria: {},
      why: "", edit: null, visible: 0, active: 0, touched: false, replaces: null,
    };
  }

  // An item that was taken back comes with what was answered.
  function from(earlier, letters) {
    const b = fresh();
    if (!earlier) return b;
    b.replaces = earlier.vote_id || null;
    b.why = earlier.rationale || "";
    b.flags = (earlier.flags || []).map(({ flag, letter }) => ({ flag, letter: letter || null }));
    b.criteria = structuredClone(earlier.criteria || {});
    b.edit = earlier.edit ? { ...earlier.edit } : null;
    b.touched = true;
    if (earlier.verdict === "all_bad" || earlier.verdict === "skip") {
      b.verdict = earlier.verdict;
      b.reason = earlier.reason || null;
    } else if (letters.length > 2) b.tiers = earlier.ranking.map((tier) => [...tier]);
    else if (earlier.verdict === "tie") b.choice = 4;
    else b.choice = earlier.ranking[0][0] === "A" ? 4 - (earlier.strength || 2) : 4 + (earlier.strength || 2);
    return b;
  }

  const ranked = (b) => b.tiers.flat();
  const missing = (b, letters) => letters.filter((letter) => !ranked(b).includes(letter));

  function undecide(b) { // a step of ranking takes "all bad" and "skip" back
    b.verdict = null;
    b.reason = null;
  }

  function pick(b, letter) { // the next best; the last one again takes it back
    if (ranked(b).includes(letter)) {
      if (letter === ranked(b).at(-1)) back(b);
      return;
    }
    undecide(b);
    if (b.joining && b.tiers.length) b.tiers.at(-1).push(letter);
    else b.tiers.push([letter]);
    b.joining = false;
  }

  function tie(b, letters) { // the next letter is equal to the last
    if (b.tiers.length && missing(b, letters).length) b.joining = !b.joining;
  }

  function back(b) {
    b.touched = true;
    if (b.joining) b.joining = false;
    else if (b.verdict) undecide(b);
    else if (b.tiers.length) remove(b, b.tiers.at(-1).at(-1));
    else b.choice = null;
  }

  function remove(b, letter) {
    b.tiers = b.tiers.map((tier) => tier.filter((one) => one !== letter)).filter((tier) => tier.length);
    if (!b.tiers.length) b.joining = false;
  }

  // Put a letter where it was dropped: {tie: "B"} equal to B, {at: 2} before the third tier, {out: true} nowhere.
  function place(b, letter, where) {
    if (where.tie === letter) return;
    undecide(b);
    b.touched = true;
    b.joining = false;
    const next = b.tiers[where.at]; // remembered by identity: taking the letter out may remove a tier before it
    const home = next && next.length === 1 && next[0] === letter ? b.tiers[where.at + 1] : next;
    const anchor = home?.find((one) => one !== letter);
    remove(b, letter);
    if (where.out) return;
    if (where.tie) {
      b.tiers.find((tier) => tier.includes(where.tie))?.push(letter);
      return;
    }
    const index = anchor ? b.tiers.findIndex((tier) => tier.includes(anchor)) : b.tiers.length;
    b.tiers.splice(index, 0, [letter]);
  }

  // One step by keyboard: left is better. A letter of a tie leaves it, one that stands alone passes its neighbour.
  function step(b, letter, by) {
    const at = b.tiers.findIndex((tier) => tier.includes(letter));
    if (at < 0) return pick(b, letter);
    const alone = b.tiers[at].length === 1;
    if (by < 0) place(b, letter, { at: alone ? Math.max(0, at - 1) : at });
    else place(b, letter, { at: alone ? Math.min(b.tiers.length, at + 2) : at + 1 });
  }

  function joinLeft(b, letter) { // equal to what stands before it
    const at = b.tiers.findIndex((tier) => tier.includes(letter));
    if (at > 0) place(b, letter, { tie: b.tiers[at - 1][0] });
  }

  function choose(b, number) {
    undecide(b);
    b.choice = b.choice === number ? null : number;
  }

  function give(b, verdict, reason = null) {
    const again = b.verdict === verdict && b.reason === reason;
    Object.assign(b, { verdict: again ? null : verdict, reason: again ? null : reason, choice: null, tiers: [], joining: false });
  }

  const hasFlag = (b, flag, letter) => b.flags.some((one) => one.flag === flag && one.letter === letter);

  function toggleFlag(b, flag, letter) {
    if (hasFlag(b, flag, letter)) b.flags = b.flags.filter((one) => one.flag !== flag || one.letter !== letter);
    else b.flags = [...b.flags, { flag, letter }];
  }

  function rate(b, name, letter, value) {
    const row = { ...b.criteria[name] };
    if (row[letter] === value) delete row[letter];
    else row[letter] = value;
    b.criteria = { ...b.criteria, [name]: row };
    if (!Object.keys(row).length) delete b.criteria[name];
  }

  // {answer} in the server's words, or {problem, letters} while it is incomplete.
  function answer(b, letters, partial) {
    if (b.verdict) return { answer: { verdict: b.verdict, reason: b.reason } };
    if (letters.length === 2) {
      if (b.choice === null) return { problem: "hint.pair" };
      if (b.choice === 4) return { answer: { verdict: "tie", ranking: [["A", "B"]] } };
      const [better, strength] = STRENGTHS[b.choice];
      return { answer: { verdict: "ranked", ranking: better === "A" ? [["A"], ["B"]] : [["B"], ["A"]], strength } };
    }
    const rest = missing(b, letters);
    const all = b.tiers.map((tier) => [...tier]);
    if (!all.length) return { problem: "hint.many", letters: rest };
    if (!partial && rest.length > 1) return { problem: "hint.missing", letters: rest };
    if (!partial && rest.length) { // one letter that is left goes last, or where the open "=" says
      if (b.joining) all.at(-1).push(rest[0]);
      else all.push([rest[0]]);
    } else if (rest.length && all.length < 2) return { problem: "hint.two", letters: rest };
    return { answer: { verdict: all.length === 1 ? "tie" : "ranked", ranking: all } };
  }

  // What is asked once before it is sent: the order as shown, or a ranking that leaves answers out.
  function doubt(b, letters, given) {
    if (given.verdict !== "ranked" || letters.length === 2) return null;
    const named = given.ranking.flat();
    if (named.length < letters.length) return { problem: "ask.partial", letters: letters.filter((one) => !named.includes(one)) };
    const asShown = given.ranking.length === letters.length && named.every((letter, index) => letter === letters[index]);
    return asShown && !b.touched ? { problem: "ask.unchanged", letters: [] } : null;
  }

  const empty = (b) => !b.tiers.length && b.choice === null && !b.verdict && !b.flags.length && !b.why.trim() && !b.edit
    && !Object.keys(b.criteria).length;

  Object.assign(window.palate, {
    ballots: {
      STRENGTHS, FLAGS, REASONS, fresh, from, ranked, missing, pick, tie, back, remove, place, step, joinLeft, choose, give,
      hasFlag, toggleFlag, rate, answer, doubt, empty,
    },
  });
})();
