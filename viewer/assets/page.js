// The page's own behaviour: a wish goes to the server, the resolved state comes back and is shown.
(function (app) {
  "use strict";
  const SELECTS = ["trial", "compare", "kind", "iteration", "quantity", "sample", "role", "color", "statistic"];
  const ANY_KIND = "\u2217";
  const ROOM = 14; // letters that a select surely shows
  const known = {}; // what the controls were last told
  app.wish = {};
  app.state = null;

  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const element = (id) => document.getElementById(id);

  // ------------------------------------------------------------------ wishes

  function panelSize() {
    const box = element("graph") && element("graph").getBoundingClientRect();
    if (!box || box.width < 50) return app.wish.size || [900, 380];
    return [Math.round(box.width / 50) * 50, Math.round(box.height / 50) * 50];
  }

  // Asks for something else. The first key of `changes` is what the person chose.
  app.change = function (changes) {
    const opened = app.state ? app.state.selection.opened : null;
    app.wish = { ...app.wish, opened, ...changes, changed: Object.keys(changes)[0], size: panelSize() };
    set("wish", { data: app.wish });
  };

  function fromQuery(search) {
    const wish = {};
    for (const [name, value] of new URLSearchParams(search)) {
      if (name === "opened" || name === "pinned") (wish[name] = wish[name] || []).push(value);
      else wish[name] = value;
    }
    return wish;
  }

  // ------------------------------------------------------------------ controls

  function splitRole(value) {
    const match = /^(.*)@(\d+)$/s.exec(value);
    return match ? { role: match[1], lag: Number(match[2]) } : { role: value, lag: 0 };
  }

  const CONTROLS = {
    kind: (value) => ({ kind: value === ANY_KIND ? "" : value }),
    iteration: (value) => ({ iteration: Number(value) }),
    compare: (value) => ({ compare: value || "" }),
    role: splitRole,
    log: (value) => ({ log: value === "auto" ? null : value === "log" }),
    pinned: (value) => ({ pinned: value || [] }),
  };

  function control(id, value) {
    if (!app.state || value === undefined || same(value, known[id + ".value"])) return;
    known[id + ".value"] = value;
    if (id === "search") {
      if (value) {
        app.change({ node: value, ...(app.wish.view === "steps" ? {} : { view: "inspect" }) });
        setTimeout(() => set("search", { value: (known["search.value"] = null) }), 50);
      }
    } else if (id === "step") {
      if (Number.isFinite(value)) app.change({ step: value, follow: false });
    } else if (value !== null || id === "compare" || id === "pinned") {
      app.change(id in CONTROLS ? CONTROLS[id](value) : { [id]: value });
    }
  }

  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  function tell(id, props) {
    const news = {};
    for (const [name, value] of Object.entries(props)) {
      if (same(known[id + "." + name], value)) continue;
      known[id + "." + name] = news[name] = value;
    }
    if (Object.keys(news).length) set(id, news);
  }

  // ------------------------------------------------------------------ previous and next

  app.walk = function (name, way) {
    if (!app.state) return;
    if (name === "step") {
      const step = app.state.neighbours[way];
      if (step !== null && step !== undefined) app.change({ step, follow: false });
      return;
    }
    const target = neighbour(name, way);
    if (target !== null) app.change(name in CONTROLS ? CONTROLS[name](target) : { [name]: target });
  };

  function neighbour(name, way) {
    const options = (app.state.options[name] || []).map(([value]) => value);
    const at = options.indexOf(app.state.values[name]) + (way === "next" ? 1 : -1);
    return at >= 0 && at < options.length ? options[at] : null;
  }

  function markWalks() {
    for (const button of document.querySelectorAll("[data-walk]")) {
      const { walk, way } = button.dataset;
      const goal = walk === "step" ? app.state.neighbours[way] : neighbour(walk, way);
      const here = walk === "step" && goal === app.state.selection.step;
      button.disabled = goal === null || goal === undefined || here;
    }
  }

  // ------------------------------------------------------------------ showing a state

  function address(state) {
    const query = state.query ? "?" + state.query : location.pathname;
    if (location.search === query || (!location.search && !state.query)) return;
    const before = app.shown || {};
    const now = state.selection;
    const far = app.shown && ["trial", "node", "view"].some((name) => before[name] !== now[name]);
    history[far ? "pushState" : "replaceState"](null, "", query);
  }

  function showControls(state) {
    for (const id of SELECTS) {
      const options = state.options[id];
      if (!options) continue;
      const value = state.values[id] === "" && id === "compare" ? null : state.values[id];
      tell(id, { data: options.map(([value, label]) => ({ value, label })), value });
      const box = element(id + "-box");
      if (!box) continue;
      if (id !== "compare") box.classList.toggle("single", options.length < 2);
      const label = (options.find(([option]) => option === value) || [])[1] || "";
      box.title = label.length > ROOM ? label : ""; // it may be cut
    }
    const { step, mode, log, pinned } = state.selection;
    tell("step", { value: step });
    tell("mode", { value: mode });
    tell("log", { value: log === null ? "auto" : log ? "log" : "linear" });
    tell("pinned", { value: [...pinned] });
    markWalks();
  }

  function showView(state) {
    const { view, follow, compare } = state.selection;
    const root = element("app");
    root.dataset.view = view;
    root.classList.toggle("has-welcome", Boolean(state.welcome));
    root.classList.toggle("is-live", state.live);
    root.classList.toggle("is-compared", Boolean(compare));
    root.classList.toggle("has-tensor", state.recorded);
    for (const page of document.querySelectorAll(".view")) page.hidden = page.id !== "page-" + view;
    for (const tab of document.querySelectorAll("[data-page]")) {
      if (tab.dataset.page === view) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    element("follow").setAttribute("aria-pressed", String(follow));
    if (view !== (app.shown || {}).view) setTimeout(() => window.dispatchEvent(new Event("resize")), 30);
  }

  function moveCursor(step) {
    const chart = document.querySelector("#timeline .js-plotly-plot");
    const shapes = chart && chart.layout && chart.layout.shapes;
    if (window.Plotly && shapes && shapes.length && step !== null && shapes[0].x0 !== step) {
      window.Plotly.relayout(chart, { "shapes[0].x0": step, "shapes[0].x1": step });
    }
  }

  // The graph's overlay with the findings' marks, as far as they are known for the trial that is shown.
  function marked() {
    const known = app.found && app.found.trial === app.state.selection.trial;
    return { ...app.overlay, marks: known ? app.found.marks : {} };
  }

  function asked(selection) {
    return selection.node ? { node: selection.node, role: selection.role, lag: selection.lag } : null;
  }

  // ------------------------------------------------------------------ the table's row

  function markRow() {
    const api = window.dash_ag_grid && window.dash_ag_grid.getApi && element("table") && quietApi();
    if (!api || !app.state) return;
    const { node, role, lag } = app.state.selection;
    const key = node + "\n" + role + "\n" + lag;
    if (api._stepscope === key && api.getSelectedNodes().length) return;
    api.deselectAll();
    const row = node ? api.getRowNode(key) : null;
    if (row) {
      row.setSelected(true);
      if (!element("table-frame").matches(":hover")) api.ensureNodeVisible(row, "middle");
    }
    api._stepscope = key;
  }

  function quietApi() {
    try {
      return window.dash_ag_grid.getApi("table");
    } catch {
      return null; // not mounted yet
    }
  }

  // The findings of the selected tensor say in full what they are, and what to try.
  function markFindings() {
    const node = app.state && app.state.selection.node;
    for (const entry of document.querySelectorAll("#findings .finding")) {
      entry.classList.toggle("here", Boolean(node) && entry.dataset.act === node);
    }
  }

  // ------------------------------------------------------------------ what Dash calls

  const clicks = {
    timeline: (point) => ({ step: Number(point.x), follow: false, ...(shows("findings") ? { view: "inspect" } : {}) }),
    history: (point) => ({ step: Number(point.x), follow: false }),
    "scalars-chart": (point) => ({ step: Number(point.x), view: "inspect", follow: false }),
    "steps-chart": (point) => {
      const trace = traceOf("steps-chart", point);
      const node = trace.type === "heatmap" ? point.y : trace.meta;
      return { step: Number(point.x), follow: false, view: "inspect", ...(node ? { node: String(node) } : {}) };
    },
  };

  const shows = (view) => element("app").dataset.view === view;

  function traceOf(id, point) {
    const chart = document.querySelector("#" + id + " .js-plotly-plot");
    return (chart && chart.data[point.curveNumber]) || {};
  }

  window.dash_clientside = Object.assign(window.dash_clientside || {}, { stepscope: {
    fromAddress(search) {
      if (app.state && location.search === "?" + app.state.query) return window.dash_clientside.no_update;
      app.wish = { ...fromQuery(search || ""), changed: "", size: panelSize() };
      return app.wish;
    },

    control(...values) {
      const { triggered, inputs_list } = window.dash_clientside.callback_context;
      const ids = inputs_list.map((input) => input.id);
      for (const { prop_id } of triggered) {
        const id = prop_id.split(".")[0];
        control(id, values[ids.indexOf(id)]);
      }
    },

    click(...values) {
      const { triggered } = window.dash_clientside.callback_context;
      for (const { prop_id, value } of triggered) {
        const id = prop_id.split(".")[0];
        if (!value) continue;
        if (id === "table") {
          const [node, role, lag] = value.rowId.split("\n");
          app.change({ node, role, lag: Number(lag) });
        } else if (id === "network") {
          app.openParameter(value.rowId);
        } else if (value.points && value.points.length) {
          app.change(clicks[id](clickedPoint(id, value.points)));
        }
      }
    },

    show(state) {
      if (!state) return;
      const { selection } = state;
      app.state = state;
      if (!app.wish.view) app.wish.view = state.selection.view; // the server chose the page; it stays
      address(state);
      showView(state);
      showControls(state);
      app.fill("badge", state.badge);
      app.fill("notices", state.notices);
      app.fill("welcome", state.welcome);
      if (app.graph) app.graph.select("graph", asked(selection));
      moveCursor(selection.step);
      markRow();
      markFindings();
      app.shown = selection;
    },

    graph(drawing, overlay) {
      if (!drawing || !app.graph || !app.state) return;
      app.overlay = overlay || {};
      app.graph.mount("graph", drawing, marked(), asked(app.state.selection), {
        select: (node, role, lag) => app.change(node ? { node, role, lag } : { node: "" }),
        toggle: (module) => {
          const opened = new Set(drawing.opened);
          if (opened.has(module)) {
            for (const path of [...opened]) if (path === module || path.startsWith(module + ".")) opened.delete(path);
          } else opened.add(module);
          app.change({ opened: [...opened] });
        },
      });
      const { refused } = drawing;
      const text = "Not opened, as there would be too many boxes: " + refused.join(", ");
      app.fill("refused", refused.length ? ["p.note", {}, text] : null);
    },

    follow() {
      setTimeout(markRow, 60);
    },

    // A chart is at least as high as its figure says: many rows of a heat map do not fit into the page.
    height(figure) {
      return { height: `max(100%, ${(figure.layout && figure.layout.height) || 0}px)` };
    },

    panel(markup, id) {
      app.fill(id, markup);
      if (id === "findings") markFindings();
    },

    diagnosed(found) {
      app.found = found;
      set("marked", { data: `${found.trial}, ${found.when}` });
      if (app.graph) app.graph.setOverlay("graph", marked());
    },

    pageMarkup(data) {
      if (data) app.fill(data.into, data.markup);
    },

    lateMarkup(late, page) {
      if (late && page && same(late.of, page.of)) app.fill(late.into, late.markup);
    },
  } });

  function clickedPoint(id, points) {
    return (id === "timeline" && points.find((point) => traceOf(id, point).name === "recorded")) || points[0];
  }

  app.openParameter = function (rowId) {
    const [kind, ...rest] = rowId.split(":");
    const path = kind === "p" ? rest[rest.length - 1] : rest.join(":");
    app.change({ node: path, view: "inspect", role: "" });
  };

  // ------------------------------------------------------------------ buttons that are no Dash inputs

  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button");
    if (!button) return;
    const { walk, way, page, toggle, theme, help } = button.dataset;
    if (walk) app.walk(walk, way);
    else if (page) app.change({ view: page });
    else if (toggle === "follow" && app.state) app.change({ follow: !app.state.selection.follow });
    else if (theme !== undefined) app.theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    else if (help !== undefined) app.help();
  });

  // ------------------------------------------------------------------ light and dark

  app.theme = function (theme) {
    document.documentElement.dataset.theme = theme;
    document.body.dataset.agThemeMode = theme;
    set("provider", { forceColorScheme: theme });
    try {
      localStorage.setItem("stepscope-theme", theme);
    } catch {
      // private windows may forbid it; the choice then lasts as long as the page
    }
  };

  function wantedTheme() {
    let stored = null;
    try {
      stored = localStorage.getItem("stepscope-theme");
    } catch {
      // as above
    }
    if (stored === "light" || stored === "dark") return stored;
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  (function whenReady() {
    if (!element("app")) return setTimeout(whenReady, 20);
    app.theme(wantedTheme());
  })();

  // ------------------------------------------------------------------ polling, and a server that is gone

  document.addEventListener("visibilitychange", () => set("tick", { disabled: document.hidden }));

  // What the page asks by itself, again and again or for later, is nothing that a person waits for.
  const QUIET = ['"output":"version.data"', '"output":"late-markup.data"'];
  let waiting = 0;

  function busy(change) {
    waiting += change;
    document.documentElement.classList.toggle("is-busy", waiting > 0);
  }

  const fetchPlain = window.fetch;
  window.fetch = async function (...request) {
    const asked = String((request[1] || {}).body || "");
    const awaited = asked.startsWith("{") && !QUIET.some((part) => asked.includes(part)) ? 1 : 0;
    busy(awaited);
    try {
      const response = await fetchPlain.apply(this, request);
      document.documentElement.classList.remove("server-gone");
      return response;
    } catch (error) {
      document.documentElement.classList.add("server-gone");
      throw error;
    } finally {
      busy(-awaited);
    }
  };
})((window.stepscope = window.stepscope || {}));
