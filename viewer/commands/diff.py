"""``stepscope diff``: how two trials differ, and where they part."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stepscope.analysis.divergence import Divergence, differences_at, first_divergence
from stepscope.store import Trial
from stepscope.store.address import place
from stepscope.viewer.commands.opening import opened_trial
from stepscope.viewer.numbers import count, short

_MOST = 8


def add(commands: Any) -> None:
    text = "Say how two trials differ: config, nodes, the first tensor in which they part, the largest changes."
    parser = commands.add_parser("diff", help="say how two trials differ", description=text)
    parser.add_argument("trial", type=place, metavar="TRIAL")
    parser.add_argument("other", type=place, metavar="OTHER")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="relative differences that count as none (default: 1e-5)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    trial, other = opened_trial(options.trial), opened_trial(options.other)
    lines = [
        *_mapping("config", trial.config, other.config),
        *_mapping("environment", trial.environment, other.environment),
        *_nodes(trial, other),
        *_numbers(trial, other, options.tolerance),
    ]
    print(f"{trial.name} against {other.name}")
    print("\n".join(lines))
    return 0


def _mapping(title: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    names = [name for name in dict.fromkeys([*mine, *theirs]) if mine.get(name) != theirs.get(name)]
    if not names:
        return [f"  {title:<12} the same"]
    texts = (f"{name}: {_plain(mine, name)} -> {_plain(theirs, name)}" for name in names)
    return [f"  {title if i == 0 else '':<12} {text}" for i, text in enumerate(texts)]


def _plain(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False, default=str) if name in values else "(none)"


def _nodes(trial: Trial, other: Trial) -> list[str]:
    mine, theirs = ({node.name for node in which.nodes} for which in (trial, other))
    lines = []
    for title, names in ((f"only {trial.name}", mine - theirs), (f"only {other.name}", theirs - mine)):
        if names:
            more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
            lines.append(f"  nodes        {title}: {', '.join(sorted(names)[:_MOST])}{more}")
    return lines or [f"  nodes        the same {count(len(mine))}"]


def _numbers(trial: Trial, other: Trial, tolerance: float) -> list[str]:
    common = np.intersect1d(trial.steps, other.steps).tolist()
    if not common:
        return ["  steps        no step was recorded in both"]
    first = first_divergence(trial, other, tolerance=tolerance)
    if first is None:
        return [f"  steps        all {count(len(common))} common steps agree"]
    return [
        f"  they part    at step {first.step}: {_text(first)}, and {count(first.more)} tensors more",
        f"  at step {common[-1]:<4} the largest changes:",
        *(f"               {_text(item)}" for item in _largest(trial, other, common[-1], tolerance)),
    ]


def _largest(trial: Trial, other: Trial, number: int, tolerance: float) -> list[Divergence]:
    """The nodes whose values spread most differently, each once."""
    steps = trial.step(number), other.step(number)
    found = differences_at(trial, *steps, tolerance=tolerance, statistics=("std",))
    found.sort(key=lambda item: -_size(item))
    nodes: dict[str, Divergence] = {}
    for item in found:
        if item.quantity == "value":
            nodes.setdefault(item.node, item)
    return list(nodes.values())[:_MOST]


def _size(item: Divergence) -> float:
    if item.this <= 0 or item.other <= 0 or not math.isfinite(item.this * item.other):
        return math.inf if math.isnan(item.this) != math.isnan(item.other) else 0.0
    return abs(math.log(item.this / item.other))


def _text(item: Divergence) -> str:
    what = item.node if item.quantity == "value" else f"{item.quantity} of {item.node}"
    when = f", iteration {item.iteration}" if item.iteration >= 0 else ""
    return f"{what}{when}: {item.statistic} {short(item.this)} -> {short(item.other)}"
