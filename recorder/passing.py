"""Lets most of the steps that are not recorded pass at the cost of a few comparisons.

In the midst of a training step, code and data of the recorder are no longer in the processor's caches: asking the
schedule, the meter and the output takes some 50 µs there, instead of 2 µs in a loop of its own. With steps of a
millisecond, that is most of what a run costs. So the schedule is asked ahead.
"""

from __future__ import annotations

_AT_ONCE = 15
"""So many steps pass at once: so late is noticed what failed on the writer's thread, or that the process was forked."""


class Passing:
    """Steps of one kind that pass without asking anyone.

    Whoever begins a step looks at ``left`` and ``kind`` itself, and counts ``left`` down: a call would cost more.

    Attributes:
        kind: the kind of the steps that may pass.
        left: how many of them still may.
    """

    __slots__ = ("_granted", "kind", "left")

    def __init__(self) -> None:
        self.kind: str | None = None
        self.left = self._granted = 0

    def grant(self, kind: str, number: int) -> None:
        """Let so many steps pass, or fewer."""
        self.kind = kind
        self.left = self._granted = min(number, _AT_ONCE)

    def settle(self) -> int:
        """Let no more pass; returns how many have passed since they were granted."""
        passed = self._granted - self.left
        self.left = self._granted = 0
        return passed
