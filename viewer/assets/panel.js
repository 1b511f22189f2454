// Turns the lists of viewer/markup.py into elements. Names of tensors are the user's: they only ever become text.
(function (app) {
  "use strict";
  const TAGS = new Set(
    ("div span bdi p b h2 h3 h4 pre code button table thead tbody tr th td dl dt dd section article").split(" "));

  app.build = function (markup) {
    if (typeof markup === "string") return document.createTextNode(markup);
    const [tag, attributes, ...children] = markup;
    const [name, ...classes] = tag.split(".");
    if (!TAGS.has(name)) throw new Error("no such element: " + name);
    const element = document.createElement(name);
    if (classes.length) element.className = classes.join(" ");
    if (name === "button") element.type = "button";
    if (attributes.title) element.title = attributes.title;
    if (attributes.act) {
      element.dataset.act = "";
      element.addEventListener("click", () => app.change(attributes.act));
    }
    for (const child of children) element.append(app.build(child));
    return element;
  };

  // Puts a piece of markup into the element with this id; the scroll position stays.
  app.fill = function (id, markup) {
    const place = document.getElementById(id);
    if (!place) return;
    const text = JSON.stringify(markup);
    if (place._markup === text) return;
    place._markup = text;
    place.replaceChildren(...(markup ? [app.build(markup)] : []));
  };
})((window.stepscope = window.stepscope || {}));
