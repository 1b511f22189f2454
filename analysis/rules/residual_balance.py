"""The rule ``residual-balance``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.layers import rms
from stepscope.analysis.parameters import listed
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_NOISE = 0.1
_ADDITIONS = frozenset(["add", "iadd", "radd"])


class _Branch(NamedTuple):
    """One branch of a sum: what it starts from, what it adds, and where."""

    skip: Place
    branch: Place
    total: Place


@dataclass(frozen=True)
class ResidualBalance(Rule):
    """A residual branch that adds next to nothing, or drowns what it is added to; a skip that lets little through.

    Symptom: the block might as well not be there; or the way around it carries nothing, and depth hurts.

    How it is measured: where a module returns the sum of a tensor and of branches computed from it, the sizes (root
    mean square) of each branch and of that tensor, in the median of the last third of the training. A
    branch that started at zero on purpose grows: one that is no larger than at the start does not. One that starts near
    zero, but not at it, and wakes up late (a LayerScale of 1e-6), is worth knowing only. A parameter that
    enters the sum by itself (LayerScale) scales the branch. While weights are random, branch and skip are
    uncorrelated, so that the squares of their sizes add up to that of the sum: this tells by how much the skip was
    multiplied (a tenth at least, as the rest is noise).

    Causes: a scale (LayerScale, a gate, weight decay) that keeps a branch at zero; a branch without a norm behind an
    embedding that is initialised very small, or weights in it that are far too large; a skip that is scaled.

    Remedy: scale the branch by the root of the depth or begin it at zero and let it learn; normalise what enters it.

    Attributes:
        small, large: the ratio of branch to skip beyond which it counts. Source: healthy blocks have 0.01 to 10;
            float32 itself ends at 1e-7.
        kept: the share of what enters the first block below which too little comes through all skips. Source: He et
            al. (2016), "Identity mappings in deep residual networks": skips scaled by half, over 54 blocks, do not
            train.
        scaled: a skip that is multiplied by less than this counts. Source: averages of skip and branch use 0.5 or
            more.
    """

    name = "residual-balance"
    causes = "A scale or gate that keeps the branch at zero, or weights in it (or the embedding) of the wrong size."
    remedy = "Normalise what enters the branch, and start it at zero or at one over the root of the depth."
    small: float = 1e-4
    large: float = 100.0
    kept: float = 0.01
    scaled: float = 0.45

    def check(self, view: View) -> Iterable[Finding]:
        if len(view.training) < 6:
            return
        branches = list(_branches(view))
        yield from self._scaled_skips(view, branches)
        ratios = {branch: _ratio(view, branch) for branch in branches}
        vanished = {b: late for b, (early, late) in ratios.items() if 0 < late < self.small and late <= 2 * early}
        drowning = {b: late for b, (_, late) in ratios.items() if late > self.large}
        asleep = {b: early for b, (early, late) in ratios.items() if 0 < early < self.small and b not in vanished}
        if vanished:
            yield self._finding(view, vanished, "adds next to nothing to")
        elif asleep:
            yield self._finding(view, asleep, "starts asleep beside", "info")
        if drowning:
            yield self._finding(view, drowning, "drowns")

    def _scaled_skips(self, view: View, branches: Sequence[_Branch]) -> Iterable[Finding]:
        factors = {branch: _factor_of_skip(view, branch) for branch in branches if _is_alone(branch, branches)}
        low = {branch: factor for branch, factor in factors.items() if factor < self.scaled}
        left = math.prod(low.values())
        if len(low) < 2 or left >= self.kept:
            return
        first = next(iter(low))
        summary = (
            f"{first.total.node} multiplies its skip by about {low[first]:.2g}: behind {len(low)} such blocks, "
            f"{left:.1g} of what enters the first one is left."
        )
        shown = [
            evidence(view.history(place.node, role=place.role), "norm", listed([place.node]))
            for place in (first.skip, first.total)
        ]
        yield self.finding(
            view, first.total.node, "warning", summary, shown,
            step=view.began, nodes=[branch.total.node for branch in low], confidence=0.7,
        )  # fmt: skip

    def _finding(self, view: View, found: dict[_Branch, float], does: str, level: Level = "warning") -> Finding:
        first = next(iter(found))
        more = f"; {len(found) - 1} more branches do the same" if len(found) > 1 else ""
        summary = f"{first.branch.node} {does} {first.skip.node}: it is {found[first]:.2g} times as large{more}."
        shown = [
            evidence(view.history(place.node, role=place.role), "norm", listed([place.node]))
            for place in (first.branch, first.skip)
        ]
        others = [branch.branch.node for branch in found if branch != first]
        others += dict.fromkeys(branch.total.node for branch in found)
        return self.finding(
            view, first.branch.node, level, summary, shown,
            step=view.began, nodes=others, confidence=0.7,
        )  # fmt: skip


def _branches(view: View) -> Iterable[_Branch]:
    """The branches of all sums that are the output of a module, in data-flow order."""
    flow = view.flow
    totals = [place for place, vertex in flow.vertices.items() if vertex.operation in _ADDITIONS]
    for total in sorted(totals, key=lambda place: view.position.get(place.node, 0)):
        if len(list(flow.same_tensor(total))) > 1 or flow.vertices[total].type != "calculated":
            continue
        terms = [link.place for link in flow.sources.get(total, ()) if link.differentiable and not link.lag]
        terms = [place for place in terms if flow.vertices[place].type in ("calculated", "input")]
        for skip in terms:
            behind = flow.downstream([skip])
            branches = [place for place in terms if place != skip and place in behind]
            if branches and len(branches) == len(terms) - 1:
                yield from (_Branch(skip, branch, total) for branch in branches)


def _is_alone(branch: _Branch, branches: Sequence[_Branch]) -> bool:
    """Whether it is the only branch of its sum."""
    return sum(other.total == branch.total for other in branches) == 1


def _factor_of_skip(view: View, branch: _Branch) -> float:
    """By what a skip was multiplied at the start, where sizes of what is uncorrelated add up in squares; or NaN."""
    places = (branch.skip, branch.branch, branch.total)
    first = view.training[0]
    if len({view.shape(place, first) for place in places}) > 1:
        return float("nan")
    skip, added, total = (median(rms(view.history(place.node, role=place.role))[:3]) for place in places)
    added *= _scale(view, branch, first=True)
    return math.sqrt(max(_NOISE**2 * skip * skip, total * total - added * added)) / skip if skip > 0 else float("nan")


def _scale(view: View, branch: _Branch, *, first: bool) -> float:
    """The size of what scales a branch just before the sum, at the start or in the last third; 1 without such a one."""
    scales = [
        rms(view.history(link.place.node, role=link.place.role))
        for link in view.flow.sources[branch.total]
        if view.flow.vertices[link.place].type == "parameter"
    ]
    if len(scales) != 1 or not len(scales[0]):
        return 1.0
    return _early(scales[0]) if first else median(scales[0][2 * len(scales[0]) // 3 :])


def _early(values: Values) -> float:
    """The first ones; 0 for what starts at exactly 0, on purpose."""
    return median(values[:3]) if values[0] != 0 else 0.0


def _ratio(view: View, branch: _Branch) -> tuple[float, float]:
    """The size of the branch over that of the skip, at the start and in the last third; NaN for other shapes."""
    one = view.history(branch.branch.node, role=branch.branch.role)
    two = view.history(branch.skip.node, role=branch.skip.role)
    steps, i, j = np.intersect1d(one.steps, two.steps, return_indices=True)
    if not len(steps):
        return float("nan"), float("nan")
    last = view.training[-1]
    if view.shape(branch.branch, last) != view.shape(branch.skip, last):
        return float("nan"), float("nan")
    ratios = rms(one)[i] / np.maximum(rms(two)[j], 1e-30)
    early, late = _early(ratios), median(ratios[2 * len(ratios) // 3 :])
    return early * _scale(view, branch, first=True), late * _scale(view, branch, first=False)
