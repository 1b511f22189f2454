"""Puts consequences under their cause, and the worst and most explaining first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepscope.analysis.explains import AT_ONCE, EXPLAINS, ORDER, OVERFLOWS, Relation
from stepscope.analysis.finding import LEVELS, Finding
from stepscope.analysis.view import View


def merge(found: Sequence[Finding], view: View) -> tuple[Finding, ...]:
    """The findings of all rules as trees, in order.

    A finding goes under the first cause that can explain it by its rule, its place in the graph, and its time. A cause
    is as bad as the worst of its consequences.
    """
    ordered = sorted(found, key=lambda finding: _cause_rank(finding, view))
    under: dict[int, list[int]] = defaultdict(list)
    roots: list[int] = []
    for index, finding in enumerate(ordered):
        cause = next((i for i, other in enumerate(ordered) if i != index and _explains(other, finding, view)), None)
        if cause is None:
            roots.append(index)
        else:
            under[cause].append(index)
    trees = [_tree(ordered, under, root) for root in roots]
    return tuple(sorted(trees, key=lambda tree: _rank(tree, view)))


def _tree(found: Sequence[Finding], under: dict[int, list[int]], index: int) -> Finding:
    consequences = tuple(_tree(found, under, child) for child in under[index])
    finding = found[index]
    level = min((finding.level, *(child.level for child in consequences)), key=LEVELS.index)
    return replace(finding, consequences=consequences, level=level)


def _explains(cause: Finding, finding: Finding, view: View) -> bool:
    if cause.level == "info" or not finding.confidence:
        return False
    if cause.rule == "non-finite":
        consequence = finding.rule != "non-finite" and finding.rule not in AT_ONCE
        return consequence and _began(finding) >= _began(cause) > _first_step(view)
    relation = EXPLAINS.get(cause.rule, {}).get(finding.rule)
    if relation is None or _cause_rank(cause, view) >= _cause_rank(finding, view):
        return False
    if cause.rule == "dead-units" and finding.rule == "constant-output" and cause.level != "error":
        return False  # what is left of the layer varies, or varied no more when it came in
    if finding.rule == "non-finite" and not _makes_non_finite(cause, finding, view):
        return False
    return _stands(relation, cause.node, finding.node, view)


def _makes_non_finite(cause: Finding, finding: Finding, view: View) -> bool:
    if cause.rule in AT_ONCE:
        return _began(cause) == _began(finding)
    is_before = _began(cause) < _began(finding)
    return is_before and (cause.rule in OVERFLOWS or _blew_up(view, _began(finding)))


def _stands(relation: Relation, cause: str, node: str, view: View) -> bool:
    """Whether a node lies where a consequence of this cause would lie."""
    if relation == "anywhere" or cause == node:
        return True
    walk = view.flow.downstream if relation == "downstream" else view.flow.upstream
    return any(place.node == node for place in walk(view.flow.of_node(cause)))


def _blew_up(view: View, step: int) -> bool:
    """Whether a loss, or a weight, had grown far beyond its start when this step began."""
    parameters = [name for name, node in view.nodes.items() if node.type == "parameter"]
    for name, statistic, factor in [
        *((place.node, "abs_max", 10.0) for place in view.losses),
        *((name, "abs_max", 100.0) for name in parameters),
    ]:
        history = view.history(name)
        values = history.of(statistic)[history.steps < step]
        values = values[np.isfinite(values)]
        if len(values) > 1 and values[-1] > factor * values[0] > 0:
            return True
    return False


def _began(finding: Finding) -> int:
    return -1 if finding.step is None else finding.step


def _first_step(view: View) -> int:
    return view.began if view.training else -1


def _cause_rank(finding: Finding, view: View) -> tuple[int, int]:
    """Smaller for what is nearer to the root of the trouble."""
    return ORDER.get(finding.rule, len(ORDER)), view.position.get(finding.node, len(view.position))


def _rank(tree: Finding, view: View) -> tuple[int, int, int, float, int]:
    explained = sum(1 for _ in tree.walk()) - 1
    order, position = _cause_rank(tree, view)
    return LEVELS.index(tree.level), -explained, order, -tree.confidence, position
