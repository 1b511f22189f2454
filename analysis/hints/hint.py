"""What a hint says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Relation = Literal["with", "before", "spike", "sample", "kind", "category"]


@dataclass(frozen=True)
class Hint:
    """One relation of a statistic.

    Attributes:
        relation: ``"with"``: it changes from step to step together with the loss; ``"before"``: one recorded step
            before it; ``"spike"``: it changes unusually just before the loss jumps; ``"sample"``: within a batch, it is
            high for the samples with a high loss; ``"kind"``, ``"category"``: it is different for one kind of step, or
            one category of samples.
        node, quantity, statistic: of what; ``"mean of the loss"`` itself may depend on a kind or a category.
        strength: from -1 to 1. A rank correlation (Spearman's; given the time for ``"with"`` and ``"before"``), or the
            rank-biserial correlation: by how much larger values are more frequent in the group than outside.
        observations: how many changes, steps or samples it rests on.
        group: the name of the kind or the category.
    """

    relation: Relation
    node: str
    quantity: str
    statistic: str
    strength: float
    observations: int
    group: str = ""


@dataclass(frozen=True)
class Hints:
    """The strongest relations that are no accident, and among how many they were looked for."""

    hints: tuple[Hint, ...] = ()
    comparisons: int = 0


@dataclass(frozen=True)
class Candidate:
    """A relation with the probability that it is an accident."""

    hint: Hint
    probability: float
