"""What a person looks at: one frozen record, the same in the address bar, in the browser and in the callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

VIEWS = ("findings", "inspect", "steps", "scalars", "network", "notes", "config", "custom")
ALL = "all"
"""The sample choice that means: over all elements."""


@dataclass(frozen=True)
class Selection:
    """A wish, or what became of it.

    Attributes:
        trial, compare: names of trials; empty for none.
        view: the page; an address that names a node and no page means ``"inspect"``.
        kind: a kind of step; empty for any.
        step, iteration: numbers; None for the last.
        node, role: what is selected in the graph; ``lag`` is how many iterations ago the role was made.
        quantity: ``"value"``, ``"gradient"``, ...
        sample: ``"all"``, one of the batch aggregates, or ``"sample:0"``.
        color: ``"type"``, a statistic, or ``"change"`` against the compared trial.
        statistic: which statistic curves show.
        opened: paths of opened modules; None lets the graph decide.
        mode: of the Over steps page: ``"lines"`` or ``"heat"``.
        pinned: nodes whose curves are drawn besides the selected one's.
        log: whether value axes are logarithmic; None: where the numbers ask for it.
        follow: whether the step follows a live trial.
    """

    trial: str = ""
    compare: str = ""
    view: str = "findings"
    kind: str = ""
    step: int | None = None
    iteration: int | None = None
    node: str = ""
    role: str = ""
    lag: int = 0
    quantity: str = "value"
    sample: str = ALL
    color: str = "type"
    statistic: str = "std"
    opened: tuple[str, ...] | None = None
    mode: str = "lines"
    pinned: tuple[str, ...] = ()
    log: bool | None = None
    follow: bool = False

    def with_changes(self, **changes: Any) -> Selection:
        return replace(self, **changes)


_DEFAULT = Selection()


def to_query(selection: Selection) -> str:
    """The selection as the query part of an address; what has its default value is left out.

    >>> to_query(Selection(trial="bugged", step=3))
    'trial=bugged&step=3'
    """
    pairs: list[tuple[str, str]] = []
    for field in fields(Selection):
        value = getattr(selection, field.name)
        if value == getattr(_DEFAULT, field.name) and not (field.name == "view" and selection.node):
            continue
        if isinstance(value, tuple):
            pairs += [(field.name, item) for item in (value or ("",))]
        else:
            pairs.append((field.name, str(int(value)) if isinstance(value, bool) else str(value)))
    return urlencode(pairs)


def from_query(query: str) -> Selection:
    """The selection in an address; what makes no sense keeps its default.

    >>> from_query("?trial=bugged&step=3&view=nonsense").step
    3
    """
    given = parse_qs(query.lstrip("?"), keep_blank_values=True)
    return from_json({key: values if key in ("opened", "pinned") else values[-1] for key, values in given.items()})


def from_json(data: Mapping[str, Any] | None) -> Selection:
    """The selection in a browser's store; what makes no sense keeps its default."""
    changes: dict[str, Any] = {}
    for field in fields(Selection):
        if data is not None and field.name in data:
            value = _parsed(field.name, data[field.name])
            if value is not _NOTHING:
                changes[field.name] = value
    selection = Selection(**changes)
    if changes.get("node") and "view" not in changes:
        return replace(selection, view="inspect")
    return selection if selection.view in VIEWS else replace(selection, view=_DEFAULT.view)


def to_json(selection: Selection) -> dict[str, Any]:
    """The selection as plain values for a browser's store."""
    return asdict(selection)


_NOTHING = object()


def _parsed(name: str, value: Any) -> Any:
    if name in ("step", "iteration", "lag"):
        return _number(value, allow_none=name != "lag")
    if name in ("opened", "pinned"):
        if value is None:
            return None if name == "opened" else ()
        items = [value] if isinstance(value, str) else value
        return tuple(str(item) for item in items if item) if isinstance(items, (list, tuple)) else _NOTHING
    if name in ("log", "follow"):
        if name == "log" and value in (None, ""):
            return None
        return value in (True, 1, "1", "True", "true")
    return value if isinstance(value, str) else _NOTHING


def _number(value: Any, *, allow_none: bool) -> Any:
    if value is None or value == "":
        return None if allow_none else _NOTHING
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return _NOTHING
    return number if -(2**53) < number < 2**53 else _NOTHING
