"""Which numbers go with a high loss, with a kind of step, a category of samples, or come before a spike.

Hints, not findings: a ranked list, with the number of comparisons that were made.
"""

from stepscope.analysis.hints.hint import Hint, Hints, Relation
from stepscope.analysis.hints.search import hints

__all__ = ["Hint", "Hints", "Relation", "hints"]
