"""What reads a recording and thinks: comparisons of trials, and what strikes the eye at a step. numpy only."""

from stepscope.analysis.compare import Difference, counterpart
from stepscope.analysis.overview import Entry, Overview, look_at

__all__ = ["Difference", "Entry", "Overview", "counterpart", "look_at"]
