// Panels over the ranking page: real dialogs, so that what lies behind takes neither focus nor keys. What fills them
// is in panels_*.js. Every text of people or of the server is set as textContent, but for guidelines, which arrive as
// HTML that the server has made of Markdown without letting any HTML through.
//
//   palate.panels.make("help", "help.title", draw)   -> {toggle, open, close, body}; `draw(body)` fills it when it opens
//   palate.panels.note(id, text, ...buttons)         a strip under the bar; null takes it away

(() => {
  "use strict";
  const palate = window.palate;
  const { t, byId, el } = palate;
  const made = new Map();

  const anyOpen = () => [...made.values()].some(({ dialog }) => dialog.open);
  const locale = () => window.palateLanguage || "en";

  function make(name, title, draw) {
    const heading = el("h2", { id: `p-${name}-title` }, t(title));
    const shut = el("button", { class: "p-shut", "aria-label": t("panel.close"), title: `${t("panel.close")} (Esc)` }, "✕");
    const body = el("div", { class: "p-body", tabindex: "0", role: "region", "aria-labelledby": heading.id });
    const dialog = el("dialog", { id: `p-${name}`, class: "p-panel", "data-modal": true, hidden: true, "aria-labelledby": heading.id },
      el("header", {}, heading, shut), body);
    let opener = null;

    function close() {
      if (!dialog.open) return;
      dialog.close();
      gone();
    }

    function gone() { // at once, not with the browser's event: the next key, and the next vote, are the page's
      if (dialog.hidden) return;
      dialog.hidden = true;
      if (!anyOpen()) opener?.focus?.({ preventScroll: true });
      opener = null;
      palate.emit("panel-closed");
    }

    function open() {
      if (dialog.open) return;
      for (const other of made.values()) other.close();
      palate.menus.close();
      opener = document.activeElement;
      if (!dialog.isConnected) byId("p-panels").append(dialog);
      dialog.hidden = false;
      dialog.showModal();
      body.scrollTop = 0;
      body.focus();
      draw(body);
    }

    dialog.addEventListener("close", () => { if (!dialog.open) gone(); }); // closed by the browser; it may be open again
    dialog.addEventListener("keydown", (event) => { // Escape is for the panel, not for what lies behind
      if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      close();
    });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) close(); });
    shut.addEventListener("click", close);
    const panel = { dialog, body, open, close, toggle: () => (dialog.open ? close() : open()) };
    made.set(name, panel);
    return panel;
  }

  // -- strips under the bar: practice, and what has to be said in more words than the status takes ---------------

  function note(id, text, ...buttons) {
    byId(`p-note-${id}`)?.remove();
    if (text !== null) {
      const said = text instanceof Node ? text : el("p", {}, text);
      byId("p-panels").prepend(el("div", { id: `p-note-${id}`, class: "p-note", role: "status" }, said, el("span", { class: "p-note-buttons" }, ...buttons)));
    }
    document.body.classList.toggle("p-noted", Boolean(document.querySelector(".p-note")));
  }

  function button(string, fn, attributes = {}) {
    const made = el("button", attributes, t(string));
    made.addEventListener("click", fn);
    return made;
  }

  // -- when and where --------------------------------------------------------------------------------------------

  function when(iso) { // the server's times are UTC
    const date = new Date(/Z|[+-]\d\d:\d\d$/.test(iso) ? iso : `${iso}Z`);
    const today = date.toDateString() === new Date().toDateString();
    const time = date.toLocaleTimeString(locale(), { hour: "2-digit", minute: "2-digit" });
    return { date, text: today ? time : `${date.toLocaleDateString(locale(), { day: "numeric", month: "short", year: "numeric" })}, ${time}` };
  }

  palate.on("ready", ({ me }) => { // Review is for leads
    const link = document.querySelector('.p-nav a[href="review"]');
    if (link && me.role === "annotator") link.hidden = true;
  });

  Object.assign(palate, { panels: { make, note, button, when, anyOpen } });
})();
