"""Findings made of what ``probe(model, batch)`` says: they bear the names of the rules that look for the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.registry import RULES
from stepscope.analysis.view import View


class ProbeResult(Protocol):
    """What a probe says, as ``stepscope.recorder.Probed`` does: torch is not needed to read it."""

    @property
    def probe(self) -> str: ...
    @property
    def found(self) -> bool: ...
    @property
    def module(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def remedy(self) -> str: ...


class _Meaning(NamedTuple):
    rule: str
    level: Level


_MEANINGS = {
    "batch": _Meaning("batch-leak", "warning"),  # a contrastive head may mix samples on purpose
    "time": _Meaning("future-leak", "error"),  # asked for only where the model must not look ahead
    "gradient": _Meaning("own-backward", "warning"),  # a straight-through estimator is meant so
    "input": _Meaning("ignored-input", "warning"),  # worth knowing only, if another input has an effect
}


def findings_of_probes(results: Iterable[ProbeResult], view: View, known: Sequence[Finding] = ()) -> list[Finding]:
    """A finding for each probe that found something; none where a rule has found the same in the recording.

    Args:
        results: what ``probe`` gave.
        view: of the recording that they are to be placed in.
        known: what the rules found.
    """
    asked = list(results)
    said = {other.rule for other in known}
    any_input_counts = any(result.probe == "input" and not result.found for result in asked)
    found = []
    for result in asked:
        meaning = _MEANINGS.get(result.probe)
        if result.found and meaning and meaning.rule not in said:
            level: Level = "info" if result.probe == "input" and any_input_counts else meaning.level
            found.append(_finding(result, meaning.rule, level, view))
    return found


def _finding(result: ProbeResult, rule: str, level: Level, view: View) -> Finding:
    summary = f"{result.summary} (A probe of the model as it is now.)"
    node = _node(result.module, view)
    return RULES[rule]().finding(view, node, level, summary, confidence=0.95, remedy=result.remedy)


def _node(module: str, view: View) -> str:
    """The node of a module that is named from its model on; the model itself if it has no name."""
    roots = [path for path in view.modules if "." not in path] or [""]
    names = [f"{root}.{module}".strip(".") for root in roots]
    return next((name for name in names if name in view.nodes), names[0])
