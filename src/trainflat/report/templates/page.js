"use strict";
(() => {
  // A link into a folded section opens it; on paper nothing is folded.
  const reveal = () => document.getElementById(location.hash.slice(1))?.querySelectorAll("details.section").forEach((one) => (one.open = true));
  addEventListener("hashchange", reveal);
  reveal();
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => (one.open = true));
  });
  addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));
})();
