// What is selected, and what is near it: direct sources and sinks stand out, what they come from and lead to less so.
(function () {
  "use strict";
  const parts = ((window.stepscope = window.stepscope || {}).graphParts = window.stepscope.graphParts || {});
  const MARKS = ["selected", "near", "along", "hot", "holds-selected"];

  parts.key = (node, role, lag) => `${node}\n${role}\n${lag || 0}`;

  /** Look-ups into a drawing: sources and sinks of each box, tensors by node, modules by path. */
  parts.indexOf = function (drawing) {
    const lists = () => drawing.boxes.map(() => []);
    const index = { sinks: lists(), sources: lists(), nodes: new Map(), modules: new Map(), frames: new Map() };
    for (const [source, sink] of drawing.links) {
      index.sinks[source].push(sink);
      index.sources[sink].push(source);
    }
    for (const tensor of drawing.tensors) {
      if (!index.nodes.has(tensor[0])) index.nodes.set(tensor[0], []);
      index.nodes.get(tensor[0]).push(tensor);
    }
    drawing.boxes.forEach((box, number) => box.module !== null && index.modules.set(box.module, number));
    drawing.frames.forEach((frame, number) => index.frames.set(frame.module, number));
    return index;
  };

  /** Where a selection is in the drawing: `{box, row, frame}`, each -1 where there is none. */
  parts.find = function (panel, selection) {
    const nowhere = { box: -1, row: -1, frame: -1 };
    if (!selection) return nowhere;
    const { modules, frames, nodes } = panel.index;
    if (selection.module !== undefined && selection.module !== null) {
      const pick = (map) => (map.has(selection.module) ? map.get(selection.module) : -1);
      return { box: pick(modules), row: -1, frame: pick(frames) };
    }
    const tensors = nodes.get(selection.node) || [];
    const fits = (tensor, lag) =>
      (selection.role === undefined || selection.role === null || tensor[1] === selection.role) && tensor[2] === lag;
    const wanted = tensors.filter((tensor) => fits(tensor, selection.lag || 0));
    const tensor = (wanted.length ? wanted : tensors.filter((one) => !selection.role || one[1] === selection.role)).at(-1);
    return tensor ? { box: tensor[3], row: tensor[4], frame: -1 } : nowhere;
  };

  parts.chosenBox = function (panel) {
    const { box, frame } = parts.find(panel, panel.selection);
    return panel.drawing.boxes[box] || panel.drawing.frames[frame] || null;
  };

  /** Where to begin without a selection: the loss, else the end of the main line, else the first box. */
  parts.boxToStartAt = function (panel) {
    const { boxes } = panel.drawing;
    const main = boxes.filter((box) => box.main);
    return boxes.find((box) => box.type === "loss") || main.at(-1) || boxes[0] || null;
  };

  function reached(start, next) {
    const seen = new Set();
    const waiting = [...start];
    while (waiting.length) {
      for (const box of next[waiting.pop()]) {
        if (!seen.has(box)) {
          seen.add(box);
          waiting.push(box);
        }
      }
    }
    return seen;
  }

  /** Mark the selection in the picture. */
  parts.showSelection = function (panel) {
    for (const element of panel.marked) element.classList.remove(...MARKS);
    for (const path of panel.heated) path.setAttribute("marker-end", path.dataset.plain);
    panel.marked = [];
    panel.heated = [];
    const found = parts.find(panel, panel.selection);
    panel.svg.classList.toggle("has-selection", found.box >= 0);
    if (found.frame >= 0) mark(panel, panel.frames[found.frame], "selected");
    if (found.box < 0) return;
    const box = panel.drawing.boxes[found.box];
    const inside = box.module !== null && !(panel.selection.module === box.module);
    mark(panel, panel.boxes[found.box], inside ? "holds-selected" : "selected", "near");
    mark(panel, panel.mapBoxes[found.box], "selected");
    if (found.row >= 0) mark(panel, panel.rows[found.box][found.row], "selected");
    markAround(panel, found.box);
  };

  function markAround(panel, chosen) {
    const { sources, sinks } = panel.index;
    const up = reached([chosen], sources);
    const down = reached([chosen], sinks);
    for (const box of up) mark(panel, panel.boxes[box], "along");
    for (const box of down) mark(panel, panel.boxes[box], "along");
    for (const box of [...sources[chosen], ...sinks[chosen]]) mark(panel, panel.boxes[box], "near");
    const before = (box) => box === chosen || up.has(box);
    const after = (box) => box === chosen || down.has(box);
    panel.drawing.segments.forEach((segment, number) => {
      const path = panel.segments[number];
      if (segment.source === chosen || segment.sinks.includes(chosen)) heat(panel, path);
      else if (up.has(segment.source) && segment.sinks.some(before)) mark(panel, path, "along");
      else if (down.has(segment.source) && segment.sinks.some(after)) mark(panel, path, "along");
    });
  }

  function mark(panel, element, ...names) {
    element.classList.add(...names);
    panel.marked.push(element);
  }

  function heat(panel, path) {
    mark(panel, path, "hot");
    if (!path.dataset.plain) return;
    path.setAttribute("marker-end", path.dataset.plain.replace("-plain)", "-hot)"));
    panel.heated.push(path);
  }

  /** Give lines that end at a box their heads. */
  parts.setHeads = function (panel) {
    panel.drawing.segments.forEach((segment, number) => {
      if (!segment.arrow) return;
      const path = panel.segments[number];
      path.dataset.plain = `url(#${panel.markers}-${segment.blocked ? "stop" : "arrow"}-plain)`;
      path.setAttribute("marker-end", path.dataset.plain);
    });
  };
})();
