"""Findings that say the same of several nodes, as one: a net has dozens of layers, and a cause is one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import listed


def together(found: Iterable[Finding]) -> list[Finding]:
    """Of findings that differ in the name of their node alone, the first, which names the others.

    >>> (finding,) = together(found)                                                        # doctest: +SKIP
    >>> finding.summary, finding.nodes                                                      # doctest: +SKIP
    ('model.a is odd. The same holds for model.b.', ('model.b',))
    """
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in found:
        key = (finding.rule, finding.level, finding.step, finding.summary.replace(finding.node, "", 1))
        groups.setdefault(key, []).append(finding)
    return [_one(first, [other.node for other in others]) for first, *others in groups.values()]


def _one(first: Finding, others: list[str]) -> Finding:
    if not others:
        return first
    summary = f"{first.summary} The same holds for {listed(others)}."
    return replace(first, summary=summary, nodes=tuple(dict.fromkeys((*first.nodes, *others))))
