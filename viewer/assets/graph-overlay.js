// What the caller lays over the picture: colours, short texts, marks on what is wrong, and a legend.
(function () {
  "use strict";
  const parts = ((window.stepscope = window.stepscope || {}).graphParts = window.stepscope.graphParts || {});
  const TYPES = ["input", "parameter", "buffer", "calculated", "target", "loss"];
  const MOST_STRIPES = 24;
  const LEVELS = { warning: 1, error: 2 };

  /** Put an overlay on the picture, in place of the one before. */
  parts.showOverlay = function (panel) {
    const overlay = panel.overlay || {};
    const colours = overlay.colours || {};
    const texts = overlay.texts || {};
    const bad = new Set(overlay.bad || []);
    const marks = overlay.marks || {};
    panel.svg.classList.toggle("has-overlay", Object.keys(colours).length > 0);
    for (const element of panel.svg.querySelectorAll(".note, .stripes, .badge")) element.remove();
    const inside = panel.drawing.boxes.map(() => []);
    const levels = panel.drawing.boxes.map(() => 0);
    clear(panel);
    for (const [node, role, lag, box, row] of panel.drawing.tensors) {
      const key = parts.key(node, role, lag);
      const about = panel.drawing.boxes[box];
      const level = bad.has(key) ? LEVELS.error : LEVELS[(marks[node] || [])[0]] || 0;
      levels[box] = Math.max(levels[box], level);
      if (about.module !== null) {
        if (colours[key]) inside[box].push(colours[key]);
        continue;
      }
      const element = row < 0 ? panel.boxes[box] : panel.rows[box][row];
      element.classList.toggle("bad", bad.has(key));
      paint(element, colours[key]);
      if (row >= 0 && isMain(about, node, role, lag)) paint(panel.boxes[box], colours[key]);
      if (texts[key]) writeNote(panel, element, about, row, texts[key]);
    }
    inside.forEach((some, box) => some.length && drawStripes(panel, box, some));
    panel.drawing.boxes.forEach((box, number) => markTrouble(panel, number, levels[number]));
    showLegend(panel, overlay.legend);
  };

  const isMain = (box, node, role, lag) => box.node === node && box.role === role && box.lag === lag;

  function clear(panel) {
    for (const element of [...panel.boxes, ...panel.rows.flat()]) {
      element.classList.remove("bad", "painted", "dark-paint");
      element.style.removeProperty("--paint");
    }
  }

  function paint(element, colour) {
    if (!colour) return;
    element.classList.add("painted");
    element.classList.toggle("dark-paint", isDark(colour));
    element.style.setProperty("--paint", colour);
  }

  /** Whether white text reads better on a colour (#rrggbb); other notations count as light. */
  function isDark(colour) {
    const match = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(colour);
    if (!match) return false;
    const [red, green, blue] = match.slice(1).map((pair) => (parseInt(pair, 16) / 255) ** 2.2);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.2;
  }

  /** A text above its box, or at the right end of its row if there is room. */
  function writeNote(panel, element, box, row, content) {
    if (row < 0) {
      element.append(parts.make("text", { class: "note", x: 2, y: -3.5 }, content));
      return;
    }
    const room = box.w - 10 - 16 - box.rows[row].label.length * 6.2;
    const fitting = [content, content.split(" ").at(-1)].find((one) => one.length * 5.4 <= room);
    if (!fitting) return;
    element.append(parts.make("text", { class: "note in-row", x: box.w - 15, y: box.rows[row].h - 4.5 }, fitting));
  }

  /** The colours of what is in a closed module, as stripes along its bottom, in the graph's order. */
  function drawStripes(panel, number, colours) {
    const box = panel.drawing.boxes[number];
    const count = Math.min(colours.length, MOST_STRIPES);
    const width = (box.w - 10) / count;
    const group = parts.make("g", { class: "stripes" });
    for (let stripe = 0; stripe < count; stripe += 1) {
      const colour = colours[Math.floor((stripe * colours.length) / count)];
      group.append(
        parts.make("rect", { x: 5 + stripe * width, y: box.h - 5, width: width + 0.3, height: 3.2, style: `fill:${safe(colour)}` }),
      );
    }
    panel.boxes[number].append(group);
  }

  const safe = (colour) => (CSS.supports("color", colour) ? colour : "none");

  /** A sign at a box's corner: something in it is not finite, or a finding names it. */
  function markTrouble(panel, number, level) {
    for (const element of [panel.boxes[number], panel.mapBoxes[number]]) {
      element.classList.toggle("troubled", level === LEVELS.error);
      element.classList.toggle("warned", level === LEVELS.warning);
    }
    if (!level) return;
    const badge = parts.make("g", { class: "badge", transform: `translate(${panel.drawing.boxes[number].w - 4} 2)` });
    badge.append(parts.make("circle", { r: 7 }), parts.make("text", { y: 3.6 }, "!"));
    panel.boxes[number].append(badge);
  }

  /** What needs an explanation in a drawing: types, lines that no gradient passes, sides with no line. */
  function kindsIn({ boxes, segments }) {
    const there = new Set(boxes.flatMap((box) => [box.type, ...box.rows.map((row) => row.type)]));
    const kinds = TYPES.filter((type) => there.has(type)).map((type) => [`swatch type-${type}`, type]);
    if (segments.some((segment) => segment.blocked)) kinds.push(["line blocked", "no gradient"]);
    if (boxes.some((box) => box.loose.left || box.loose.right)) kinds.push(["line loose", "unconnected"]);
    return kinds;
  }

  /** The legend of the overlay; without one, that of the tensor types in the picture. */
  function showLegend(panel, legend) {
    const add = (parent, name, content) => {
      const element = document.createElement("span");
      element.className = name;
      if (content !== undefined) element.textContent = content;
      parent.append(element);
      return element;
    };
    panel.legend.replaceChildren();
    if (!legend) {
      for (const [swatch, name] of kindsIn(panel.drawing)) {
        add(add(panel.legend, "kind"), swatch);
        panel.legend.lastChild.append(name);
      }
      return;
    }
    add(panel.legend, "title", legend.title);
    if (legend.low) add(panel.legend, "end", legend.low);
    const scale = add(panel.legend, "scale");
    for (const colour of legend.colours || []) add(scale, "step").style.background = colour;
    if (legend.high) add(panel.legend, "end", legend.high);
  }
})();
