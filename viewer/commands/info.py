"""``stepscope info``: what a trial holds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from stepscope.store import Trial
from stepscope.store.address import place
from stepscope.store.group import is_trial
from stepscope.store.records import STATISTICS
from stepscope.store.remote.places import bytes_in
from stepscope.store.remote.trial import RemoteTrial
from stepscope.viewer.commands.opening import opened
from stepscope.viewer.numbers import count, size


def add(commands: Any) -> None:
    text = "Say what a trial, or each trial of a group, holds."
    parser = commands.add_parser("info", help="say what a trial holds", description=text)
    parser.add_argument("path", type=place, metavar="TRIAL", help="the folder or address of a trial, or of a group")
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    group = opened(options.path)
    facts = [trial_facts(group[name]) for name in group.names]
    if options.json:
        print(json.dumps(facts[0] if is_trial(options.path) else facts, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(_text(fact) for fact in facts))
    return 0


def trial_facts(trial: Trial) -> dict[str, Any]:
    """What a trial holds, as plain values."""
    steps = trial.steps.tolist()
    kinds = trial.step_kinds
    return {
        "trial": trial.name,
        "state": trial.state,
        "exception": trial.exception,
        "steps": {"count": len(steps), "first": steps[0] if steps else None, "last": steps[-1] if steps else None},
        "resumed": [resumption.step for resumption in trial.resumptions],
        "kinds": {kind: kinds.count(kind) for kind in trial.kinds},
        "nodes": [node.name for node in trial.nodes],
        "quantities": list(trial.quantities),
        "statistics": list(STATISTICS),
        "scalars": ["/".join(filter(None, key)) for key in trial.scalar_names],
        "config": dict(trial.config),
        "environment": dict(trial.environment),
        "bytes": trial.bytes,
        "address": trial.address if isinstance(trial, RemoteTrial) else "",
        "cached": {"folder": str(trial.path), "bytes": bytes_in(trial.path)} if isinstance(trial, RemoteTrial) else {},
        "problems": list(trial.problems),
    }


def _text(facts: dict[str, Any]) -> str:
    steps = facts["steps"]
    span = f", {steps['first']} to {steps['last']}" if steps["count"] else ""
    kinds = ", ".join(f"{name or '(no kind)'} ({number})" for name, number in facts["kinds"].items())
    lines = [
        ("state", facts["state"] + (f": {facts['exception']}" if facts["exception"] else "")),
        ("steps", f"{count(steps['count'])} recorded{span}"),
        ("resumed", "at step " + ", ".join(map(count, facts["resumed"])) if facts["resumed"] else ""),
        ("kinds", kinds),
        ("nodes", f"{count(len(facts['nodes']))}"),
        ("quantities", ", ".join(facts["quantities"])),
        ("scalars", ", ".join(facts["scalars"])),
        ("config", ", ".join(f"{name}={value}" for name, value in facts["config"].items())),
        ("size", size(facts["bytes"])),
        ("address", facts["address"]),
        ("cached", _cached(facts["cached"])),
        *(("damaged", problem) for problem in facts["problems"]),
    ]
    return "\n".join([facts["trial"], *(f"  {name:<11} {text}" for name, text in lines if text)])


def _cached(facts: dict[str, Any]) -> str:
    return f"{size(facts['bytes'])} in {facts['folder']} (delete it to clear the cache)" if facts else ""
