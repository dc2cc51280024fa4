"use strict";
// Arranges the drawing by forces, and lets it be moved and zoomed. Without it, the nodes are on rings.
(() => {
  const svg = document.getElementById("graph");
  if (svg === null) return;
  const nodes = [...svg.querySelectorAll(".node")].map((element) => {
    const [x, y] = element.getAttribute("transform").match(/-?[\d.]+/g).map(Number);
    return { element, id: element.dataset.id, x, y };
  });
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const links = [...svg.querySelectorAll(".edge")].map((element) => ({
    element, source: byId.get(element.dataset.from), target: byId.get(element.dataset.to),
  }));
  const middle = byId.get(svg.dataset.middle);
  if (middle) [middle.fx, middle.fy] = [500, 500];
  d3.forceSimulation(nodes)
    .force("link", d3.forceLink(links).distance(90))
    .force("charge", d3.forceManyBody().strength(-220))
    .force("x", d3.forceX(500).strength(0.05))
    .force("y", d3.forceY(500).strength(0.05))
    .force("collide", d3.forceCollide(26))
    .stop()
    .tick(200);
  for (const node of nodes) node.element.setAttribute("transform", `translate(${node.x} ${node.y})`);
  for (const { element, source, target } of links) {
    for (const [name, value] of [["x1", source.x], ["y1", source.y], ["x2", target.x], ["y2", target.y]]) {
      element.setAttribute(name, value);
    }
  }

  const box = { x: 0, y: 0, size: 1000 };
  const show = () => svg.setAttribute("viewBox", `${box.x} ${box.y} ${box.size} ${box.size}`);
  const all = () => {
    const xs = nodes.map((node) => node.x), ys = nodes.map((node) => node.y);
    const [left, top] = [Math.min(...xs), Math.min(...ys)];
    const [right, bottom] = [Math.max(...xs), Math.max(...ys)];
    box.size = Math.max(right - left, bottom - top, 200) + 160;
    box.x = (left + right - box.size) / 2;
    box.y = (top + bottom - box.size) / 2;
    show();
  };
  const scale = () => svg.getScreenCTM().a;
  const zoom = (factor, x = box.x + box.size / 2, y = box.y + box.size / 2) => {
    const size = Math.min(Math.max(box.size * factor, 100), 20000);
    box.x = x - ((x - box.x) * size) / box.size;
    box.y = y - ((y - box.y) * size) / box.size;
    box.size = size;
    show();
  };
  const move = (dx, dy) => { box.x += dx; box.y += dy; show(); };

  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, at.x, at.y);
  }, { passive: false });
  let held = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".node")) return;
    held = [event.clientX, event.clientY];
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (held === null) return;
    move((held[0] - event.clientX) / scale(), (held[1] - event.clientY) / scale());
    held = [event.clientX, event.clientY];
  });
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { held = null; });
  const keys = {
    "+": () => zoom(1 / 1.25), "=": () => zoom(1 / 1.25), "-": () => zoom(1.25), "0": all,
    ArrowLeft: () => move(-box.size / 12, 0), ArrowRight: () => move(box.size / 12, 0),
    ArrowUp: () => move(0, -box.size / 12), ArrowDown: () => move(0, box.size / 12),
  };
  svg.addEventListener("keydown", (event) => {
    if (keys[event.key] === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  const actions = { in: keys["+"], out: keys["-"], all };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", actions[button.dataset.zoom]);
  }
  all();
})();
