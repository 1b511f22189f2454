"""Findings as text, for terminals and for the messages of failed tests."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from stepscope.analysis.finding import LEVELS, Finding, Level

_WIDTH = 100


def is_at_least(finding: Finding, level: Level) -> bool:
    """Whether a finding is of this level, or worse."""
    return LEVELS.index(finding.level) <= LEVELS.index(level)


def counted(findings: Sequence[Finding]) -> str:
    """How many there are of each level: ``1 error, 2 warnings``."""
    numbers = [(sum(finding.level == level for finding in findings), level) for level in LEVELS]
    return ", ".join(f"{number} {level}{'s' if number > 1 else ''}" for number, level in numbers if number)


def in_words(finding: Finding) -> str:
    """What is wrong, where, since when, at which line, what to try, and what follows from it: some lines of text."""
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
