// The help: every key, drawn from the register that obeys them, and the settings of this browser.

(() => {
  "use strict";
  const palate = window.palate;
  const { page, t, el } = palate;
  const NAMES = { Enter: "⏎", Backspace: "⌫", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", PageUp: "PgUp", PageDown: "PgDn" };
  const YEAR = 365 * 86400; // s

  const nameOf = ({ key, shift }) => (shift ? `${t("key.shift")} ` : "") + (key === " " ? t("key.space") : NAMES[key] || key);

  function rows() { // [[names of keys], what they do]: keys that do the same share a row
    const found = new Map([["help.choose", ["1 – 9"]], ["help.letters", ["A – I"]]]);
    for (const entry of palate.keys.list().sort((a, b) => a.modal - b.modal)) { // what opens panels comes last
      const names = found.get(entry.string) || [];
      if (!names.includes(nameOf(entry))) found.set(entry.string, [...names, nameOf(entry)]);
    }
    return [...found, ["help.close", ["Esc"]]];
  }

  function table() {
    return el("dl", { class: "p-keys" }, ...rows().map(([string, names]) =>
      el("div", {}, el("dt", {}, ...names.map((name) => el("kbd", {}, name))), el("dd", {}, t(string)))));
  }

  function toggle(string, on, change, hint) {
    const box = el("input", { type: "checkbox" });
    box.checked = on;
    box.addEventListener("change", () => change(box.checked));
    return el("label", { class: "p-setting" }, box, el("span", {}, t(string), hint ? el("small", {}, t(hint)) : null));
  }

  function speak(language) { // read by pages of the server too; the page starts anew in the other language
    const secure = window.location.protocol === "https:" ? "; Secure" : "";
    const path = window.location.pathname.replace(/[^/]*$/, "");
    document.cookie = `palate-language=${language}; Max-Age=${YEAR}; Path=${path}; SameSite=Lax${secure}`;
    palate.keep();
    window.location.reload();
  }

  function languages() {
    const choice = el("select", { id: "p-language" }, ...Object.entries(window.palateLanguages || {}).map(([code, name]) =>
      el("option", { value: code, lang: code }, name)));
    choice.value = window.palateLanguage;
    choice.addEventListener("change", () => speak(choice.value));
    return el("label", { class: "p-setting", for: "p-language" }, el("span", {}, t("help.language")), choice);
  }

  const isDark = () => document.body.classList.contains("dark");

  function draw(body) {
    body.replaceChildren(
      el("div", { class: "p-columns" },
        el("section", {}, el("h3", {}, t("help.keys")), table(), el("p", { class: "p-soft" }, t("help.letters_first"))),
        el("section", {}, el("h3", {}, t("help.settings")),
          toggle("help.fast", Boolean(page.settings.fast), (on) => palate.set("fast", on), "help.fast.hint"),
          toggle("help.dark", isDark(), () => palate.actions.theme()),
          toggle("help.breaks", page.settings.breaks !== false, (on) => palate.set("breaks", on), "help.breaks.hint"),
          languages(),
          palate.panels.button("help.again", () => { panel.close(); palate.practise(); }, { class: "p-wide" }))));
  }

  const panel = palate.panels.make("help", "help.title", draw);
  palate.actions.help = panel.toggle;
  palate.keys.add("?", "help.help", panel.toggle, { modal: true });
})();
