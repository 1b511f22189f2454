"""The rule ``learning-rate``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.baseline import baselines, is_sum
from stepscope.analysis.curves import fallen, loss_curves
from stepscope.analysis.finding import Evidence, Finding
from stepscope.analysis.history import Values
from stepscope.analysis.layers import Layer, layers, rms, update_ratio
from stepscope.analysis.lines import line_of_loss, line_of_step
from stepscope.analysis.optimizers import settings
from stepscope.analysis.parameters import learning
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import SourceLine

_FIRST = 5
_LEAST_STEPS = 50
_LEARNED, _HALF = 0.9, 0.5
_USUAL = 1e-3


@dataclass(frozen=True)
class LearningRate(Rule):
    """Updates that are far too large, or far too small, for the weights they change.

    Symptom: too large: the loss jumps about, rises, or settles early; too small: it hardly moves.

    How it is measured: the norm of the update over the norm of the weight, in the median of the training steps (or of
    the first five, before weights that explode hide it) and then of the layers. About 1e-3 is usual. An alarm needs a
    loss that says the same: it did not fall well; only ratios beyond any use are told without it. Too small is also a
    rate at which all steps together can hardly change the weights, if it does not grow (a warm-up), and the loss stays.

    Causes: a learning rate taken over from another optimizer or size of net; weights of an unusual scale.

    Remedy: change the learning rate by the factor that brings the ratio to 1e-3; then look again.

    Attributes:
        large: the ratio above which weights are replaced within ten steps. Source: a hundred times the usual 1e-3
            (Karpathy's rule of thumb); smdebug's 10 is no bound in practice.
        absurd: the ratio that is told even if the loss falls.
        replaced: the same for the very first step: weights that are all but replaced by it. Source: adapters that
            start near zero had 0.44, all other healthy runs less than 0.3.
        small: the ratio below which a thousand steps change one percent. Source: a hundredth of the usual 1e-3.
        way: the ratio times the number of steps below which the weights are where they began. Source: of runs that
            learned in 150 steps the slowest went 0.1.
        fall: the part of the first loss that should be gone, else it did not fall well.
    """

    name = "learning-rate"
    about = "optimizer"
    causes = "A learning rate that does not fit the optimizer, the size of the net, or the scale of its weights."
    remedy = "Change the learning rate so that updates are about a thousandth of the weights, and look again."
    large: float = 0.1
    absurd: float = 0.5
    replaced: float = 0.6
    small: float = 1e-5
    way: float = 0.03
    fall: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        if any("max_iter" in group for group in settings(view)):  # LBFGS: a step is many steps
            return
        known = [(layer, update_ratio(view, layer)) for layer in layers(view)]
        known = [(layer, ratios) for layer, ratios in known if len(ratios) >= (1 if view.broken else 3)]
        if not known:
            return
        ratio, layer = _middle((float(np.median(ratios)), layer) for layer, ratios in known)
        early, _ = _middle((float(np.median(ratios[:_FIRST])), layer) for layer, ratios in known)
        first = np.median([float(ratios[0]) if _has_size(view, layer) else 0.0 for layer, ratios in known])
        part = fallen(view)
        if self._is_high(ratio, early, float(first), part):
            yield self._finding(view, layer.weight, max(ratio, early), part, "high")
        elif (worst := self._of_a_group(view, known)) is not None:
            yield self._finding(view, worst.weight, float(np.median(dict(known)[worst][:_FIRST])), part, "high")
        elif part < self.fall and not _moves_elsewhere(view, layer) and self._is_low(view, known):
            yield self._finding(view, layer.weight, ratio, part, "low")

    def _is_high(self, ratio: float, early: float, first: float, part: float) -> bool:
        """By the median of all steps, that of the first ones, the very first, and the part of the loss that is gone."""
        largest = max(ratio, early)
        learned = _LEARNED if first > 1 else _HALF
        beyond = largest > self.absurd or (first > self.replaced and part < learned)
        return beyond or (largest > self.large and part < self.fall)

    def _of_a_group(self, view: View, known: Sequence[tuple[Layer, Values]]) -> Layer | None:
        """The layer that moves most, where groups have rates of their own, if its first steps replace it."""
        if len(set(_rates(view))) < 2:
            return None
        layer, ratios = max(known, key=lambda entry: float(np.median(entry[1][:_FIRST])))
        early = float(np.median(ratios[:_FIRST]))
        beyond = _has_size(view, layer) and float(ratios[0]) > 1 and early > self.absurd / 2
        return layer if beyond else None

    def _is_low(self, view: View, known: Sequence[tuple[Layer, Values]]) -> bool:
        """Whether no layer gets anywhere: ever, or with all steps together, unless that changes soon (a warm-up)."""
        if max(_medians(known)) < self.small:
            return True
        steps = view.training[-1].number - view.training[0].number
        if steps < _LEAST_STEPS:
            return False
        last = max(_medians((layer, ratios[-(len(ratios) // 3 + 1) :]) for layer, ratios in known))
        return last * steps < self.way

    def _finding(self, view: View, weight: str, ratio: float, part: float, how: str) -> Finding:
        rates = sorted({f"{rate:g}" for rate in _rates(view)})
        told = f" of {', '.join(rates)}" if rates else ""
        loss = f"the loss fell by {part:.1%}" if 0 < part <= 1 else "the loss has not fallen"
        summary = (
            f"The learning rate{told} is too {how}: a step changes the weights by {ratio:.1g} of their size (in the "
            f"median; {weight} is in the middle), where 0.001 is usual; {loss}."
        )
        update = view.history(weight, "update")
        first, last = int(update.steps[0]), int(update.steps[-1])
        ratio_curve = Evidence(weight, None, "update", "ratio", None, first, last, f"{ratio:.1g} in the median")
        shown = [ratio_curve, *(evidence(curve.history, "mean", "the loss") for curve in list(loss_curves(view))[:1])]
        others = [node for node in learning(view) if node != weight]
        why, line = _added_up(view) if how == "high" else ("", None)
        return self.finding(
            view, weight, "warning", summary + why, shown, step=view.training[0].number, nodes=others, confidence=0.8,
            source=line,
        )  # fmt: skip


def _medians(known: Iterable[tuple[Layer, Values]]) -> list[float]:
    """The median of each layer: where only some layers hardly move, gradients vanish, and no rate is to blame."""
    return [float(np.median(ratios)) for _, ratios in known]


def _has_size(view: View, layer: Layer) -> bool:
    """Whether a weight starts with anything but zeros: else its first step is as large as it is."""
    return float(view.history(layer.weight).of("norm")[0]) > 0


def _added_up(view: View) -> tuple[str, SourceLine | None]:
    """What makes the gradients large besides the rate, in words, and its line: sums where means are usual."""
    for baseline in baselines(view):
        history = view.history(baseline.loss.node, role=baseline.loss.role)
        if len(history) and is_sum(float(history.of("mean")[0]), baseline):
            return f" {baseline.loss.node} is a sum over the batch, not a mean.", line_of_loss(view, baseline.loss.node)
    calls = len(view.training[0].iterations)
    weights = [view.history(loss.node, "gradient", role=loss.role).of("mean") for loss in view.objectives]
    if calls > 2 and weights and all(len(weight) and bool(np.all(weight == 1)) for weight in weights):
        return f" The gradients of {calls} batches are added up, not averaged.", line_of_step(view, "backward")
    return "", None


def _moves_elsewhere(view: View, layer: Layer) -> bool:
    """Whether some parameter (a bias near the loss) moves well: the rate is fine, and other gradients vanish."""
    moved = [median(view.history(node, "update").of("abs_max")) for node in learning(view)]
    return max(moved, default=0.0) > _USUAL * median(rms(view.history(layer.weight)))


def _middle(entries: Iterable[tuple[float, Layer]]) -> tuple[float, Layer]:
    """The entry in the middle, by its number."""
    ordered = sorted(entries, key=lambda entry: entry[0])
    return ordered[len(ordered) // 2]


def _rates(view: View) -> Iterable[float]:
    return (float(group["lr"]) for group in settings(view) if isinstance(group.get("lr"), (int, float)))
