"""The rule ``dtype-range``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.lines import sites_of
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import STATISTICS

_LARGEST = {"float16": 65504.0, "bfloat16": 3.39e38, "float32": 3.4e38, "float64": 1.8e308}
_ABS_MAX = STATISTICS.index("abs_max")
_SMALLEST = 2.0**-24
_LEAST = 5
_OF_HALF = frozenset(["mul", "rmul", "imul", "square", "sum", "matmul", "bmm", "einsum"])
"""What a recording says of numbers of 16 bits only."""


@dataclass(frozen=True)
class DtypeRange(Rule):
    """Values or gradients close to the largest number of their dtype.

    Symptom: none yet; the next larger batch or step gives infinities.

    How it is measured: the largest magnitude of each tensor in all training steps against the largest finite number of
    its dtype: 65504 for float16, 3.4e38 for bfloat16 and float32. At the other end, float16 knows multiples of 2**-24
    only: gradients that are such multiples in every step came through it, also if they were turned back; where they are
    a few times the smallest one, and many are zero, or almost all are zero, they were rounded to nothing on the way.
    And products and sums of 16 bits that are not finite, although all tensors with a name are.

    Causes: half precision without a loss scale (or with one that is too large), activations that grow with depth.

    Remedy: use bfloat16, keep the operation in float32, normalise in front of it, or lower the loss scale.

    Attributes:
        part: of the largest number. Source: TorchLens warns at 0.9; from 0.5 a doubling overflows.
        few: times the smallest float16 number. Source: below, three of its eleven bits are left at most.
        zeros, almost_all: the part of a gradient that is zero, with such small numbers and without. Source: ReLU lets
            half of a gradient through.
    """

    name = "dtype-range"
    causes = "Half precision without a fitting loss scale, or activations that grow with depth."
    remedy = "Use bfloat16, keep the operation in float32, normalise in front of it, or lower the loss scale."
    part: float = 0.5
    few: float = 8.0
    zeros: float = 0.6
    almost_all: float = 0.95

    def check(self, view: View) -> Iterable[Finding]:
        found: dict[tuple[str, str], tuple[int, float, str]] = {}
        for reading in (part for part in view.readings if part.trains):
            peaks = np.where(np.isfinite(reading.statistics[:, :, _ABS_MAX]), reading.statistics[:, :, _ABS_MAX], 0)
            for row, tensor in enumerate(reading.layout.tensors):
                limit = self.part * _LARGEST.get(tensor.dtype, np.inf)
                high = np.flatnonzero(peaks[:, row] > limit)
                if len(high):
                    step, peak = int(reading.numbers[high[0]]), float(peaks[high[0], row])
                    found.setdefault((tensor.node, tensor.quantity), (step, peak, tensor.dtype))
        if found:
            key = min(found, key=lambda key: (found[key][0], view.position.get(key[0], 0)))
            yield self._finding(view, key, *found[key], len(found) - 1)
        yield from self._hidden(view) or self._rounded_away(view)

    def _hidden(self, view: View) -> list[Finding]:
        """An overflow between tensors with names whose traces what follows has removed: a division by it gives zero."""
        site = next((site for site in sites_of(view, "not finite") if site.operation in _OF_HALF), None)
        if site is None:
            return []
        nodes = [place.node for place in (*site.after, *site.before)]
        node = next((place.node for place in site.after), nodes[0])
        summary = (
            f"Numbers of 16 bits overflow on the way to {node}: {site.operation} gives infinite ones (or NaN), which "
            f"what follows hides, by a division, say."
        )
        shown = [evidence(view.history(place.node, role=place.role), "abs_max", "a source") for place in site.before]
        step = view.began
        others = [other for other in nodes if other != node]
        return [
            self.finding(
                view, node, "warning", summary, shown[:2], step=step, nodes=others, confidence=0.85, source=site.source
            )
        ]

    def _rounded_away(self, view: View) -> Iterable[Finding]:
        lost = [place for place in view.flow.of_type("calculated") if self._is_rounded_away(view, place)]
        if not lost:
            return
        frontier = max(lost, key=lambda place: view.position.get(place.node, 0))
        history = view.history(frontier.node, "gradient", role=frontier.role)
        zero, peaks = median(history.of("zero_fraction")), history.of("abs_max")
        summary = (
            f"Gradients underflow in float16 on their way back to {frontier.node}: {zero:.1%} of them are zero, the "
            f"largest is {median(peaks[peaks > 0]):.2g}, and float16 has nothing between 0 and 6e-08 (or values "
            f"overflowed there, and what was divided by infinity is zero)."
        )
        shown = [
            evidence(history, "zero_fraction", "the part that is zero"),
            evidence(history, "abs_max", "the largest"),
        ]
        behind = [link.place for link in view.flow.sinks.get(frontier, ()) if link.differentiable]
        source = next((view.flow.vertices[place].source for place in behind), None)
        yield self.finding(
            view, frontier.node, "warning", summary, shown, step=int(history.steps[0]), confidence=0.8, source=source,
            nodes=list(dict.fromkeys(place.node for place in (*lost, *behind) if place.node != frontier.node)),
            causes="Half precision without a loss scale, or sums of squares beyond 65504.",
            remedy="Scale the loss up (torch.amp.GradScaler), use bfloat16, or keep the operation in float32.",
        )  # fmt: skip

    def _is_rounded_away(self, view: View, place: Place) -> bool:
        history = view.history(place.node, "gradient", role=place.role)
        peaks = history.of("abs_max") if len(history) else np.empty(0)
        peaks = peaks[peaks > 0]
        if len(peaks) < _LEAST or not _is_of_half(peaks):
            return False
        zero, peak = median(history.of("zero_fraction")), median(peaks)
        return zero > self.almost_all or (peak < self.few * _SMALLEST and zero > self.zeros)

    def _finding(self, view: View, key: tuple[str, str], step: int, peak: float, dtype: str, others: int) -> Finding:
        node, quantity = key
        more = f"; so do {others} more tensors" if others else ""
        summary = f"The {quantity} of {node} reaches {peak:.3g} at step {step}, near the end of {dtype}{more}."
        shown = [evidence(view.history(node, quantity), "abs_max", f"{_LARGEST[dtype]:.3g} is the end of {dtype}")]
        return self.finding(view, node, "warning", summary, shown, step=step, confidence=0.8)


def _is_of_half(peaks: Values) -> bool:
    """Whether numbers below 1e-3 are float16 ones: multiples of its smallest one, and not all of bfloat16's kind."""
    units = peaks / _SMALLEST
    whole = bool(np.all((peaks < 2.0**-10) & (units == np.round(units))))
    mantissas = np.frexp(units)[0] * 2**8
    return whole and (bool(np.any(mantissas != np.round(mantissas))) or bool(np.median(units) < 2**7))
