"""Records fewer steps when a trial's limit of bytes comes near, although nothing but statistics is left in it."""

from __future__ import annotations

from collections import defaultdict

from stepscope.recorder.guard import Faults

_BEGINS = 64
_DOUBLES = 8
"""With fewer than so many recordings left, the gaps between them grow: they double with each eighth recording."""


class Stretch:
    """Leaves out some of the steps that the schedule wants, for each kind by itself.

    Args:
        faults: is told when it begins, and when nothing more can be recorded; once each.
        limit: what is nearly full, in words: ``"2 GB (max_bytes)"``.
    """

    def __init__(self, faults: Faults, limit: str) -> None:
        self._faults = faults
        self._limit = limit
        self._since: defaultdict[str, int] = defaultdict(int)

    def allows(self, number: int, kind: str, left: float | None) -> bool:
        """Whether a step that the schedule wants is recorded, with so many recordings left (None: no limit)."""
        if left is None or left >= _BEGINS:
            return True
        if not self.has_room(number, left):
            return False
        text = f"statistics alone come near to {self._limit}: from step {number} on, fewer steps are recorded"
        self._faults.warn(text, cause="stretched")
        self._since[kind] += 1
        if self._since[kind] < 2 ** ((_BEGINS - left) / _DOUBLES):
            return False
        self._since[kind] = 0
        return True

    def has_room(self, number: int, left: float | None) -> bool:
        """Whether a step can be recorded at all, however much somebody wants it."""
        if left is None or left >= 1:
            return True
        text = f"the recording is full: step {number} and those after it are not recorded"
        self._faults.warn(f"{text}, {self._limit} hold no more statistics", cause="full")
        return False
