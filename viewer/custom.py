"""The user's own page: a Python file with a function ``visualize(trial, selection)``, read again when it changes."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dash import dcc, html

from stepscope.store import Trial
from stepscope.viewer.selection import Selection


class CustomPage:
    """A page from a file of the user's.

    The file's ``visualize(trial, selection)`` gets a ``stepscope.store.Trial`` and the ``Selection`` (``trial``,
    ``step``, ``iteration``, ``node``, ``role``, ...), and returns a plotly figure, a text, a Dash component, or a list
    of these.

    Raises:
        ValueError: there is no such file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"there is no file {self.path} to make a page of; give a Python file with visualize(...)")
        self.title = self.path.stem.replace("_", " ")
        self._changed: float | None = None
        self._function: Callable[[Trial, Selection], Any] | None = None

    @property
    def changed(self) -> float:
        """When the file was last changed; 0 if it is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def render(self, trial: Trial, selection: Selection) -> list[Any]:
        """What the function returned, as components; its exception, with where it happened, if it raised one."""
        try:
            return [_component(item) for item in _as_list(self._load()(trial, selection))]
        except Exception:  # the user's code may raise anything
            return [html.Pre(_shortened(traceback.format_exc(), self.path), className="traceback")]

    def _load(self) -> Callable[[Trial, Selection], Any]:
        if self._function is None or self.changed != self._changed:
            self._changed = self.changed
            names: dict[str, Any] = {"__name__": self.path.stem, "__file__": str(self.path)}
            exec(compile(self.path.read_text("utf-8"), str(self.path), "exec"), names)
            function = names.get("visualize")
            if not callable(function):
                raise TypeError(f"{self.path} has no function visualize(trial, selection)")
            self._function = function
        return self._function


def _as_list(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (list, tuple)) else [result]


def _component(item: Any) -> Any:
    if isinstance(item, str):
        return html.Pre(item)
    if hasattr(item, "to_plotly_json") and hasattr(item, "add_trace"):
        return dcc.Graph(figure=item)
    if isinstance(item, dict) and "data" in item:
        return dcc.Graph(figure=item)
    return item


def _shortened(text: str, path: Path) -> str:
    """The traceback from the user's file on."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if str(path) in line), 1)
    return "\n".join(["The page's code raised:", *lines[first:]])
