"""The pages of words: notes and messages; config and environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stepscope.store import Trial
from stepscope.store.errors import StoreError
from stepscope.viewer.markup import Markup, el, note, table
from stepscope.viewer.numbers import count, duration, size

_MOST_PROBLEMS = 100
_ALL = 0.995


def notes_page(trial: Trial, other: Trial | None) -> Markup:
    """What ended the trial and what of it is damaged; what the user noted; what the recorder had to leave out."""
    return el("div.page.columns", *(_notes(which) for which in (trial, other) if which is not None))


def _notes(trial: Trial) -> Markup:
    notes = [el("article", _at(item.step), el("p", item.text)) for item in trial.notes]
    messages = [el("article.message", _at(item.step), el("p", item.text)) for item in trial.messages[:200]]
    return el(
        "div",
        el("h2", trial.name),
        _failure(trial),
        _damage(trial),
        el("h3", "Notes"),
        *(notes or [note('None. recorder.note("...") leaves one.')]),
        el("h3", "From the recorder"),
        *(messages or [note("Nothing was left out.")]),
    )


def _failure(trial: Trial) -> Markup | None:
    if trial.end is None or not trial.end.traceback:
        return None
    return el("div", el("h3", "The exception that ended it"), el("pre.traceback", trial.end.traceback))


def _damage(trial: Trial) -> Markup | None:
    if not trial.problems:
        return None
    lines = [el("article", el("p", text)) for text in trial.problems[:_MOST_PROBLEMS]]
    more = len(trial.problems) - len(lines)
    how = el("p.note", "What is written twice can be rebuilt; the damaged files are kept: ",
             el("code", f"stepscope repair '{trial.path}'"))  # fmt: skip
    return el("div", el("h3", "Damage"), *lines, note(f"and {more} more") if more > 0 else None, how)


def _at(step: int) -> Markup:
    return el("button.link", f"step {step}" if step >= 0 else "before the first step", act={"step": max(step, 0)})


def config_page(trial: Trial, other: Trial | None) -> Markup:
    """Hyper-parameters and environment; what differs from the compared trial is marked, and stands first."""
    return el(
        "div.page",
        _compared("Config", trial.config, other.config if other else None, trial, other),
        _compared("Trial", _facts(trial), _facts(other) if other else None, trial, other),
        _compared("Cost of recording", _cost(trial), _cost(other) if other else None, trial, other),
        _compared("Environment", trial.environment, other.environment if other else None, trial, other),
    )


def _facts(trial: Trial) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "state": trial.state,
        "started": datetime.fromtimestamp(trial.info.started).strftime("%Y-%m-%d %H:%M:%S"),
        "recorded steps": count(len(trial.steps)),
        "size": size(trial.bytes),
        "nodes": count(len(trial.nodes)),
        "kept samples a step": trial.info.samples,
        "kept neurons a tensor, at most": trial.info.neuron_limit,
    }
    if trial.end is not None:
        facts["duration"] = duration(trial.end.time - trial.info.started)
        facts["exception"] = trial.end.exception or "none"
    return facts


def cost_of(trial: Trial) -> dict[str, Any] | None:
    """What recording has cost, as the recorder measured it up to its last recorded step; None if it is not known."""
    try:
        cost = trial.step(int(trial.steps[-1])).facts.get("cost") if len(trial.steps) else None
    except StoreError:
        return None
    return cost if isinstance(cost, dict) else None


def share_of_the_time(cost: Mapping[str, Any]) -> str:
    """How much of the training's time recording took, the writer's thread beside it included: a part of it, or all."""
    share = float(cost.get("share", 0))
    if share > _ALL:
        return "as long as the training itself"
    return f"{'at least ' if cost.get('is_lower_bound') else ''}{share:.1%} of the time"


def _cost(trial: Trial) -> dict[str, Any]:
    cost = cost_of(trial)
    if cost is None:
        return {}
    least = "at least " if cost.get("is_lower_bound") else ""
    recorded = max(1, int(cost.get("recorded", 1)))
    return {
        "recording took": share_of_the_time(cost),
        "training time spent on it": least + duration(float(cost.get("seconds", 0))),
        "a recorded step": f"{least}{1000 * float(cost.get('seconds', 0)) / recorded:.1f} ms",
        "recorded steps": f"{count(recorded)} of {count(int(cost.get('steps', 0)))}",
        "waited for the disk": duration(float(cost.get("waiting", 0))),
        "the writer's thread": f"{duration(float(cost.get('writing', 0)))} of processor time",
        "bytes a recorded step": size(trial.bytes / max(1, len(trial.steps))),
    }


def _compared(
    title: str, mine: Mapping[str, Any], theirs: Mapping[str, Any] | None, trial: Trial, other: Trial | None
) -> Markup:
    if not mine and not theirs:
        return el("section", el("h3", title), note("Empty."))
    names = list(dict.fromkeys([*mine, *(theirs or {})]))
    if theirs is None or other is None:
        return el("section", el("h3", title), table(["", trial.name], [[name, _text(mine, name)] for name in names]))
    different = [name for name in names if _text(mine, name) != _text(theirs, name)]
    alike = [name for name in names if name not in different]
    rows: list[list[Markup | str]] = [
        [el("td.different", name), el("td.different", _text(mine, name)), el("td.different", _text(theirs, name))]
        for name in different
    ]
    rows += [[name, _text(mine, name), _text(theirs, name)] for name in alike]
    return el("section", el("h3", title), table(["", trial.name, other.name], rows))


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "–"
    value = values[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
