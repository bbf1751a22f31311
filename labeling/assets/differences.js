// Differences between answers, word by word: a shortest edit script, marked without touching the text's elements.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, byId, ballots } = palate;
  const MOST_WORDS = 6000; // per answer; beyond that the rest is not compared
  const MOST_EDITS = 1500; // after so many differing words two texts count as different from there on
  let shown = false;

  // Words of an element as [text, range]; a word may not span two text nodes, which is fine for marking.
  function wordsOf(element) {
    const found = [];
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT, {
      acceptNode: (node) => (node.parentElement.closest(".katex-mathml, button") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT),
    });
    for (let node = walker.nextNode(); node && found.length < MOST_WORDS; node = walker.nextNode()) {
      for (const match of node.data.matchAll(/[\p{L}\p{N}\p{M}_]+|[^\s\p{L}\p{N}\p{M}_]/gu)) {
        found.push({ text: match[0], node, from: match.index, to: match.index + match[0].length });
      }
    }
    return found;
  }

  // Myers' greedy O(ND) algorithm (1986, fig. 2): which words of `a` and of `b` stand in no longest common order.
  function differing(a, b) {
    let start = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    let end = 0;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
    const [n, m] = [a.length - start - end, b.length - start - end];
    const same = [new Set(), new Set()]; // positions within the middle part
    const most = Math.min(n + m, MOST_EDITS);
    const offset = most + 1;
    const reach = new Int32Array(2 * most + 3);
    const trace = [];
    let met = -1;
    for (let d = 0; d <= most && met < 0; d++) {
      trace.push(reach.slice(offset - d - 1, offset + d + 2));
      for (let k = -d; k <= d; k += 2) {
        const down = k === -d || (k !== d && reach[offset + k - 1] < reach[offset + k + 1]);
        let x = down ? reach[offset + k + 1] : reach[offset + k - 1] + 1;
        while (x < n && x - k < m && a[start + x] === b[start + x - k]) x++;
        reach[offset + k] = x;
        if (x >= n && x - k >= m) { met = d; break; }
      }
    }
    let [x, y] = [n, m];
    if (met < 0) { // too different: the furthest point that was reached, all after it differs
      let best = -1;
      for (let k = -most; k <= most; k++) {
        const at = Math.min(reach[offset + k], n);
        if (at - k >= 0 && at - k <= m && 2 * at - k > best) { best = 2 * at - k; [x, y] = [at, at - k]; }
      }
      met = most;
    }
    for (let d = met; d > 0 && (x > 0 || y > 0); d--) {
      const row = trace[d]; // row[i] is the reach on diagonal i - d - 1
      const k = x - y;
      if (Math.abs(k) > d) break;
      const down = k === -d || (k !== d && row[k + d] < row[k + d + 2]);
      const before = down ? k + 1 : k - 1;
      const px = row[before + d + 1];
      const py = px - before;
      while (x > px && y > py && x > 0 && y > 0) { x--; y--; same[0].add(x); same[1].add(y); }
      [x, y] = [px, py];
    }
    while (x > 0 && y > 0 && a[start + x - 1] === b[start + y - 1]) { x--; y--; same[0].add(x); same[1].add(y); }
    const rest = (length, kept) => Array.from({ length }, (_, index) => index).filter((index) => !kept.has(index)).map((index) => index + start);
    return [rest(n, same[0]), rest(m, same[1])];
  }

  // Against which answer the others are compared: the best so far, else the one in front.
  function against() {
    if (palate.pair()) return "A";
    const best = page.ballot.tiers[0];
    return best ? best[0] : palate.current();
  }

  const textOf = (letter) => document.querySelector(`#card-${letter} .p-answer .md`);

  function ranges(words, indices) { // neighbours within one text node make one mark
    const made = [];
    let last = -2;
    for (const index of indices) {
      const { node, from, to } = words[index];
      if (index === last + 1 && made.at(-1).endContainer === node) made.at(-1).setEnd(node, to);
      else {
        const range = new Range();
        range.setStart(node, from);
        range.setEnd(node, to);
        made.push(range);
      }
      last = index;
    }
    return made;
  }

  function mark() {
    if (!window.CSS?.highlights) return 0;
    CSS.highlights.delete("p-differs");
    document.body.classList.toggle("p-differences", shown);
    const base = shown && page.item && textOf(against()) ? against() : null;
    for (const letter of palate.letters()) byId(`card-${letter}`)?.classList.toggle("p-base", palate.many() && letter === base);
    if (!base) return 0;
    const from = wordsOf(textOf(base));
    const marked = [];
    for (const letter of palate.letters().filter((one) => one !== base)) {
      const words = wordsOf(textOf(letter));
      const [gone, added] = differing(from.map((word) => word.text), words.map((word) => word.text));
      marked.push(...ranges(words, added));
      if (palate.pair()) marked.push(...ranges(from, gone));
    }
    CSS.highlights.set("p-differs", new Highlight(...marked));
    return marked.length;
  }

  function toggle() {
    if (!window.CSS?.highlights) return palate.status(t("differences.missing"), true);
    shown = !shown;
    const count = mark();
    for (const button of document.querySelectorAll("[data-tool=differences]")) button.setAttribute("aria-pressed", String(shown));
    palate.announce(shown ? t("differences.shown", { n: count, letter: against() }) : t("differences.hidden"));
  }

  let timer = 0; // answers are drawn a moment after they were asked for
  function soon() {
    clearTimeout(timer);
    if (shown) timer = setTimeout(mark, 30);
  }

  palate.on("texts", soon);
  palate.on("ballot", soon);
  palate.on("current", soon);
  Object.assign(palate, { differences: { toggle, differing } });
})();
