"""What is missing of a step's detail although it was measured, or could have been: in words for whoever looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

DetailState = Literal["full", "thinned", "dropped"]


class Thinning(IntEnum):
    """How much of a step's detail was taken away again, to keep the recording within its limit of bytes."""

    NOTHING = 0
    RAW = 1
    NEURONS = 2


_THINNED = {
    Thinning.RAW: "The raw values of this step's neurons were",
    Thinning.NEURONS: "The raw values and the statistics of this step's neurons were",
}
_DROPPED = "The writer was behind at this step: neurons and samples of {which} were dropped; statistics are complete."


@dataclass(frozen=True)
class LeftOut:
    """What is missing of a step's detail.

    Attributes:
        thinning: what was taken away to keep the recording small.
        dropped: the rows whose neurons and samples were dropped while recording.
        rows: how many rows the step has.
    """

    thinning: Thinning
    dropped: frozenset[int]
    rows: int

    @property
    def state(self) -> DetailState:
        """``"full"``, ``"thinned"``, or ``"dropped"`` (which goes before)."""
        return "dropped" if self.dropped else "thinned" if self.thinning else "full"

    @property
    def sentence(self) -> str:
        """What is missing and why; empty if nothing is."""
        parts = []
        if self.dropped:
            which = "all tensors" if len(self.dropped) == self.rows else f"{len(self.dropped)} of {self.rows} tensors"
            parts.append(_DROPPED.format(which=which))
        if self.thinning:
            parts.append(
                f"{_THINNED[self.thinning]} left out to keep the recording within its limit of bytes; "
                "statistics and histograms are complete."
            )
        return " ".join(parts)
