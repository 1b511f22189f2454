"""How much of what an adaptive optimizer may change it does change: all of it where gradients keep their direction."""

from __future__ import annotations

import numpy as np

from stepscope.analysis.history import Values
from stepscope.analysis.layers import layers
from stepscope.analysis.optimizers import settings
from stepscope.analysis.view import View


def same_way(view: View) -> float | None:
    """The mean magnitude of the updates over the learning rate, in the last third of the training steps.

    Of Adam and its like this is the mean gradient over its root mean square: 1 where a gradient is the same in every
    step, near 0 where it is noise (Kingma and Ba 2015, section 2.1: the signal-to-noise ratio). It is that of the layer
    in the middle; None of other optimizers, of rates that differ, and where the rate is not constant.
    """
    rates = {float(group["lr"]) for group in (*settings(view), *settings(view, last=True)) if _adapts(group)}
    if len(rates) != 1 or len(settings(view)) != sum(map(_adapts, settings(view))):
        return None
    shares = [_late(view.history(layer.weight, "update").of("abs_mean")) for layer in layers(view)]
    rate = rates.pop()
    return float(np.median(shares)) / rate if shares and rate else None


def _adapts(group: dict[str, object]) -> bool:
    return isinstance(group.get("lr"), (int, float)) and "betas" in group and "eps" in group


def _late(values: Values) -> float:
    """The median of the last third."""
    return float(np.median(values[-(len(values) // 3 + 1) :])) if len(values) else 0.0
