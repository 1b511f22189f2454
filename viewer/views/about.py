"""Beside the findings: what this trial is, what recording it cost, and how it differs from the compared one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stepscope.analysis.divergence import Divergence
from stepscope.analysis.layers_apart import LayerDifference, layers_apart
from stepscope.store import Trial
from stepscope.viewer.markup import Markup, el, note
from stepscope.viewer.numbers import count, duration, short, size
from stepscope.viewer.views.texts import cost_of

_MOST_DIFFERENCES = 8
_MOST_OTHERS, _MOST_LAYERS = 5, 4


def about(trial: Trial) -> Markup:
    """The trial in a few lines; all of it is on the page of the config."""
    return el("section", el("h3", "This trial"), _facts(_lines(trial)), _left_out(trial))


def against(trial: Trial, other: Trial, parted: Divergence | None, *, looked_at: int) -> Markup:
    """How the compared trial differs: in its config, and the first tensor in which the two part.

    Args:
        parted: the first difference, if there is one.
        looked_at: how many common steps were looked at.
    """
    return el(
        "section",
        el("h3", f"Against {other.name}"),
        _facts(_different_config(trial, other)) or note("The config is the same."),
        different_layers(trial, other),
        parting(parted, looked_at=looked_at),
    )


def _lines(trial: Trial) -> list[tuple[str, str]]:
    steps = trial.steps
    lines = [("state", trial.state), ("recorded", f"{count(len(steps))} steps, {steps[0]} to {count(int(steps[-1]))}")]
    kinds = [f"{kind or '(no kind)'} ({count(trial.step_kinds.count(kind))})" for kind in trial.kinds]
    if len(kinds) > 1:
        lines.append(("kinds", ", ".join(kinds[:6]) + (", …" if len(kinds) > 6 else "")))
    if trial.end is not None:
        lines.append(("took", duration(trial.end.time - trial.info.started)))
    cost = cost_of(trial)
    if cost is not None:
        least = "at least " if cost.get("is_lower_bound") else ""
        spent, beside = (duration(float(cost.get(name, 0))) for name in ("seconds", "writing"))
        lines.append(("recording", f"{least}{spent} of training, {beside} on a thread beside it"))
    lines.append(("on disk", size(trial.bytes)))
    return lines


def _left_out(trial: Trial) -> Markup | None:
    if not trial.messages:
        return None
    text = f"The recorder left something out or changed its plan ({count(len(trial.messages))} messages)"
    return el("button.link", text, act={"view": "notes"})


def _facts(lines: list[tuple[str, str]]) -> Markup | None:
    if not lines:
        return None
    return el("dl.facts", *(el("div", el("dt", name), el("dd", text, title=text)) for name, text in lines))


def _different_config(trial: Trial, other: Trial) -> list[tuple[str, str]]:
    mine, theirs = trial.config, other.config
    names = [name for name in dict.fromkeys([*mine, *theirs]) if _text(mine, name) != _text(theirs, name)]
    return [(name, f"{_text(mine, name)}, there {_text(theirs, name)}") for name in names[:_MOST_DIFFERENCES]]


def _text(values: Any, name: str) -> str:
    if name not in values:
        return "–"
    value = values[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def comparable(names: Sequence[str], trial: Trial) -> Markup | None:
    """The newest other trials, each a click away from being compared; None if there is none.

    Args:
        names: of all trials, the oldest first.
    """
    others = [name for name in reversed(names) if name != trial.name][:_MOST_OTHERS]
    if not others:
        return None
    links = [el("p", el("button.link", name, act={"compare": name})) for name in others]
    text = "Where this trial parts from another one, and how their configs differ:"
    return el("section", el("h3", "Compare with"), note(text), *links)


def different_layers(trial: Trial, other: Trial) -> Markup | None:
    """The layers that are not the same in both trials, each a click away; None if all are."""
    apart = layers_apart(trial.network, other.network)
    if not apart:
        return None
    recorded = {node.name for node in trial.nodes}
    lines = [_different_layer(one, is_recorded=one.path in recorded) for one in apart[:_MOST_LAYERS]]
    more = len(apart) - len(lines)
    return el("div", note("Layers differ:"), *lines, note(f"and {count(more)} more.") if more else None)


def _different_layer(one: LayerDifference, *, is_recorded: bool) -> Markup:
    act = {"node": one.path, "view": "inspect", "role": ""} if is_recorded else {"view": "network"}
    return el("p", el("button.link.tensor", one.path, act=act), f": {one.this}, there {one.other}")


def parting(parted: Divergence | None, *, looked_at: int) -> Markup:
    """Where two trials part, in a sentence with a link to the place.

    Args:
        parted: the first difference, if there is one.
        looked_at: how many common steps were looked at.
    """
    if not looked_at:
        return note("No step was recorded in both.")
    if parted is None:
        return note(f"The {count(looked_at)} common steps that were compared agree in every tensor.")
    what = "" if parted.quantity == "value" else f"the {parted.quantity} of "
    where = f", iteration {parted.iteration}" if parted.iteration >= 0 else ""
    values = f": {parted.statistic} {short(parted.this)}, there {short(parted.other)}"
    more = f", and {count(parted.more)} tensors more" if parted.more else ""
    act = {
        "node": parted.node, "view": "inspect", "step": parted.step, "kind": "", "follow": False, "role": parted.role,
        "lag": 0, "quantity": parted.quantity, "statistic": parted.statistic,
    }  # fmt: skip
    if parted.iteration >= 0:
        act["iteration"] = parted.iteration
    return el(
        "p",
        f"They part at step {count(parted.step)}{where}, first in {what}",
        el("button.link.tensor", parted.node, act=act),
        f"{values}{more}.",
    )
