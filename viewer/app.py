"""The Dash application: which part of the page is computed from what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, no_update

from stepscope.viewer.answers import Answers, Json
from stepscope.viewer.at import PARTS
from stepscope.viewer.custom import CustomPage
from stepscope.viewer.layout import page
from stepscope.viewer.source import Source

log = logging.getLogger("stepscope.viewer")


def make_app(source: Source, custom: CustomPage | None = None) -> Dash:
    """The application over a folder of recordings.

    Args:
        source: the recordings.
        custom: the user's own page, if there is one.
    """
    app = Dash(
        __name__,
        title=f"{source.title or 'stepscope'} – stepscope",
        update_title="",  # nothing: the tab must not flicker at each poll
        assets_folder=str(Path(str(resources.files("stepscope.viewer"))) / "assets"),
        serve_locally=True,
        on_error=_log_error,
    )
    app.layout = page(custom.title if custom is not None else None)
    answers = Answers(source, custom)
    _connect_server(app, answers)
    _connect_browser(app)
    return app


def _log_error(error: Exception) -> None:
    """A part that fails keeps its last content; the terminal says why."""
    log.error("a part of the page could not be computed", exc_info=error)


_PAGE_OUTPUTS = {
    "steps-chart": ("steps-chart", "figure"),
    "steps-caption": ("steps-caption", "children"),
    "scalars-chart": ("scalars-chart", "figure"),
    "scalars-caption": ("scalars-caption", "children"),
    "network-columns": ("network", "columnDefs"),
    "network-rows": ("network", "rowData"),
    "page-markup": ("page-markup", "data"),
    "custom": ("custom", "children"),
}


def _connect_server(app: Dash, answers: Answers) -> None:
    @app.callback(Output("version", "data"), Input("tick", "n_intervals"), State("version", "data"))
    def poll(_: int | None, known: int | None) -> Any:
        return answers.poll(known)

    @app.callback(
        Output("state", "data"),
        *(Output(f"at-{part}", "data") for part in PARTS),
        Input("wish", "data"),
        Input("version", "data"),
        *(State(f"at-{part}", "data") for part in PARTS),
        prevent_initial_call=True,
    )
    def resolve_wish(wish: Json | None, _: int | None, *keys: Any) -> Any:
        if wish is None:
            return (no_update,) * (1 + len(PARTS))
        state, fresh = answers.state(wish, dict(zip(PARTS, keys, strict=True)))
        return state, *(fresh.get(part, no_update) for part in PARTS)

    def part(name: str, *outputs: Output) -> Callable[[Callable[..., Any]], Any]:
        inputs = (Input(f"at-{name}", "data"), State("state", "data"))
        return app.callback(*outputs, *inputs, prevent_initial_call=True)

    part("graph", Output("drawing", "data"))(lambda key, state: answers.graph(state, key))
    part(
        "table",
        Output("overlay", "data"),
        Output("table", "columnDefs"),
        Output("table", "rowData"),
        Output("overview-markup", "data"),
    )(lambda _, state: answers.table(state))
    part(
        "node",
        Output("inspector-markup", "data"),
        Output("history", "figure"),
        Output("histogram", "figure"),
        Output("neurons-caption", "children"),
        Output("neurons", "columnDefs"),
        Output("neurons", "rowData"),
    )(lambda _, state: answers.node(state))
    part("findings", Output("findings-markup", "data"), Output("diagnosed", "data"))(
        lambda _, state: answers.findings(state)
    )
    # Drawn at once, and again with the findings' marks: the browser sets "marked" when they are known.
    time = (Input("at-time", "data"), Input("marked", "data"), State("state", "data"))
    app.callback(Output("timeline", "figure"), *time, prevent_initial_call=True)(
        lambda key, _, state: answers.timeline(state) if key else no_update
    )
    part("trial", Output("search", "data"), Output("pinned", "data"))(lambda _, state: (answers.nodes(state),) * 2)

    outputs = {name: where for name, where in _PAGE_OUTPUTS.items() if name != "custom" or answers.custom is not None}

    @part("page", *(Output(*where) for where in outputs.values()))
    def show_page(_: Json, state: Json) -> Any:
        found = answers.page(state)
        return tuple(found.get(name, no_update) for name in outputs)

    # Into a store of its own: what comes late must not take the place of a page that came at the same time.
    late = (Output("late-markup", "data"), Input("page-markup", "data"), State("state", "data"))
    app.callback(*late, prevent_initial_call=True)(answers.late_page)


_CHANGES = {
    "trial": "value", "compare": "value", "kind": "value", "iteration": "value", "quantity": "value",
    "sample": "value", "role": "value", "color": "value", "statistic": "value", "step": "value", "search": "value",
    "mode": "value", "log": "value", "pinned": "value",
}  # fmt: skip
_CLICKS = {
    "timeline": "clickData", "history": "clickData", "steps-chart": "clickData", "scalars-chart": "clickData",
    "table": "cellClicked", "network": "cellClicked",
}  # fmt: skip


def _connect_browser(app: Dash) -> None:
    """Everything that needs no data happens in the browser: see ``assets/page.js``."""

    def browser(function: str, *arguments: Any, **more: Any) -> None:
        app.clientside_callback(ClientsideFunction("stepscope", function), *arguments, **more)

    browser("fromAddress", Output("wish", "data"), Input("url", "search"))
    browser("control", *(Input(id, prop) for id, prop in _CHANGES.items()), prevent_initial_call=True)
    browser("click", *(Input(id, prop) for id, prop in _CLICKS.items()), prevent_initial_call=True)
    browser("show", Input("state", "data"), prevent_initial_call=True)
    browser("graph", Input("drawing", "data"), Input("overlay", "data"), prevent_initial_call=True)
    browser("follow", Input("table", "rowData"), prevent_initial_call=True)
    for target in ("overview", "inspector", "findings"):
        browser("panel", Input(f"{target}-markup", "data"), State(target, "id"), prevent_initial_call=True)
    for chart in ("steps-chart", "scalars-chart"):
        browser("height", Output(chart, "style"), Input(chart, "figure"), prevent_initial_call=True)
    browser("diagnosed", Input("diagnosed", "data"), prevent_initial_call=True)
    browser("pageMarkup", Input("page-markup", "data"), prevent_initial_call=True)
    late = (Input("late-markup", "data"), State("page-markup", "data"))
    browser("lateMarkup", *late, prevent_initial_call=True)
