"""``stepscope doctor``: the findings of a trial, in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from stepscope.analysis import LEVELS, Finding, Level, diagnose, rule_names
from stepscope.analysis.wording import counted, in_words, is_at_least
from stepscope.store import Group, StoreError, Trial, UnreachableError
from stepscope.store.address import place
from stepscope.store.group import is_trial
from stepscope.viewer.commands.opening import opened, opened_trial
from stepscope.viewer.numbers import count

HEALTHY, SICK, UNREADABLE = 0, 1, 2
"""Exit codes. What is sick is told even if another trial of the group cannot be read."""

_GROWTH = 1.1
"""A live trial is diagnosed again when it has grown by a tenth."""

_TEXT = """Say what is wrong with a trial, where, since when, and what to try.

The exit code is 0 if nothing is found, 1 if anything at or above the level of --fail-on is, and 2 if the path or a
trial cannot be read."""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor", help="say what is wrong with a trial", description=_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("path", type=place, metavar="TRIAL", help="the folder or address of a trial, or of a group")
    parser.add_argument(
        "--json", action="store_true", help="as JSON, for scripts: an object for a trial, a list of them for a group"
    )
    parser.add_argument(
        "--fail-on", choices=LEVELS, default="warning", metavar="LEVEL",
        help="the mildest level that makes the exit code 1: error, warning or info (default: warning)",
    )  # fmt: skip
    parser.add_argument(
        "--follow", action="store_true", help="stay with a live trial, and tell each finding when it appears"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.follow:
        return follow(opened_trial(options.path), fail_on=options.fail_on)
    group = opened(options.path)
    diagnoses, unreadable = _diagnoses(group)
    if options.json:
        reports = [report_json(trial, findings) for trial, findings in diagnoses]
        reports += [{"trial": name, "unreadable": why, "findings": []} for name, why in unreadable.items()]
        print(json.dumps(reports[0] if is_trial(options.path) else reports, indent=2, ensure_ascii=False))
    elif diagnoses:
        print("\n\n".join(report(trial, findings) for trial, findings in diagnoses))
    troubles = [f"{name} cannot be read: {why}" for name, why in unreadable.items()]
    troubles += [f"{trial.name} is damaged: {problem}" for trial, _ in diagnoses for problem in trial.problems]
    for trouble in troubles:
        print(f"stepscope: {trouble}", file=sys.stderr)
    if any(is_sick(findings, options.fail_on) for _, findings in diagnoses):
        return SICK
    return UNREADABLE if unreadable or any(_is_lost(trial) for trial, _ in diagnoses) else HEALTHY


def _is_lost(trial: Trial) -> bool:
    """Whether steps were recorded, and none of them can be read any more."""
    return bool(len(trial.steps)) and not trial.layouts()


def follow(trial: Trial, *, pause: float = 2.0, fail_on: Level = "warning") -> int:
    """Tell each finding once, as soon as it appears, until the trial ends; whether anything was wrong, as exit code."""
    told: set[tuple[str, str]] = set()
    looked, sick, running = 0, False, True
    while running:
        with contextlib.suppress(UnreachableError):  # an address may be out of reach for a while
            trial.refresh()
        running = trial.state == "running"
        size = len(trial.steps)
        if size > looked * _GROWTH or (not running and size > looked):
            looked = size
            for finding in diagnose(trial):
                if (finding.rule, finding.node) not in told:
                    told.add((finding.rule, finding.node))
                    sick = sick or is_sick((finding,), fail_on)
                    print(f"\nstepscope: {in_words(finding)}", flush=True)
        if running:
            time.sleep(pause)
    return SICK if sick else HEALTHY


def report(trial: Trial, findings: tuple[Finding, ...]) -> str:
    """The findings as text."""
    if not findings:
        steps = f"{count(len(trial.steps))} recorded steps"
        seen = f"what can be read of {steps}" if trial.problems else steps
        return f"{trial.name}: nothing suspicious in {seen} ({len(rule_names())} rules)."
    return "\n\n".join([f"{trial.name}: {counted(findings)}", *map(in_words, findings)])


def report_json(trial: Trial, findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The same for scripts."""
    return {"trial": trial.name, "damage": list(trial.problems), "findings": [asdict(finding) for finding in findings]}


def is_sick(findings: Iterable[Finding], level: Level = "warning") -> bool:
    """Whether anything of this level or worse was found; unless told otherwise, what is very likely harmful."""
    return any(is_at_least(finding, level) for finding in findings)


def _diagnoses(group: Group) -> tuple[list[tuple[Trial, tuple[Finding, ...]]], dict[str, str]]:
    """The trials of a group with their findings, and why the others could not be read."""
    diagnoses, unreadable = [], dict(group.problems)
    for name in group.names:
        try:
            trial = group[name]
            diagnoses.append((trial, diagnose(trial)))
        except (StoreError, OSError) as error:
            unreadable[name] = str(error)
    return diagnoses, unreadable
