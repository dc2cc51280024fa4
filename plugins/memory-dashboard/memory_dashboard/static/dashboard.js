"use strict";
// Pages ask each second whether they have changed. They do not while the reader has paused them, looks at
// another tab, selects text, or has the focus in what would be replaced.
(() => {
  const button = document.getElementById("pause");
  let paused = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Paused" : "Pause";
  });
  const busy = (element) =>
    document.hidden ||
    element.contains(document.activeElement) ||
    element.querySelector("details[open]") !== null ||
    (!document.getSelection().isCollapsed && element.contains(document.getSelection().anchorNode));
  document.addEventListener("htmx:beforeRequest", (event) => {
    const trigger = event.detail.elt.getAttribute("hx-trigger") || "";
    if (trigger.startsWith("every") && (paused || busy(event.detail.elt))) event.preventDefault();
  });
})();
