"""Writes docs/findings.md from the docstrings of the rules: ``python scripts/rules_page.py``."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import MISSING, fields
from pathlib import Path

from stepscope.analysis import RULES, Rule

PAGE = Path(__file__).resolve().parent.parent / "docs" / "findings.md"
INTRODUCTION = """\
# Findings

`stepscope doctor`, `stepscope.analysis.diagnose(trial)` and the dashboard look for what follows. Every threshold is a
setting: `diagnose(trial, settings={"dead-units": {"share": 0.7}})`. What one finding explains stands under it; the
first ones explain most.

How often the true cause is among the first three findings of twenty broken runs, and how often healthy runs are
accused, `python benchmarks/bench_findings.py` measures. The runs were written without looking at the rules: the first
measurement (2026-11-21) found 17 causes, named the right node or its neighbour for 17, and accused none of eight
healthy runs. After what was missing had been mended: 20 found, 19 placed, none accused.

This page is written by `python scripts/rules_page.py`; a test fails if it is not up to date."""


def render() -> str:
    """The whole page."""
    contents = "\n".join(f"- [{name}](#{name}): {_first_line(rule)}" for name, rule in RULES.items())
    return "\n\n".join([INTRODUCTION, contents, *(_section(name, rule) for name, rule in RULES.items())]) + "\n"


def _first_line(rule: type[Rule]) -> str:
    return " ".join(inspect.cleandoc(rule.__doc__ or "").split("\n\n")[0].split())


def _section(name: str, rule: type[Rule]) -> str:
    text = inspect.cleandoc(rule.__doc__ or "")
    body, _, thresholds = text.partition("Attributes:\n")
    paragraphs = [re.sub(r"^(Symptom|How it is measured|Causes|Remedy|Source)s?:", r"**\1.**", p.strip())
                  for p in body.strip().split("\n\n")]  # fmt: skip
    lines = [f"## {name}", *(_plain(paragraph) for paragraph in paragraphs)]
    if thresholds.strip():
        lines.append(_settings(rule, thresholds))
    return "\n\n".join(lines)


def _settings(rule: type[Rule], text: str) -> str:
    defaults = {field.name: field.default for field in fields(rule) if field.default is not MISSING}
    rows = ["| setting | default | |", "|---|---|---|"]
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(text).strip()):
        names, _, meaning = entry.partition(":")
        shown = ", ".join(
            f"`{_value(defaults[name.strip()])}`" for name in names.split(",") if name.strip() in defaults
        )
        rows.append(f"| `{names.strip()}` | {shown} | {_plain(meaning.strip())} |")
    return "\n".join(rows)


def _value(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _plain(text: str) -> str:
    """Single backticks, as Markdown wants them, and no line breaks."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render())
