"""The rule ``variance-shift``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History, Values
from stepscope.analysis.layers import rms
from stepscope.analysis.parameters import has_gradient, listed
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.running_statistics import norms
from stepscope.analysis.view import View, evidence

_FEWEST, _LAST = 2, 5


@dataclass(frozen=True)
class VarianceShift(Rule):
    """What a batch normalisation divides by in evaluation mode is not the variance of what it gets there.

    Symptom: good in training, worse in evaluation, though nothing overfits; or a borrowed net that is no better than
    one at random.

    How it is measured: in evaluation mode a normalisation that has learned the variance of its input gives numbers
    whose mean square is that of its weight, beside its bias. The ratio of the two is that of what comes in and what was
    learned. Where a dropout lies before it, without another normalisation in between, the variance is larger in
    training than in evaluation by what dropout adds. Of frozen normalisations in evaluation mode the ratio says whether
    the data, or the weights before them, are those that they were trained with; that is worth knowing only.

    Causes: dropout between a layer and its normalisation, or in the block before it; a checkpoint whose inputs had
    another mean or scale, or whose weights did not all arrive.

    Remedy: put dropout behind the last normalisation; prepare the data as for the checkpoint, and load it with
    ``strict=True``.

    Source: Li et al. (2019), "Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift".

    Attributes:
        less: the part of the learned variance that is left in evaluation, behind a dropout. Source: of ours; without
            one 0.8 to 1.7 in sound runs with batches of 16 and more.
        apart: how many times larger, or smaller, the input of a frozen normalisation may vary. Source: of ours; a net
            that is borrowed for other data often has 2 to 3.
    """

    name = "variance-shift"
    causes = "Dropout between a layer and its normalisation, or in the block before it."
    remedy = "Put dropout behind the last normalisation, or use a layer norm."
    less: float = 0.55
    apart: float = 4.0

    def check(self, view: View) -> Iterable[Finding]:
        evaluated = [step.number for step in view.steps if step.kind not in view.training_kinds]
        trained = [step.number for step in view.training]
        yield from self._by_dropout(view, _ratios(view, evaluated))
        yield from self._of_frozen(view, _ratios(view, trained, frozen=True))

    def _by_dropout(self, view: View, ratios: dict[str, float]) -> Iterable[Finding]:
        shifted = {}
        for path, ratio in ratios.items():
            dropout = _dropout_before(view, path)
            if dropout is not None and ratio < self.less and has_gradient(view, f"{path}.weight"):
                shifted[path] = dropout
        if not shifted:
            return
        (first, dropout), *_ = shifted.items()
        summary = (
            f"Dropout before a batch normalisation shifts its variances: in evaluation the input of {first} varies "
            f"{ratios[first]:.2g} times as much as in training, where {dropout} adds to it."
        )
        if len(shifted) > 1:
            summary += f" The same holds for {listed(list(shifted)[1:])}."
        others = [*list(shifted)[1:], *dict.fromkeys(shifted.values())]
        shown = [evidence(view.history(first, training=False), "std", "smaller in evaluation than in training")]
        step = view.began
        yield self.finding(view, first, "warning", summary, shown, step=step, nodes=others, confidence=0.8)

    def _of_frozen(self, view: View, ratios: dict[str, float]) -> Iterable[Finding]:
        far = [path for path, ratio in ratios.items() if not 1 / self.apart < ratio < self.apart]
        if far:
            worst = max(far, key=lambda path: abs(np.log(ratios[path])))
            summary = (
                f"The frozen statistics of {listed(far)} do not fit what comes in: the input of {worst} varies "
                f"{ratios[worst]:.3g} times as much as they say. The pretrained net was trained on other data, or on "
                f"data prepared in another way, or not all of its checkpoint has arrived."
            )
            shown = [evidence(view.history(worst), "std", "far from that of the weight")]
            yield self.finding(
                view, far[0], "info", summary, shown, step=view.began, nodes=far[1:], confidence=0.6,
                causes="A checkpoint with another mean, scale or kind of data, or one of which a part is missing.",
                remedy="Prepare the data as for the checkpoint; load it with strict=True; compare one output with its.",
            )  # fmt: skip


def _ratios(view: View, steps: Sequence[int], *, frozen: bool = False) -> dict[str, float]:
    """For normalisations in evaluation mode in these steps, the variance of what comes in over that which was learned.

    In training mode it is 1, whatever comes in.
    """
    found = {}
    for path, _ in norms(view):
        weight, bias = f"{path}.weight", f"{path}.bias"
        known = [view.history(node, training=False) for node in (path, weight, bias)]
        if frozen and (has_gradient(view, weight) or not _is_still(view, path)):
            continue
        output, scale, offset = (_squares(history, steps) for history in known)
        if len(output) >= _FEWEST and len(output) == len(scale) == len(offset) and bool(np.all(scale > 0)):
            found[path] = median(((output - offset) / scale)[-_LAST:])
    return found


def _squares(history: History, steps: Sequence[int]) -> Values:
    """The mean squares in some steps."""
    values: Values = rms(history)[np.isin(history.steps, steps)] ** 2
    return values


def _is_still(view: View, path: str) -> bool:
    """Whether its running statistics stay as they are: they are used, and not learned."""
    history = view.history(f"{path}.running_var", training=False)
    return len(history) > _FEWEST and history.is_constant and float(history.of("std")[0]) > 0


def _dropout_before(view: View, path: str) -> str | None:
    """The node of a dropout from which a normalisation is computed, without another one in between."""
    waiting, seen = list(view.flow.of_node(path)), set[Place]()
    while waiting:
        for link in view.flow.sources.get(waiting.pop(), ()):
            operation = view.flow.vertices[link.place].operation
            if "dropout" in operation:
                return link.place.node
            if link.place not in seen and not operation.endswith("_norm"):
                seen.add(link.place)
                waiting.append(link.place)
    return None
