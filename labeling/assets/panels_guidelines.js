// The guidelines in force. A version that this annotator has not seen opens by itself, once, and says what changed;
// a vote carries the version that was last shown here.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, el } = palate;
  const PATIENCE = 5 * 60000; // ms after which a vote is a reason to ask whether there is a newer version
  let looked = 0;
  let open = null; // the version that is being read
  let due = false; // a version waits to be shown, as soon as nothing else is open

  const read = () => palate.kept("guidelines"); // {version}
  const seenVersion = () => read()?.version ?? null;

  function changesOf(changes) { // lines that went and came
    return el("ul", { class: "p-changes" }, ...changes.map(({ sign, text }) =>
      el("li", { class: sign === "+" ? "p-came" : "p-went" }, el(sign === "+" ? "ins" : "del", { dir: "auto" }, text))));
  }

  function fill(body, found, since) {
    const parts = [];
    if (found.version === null) parts.push(el("p", {}, t("guidelines.none")));
    else {
      const date = palate.panels.when(found.created_at).date.toLocaleDateString(window.palateLanguage, { dateStyle: "long" });
      parts.push(el("p", { class: "p-soft" }, t("guidelines.version", { version: found.version, date })));
      if (found.changes?.length) parts.push(el("h3", {}, t("guidelines.changed", { version: since })), changesOf(found.changes), el("hr", {}));
      const text = el("div", { class: "p-guidelines", dir: "auto" });
      text.innerHTML = found.html; // made by the server (labeling/guidelines.py), which lets no HTML of anybody through
      parts.push(text);
    }
    const buttons = el("p", { class: "p-buttons" }, palate.panels.button("guidelines.read", () => panel.close()));
    if (page.me?.role !== "annotator") buttons.append(el("a", { href: "guidelines" }, t("guidelines.edit")));
    body.replaceChildren(...parts, buttons);
  }

  async function draw(body) {
    const since = seenVersion();
    try {
      const found = await palate.api(since === null ? "guidelines" : `guidelines?since=${since}`);
      fill(body, found, since);
      due = false;
      if (panel.dialog.open) open = found.version;
    } catch (error) {
      body.replaceChildren(el("p", { class: "p-bad" }, t("guidelines.failed", { why: error.message })));
    }
  }

  function closed() { // read, as far as a page can tell
    if (open === null || panel.dialog.open) return;
    palate.kept("guidelines", { version: open });
    page.me.guideline_version = open;
    open = null;
  }

  function offer() { // not over another panel or what somebody is typing, nor before there is an item to read them for
    if (!due || palate.panels.anyOpen() || page.item?.practice || !page.item) return;
    if (document.activeElement?.matches?.("input, textarea")) return; // with the next item, then
    due = false;
    panel.open();
  }

  async function look() {
    if (performance.now() - looked < PATIENCE) return;
    looked = performance.now();
    const found = await palate.api("me").catch(() => null);
    due ||= found !== null && found.guideline_version !== null && found.guideline_version !== seenVersion();
    offer();
  }

  const panel = palate.panels.make("guidelines", "guidelines.title", draw);
  palate.actions.guidelines = panel.toggle;
  palate.keys.add("G", "help.guidelines", panel.toggle, { modal: true });
  palate.on("ready", ({ me }) => {
    looked = performance.now();
    due = me.guideline_version !== null && me.guideline_version !== seenVersion();
    me.guideline_version = seenVersion(); // a vote says what was shown, not what there is
  });
  palate.on("item", () => setTimeout(offer));
  palate.on("saved", look);
  palate.on("panel-closed", () => { closed(); setTimeout(offer); });
})();
