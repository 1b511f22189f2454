"""``stepscope doctor``: the findings of a trial, in the terminal."""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from dataclasses import asdict
from typing import Any

from stepscope.analysis import LEVELS, Finding, diagnose, rule_names
from stepscope.store import Trial
from stepscope.store.address import place
from stepscope.viewer.commands.opening import opened, opened_trial
from stepscope.viewer.numbers import count

_WIDTH = 100
_GROWTH = 1.1
"""A live trial is diagnosed again when it has grown by a tenth."""


def add(commands: Any) -> None:
    text = "Say what is wrong with a trial, where, since when, and what to try. Exits with 1 if anything is."
    parser = commands.add_parser("doctor", help="say what is wrong with a trial", description=text)
    parser.add_argument("path", type=place, metavar="TRIAL", help="the folder or address of a trial, or of a group")
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts; one document a trial")
    parser.add_argument(
        "--follow", action="store_true", help="stay with a live trial, and tell each finding when it appears"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.follow:
        return follow(opened_trial(options.path))
    group = opened(options.path)
    reports = [(report_json if options.json else report)(group[name]) for name in group.names]
    print("\n\n".join(text for text, _ in reports))
    return int(any(sick for _, sick in reports))


def follow(trial: Trial, *, pause: float = 2.0) -> int:
    """Tell each finding once, as soon as it appears, until the trial ends; whether anything was wrong, as exit code."""
    told: set[tuple[str, str]] = set()
    looked, sick, running = 0, False, True
    while running:
        trial.refresh()
        running = trial.state == "running"
        size = len(trial.steps)
        if size > looked * _GROWTH or (not running and size > looked):
            looked = size
            for finding in diagnose(trial):
                if (finding.rule, finding.node) not in told:
                    told.add((finding.rule, finding.node))
                    sick = sick or is_sick((finding,))
                    print(f"\nstepscope: {_text(finding)}", flush=True)
        if running:
            time.sleep(pause)
    return int(sick)


def report(trial: Trial) -> tuple[str, bool]:
    """The findings as text, and whether any of them is a warning or an error."""
    findings = diagnose(trial)
    if not findings:
        steps = count(len(trial.steps))
        return f"{trial.name}: nothing suspicious in {steps} recorded steps ({len(rule_names())} rules).", False
    text = "\n\n".join(_text(finding) for finding in findings)
    return f"{trial.name}: {_summary(findings)}\n\n{text}", is_sick(findings)


def report_json(trial: Trial) -> tuple[str, bool]:
    """The same for scripts."""
    findings = diagnose(trial)
    facts: dict[str, Any] = {"trial": trial.name, "findings": [asdict(finding) for finding in findings]}
    return json.dumps(facts, indent=2, ensure_ascii=False), is_sick(findings)


def is_sick(findings: tuple[Finding, ...]) -> bool:
    """Whether anything is at least very likely harmful."""
    return any(finding.level in ("error", "warning") for finding in findings)


def _summary(findings: tuple[Finding, ...]) -> str:
    numbers = [(sum(finding.level == level for finding in findings), level) for level in LEVELS]
    return ", ".join(f"{number} {level}{'s' if number > 1 else ''}" for number, level in numbers if number)


def _text(finding: Finding) -> str:
    since = "" if finding.step is None else f", since step {finding.step}"
    lines = [f"{finding.level.upper()} {finding.rule}{since}" + (f": {finding.node}" if finding.node else "")]
    lines += _wrapped(finding.summary)
    if finding.source is not None:
        lines += [f"  {finding.source.file}:{finding.source.line}", f"    {finding.source.text}"]
    if finding.remedy:
        lines += _wrapped(f"Try: {finding.remedy}")
    if finding.consequences:
        names = ", ".join(dict.fromkeys(item.node or item.rule for item in finding.consequences))
        lines += _wrapped(f"From it follow {len(finding.consequences)} more: {names}", most=2)
    return "\n".join(lines)


def _wrapped(text: str, most: int = 20) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", max_lines=most, placeholder=" ...")
