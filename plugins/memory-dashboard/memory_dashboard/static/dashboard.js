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
  // A server that answers with an error is there.
  const offline = document.getElementById("offline");
  document.addEventListener("htmx:sendError", () => { offline.hidden = false; });
  document.addEventListener("htmx:beforeOnLoad", () => { offline.hidden = true; });
  // Tables that are wider than the window say that they scroll.
  const measure = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
    }
  };
  for (const name of ["load", "resize"]) window.addEventListener(name, measure);
  document.addEventListener("htmx:afterSettle", measure);
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
