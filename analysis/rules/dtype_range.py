"""The rule ``dtype-range``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import STATISTICS

_LARGEST = {"float16": 65504.0, "bfloat16": 3.39e38, "float32": 3.4e38, "float64": 1.8e308}
_ABS_MAX = STATISTICS.index("abs_max")


@dataclass(frozen=True)
class DtypeRange(Rule):
    """Values or gradients close to the largest number of their dtype.

    Symptom: none yet; the next larger batch or step gives infinities.

    How it is measured: the largest magnitude of each tensor in all training steps against the largest finite number of
    its dtype: 65504 for float16, 3.4e38 for bfloat16 and float32.

    Causes: half precision without a loss scale (or with one that is too large), activations that grow with depth.

    Remedy: use bfloat16, keep the operation in float32, normalise in front of it, or lower the loss scale.

    Attributes:
        part: of the largest number. Source: TorchLens warns at 0.9; from 0.5 a doubling overflows.
    """

    name = "dtype-range"
    causes = "Half precision without a fitting loss scale, or activations that grow with depth."
    remedy = "Use bfloat16, keep the operation in float32, normalise in front of it, or lower the loss scale."
    part: float = 0.5

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

    def _finding(self, view: View, key: tuple[str, str], step: int, peak: float, dtype: str, others: int) -> Finding:
        node, quantity = key
        more = f"; so do {others} more tensors" if others else ""
        summary = f"The {quantity} of {node} reaches {peak:.3g} at step {step}, near the end of {dtype}{more}."
        shown = [evidence(view.history(node, quantity), "abs_max", f"{_LARGEST[dtype]:.3g} is the end of {dtype}")]
        return self.finding(view, node, "warning", summary, shown, step=step, confidence=0.8)
