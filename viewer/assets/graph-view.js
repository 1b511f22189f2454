// Where one looks: pan, zoom, fit, and the small map. A view is {k, x, y}: screen = k * drawing + (x, y).
(function () {
  "use strict";
  const parts = ((window.stepscope = window.stepscope || {}).graphParts = window.stepscope.graphParts || {});
  const READABLE = 0.58;
  const SMALLEST = 0.01;
  const LARGEST = 3;
  const MARGIN = 14;
  const ROOM = 36;

  parts.sizeOf = (panel) => [panel.element.clientWidth || 800, panel.element.clientHeight || 400];

  /** The view in which the whole drawing is seen. */
  function fitting(panel) {
    const [width, height] = parts.sizeOf(panel);
    const { width: w, height: h } = panel.drawing;
    const k = Math.max(SMALLEST, Math.min((width - 2 * MARGIN) / w, (height - 2 * MARGIN) / h, 1.25));
    return { k, x: (width - k * w) / 2, y: (height - k * h) / 2 };
  }

  /** The view to begin with: everything if that is readable, else the selected box or the end. */
  parts.firstView = function (panel) {
    const view = fitting(panel);
    if (view.k >= READABLE) return view;
    const [width, height] = parts.sizeOf(panel);
    const drawing = panel.drawing;
    const k = 0.8;
    const tall = k * drawing.height > height - 2 * MARGIN;
    const at = parts.chosenBox(panel) || parts.boxToStartAt(panel);
    const x = at ? width / 2 - k * (at.x + at.w / 2) : MARGIN;
    const y = tall && at ? height / 2 - k * (at.y + at.h / 2) : (height - k * drawing.height) / 2;
    return {
      k,
      x: within(x, width - k * drawing.width - MARGIN, MARGIN),
      y: tall ? within(y, height - k * drawing.height - MARGIN, MARGIN) : y,
    };
  };

  function within(value, low, high) {
    return low > high ? (low + high) / 2 : Math.max(low, Math.min(high, value));
  }

  /** Show a view. */
  parts.look = function (panel, view) {
    panel.view = view;
    const { k, x, y } = view;
    panel.world.setAttribute("transform", `translate(${round(x)} ${round(y)}) scale(${k})`);
    panel.svg.classList.toggle("far", k < 0.4);
    parts.showMap(panel);
  };

  function round(value) {
    return Math.round(value * 100) / 100;
  }

  parts.fit = function (panel) {
    panel.touched = false;
    parts.look(panel, fitting(panel));
  };

  parts.pan = function (panel, dx, dy) {
    panel.touched = true;
    const { k, x, y } = panel.view;
    parts.look(panel, { k, x: x + dx, y: y + dy });
  };

  /** Zoom so that what is at `(px, py)` of the panel stays there. */
  parts.zoom = function (panel, factor, px, py) {
    panel.touched = true;
    const { k, x, y } = panel.view;
    const [width, height] = parts.sizeOf(panel);
    const cx = px === undefined ? width / 2 : px;
    const cy = py === undefined ? height / 2 : py;
    const scale = Math.max(Math.min(SMALLEST, k), Math.min(LARGEST, k * factor));
    const ratio = scale / k;
    parts.look(panel, { k: scale, x: cx - (cx - x) * ratio, y: cy - (cy - y) * ratio });
  };

  /** Move as little as needed for a box to be inside the panel. */
  parts.reveal = function (panel, box) {
    const [width, height] = parts.sizeOf(panel);
    const { k, x, y } = panel.view;
    const dx = shift(x + k * box.x, k * box.w, width);
    const dy = shift(y + k * box.y, k * box.h, height);
    if (dx || dy) parts.pan(panel, dx, dy);
  };

  function shift(start, length, room) {
    const margin = Math.max(0, Math.min(ROOM, (room - length) / 2));
    if (start < margin || length > room) return start > margin || start < margin ? margin - start : 0;
    return Math.min(0, room - margin - start - length);
  }

  /** The view that leaves a place where it is on the screen, when it moved from one drawing to another. */
  parts.anchored = function (view, before, after) {
    return { k: view.k, x: view.x + view.k * (before.x - after.x), y: view.y + view.k * (before.y - after.y) };
  };

  /** A small map of the drawing, with a frame around what is seen; hidden while everything is seen. */
  parts.makeMap = function (panel) {
    const { width, height, boxes, frames } = panel.drawing;
    const tall = Math.max(30, Math.min(110, (220 * height) / width));
    const map = parts.make("svg", { class: "map", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
    map.setAttribute("aria-hidden", "true");
    map.style.height = `${tall}px`;
    const place = (at) => ({ x: at.x, y: at.y, width: at.w, height: at.h });
    panel.mapBoxes = boxes.map((box) => parts.make("rect", { class: `box type-${box.type}`, ...place(box) }));
    panel.mapSeen = parts.make("rect", { class: "seen" });
    map.append(...frames.map((frame) => parts.make("rect", { class: "frame", ...place(frame) })));
    map.append(...panel.mapBoxes, panel.mapSeen);
    return map;
  };

  parts.showMap = function (panel) {
    const { k, x, y } = panel.view;
    const [width, height] = parts.sizeOf(panel);
    const { width: w, height: h } = panel.drawing;
    const all = x >= -1 && y >= -1 && x + k * w <= width + 1 && y + k * h <= height + 1;
    panel.map.classList.toggle("hidden", all);
    const left = Math.max(0, -x / k);
    const top = Math.max(0, -y / k);
    const seen = { x: left, y: top, width: (width - x) / k - left, height: (height - y) / k - top };
    seen.width = Math.max(0, Math.min(seen.width, w - left));
    seen.height = Math.max(0, Math.min(seen.height, h - top));
    for (const [name, value] of Object.entries(seen)) panel.mapSeen.setAttribute(name, round(value));
  };

  /** Look at the place of the map that the pointer is at. */
  parts.lookAtMap = function (panel, event) {
    const area = panel.map.getBoundingClientRect();
    const [width, height] = parts.sizeOf(panel);
    const k = panel.view.k;
    const px = ((event.clientX - area.left) / area.width) * panel.drawing.width;
    const py = ((event.clientY - area.top) / area.height) * panel.drawing.height;
    panel.touched = true;
    parts.look(panel, { k, x: width / 2 - k * px, y: height / 2 - k * py });
  };
})();
