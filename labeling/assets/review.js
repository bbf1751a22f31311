// Review without it: pages, links and forms work. With it: what takes longer follows by itself, tables sort in place.

(() => {
  "use strict";
  const PAUSE = 400; // ms until a part that isn't ready is asked for again

  // -- what is still being computed ----------------------------------------------------------------------

  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  async function ask(address) { // the HTML once it is there; an Error with words for people
    const url = address + (address.includes("?") ? "&" : "?") + "fragment=1";
    for (let failures = 0; ;) {
      let answer = null;
      try { answer = await fetch(url, { headers: { accept: "application/json" } }); } catch { /* offline: below */ }
      if (answer?.status === 200) return answer.text();
      if (answer?.status === 202) { failures = 0; } else if (answer && answer.status <= 500) {
        const said = await answer.json().catch(() => ({}));
        throw new Error(said.error?.message ?? `the server answers ${answer.status}`);
      } else if (++failures > 4) {
        throw new Error("the server can't be reached");
      }
      if (answer?.status === 202) say(address, await answer.text());
      await wait(failures ? 1500 * failures : PAUSE);
    }
  }

  function place(address) {
    return [...document.querySelectorAll("[data-late]")].find((each) => each.dataset.late === address);
  }

  function say(address, text, failed = false) {
    const at = place(address);
    if (!at) return;
    const line = at.matches(".late") ? at : at.querySelector(".late");
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle("busy", !failed);
    line.classList.toggle("failed", failed);
  }

  async function follow(address) {
    say(address, "Computing");
    try {
      const html = await ask(address);
      const at = place(address);
      const part = new DOMParser().parseFromString(html, "text/html");
      const old = at.closest(".panel");
      const held = old.contains(document.activeElement) ? document.activeElement.closest("[id]")?.id : null;
      const fresh = [...part.body.children].map((each) => document.adoptNode(each));
      old.replaceWith(...fresh);
      if (held) document.getElementById(held)?.focus();
      for (const each of fresh) start(each);
      document.getElementById("said").textContent = `There: ${fresh.map((each) => each.querySelector("h2, h3, .found b")?.textContent ?? "").join(" ")}`;
    } catch (error) {
      say(address, `Not computed: ${error.message}`, true);
    }
  }

  // -- sorting in place, where all rows are here ---------------------------------------------------------

  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  function sort(table, head) {
    const rising = head.getAttribute("aria-sort") === "descending"
      || (!head.hasAttribute("aria-sort") && head.classList.contains("t"));
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => {
      const cell = row.cells[head.cellIndex];
      const text = cell.textContent.trim();
      const value = head.classList.contains("n") ? (cell.dataset.v === undefined ? null : Number(cell.dataset.v)) : text;
      return { row, value: value === "" ? null : value };
    });
    const sign = rising ? 1 : -1;
    rows.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null); // nothing comes last
      return sign * (typeof a.value === "number" ? a.value - b.value : order.compare(a.value, b.value));
    });
    body.append(...rows.map((each) => each.row));
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  }

  document.addEventListener("click", (event) => {
    const head = event.target.closest?.("th");
    const table = head?.closest("table[data-complete]");
    if (!table || !event.target.closest("a") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    sort(table, head);
  });

  // -- the beginning -------------------------------------------------------------------------------------

  function start(root) {
    const all = [...(root.matches?.("[data-late]") ? [root] : []), ...root.querySelectorAll("[data-late]")];
    for (const each of all) follow(each.dataset.late);
  }

  const said = document.createElement("p");
  said.id = "said";
  said.className = "unseen";
  said.setAttribute("aria-live", "polite");
  document.body.append(said);
  const here = document.querySelector(".sections [aria-current]"); // on a phone it may be out of sight
  if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.clientWidth / 2 + here.offsetWidth / 2;
  const filters = document.querySelector("details.filters"); // on a phone they would push the answers off the screen
  if (filters && matchMedia("(max-width: 700px)").matches) filters.open = false;
  start(document);
})();
