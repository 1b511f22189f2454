"""What reads a recording and thinks: findings, comparisons of trials, what strikes the eye at a step. numpy only."""

from stepscope.analysis.compare import Difference, counterpart
from stepscope.analysis.diagnose import diagnose
from stepscope.analysis.finding import LEVELS, Evidence, Finding, Level
from stepscope.analysis.overview import Entry, Overview, look_at
from stepscope.analysis.registry import RULES, rule_names
from stepscope.analysis.rule import Rule

__all__ = [
    "LEVELS",
    "RULES",
    "Difference",
    "Entry",
    "Evidence",
    "Finding",
    "Level",
    "Overview",
    "Rule",
    "counterpart",
    "diagnose",
    "look_at",
    "rule_names",
]
