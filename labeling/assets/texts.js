// Texts on their way to Gradio's Markdown, which draws and sanitises them. Its sanitiser keeps the page safe;
// this keeps it honest: an annotator sees the tags, the entities and the image links that a model wrote, as written.

(() => {
  "use strict";
  const palate = window.palate;
  const LONG = 12000; // characters drawn at first; the rest of an answer on demand
  // Formulas are found here, not by Gradio, which would take "costs $5 and $10" for one and look into code. It
  // gets them between characters of the private use area, taken out of the texts before.
  const [OPEN, CLOSE, OPEN_WIDE, CLOSE_WIDE] = ["\ue000", "\ue001", "\ue002", "\ue003"];
  const APART = "\u2060"; // invisible; keeps two characters from being read as one mark
  const FENCE = /^( {0,3})(`{3,}|~{3,})([^\n]*)$/;

  const literal = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("![", "!&#91;");
  // Where a line may be code or not (four spaces), entities would show in code; an invisible character does not.
  const ambiguous = (text) => text.replace(/&(?=[#a-zA-Z])|<(?=[a-zA-Z/!?])|!(?=\[)/g, (mark) => mark + APART);

  // `$x$`: no space inside the dollars, and neither a digit, a letter nor a brace after them; so prices stay prices
  // and templates templates.
  const MATH = [
    [/\$\$([^]{1,4000}?)\$\$/y, true, "$$"], [/\\\[([^]{1,4000}?)\\\]/y, true, "\\]"], [/\\\(([^]{1,4000}?)\\\)/y, false, "\\)"],
    [/\$(?=[^\s$])((?:\\.|[^\\$`\n]){0,1000}?[^\s\\$`])\$(?![\w{])/y, false],
  ];

  function formula(text, at, ends) { // `ends`: where each closing mark comes next, so that none is looked for twice
    for (const [pattern, wide, end] of MATH) {
      if (end && !((ends[end] ?? 0) >= at + 2)) {
        const next = text.indexOf(end, at + 2);
        ends[end] = next < 0 ? Infinity : next;
      }
      if (end && ends[end] > at + 4100) continue;
      pattern.lastIndex = at;
      const found = pattern.exec(text);
      if (found && !/\n\s*\n/.test(found[1])) {
        const inside = found[1].replaceAll("&", "&amp;").replaceAll("<", "&lt;");
        return [found[0].length, wide ? OPEN_WIDE + inside + CLOSE_WIDE : OPEN + inside + CLOSE];
      }
    }
    return null;
  }

  // Text outside code blocks: code spans are left alone, formulas marked, all else made literal.
  function prose(text) {
    let made = "";
    let plain = 0; // where the text not yet copied begins
    const ends = {};
    const flush = (end) => { made += literal(text.slice(plain, end)); };
    for (let at = 0; at < text.length;) {
      const char = text[at];
      let length = 1;
      let kept = null;
      if (char === "`") {
        length = /^`+/.exec(text.slice(at, at + 1000))[0].length;
        const ticks = "`".repeat(length);
        let end = text.indexOf(ticks, at + length);
        while (end >= 0 && text[end + length] === "`") { // a longer run of ticks does not close it
          while (text[end] === "`") end++;
          end = text.indexOf(ticks, end);
        }
        const code = end >= 0 ? text.slice(at, end + length) : "";
        if (code && !/\n\s*\n/.test(code)) kept = code;
      } else if (char === "$" || (char === "\\" && "[(".includes(text[at + 1]))) {
        const found = formula(text, at, ends);
        if (found) [length, kept] = found;
        else if (char === "\\") length = 2;
      } else if (char === "\\") length = 2;
      if (kept !== null) {
        flush(at);
        made += kept;
        if (char === "`") length = kept.length;
        plain = at + length;
      }
      at += length;
    }
    flush(text.length);
    return made;
  }

  // `mermaid` would be drawn as a picture by a large foreign script: it is shown as the code it is.
  const fenceLine = (line) => line.replace(/mermaid/i, "text");

  function asMarkdown(text) {
    const made = [];
    let open = null; // the marks that opened a code block
    let block = [];
    let blank = true; // indented code begins after an empty line
    const close = () => { if (block.length) made.push(prose(block.join("\n"))); block = []; };
    for (const line of text.replace(/[\ue000-\ue003]/g, "").replaceAll("%%%LATEX", `%%${APART}%LATEX`).split(/\r\n?|\n/)) {
      const fence = FENCE.exec(line);
      if (open) {
        made.push(line);
        if (fence && fence[2].startsWith(open) && !fence[3].trim()) open = null;
      } else if (fence && !(fence[2][0] === "`" && fence[3].includes("`"))) {
        close();
        made.push(fenceLine(line));
        open = fence[2];
      } else if (blank && /^( {4}|\t)/.test(line)) {
        close();
        made.push(ambiguous(line));
        continue;
      } else block.push(line);
      blank = !line.trim();
    }
    close();
    if (open) made.push(open); // what follows is not code
    return made.join("\n");
  }

  // The beginning of a long text, cut at a line.
  function beginning(text) {
    if (text.length <= LONG) return text;
    const line = text.lastIndexOf("\n", LONG);
    return text.slice(0, line > LONG / 2 ? line : LONG);
  }

  function turns(messages) { // [earlier turns, last turn] as Markdown
    const role = (name) => palate.t(`role.${name}`).replace(/^role\./, "");
    const past = messages.slice(0, -1).map((m) => `**${asMarkdown(role(m.role))}**\n\n${asMarkdown(m.content)}`);
    return [past.join("\n\n---\n\n"), messages.length ? asMarkdown(messages.at(-1).content) : ""];
  }

  // What Gradio's components show next: history, prompt, nine answers. Called by the hidden button's event.
  const opened = new Set(); // letters of the item on the screen that are shown whole
  let pending = Array(11).fill("");

  function texts() { return pending; }

  function draw() {
    const item = palate.page.item;
    const answers = (item?.answers || []).map(({ letter, text }) => asMarkdown(opened.has(letter) ? text : beginning(text)));
    pending = [...turns(item?.messages || []), ...answers, ...Array(9 - answers.length).fill("")];
    palate.byId("p-render")?.click();
  }

  function toggleWhole(letter) {
    if (!opened.delete(letter)) opened.add(letter);
    draw();
  }

  function start() { opened.clear(); draw(); } // of an item

  const canOpen = (letter) => (palate.page.item?.answers.find((answer) => answer.letter === letter)?.text.length || 0) > LONG;
  const isOpen = (letter) => opened.has(letter);

  Object.assign(palate, { texts, drawing: { start, toggleWhole, canOpen, isOpen, asMarkdown, beginning } });
})();
