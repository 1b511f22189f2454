"""Beside the findings: which numbers go with the loss, with a kind of step, with a category of samples."""

from __future__ import annotations

from itertools import groupby

from stepscope.analysis.hints import Hint, Hints, Relation
from stepscope.viewer.markup import Markup, el, note
from stepscope.viewer.numbers import count

_TITLES: dict[Relation, str] = {
    "sample": "goes with the loss of a sample, within a batch",
    "with": "moves with the loss",
    "before": "moves one recorded step before the loss",
    "spike": "unusual just before the loss jumps",
    "category": "different for a category of samples",
    "kind": "different for a kind of step",
}


def pending() -> Markup:
    """What stands there until the hints are known."""
    return el("section", el("h3", "Hints"), note("Comparing every statistic with the loss…"))


def hints_section(hints: Hints) -> Markup | None:
    """The hints by relation, the strongest first; None if there was nothing to compare."""
    if not hints.comparisons:
        return None
    if not hints.hints:
        text = f"Nothing goes with the loss beyond what {count(hints.comparisons)} comparisons give by accident."
        return el("section", el("h3", "Hints"), note(text))
    explained = (
        f"Out of {count(hints.comparisons)} comparisons, those that are hardly an accident (1% over all of them). They "
        "may be causes or effects."
    )
    groups = groupby(hints.hints, lambda hint: hint.relation)
    return el("section", el("h3", "Hints"), note(explained), *(_group(name, list(found)) for name, found in groups))


def _group(relation: Relation, hints: list[Hint]) -> Markup:
    return el("div.overview", el("section", el("h4", _TITLES[relation]), *map(_line, hints)))


def _line(hint: Hint) -> Markup:
    what = hint.statistic if hint.quantity == "value" else f"{hint.statistic} of the {hint.quantity}"
    strength = f"{hint.strength:+.2f}".replace("-", "−")
    measured = "rank-biserial correlation" if hint.relation in ("kind", "spike") else "rank correlation"
    group = el("span.group", hint.group) if hint.group else None
    name = el("span.tensor", el("bdi", hint.node))
    number = el("span.num", strength, title=f"{measured}, from −1 to 1, of {count(hint.observations)} observations")
    return el("button.entry", name, el("span.what", what), group, number, act=_curve(hint))


def _curve(hint: Hint) -> dict[str, object]:
    return {"node": hint.node, "view": "inspect", "quantity": hint.quantity, "statistic": hint.statistic, "role": ""}
