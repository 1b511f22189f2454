// From a drawing to SVG elements. Names go in as text nodes and attributes, never as markup.
(function () {
  "use strict";
  const parts = ((window.stepscope = window.stepscope || {}).graphParts = window.stepscope.graphParts || {});
  const SVG = "http://www.w3.org/2000/svg";
  let markers = 0;

  /** An SVG element with attributes; those that are null or undefined are left out. */
  function make(name, attributes, ...children) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined) element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  function text(className, x, y, content) {
    return make("text", { class: className, x, y }, content);
  }

  /** The sign that opens or closes a module: a square to hit, and a plus or minus in it. */
  function sign(x, y, module, open) {
    const cross = open ? "M4 8H12" : "M4 8H12M8 4V12";
    const group = make("g", { class: "toggle", "data-module": module, transform: `translate(${x} ${y})` });
    group.setAttribute("role", "button");
    group.setAttribute("aria-label", `${open ? "close" : "open"} ${module}`);
    group.append(
      make("rect", { class: "reach", x: -4, y: -4, width: 24, height: 24 }),
      make("rect", { class: "square", x: 1.5, y: 1.5, width: 13, height: 13, rx: 3 }),
      make("path", { class: "cross", d: cross }),
    );
    return group;
  }

  function drawFrame(frame) {
    const group = make("g", {
      class: `frame depth-${frame.depth % 2}`,
      "data-id": frame.id,
      "data-module": frame.module,
      transform: `translate(${frame.x} ${frame.y})`,
    });
    const head = make("g", { class: "head" });
    head.append(
      make("rect", { class: "reach", width: Math.min(frame.w, 40 + frame.label.length * 8), height: 26, rx: 8 }),
      sign(7, 6, frame.module, true),
      text("label", 28, 18.5, frame.label),
    );
    group.append(make("rect", { class: "ground", width: frame.w, height: frame.h, rx: 8 }), head);
    return group;
  }

  /** The outline of a box; a loose side is a path of its own, so that it can be dotted. */
  function outline(box) {
    const { w, h } = box;
    if (!box.loose.left && !box.loose.right) return [make("rect", { class: "edge", width: w, height: h, rx: 5 })];
    const left = `M5 0Q0 0 0 5V${h - 5}Q0 ${h} 5 ${h}`;
    const right = `M${w - 5} 0Q${w} 0 ${w} 5V${h - 5}Q${w} ${h} ${w - 5} ${h}`;
    const whole = `M5 0H${w - 5}M5 ${h}H${w - 5}`;
    return [
      make("rect", { class: "fill", width: w, height: h, rx: 5 }),
      make("path", { class: "edge", d: whole }),
      make("path", { class: box.loose.left ? "edge loose" : "edge", d: left, "data-side": "left" }),
      make("path", { class: box.loose.right ? "edge loose" : "edge", d: right, "data-side": "right" }),
    ];
  }

  function drawRow(row, width) {
    const group = make("g", {
      class: `row type-${row.type}`,
      "data-id": row.id,
      "data-node": row.node,
      "data-role": row.role,
      "data-lag": row.lag,
      transform: `translate(5 ${row.y})`,
    });
    group.append(
      make("rect", { class: "edge", width: width - 10, height: row.h, rx: 3 }),
      text("label", 6, row.h - 4.5, row.label),
    );
    return group;
  }

  function drawBox(box) {
    const module = box.module !== null;
    const group = make("g", {
      class: `box type-${box.type}${box.main ? " main" : ""}`,
      "data-id": box.id,
      "data-node": box.node,
      "data-role": module ? null : box.role,
      "data-lag": module ? null : box.lag,
      "data-module": box.module,
      "aria-label": box.title,
      transform: `translate(${box.x} ${box.y})`,
    });
    group.append(...outline(box), text("label", module ? 28 : 10, 17.5, box.label));
    if (box.sub) group.append(text("sub", module ? 10 : 10, 31, box.sub));
    if (module) group.append(sign(7, 5, box.module, false));
    const rows = box.rows.map((row) => drawRow(row, box.w));
    group.append(...rows);
    return { group, rows };
  }

  function drawSegment(segment, boxes) {
    const kind = `${segment.blocked ? " blocked" : ""}${segment.back ? " back" : ""}`;
    return make("path", { class: `segment${kind}`, d: segment.path, "data-source": boxes[segment.source].id });
  }

  /** Arrow heads in each colour that lines can have; one that is blocked ends in a bar. */
  function drawMarkers(name) {
    const shapes = { arrow: "M1 1L8 4.5L1 8Z", stop: "M1 1.5L6 4.5L1 7.5ZM7 0H8.4V9H7Z" };
    return Object.entries(shapes).flatMap(([shape, d]) =>
      ["plain", "hot"].map((heat) => {
        const attributes = { id: `${name}-${shape}-${heat}`, class: `head ${heat}`, viewBox: "0 0 9 9", refX: 8, refY: 4.5 };
        const size = { markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" };
        return make("marker", { ...attributes, ...size }, make("path", { d }));
      }),
    );
  }

  /** The whole picture: `{svg, world, boxes, rows, frames, segments, markers}`; all lists are in the drawing's order. */
  parts.render = function (drawing) {
    const name = `stepscope-graph-${(markers += 1)}`;
    const frames = drawing.frames.map(drawFrame);
    const segments = drawing.segments.map((segment) => drawSegment(segment, drawing.boxes));
    const drawn = drawing.boxes.map(drawBox);
    const world = make("g", { class: "world" });
    world.append(
      make("g", { class: "frames" }, ...frames),
      make("g", { class: "segments" }, ...segments),
      make("g", { class: "boxes" }, ...drawn.map((box) => box.group)),
    );
    const svg = make("svg", { class: "picture", role: "application", tabindex: "0" });
    svg.setAttribute("aria-label", "Dependency graph. Arrow keys walk along the edges, Enter opens a module.");
    svg.append(make("defs", {}, ...drawMarkers(name)), world);
    return {
      svg,
      world,
      frames,
      segments,
      markers: name,
      boxes: drawn.map((box) => box.group),
      rows: drawn.map((box) => box.rows),
    };
  };
  parts.make = make;
})();
