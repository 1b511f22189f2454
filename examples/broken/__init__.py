"""Broken training runs with their fixed twins, and healthy ones, to see what the findings are worth.

    python -m stepscope.examples.broken softmax_before_cross_entropy --out runs/broken
    stepscope doctor runs/broken

The mistakes come from published collections of bugs, and were written down without looking at the rules.
"""

from stepscope.examples.broken.case import Case, Line
from stepscope.examples.broken.catalogue import BROKEN, HEALTHY, UNREAD
from stepscope.examples.broken.lab import Lab, record

__all__ = ["BROKEN", "HEALTHY", "UNREAD", "Case", "Lab", "Line", "record"]
