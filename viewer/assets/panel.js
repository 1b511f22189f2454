// Turns the lists of viewer/markup.py into elements. Names of tensors are the user's: they only ever become text.
(function (app) {
  "use strict";
  const TAGS = new Set(
    ("div span bdi p b h2 h3 h4 pre code button table thead tbody tr th td dl dt dd section article details " +
      "summary").split(" "));

  // A small curve of `steps` and `values` (null is a gap), with a line at the step `mark`; `axis` are its lowest and
  // highest value, unless they are the curve's own.
  function spark({ steps, values, mark, axis }) {
    const make = (name, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      return element;
    };
    const picture = make("svg", { class: "spark", viewBox: "0 0 200 44", preserveAspectRatio: "none" });
    const known = values.filter((value) => value !== null);
    const [low, high] = axis || [Math.min(...known), Math.max(...known)];
    const first = steps[0], span = Math.max(1, steps[steps.length - 1] - first);
    const x = (step) => 2 + (196 * (step - first)) / span;
    const y = (value) => (high > low ? 41 - (38 * (value - low)) / (high - low) : 22);
    let path = "";
    values.forEach((value, i) => {
      if (value === null) return;
      const begins = i === 0 || values[i - 1] === null;
      path += (begins ? "M" : "L") + x(steps[i]).toFixed(1) + " " + y(value).toFixed(1);
    });
    if (mark !== null && steps.length) picture.append(make("line", { x1: x(mark), x2: x(mark), y1: 0, y2: 44 }));
    picture.append(make("path", { d: path || "M0 0" }));
    return picture;
  }

  // Copies a text, and says so on the button for a moment.
  async function copy(text, button) {
    if (button.classList.contains("copied")) return;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      return getSelection().selectAllChildren(button); // not allowed here: ready to be copied by hand
    }
    const before = button.textContent;
    button.classList.add("copied");
    button.textContent = `copied ${text}`;
    setTimeout(() => {
      button.classList.remove("copied");
      button.textContent = before;
    }, 1200);
  }

  app.build = function (markup) {
    if (typeof markup === "string") return document.createTextNode(markup);
    if (markup[0] === "spark") return spark(markup[1]);
    const [tag, attributes, ...children] = markup;
    const [name, ...classes] = tag.split(".");
    if (!TAGS.has(name)) throw new Error("no such element: " + name);
    const element = document.createElement(name);
    if (classes.length) element.className = classes.join(" ");
    if (name === "button") element.type = "button";
    if (attributes.title) element.title = attributes.title;
    if (attributes.act) {
      element.dataset.act = attributes.act.node || "";
      element.addEventListener("click", () => app.change(attributes.act));
    }
    if (attributes.copy) element.addEventListener("click", () => copy(attributes.copy, element));
    for (const child of children) element.append(app.build(child));
    return element;
  };

  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const isElement = (markup) => Array.isArray(markup) && markup[0] !== "spark";
  const isLike = (one, other) => isElement(one) && isElement(other) && same(one.slice(0, 2), other.slice(0, 2));
  const isWhole = (element, markup) => element && element.childNodes.length === markup.length - 2;

  // Brings an element from one markup to another. What is the same in both stays: a click on it, its focus and what is
  // unfolded in it outlast news elsewhere on the page.
  function bring(element, before, after) {
    const old = before.slice(2), wanted = after.slice(2);
    wanted.forEach((child, i) => {
      const there = element.childNodes[i];
      if (i >= old.length) element.append(app.build(child));
      else if (isLike(old[i], child) && isWhole(there, old[i])) bring(there, old[i], child);
      else if (!same(old[i], child)) there.replaceWith(app.build(child));
    });
    while (element.childNodes.length > wanted.length) element.lastChild.remove();
  }

  // Puts a piece of markup into the element with this id; the scroll position stays.
  app.fill = function (id, markup) {
    const place = document.getElementById(id);
    if (!place) return;
    const before = place._markup;
    if (same(before, markup)) return;
    place._markup = markup;
    const root = place.firstChild;
    if (before && markup && isLike(before, markup) && isWhole(root, before)) bring(root, before, markup);
    else place.replaceChildren(...(markup ? [app.build(markup)] : []));
  };
})((window.stepscope = window.stepscope || {}));
