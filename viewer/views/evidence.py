"""The small charts beside a finding: the statistics that it rests on, over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis import Evidence, Finding
from stepscope.store import Trial
from stepscope.store.errors import StoreError
from stepscope.viewer.chart_parts import Curve
from stepscope.viewer.markup import Markup, el, spark
from stepscope.viewer.numbers import short
from stepscope.viewer.sampling import min_max
from stepscope.viewer.views.by_kind import by_kind

_MOST = 4
_POINTS = 160
_SHARED_PERCENT = 5.0
"""What lies outside of these percentiles of a curve does not count for a shared axis: one spike would flatten all."""
_LOG_FROM = 1000.0
"""From which ratio of the largest to the smallest value on an axis is logarithmic."""


@dataclass(frozen=True)
class _Curve:
    """One statistic over the steps, thinned."""

    item: Evidence
    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def finite(self) -> NDArray[np.float64]:
        return self.values[np.isfinite(self.values)]


def charts(trial: Trial, finding: Finding) -> list[Markup]:
    """The evidence as small charts; those of the same statistic have the same axis, so that they can be compared."""
    curves = [curve for item in finding.evidence[:_MOST] if (curve := _curve(trial, item)) is not None]
    return [_chart(curve, _axis(curve, curves), finding.step) for curve in curves]


def _curve(trial: Trial, item: Evidence) -> _Curve | None:
    try:
        series = trial.series(
            item.node, statistic=item.statistic, quantity=item.quantity, role=item.role, iteration=item.iteration,
            kind=item.kind or None,
        )  # fmt: skip
    except StoreError:
        return None
    curve = Curve("", *series)
    shown = curve if item.kind else next(by_kind(trial, curve), curve)
    return _Curve(item, *min_max(shown.steps, shown.values, _POINTS))


def _axis(curve: _Curve, curves: Sequence[_Curve]) -> tuple[float, float] | None:
    """From where to where the axis goes; None if there is nothing finite to draw."""
    if not len(curve.finite):
        return None
    name = (curve.item.statistic, curve.item.quantity)
    alike = [one for one in curves if (one.item.statistic, one.item.quantity) == name and len(one.finite)]
    if len(alike) == 1:
        return float(curve.finite.min()), float(curve.finite.max())
    ends = [np.percentile(one.finite, [_SHARED_PERCENT, 100 - _SHARED_PERCENT]) for one in alike]
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def _chart(curve: _Curve, axis: tuple[float, float] | None, onset: int | None) -> Markup:
    item = curve.item
    what = item.statistic if item.quantity == "value" else f"{item.statistic} of the {item.quantity}"
    link = el("button.link", f"{item.node}, {what}:", title="Show this curve in the network", act=_there(item, onset))
    caption = el("div.label", link, el("span", f" {item.text}"))
    if axis is None:
        return el("div.chart-small", el("div.spark.nothing", "nothing finite"), caption)
    low, high = axis
    log = low > 0 and high / low > _LOG_FROM
    shown = np.clip(curve.values, low, high)
    points = [value if math.isfinite(value) else None for value in (np.log10(shown) if log else shown).tolist()]
    limits = (math.log10(low), math.log10(high)) if log else axis
    notes = ["logarithmic"] if log else []
    notes += ["cut at its edges"] if (curve.finite < low).any() or (curve.finite > high).any() else []
    ends = [el("span.high", short(high)), el("span.low", short(low))] if high > low else [el("span.only", short(low))]
    return el(
        "div.chart-small",
        el("div.axes", *ends, spark(curve.steps.tolist(), points, onset, limits),
           el("div.steps", el("span", f"step {curve.steps[0]}"), el("span", ", ".join(notes)),
              el("span", str(curve.steps[-1])))),
        caption,
    )  # fmt: skip


def _there(item: Evidence, onset: int | None) -> dict[str, object]:
    act: dict[str, object] = {
        "node": item.node, "view": "inspect", "role": item.role or "", "lag": 0, "quantity": item.quantity,
        "statistic": item.statistic,
    }  # fmt: skip
    if item.iteration is not None and item.iteration >= 0:
        act["iteration"] = item.iteration
    return act if onset is None else act | {"step": onset, "kind": "", "follow": False}
