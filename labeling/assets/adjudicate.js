// Adjudication by keys, as on the ranking page: 1 to 7 and X between two answers, letters, = and Backspace for a
// ranking; Enter decides, N leaves it for later, R is the reason. Without this script it is an ordinary form.

(() => {
  "use strict";
  const form = document.querySelector("form.decide");
  if (!form) return;
  const letters = form.dataset.letters;
  const ranking = form.querySelector("#ranking");
  const tiers = () => ranking.value.toUpperCase().split(">").map((tier) => tier.split(/[=\s,]+/).filter(Boolean)).filter((tier) => tier.length);
  let tie = false; // the next letter joins the last tier

  function write(all) {
    ranking.value = all.map((tier) => tier.join(" = ")).join(" > ") + (tie && all.length ? " =" : "");
  }

  function letter(name) {
    const all = ranking.value.trim().toUpperCase() === "ALL BAD" ? [] : tiers();
    if (all.flat().includes(name)) return;
    if (tie && all.length) all.at(-1).push(name); else all.push([name]);
    tie = false;
    write(all);
  }

  function back() {
    const all = tiers();
    if (tie) tie = false; else if (all.length) { all.at(-1).pop(); if (!all.at(-1).length) all.pop(); }
    write(all);
  }

  function pressed(key) {
    if (!ranking) {
      const box = form.querySelector(`[name="choice"][value="${CSS.escape(key)}"]`);
      if (box) box.checked = true;
      return Boolean(box);
    }
    const name = key.toUpperCase();
    if (letters.includes(name) && name.length === 1) letter(name);
    else if (key === "=") { tie = tiers().length > 0; write(tiers()); } else if (key === "Backspace") back();
    else if (key === "x") { tie = false; ranking.value = "all bad"; } else return false;
    return true;
  }

  function button(text, label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    if (label) made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  }

  if (ranking) { // the same by hand
    const row = document.createElement("p");
    row.className = "letters";
    row.append(...[...letters].map((name) => button(name, `${name} is next`, () => letter(name))),
      button("=", "the next one ties", () => pressed("=")), button("⌫", "one step back", back), button("All bad", "", () => pressed("x")));
    ranking.after(row);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input:not([type=radio]), textarea, select");
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    if (typing) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "Enter" && !event.target.matches("a, button, summary")) {
      event.preventDefault();
      form.requestSubmit();
    } else if (key === "r") {
      event.preventDefault();
      form.querySelector("#why").focus();
    } else if (key === "n" && document.getElementById("later") && !(ranking && letters.includes("N"))) {
      document.getElementById("later").click();
    } else if (pressed(key)) event.preventDefault();
  });

  let sent = false; // a second press sends nothing twice; the id of the vote would make it one anyway
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  window.addEventListener("pageshow", () => { sent = false; });
})();
