// Walking along the edges with the arrow keys, while nothing else wants them.
(function () {
  "use strict";
  const parts = ((window.stepscope = window.stepscope || {}).graphParts = window.stepscope.graphParts || {});
  const BUSY = [
    "input, textarea, select, [contenteditable=''], [contenteditable='true'], .ag-root, .ag-root-wrapper",
    "[role=grid], [role=treegrid], [role=slider], [role=combobox], [role=listbox], [role=menu], [role=radiogroup], [role=tablist], [role=dialog]",
  ].join(", ");
  const WAYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

  /** What a key does in a panel; null if it means nothing here. */
  parts.actionOf = function (panel, event) {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return null;
    if (!event.target.closest || event.target.closest(BUSY)) return null;
    if (event.key === "+") return () => parts.zoom(panel, 1.25);
    if (event.shiftKey) return null;
    if (event.key in WAYS) return () => walk(panel, WAYS[event.key]);
    if (event.key === "-") return () => parts.zoom(panel, 1 / 1.25);
    if (event.key === "0") return () => parts.fit(panel);
    if (event.key === "Enter" && !event.target.closest("a, button, [role=button]")) return toggling(panel);
    return null;
  };

  function toggling(panel) {
    const { box, frame } = parts.find(panel, panel.selection);
    const at = panel.drawing.boxes[box] || panel.drawing.frames[frame];
    return at && at.module !== null ? () => panel.callbacks.toggle && panel.callbacks.toggle(at.module) : null;
  }

  function walk(panel, way) {
    const { box } = parts.find(panel, panel.selection);
    const from = panel.drawing.boxes[box];
    const to = from ? parts.neighbour(panel, box, way) : parts.boxToStartAt(panel);
    if (to) parts.choose(panel, to);
  }

  /** The box next to another: a source (left), a sink (right), or the nearest above or below in the same layer. */
  parts.neighbour = function (panel, number, way) {
    const { boxes } = panel.drawing;
    const from = boxes[number];
    if (way === "left" || way === "right") {
      const linked = (way === "left" ? panel.index.sources : panel.index.sinks)[number].map((other) => boxes[other]);
      return nearest(linked, (to) => (to.main && from.main ? -1e6 : 0) + distance(from, to));
    }
    const down = way === "down";
    const beyond = boxes.filter((to) => sameLayer(from, to) && (down ? to.y >= from.y + from.h : to.y + to.h <= from.y));
    return nearest(beyond, (to) => Math.abs(to.y - from.y));
  };

  const sameLayer = (a, b) => a !== b && a.x < b.x + b.w && b.x < a.x + a.w;
  const distance = (a, b) => Math.abs(a.x - b.x) + 3 * Math.abs(a.y - b.y);

  function nearest(boxes, cost) {
    return boxes.reduce((best, box) => (best === null || cost(box) < cost(best) ? box : best), null);
  }
})();
