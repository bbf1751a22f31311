// The ranking page's side of live questions: the way to the live screen, and back to it after the vote on what
// was asked there.

(() => {
  "use strict";
  const palate = window.palate;
  const RANKING = "palate-live"; // set by live.js: the assignment whose vote leads back

  function cameFrom() {
    try { return sessionStorage.getItem(RANKING); } catch { return null; } // a private window
  }

  palate.on("ready", ({ me }) => {
    const review = document.querySelector('.p-nav a[href="review"]');
    if (me.live) review?.before(palate.el("a", { href: "live" }, palate.t("live.title")));
  });
  palate.on("saved", ({ assignment }) => {
    if (assignment !== cameFrom() || palate.state().unsent) return;
    sessionStorage.removeItem(RANKING);
    window.location.assign("live");
  });
})();
