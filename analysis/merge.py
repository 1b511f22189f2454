"""Puts consequences under their cause, and the worst and most explaining first."""

from __future__ import annotations

from collections.abc import Sequence

from stepscope.analysis.finding import LEVELS, Finding
from stepscope.analysis.view import View


def merge(found: Sequence[Finding], view: View) -> tuple[Finding, ...]:
    """Order the findings of all rules."""
    return tuple(sorted(found, key=lambda finding: _rank(finding, view)))


def _rank(finding: Finding, view: View) -> tuple[int, float, int]:
    return LEVELS.index(finding.level), -finding.confidence, view.position.get(finding.node, len(view.position))
