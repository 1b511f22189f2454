"""The left panel: what strikes the eye at this step. The findings, once there are any, stand above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepscope.analysis import Entry, look_at
from stepscope.viewer.markup import Markup, el, note
from stepscope.viewer.numbers import count, short
from stepscope.viewer.views.moment import Moment
from stepscope.viewer.views.names import name_of


def overview(now: Moment) -> Markup:
    """Non-finite tensors, loose ends, weights without gradient, and the extremes among the gradients."""
    seen = look_at(now.trial, now.step, now.iteration)
    trouble = [
        _section("Not finite", "NaN or infinite elements, in the order in which they appeared", seen.non_finite,
                 seen.non_finite_total, _elements, bad=True),
        _section("Without gradient", "trainable parameters that got none in this step, while others did",
                 seen.without_gradient, seen.without_gradient_total, _nothing, bad=True),
        _section("Unconnected", "nothing that was recorded depends on these", seen.unconnected,
                 seen.unconnected_total, _nothing),
    ]  # fmt: skip
    found = [section for section in trouble if section is not None]
    calm = note("No NaN or infinity, no loose end, no parameter without gradient.") if not found else None
    largest = _section("Largest gradients", "root mean square over the elements of a parameter's gradient",
                       seen.largest_gradients, 0, _value)  # fmt: skip
    smallest = _section("Smallest gradients", "root mean square over the elements of a parameter's gradient",
                        seen.smallest_gradients, 0, _value)  # fmt: skip
    title = f"At step {now.step.number}" + (f", {now.step.kind}" if now.step.kind else "")
    return el("div.overview", el("h3", title), *found, calm, largest, smallest)


def _section(
    title: str,
    explained: str,
    entries: Sequence[Entry],
    total: int,
    text: Callable[[Entry], str],
    *,
    bad: bool = False,
) -> Markup | None:
    if not entries:
        return None
    heading = f"{title} ({count(total)})" if total else title
    more = total - len(entries)
    return el(
        "section.bad" if bad else "section",
        el("h4", heading, title=explained),
        *(_line(entry, text(entry)) for entry in entries),
        note(f"and {count(more)} more") if more > 0 else None,
    )


def _line(entry: Entry, text: str) -> Markup:
    act: dict[str, object] = {"node": entry.node, "role": entry.role, "lag": 0, "quantity": entry.quantity}
    if entry.iteration >= 0:
        act["iteration"] = entry.iteration
    name = name_of(entry.node, entry.role)
    label = name if entry.quantity in ("value", "gradient") else f"{name}, {entry.quantity}"
    return el(
        "button.entry", el("span.tensor", el("bdi", label)), el("span.num", text), title=f"{label} {text}", act=act
    )


def _elements(entry: Entry) -> str:
    return count(int(entry.value))


def _value(entry: Entry) -> str:
    return short(entry.value)


def _nothing(entry: Entry) -> str:
    return ""
