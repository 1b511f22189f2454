// The keyboard. The graph's own keys (arrows, Enter, + - 0) are in graph-keys.js.
(function (app) {
  "use strict";
  const KEYS = [
    ["← → ↑ ↓", "walk the graph, along its edges"],
    ["Enter", "open or close the selected module"],
    ["Shift + ← →", "previous, next recorded step"],
    ["Alt + ← →", "previous, next iteration"],
    ["/", "find a tensor"],
    ["f", "the next finding"],
    ["Esc", "clear the selection"],
    ["+  −  0", "zoom, fit the graph"],
    ["?", "this list"],
  ];

  // Whether a key belongs to something that is being typed into or walked through.
  app.isTyping = function (target) {
    return Boolean(
      target && target.closest &&
      target.closest("input, textarea, select, [contenteditable=true], [role=combobox], [role=listbox], .ag-root, dialog"),
    );
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || app.isTyping(event.target)) return;
    const way = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
    if (way && (event.shiftKey || event.altKey)) {
      app.walk(event.shiftKey ? "step" : "iteration", way);
    } else if (event.key === "/") {
      document.getElementById("search").focus();
    } else if (event.key === "f") {
      nextFinding();
    } else if (event.key === "Escape") {
      app.change({ node: "" });
    } else if (event.key === "?") {
      app.help();
    } else {
      return;
    }
    event.preventDefault();
  });

  // Goes to the place of the finding below the one that is selected, and from the last to the first.
  let visited = null;
  function nextFinding() {
    const all = [...document.querySelectorAll("#findings .finding")];
    const here = all.findLastIndex((finding) => finding.classList.contains("here"));
    const from = here >= 0 ? here : all.indexOf(visited); // some are of no tensor
    visited = all[(from + 1) % all.length];
    if (visited) visited.click();
  }

  app.help = function () {
    let dialog = document.getElementById("help");
    if (!dialog) {
      dialog = document.createElement("dialog");
      dialog.id = "help";
      const rows = KEYS.map(([key, text]) => ["tr", {}, ["td", {}, ["code", {}, key]], ["td", {}, text]]);
      dialog.append(app.build(["div", {}, ["h3", {}, "Keys"], ["table", {}, ["tbody", {}, ...rows]]]));
      dialog.addEventListener("click", () => dialog.close());
      document.body.append(dialog);
    }
    if (dialog.open) dialog.close();
    else dialog.showModal();
  };
})((window.stepscope = window.stepscope || {}));
