"""What a diagnosis consists of: findings, and the evidence that each rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stepscope.store.records import SourceLine

Level = Literal["error", "warning", "info"]
LEVELS: tuple[Level, ...] = ("error", "warning", "info")
"""``error``: training is broken; ``warning``: very likely harmful; ``info``: worth knowing."""


@dataclass(frozen=True)
class Evidence:
    """One curve that shows a finding: the arguments of ``Trial.series``, and the steps to look at.

    Attributes:
        node, role, quantity, statistic: which numbers. ``role`` is None for the last one.
        iteration: None for the last of each step.
        first_step, last_step: the range of steps that was judged.
        text: what the numbers say, in a few words.
        kind: the kind of steps that it is about, if they are not those that train.
    """

    node: str
    role: str | None
    quantity: str
    statistic: str
    iteration: int | None
    first_step: int
    last_step: int
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Finding:
    """One diagnosed problem.

    Attributes:
        rule: the name of the rule that found it.
        level: how bad it is, one of ``LEVELS``.
        node: the node where it starts; empty if it belongs to no node.
        module: the path of that node's module; empty if it has none.
        source: the line of the user's code that it is about, if known: that which made the node, cut the gradient's
            way, computed the loss, or called the optimizer.
        step: the recorded step in which it was seen first; None if it does not depend on a step.
        iteration: the iteration in that step; None where it does not matter.
        confidence: from 0 to 1.
        summary: one plain sentence with the numbers.
        evidence: the curves that show it, the most telling first.
        causes: what usually is the cause.
        remedy: what to try.
        nodes: further nodes that have the same problem.
        consequences: findings that this one explains.
    """

    rule: str
    level: Level
    node: str
    module: str
    source: SourceLine | None
    step: int | None
    iteration: int | None
    confidence: float
    summary: str
    evidence: tuple[Evidence, ...]
    causes: str
    remedy: str
    nodes: tuple[str, ...] = ()
    consequences: tuple[Finding, ...] = ()

    def walk(self) -> Iterator[Finding]:
        """This finding and everything under it."""
        yield self
        for consequence in self.consequences:
            yield from consequence.walk()
