"""What every rule has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from stepscope.analysis.finding import Evidence, Finding, Level
from stepscope.analysis.lines import LineOf, line_for
from stepscope.analysis.view import View
from stepscope.store.records import SourceLine


@dataclass(frozen=True)
class Rule(ABC):
    """Looks for one kind of problem. Its fields are its thresholds; its docstring is its documentation.

    Attributes:
        name: what findings and settings call it.
        causes, remedy: the texts of its findings, unless a finding brings its own.
        about: whose line its findings name, unless a finding brings its own.
    """

    name: ClassVar[str]
    causes: ClassVar[str]
    remedy: ClassVar[str]
    about: ClassVar[LineOf] = "node"

    @abstractmethod
    def check(self, view: View) -> Iterable[Finding]:
        """Every place where the problem is found."""

    def finding(
        self,
        view: View,
        node: str,
        level: Level,
        summary: str,
        evidence: Sequence[Evidence] = (),
        *,
        step: int | None = None,
        iteration: int | None = None,
        confidence: float = 0.9,
        nodes: Sequence[str] = (),
        causes: str = "",
        remedy: str = "",
        source: SourceLine | None = None,
    ) -> Finding:
        """A finding at a node, with what the trial knows of the place."""
        known = view.nodes.get(node)
        return Finding(
            rule=self.name,
            level=level,
            node=node,
            module=known.module if known else "",
            source=source or line_for(view, node, self.about),
            step=None if step is None else int(step),
            iteration=None if iteration is None else int(iteration),
            confidence=float(confidence),
            summary=summary,
            evidence=tuple(evidence),
            causes=causes or self.causes,
            remedy=remedy or self.remedy,
            nodes=tuple(nodes),
        )
