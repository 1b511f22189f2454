"""The page, once and for all: callbacks set what is in it, and never rebuild it."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from stepscope.viewer.figures import empty
from stepscope.viewer.grids import grid

PAGES = (
    ("findings", "Findings"),
    ("inspect", "Inspect"),
    ("steps", "Over steps"),
    ("scalars", "Scalars"),
    ("network", "Network"),
    ("notes", "Notes"),
    ("config", "Config"),
)
STORES = (
    "wish", "state", "version", "at-graph", "at-table", "at-node", "at-time", "at-page", "at-trial",
    "at-findings", "findings-markup", "diagnosed", "marked",
    "drawing", "overlay", "overview-markup", "inspector-markup", "page-markup", "late-markup",
)  # fmt: skip
SELECTORS = {
    "kind": ("step kind", 124),
    "iteration": ("iteration", 58),
    "quantity": ("quantity", 118),
    "sample": ("over", 138),
    "role": ("role", 138),
    "color": ("colour by", 112),
}
POLL_MS = 2000


def page(custom_title: str | None) -> dmc.MantineProvider:
    """The whole page.

    Args:
        custom_title: the name of the user's own page; None if there is none.
    """
    return dmc.MantineProvider(
        id="provider",
        forceColorScheme="light",
        children=[
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="tick", interval=POLL_MS),
            *(dcc.Store(id=name) for name in STORES),
            html.Div(
                id="app",
                children=[
                    _top(custom_title),
                    _bar(),
                    html.Div(id="notices", role="status"),
                    html.Div(_chart("timeline"), id="timeline-frame"),
                    html.Main([_inspect(), *_pages(custom_title)]),
                    html.Div(id="welcome"),
                ],
            ),
        ],
    )


def _top(custom_title: str | None) -> html.Header:
    pages = [*PAGES, *([("custom", custom_title)] if custom_title else [])]
    return html.Header(
        [
            html.Div([html.Span("step"), html.B("scope")], id="brand"),
            html.Div(id="badge"),
            _selector("trial", "trial", 150, searchable=True, limit=200),
            _labelled(
                "compare with",
                _select("compare", 140, clearable=True, placeholder="nothing", searchable=True, limit=200),
                "compare-box",
            ),
            html.Nav([html.Button(title, **_data(page=name)) for name, title in pages], id="pages"),
            html.Button(
                "follow", id="follow", title="stay at the newest step of a live trial", **_data(toggle="follow")
            ),
            html.Button("◐", id="theme-switch", title="light or dark", **_data(theme="")),
            html.Button("?", id="help-switch", title="the keys", **_data(help="")),
        ]
    )


def _bar() -> html.Div:
    others = [_selector(name, *SELECTORS[name]) for name in SELECTORS if name != "kind"]
    search = _select("search", 190, searchable=True, placeholder="find a tensor  ( / )", limit=40)
    return html.Div([_selector("kind", *SELECTORS["kind"]), _steps(), *others, html.Div(search, id="find")], id="bar")


def _steps() -> html.Div:
    box = dcc.Input(id="step", type="number", debounce=True, min=0)
    buttons = [_walk("step", way, sign) for way, sign in (("first", "«"), ("previous", "‹"))]
    after = [_walk("step", way, sign) for way, sign in (("next", "›"), ("last", "»"))]
    return _labelled("step", html.Div([*buttons, box, *after], className="walker"), "step-box")


def _selector(name: str, label: str, width: int, **more: Any) -> html.Div:
    """A select between two buttons that go to the previous and the next option."""
    inner = [_walk(name, "previous", "‹"), _select(name, width, **more), _walk(name, "next", "›")]
    return _labelled(label, html.Div(inner, className="walker"), f"{name}-box")


def _walk(name: str, way: str, sign: str) -> html.Button:
    return html.Button(sign, title=f"{way} {name}", className="walk", **_data(walk=name, way=way))


def _labelled(label: str, control: Any, id: str) -> html.Div:
    return html.Div([html.Label(label), control], className="labelled", id=id)


def _select(id: str, width: int, **more: Any) -> dmc.Select:
    return dmc.Select(
        id=id,
        data=[],
        w=width,
        size="xs",
        allowDeselect=False,
        comboboxProps={"width": "max-content", "position": "bottom-start"},
        maxDropdownHeight=420,
        **{"aria-label": id, **more},
    )


def _data(**attributes: str) -> dict[str, Any]:
    return {f"data-{name}": value for name, value in attributes.items()}


def _chart(id: str) -> dcc.Graph:
    config: Any = {"displaylogo": False, "displayModeBar": False, "scrollZoom": False}
    return dcc.Graph(id=id, figure=empty(), responsive=True, config=config, className="chart")


def _inspect() -> html.Div:
    neurons = html.Div(grid("neurons", row_height=22), id="neurons-grid")
    return _view(
        "inspect",
        html.Aside([html.Div(id="findings"), html.Div(id="overview")], id="left"),
        html.Div(
            [html.Div(id="graph"), html.Div(id="refused"), html.Div(grid("table"), id="table-frame")], id="middle"
        ),
        html.Aside(
            [
                html.Div(id="inspector"),
                html.Div(_chart("history"), className="chart-frame", id="history-frame"),
                html.Div(_chart("histogram"), className="chart-frame", id="histogram-frame"),
                html.Div([html.Div(id="neurons-caption"), neurons], id="neurons-frame"),
            ],
            id="right",
        ),
    )


def _pages(custom_title: str | None) -> list[html.Div]:
    views = [
        _view("steps", html.Div(_tools(), className="tools"), _caption("steps"), _chart_page("steps-chart")),
        _view("findings"),
        _view("scalars", _caption("scalars"), _chart_page("scalars-chart")),
        _view("network", _caption("network"), html.Div(grid("network"), className="grid-page")),
        _view("notes"),
        _view("config"),
    ]
    if custom_title is not None:
        views.append(_view("custom", html.Div(id="custom", className="custom")))
    return views


def _view(name: str, *children: Any) -> html.Div:
    return html.Div(list(children), id=f"page-{name}", className="view")


def _caption(name: str) -> html.Div:
    return html.Div(id=f"{name}-caption", className="caption")


def _chart_page(id: str) -> html.Div:
    return html.Div(_chart(id), className="chart-page")


def _tools() -> list[html.Div]:
    nodes = dmc.MultiSelect(
        id="pinned",
        data=[],
        searchable=True,
        clearable=True,
        limit=40,
        size="xs",
        maxValues=24,
        placeholder="add a node",
        **{"aria-label": "nodes"},
    )
    return [
        _labelled("draw", _switch("mode", ("lines", "lines"), ("heat", "heat map")), "mode-box"),
        _labelled("statistic", _select("statistic", 130), "statistic-box"),
        _labelled("value axis", _switch("log", ("auto", "auto"), ("linear", "linear"), ("log", "log")), "log-box"),
        _labelled("nodes", nodes, "pinned-box"),
    ]


def _switch(id: str, *options: tuple[str, str]) -> dmc.SegmentedControl:
    data = [{"value": value, "label": label} for value, label in options]
    return dmc.SegmentedControl(id=id, size="xs", value=options[0][0], data=data)
