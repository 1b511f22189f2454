"""How far the steps of a training move the weights, layer by layer, as parts of their size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stepscope.analysis.history import Values
from stepscope.analysis.layers import Layer, rms
from stepscope.analysis.optimizers import is_plain, settings
from stepscope.analysis.parameters import learning, trainable
from stepscope.analysis.robust import median
from stepscope.analysis.view import View

_USUAL = 1e-3
_ALIKE = 5


def highest(known: Sequence[tuple[Layer, Values]]) -> float:
    """The largest ratio of any step, in the median of the layers; those of other lengths are left out."""
    length = max(len(ratios) for _, ratios in known)
    return float(np.max(np.median([ratios for _, ratios in known if len(ratios) == length], axis=0)))


def is_even(known: Sequence[tuple[Layer, Values]]) -> bool:
    """Whether several layers move alike: where gradients vanish, the first ones move far less than the last."""
    ratios = medians(known)
    return len(ratios) > 1 and max(ratios) < _ALIKE * min(ratios)


def medians(known: Iterable[tuple[Layer, Values]]) -> list[float]:
    """The median of each layer: where only some layers hardly move, gradients vanish, and no rate is to blame."""
    return [float(np.median(ratios)) for _, ratios in known]


def late(known: Iterable[tuple[Layer, Values]]) -> float:
    """The largest ratio of a layer in the last third of the steps."""
    return max(medians((layer, ratios[-(len(ratios) // 3 + 1) :]) for layer, ratios in known))


def count_matrices(view: View) -> int:
    """How many weights of two and more dimensions learn, recurrent ones and tables included."""
    return sum(len(parameter.shape) > 1 for parameter in trainable(view))


def has_size(view: View, layer: Layer) -> bool:
    """Whether a weight starts with anything but zeros: else its first step is as large as it is."""
    return float(view.history(layer.weight).of("norm")[0]) > 0


def is_all_plain(view: View) -> bool:
    """Whether all is trained by SGD without momentum."""
    return all(is_plain(group) for group in settings(view))


def moves_elsewhere(view: View, layer: Layer) -> bool:
    """Whether some parameter (a bias near the loss) moves well: the rate is fine, and other gradients vanish."""
    moved = [median(view.history(node, "update").of("abs_max")) for node in learning(view)]
    return max(moved, default=0.0) > _USUAL * median(rms(view.history(layer.weight)))


def middle(entries: Iterable[tuple[float, Layer]]) -> tuple[float, Layer]:
    """The entry in the middle, by its number."""
    ordered = sorted(entries, key=lambda entry: entry[0])
    return ordered[len(ordered) // 2]


def learning_rates(view: View) -> Iterable[float]:
    """Of every group of every optimizer, where it is a number."""
    return (float(group["lr"]) for group in settings(view) if isinstance(group.get("lr"), (int, float)))
