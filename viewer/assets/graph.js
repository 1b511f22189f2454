// The graph panel. `window.stepscope.graph` is all that others use; stepscope/viewer/graph/__init__.py describes it.
(function () {
  "use strict";
  const stepscope = (window.stepscope = window.stepscope || {});
  const parts = (stepscope.graphParts = stepscope.graphParts || {});
  const panels = new Map();
  let active = null;

  /** Show a drawing in an element; pan and zoom stay if it is the same one, or if only modules opened or closed. */
  function mount(elementId, drawing, overlay, selection, callbacks) {
    const element = document.getElementById(elementId);
    if (!element || !drawing) return;
    const before = panels.get(elementId);
    if (before && before.element === element && before.drawing.hash === drawing.hash && before.svg.isConnected) {
      Object.assign(before, { overlay: overlay || {}, callbacks: callbacks || {} });
      parts.showOverlay(before);
      show(before, selection);
      return;
    }
    if (before) before.observer.disconnect();
    const panel = build(element, drawing);
    Object.assign(panel, { overlay: overlay || {}, selection, callbacks: callbacks || {}, touched: Boolean(before && before.touched) });
    panels.set(elementId, panel);
    active = panel;
    parts.look(panel, viewAfter(before, panel));
    parts.showOverlay(panel);
    parts.showSelection(panel);
    const chosen = parts.chosenBox(panel);
    const known = before && placeOf(before, before.selection);
    if (before && chosen && chosen.id !== (known && known.id)) parts.reveal(panel, chosen);
    panel.observer = new ResizeObserver(() => resized(panel));
    panel.observer.observe(element);
  }

  function build(element, drawing) {
    const panel = { element, drawing, index: parts.indexOf(drawing), marked: [], heated: [], ...parts.render(drawing) };
    panel.map = parts.makeMap(panel);
    panel.legend = part("div", "legend");
    panel.tip = part("div", "tip");
    parts.setHeads(panel);
    element.classList.add("stepscope-graph");
    element.replaceChildren(panel.svg, panel.map, panel.legend, buttons(panel), panel.tip);
    listen(panel);
    return panel;
  }

  function part(name, className, content) {
    const element = document.createElement(name);
    element.className = className;
    if (content) element.textContent = content;
    return element;
  }

  function buttons(panel) {
    const bar = part("div", "buttons");
    const add = (label, content, action) => {
      const button = part("button", "", content);
      button.type = "button";
      button.title = label;
      button.setAttribute("aria-label", label);
      button.addEventListener("click", action);
      bar.append(button);
    };
    add("Fit the graph into the panel (0)", "fit", () => parts.fit(panel));
    add("Zoom in (+)", "+", () => parts.zoom(panel, 1.25));
    add("Zoom out (-)", "−", () => parts.zoom(panel, 1 / 1.25));
    return bar;
  }

  /** The view for a new drawing: what was toggled, or else what is selected, stays where it was on the screen. */
  function viewAfter(before, panel) {
    if (!before) return parts.firstView(panel);
    if (before.drawing.hash === panel.drawing.hash) return before.view;
    const toggled = changedModule(before.drawing, panel.drawing);
    const there = toggled === null ? null : placeOf(before, { module: toggled });
    const here = toggled === null ? null : placeOf(panel, { module: toggled });
    if (there && here) {
      panel.touched = true;
      return parts.anchored(before.view, there, here);
    }
    if (!before.touched) return parts.firstView(panel);
    const was = placeOf(before, panel.selection);
    const is = placeOf(panel, panel.selection);
    return was && is ? parts.anchored(before.view, was, is) : parts.firstView(panel);
  }

  function placeOf(panel, selection) {
    const { box, frame } = parts.find(panel, selection);
    return panel.drawing.boxes[box] || panel.drawing.frames[frame] || null;
  }

  /** The outermost module that is open in only one of two drawings. */
  function changedModule(one, other) {
    const before = new Set(one.opened);
    const after = new Set(other.opened);
    const changed = [...before].filter((path) => !after.has(path)).concat([...after].filter((path) => !before.has(path)));
    return changed.length ? changed.reduce((best, path) => (path.length < best.length ? path : best)) : null;
  }

  function resized(panel) {
    if (panel.svg.isConnected) parts.look(panel, panel.touched ? panel.view : parts.firstView(panel));
  }

  /** Select a box as a person does: with a callback. */
  parts.choose = function (panel, box, row) {
    const what = row || box;
    const selection = box.module === null ? { node: what.node, role: what.role, lag: what.lag } : { module: box.module };
    show(panel, selection);
    const { select: onSelect, selectModule } = panel.callbacks;
    if (box.module !== null) selectModule && selectModule(box.module);
    else if (onSelect) onSelect(what.node, what.role, what.lag);
  };

  /** Mark a selection, and move to it if it is another one: a person who looked elsewhere is left there. */
  function show(panel, selection) {
    const before = parts.find(panel, panel.selection);
    panel.selection = selection;
    parts.showSelection(panel);
    const { box, row } = parts.find(panel, selection);
    if (box >= 0 && (box !== before.box || row !== before.row)) parts.reveal(panel, panel.drawing.boxes[box]);
  }

  function toggle(panel, module) {
    if (panel.callbacks.toggle) panel.callbacks.toggle(module);
  }

  function listen(panel) {
    const { svg, map, element } = panel;
    svg.addEventListener("wheel", (event) => wheel(panel, event), { passive: false });
    dragging(svg, (event, dx, dy) => parts.pan(panel, dx, dy), () => svg.classList.add("dragged"));
    dragging(map, (event) => parts.lookAtMap(panel, event));
    map.addEventListener("pointerdown", (event) => parts.lookAtMap(panel, event));
    svg.addEventListener("click", (event) => clicked(panel, event));
    svg.addEventListener("dblclick", (event) => doubleClicked(panel, event));
    svg.addEventListener("pointermove", (event) => hover(panel, event));
    svg.addEventListener("pointerleave", () => panel.tip.classList.remove("shown"));
    element.onpointerenter = () => (active = panel);
  }

  function wheel(panel, event) {
    event.preventDefault();
    const area = panel.svg.getBoundingClientRect();
    const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      parts.pan(panel, -unit * (event.deltaX || event.deltaY), 0);
      return;
    }
    const factor = Math.exp(-unit * event.deltaY * 0.0016);
    parts.zoom(panel, factor, event.clientX - area.left, event.clientY - area.top);
  }

  /** Call `moved` while the pointer is down and has gone further than a shaking hand does. */
  function dragging(target, moved, began) {
    let last = null;
    let far = false;
    target.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      last = [event.clientX, event.clientY];
      far = false;
      target.classList.remove("dragged");
    });
    target.addEventListener("pointermove", (event) => {
      if (!last || !event.buttons) return (last = null);
      const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
      if (!far && Math.hypot(dx, dy) < 4) return;
      if (!far) {
        far = true;
        target.setPointerCapture(event.pointerId);
        if (began) began();
      }
      last = [event.clientX, event.clientY];
      moved(event, dx, dy);
    });
    for (const name of ["pointerup", "pointercancel"]) target.addEventListener(name, () => (last = null));
  }

  /** The box, row or frame that an event happened in. */
  function targetOf(panel, event) {
    const element = event.target.closest(".toggle, .row, .box, .frame .head");
    if (!element) return {};
    const holder = element.closest(".box");
    const box = holder ? panel.drawing.boxes[panel.boxes.indexOf(holder)] : null;
    const rowElement = element.closest(".row");
    const row = rowElement ? box.rows.find((one) => one.id === rowElement.dataset.id) : null;
    const frame = box ? null : panel.drawing.frames[panel.frames.indexOf(element.closest(".frame"))];
    return { box, row, frame, sign: Boolean(event.target.closest(".toggle")) };
  }

  function clicked(panel, event) {
    if (panel.svg.classList.contains("dragged")) return;
    const { box, row, frame, sign } = targetOf(panel, event);
    if (sign) toggle(panel, (box || frame).module);
    else if (box) parts.choose(panel, box, row);
    else if (frame) parts.choose(panel, frame);
  }

  function doubleClicked(panel, event) {
    const { box, frame, sign } = targetOf(panel, event);
    const at = box || frame;
    if (!sign && at && at.module !== null) toggle(panel, at.module);
  }

  function hover(panel, event) {
    const { box, row, frame } = event.buttons ? {} : targetOf(panel, event);
    const at = row || box || frame;
    panel.tip.classList.toggle("shown", Boolean(at));
    if (!at) return;
    const texts = panel.overlay.texts || {};
    const more = at.node ? texts[parts.key(at.node, at.role, at.lag)] : null;
    const counts = `${(box || frame).tensors} tensors, ${(box || frame).parameters} parameters`;
    const kind = at.module ? counts : [at.type, row ? "" : box.sub].filter(Boolean).join(", ");
    panel.tip.replaceChildren(part("strong", "", at.title), part("span", "", kind));
    if (more) panel.tip.append(part("span", "", more));
    const [level, summary] = (at.node && (panel.overlay.marks || {})[at.node]) || [];
    if (summary) panel.tip.append(part("span", `found ${level}`, summary));
    const area = panel.element.getBoundingClientRect();
    const left = Math.min(event.clientX - area.left + 14, area.width - panel.tip.offsetWidth - 6);
    const below = event.clientY - area.top + 18;
    const over = below + panel.tip.offsetHeight > area.height - 4;
    panel.tip.style.left = `${Math.max(4, left)}px`;
    panel.tip.style.top = `${over ? event.clientY - area.top - panel.tip.offsetHeight - 10 : below}px`;
  }

  document.addEventListener("keydown", (event) => {
    const seen = active && active.svg.isConnected && active.element.offsetParent !== null;
    const panel = seen ? active : [...panels.values()].find((one) => one.svg.isConnected && one.element.offsetParent);
    const action = panel ? parts.actionOf(panel, event) : null;
    if (!action) return;
    event.preventDefault();
    action();
  });

  stepscope.graph = {
    mount,
    select: (elementId, selection) => panels.has(elementId) && show(panels.get(elementId), selection),
    setOverlay(elementId, overlay) {
      const panel = panels.get(elementId);
      if (panel) parts.showOverlay(Object.assign(panel, { overlay }));
    },
    fit: (elementId) => panels.has(elementId) && parts.fit(panels.get(elementId)),
    key: parts.key,
  };
})();
