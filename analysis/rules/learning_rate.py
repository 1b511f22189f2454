"""The rule ``learning-rate``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.added_up import added_up
from stepscope.analysis.curves import LEAST_POINTS, fallen, loss_curves
from stepscope.analysis.finding import Evidence, Finding
from stepscope.analysis.history import Values
from stepscope.analysis.layers import Layer, layers, update_ratio
from stepscope.analysis.moving import is_of_policy
from stepscope.analysis.optimizers import by_optimizer, held_by, is_plain, settings
from stepscope.analysis.parameters import learning, trainable
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.same_way import same_way
from stepscope.analysis.update_sizes import (
    count_matrices,
    has_size,
    highest,
    is_all_plain,
    is_even,
    late,
    learning_rates,
    medians,
    middle,
    moves_elsewhere,
)
from stepscope.analysis.view import View, evidence

_FIRST = 5
_LEAST_STEPS = 50
_LEARNED, _HALF = 0.55, 0.5
"""The part of the first loss that has to be gone where a first step was as large as the weights, and otherwise."""
_FELL = 1.0
"""In the place of what says nothing: the loss of a policy need not fall while it learns."""
_LITTLE = 0.2
"""The same where steps of a good part of the weights' size go on for a while."""
_AS_LARGE = 0.8
"""A first step of the size of the weights themselves."""
_USUAL = 1e-3
_ALIKE = 5
_SLOW_FALL = 0.2
"""A loss of which more is gone is on its way."""
_RISES = 1.2
"""Ratios that are so much larger in the last third of the steps grow: a warm-up."""


@dataclass(frozen=True)
class LearningRate(Rule):
    """Updates that are far too large, or far too small, for the weights they change.

    Symptom: too large: the loss jumps about, rises, or settles early; too small: it hardly moves.

    How it is measured: the norm of the update over the norm of the weight, in the median of the training steps (or of
    the first five, before weights that explode hide it) and then of the layers. About 1e-3 is usual. An alarm needs a
    loss that says the same: it did not fall well, where that of a policy says nothing; only ratios beyond any use are
    told without it. Too small is also a rate at which all steps together can hardly change the weights, if it does not
    grow (a warm-up), and the loss stays (of nets that play against each other, all losses do); and one with which Adam
    still goes the same way after many steps: updates are nearly as large as the rate, since gradients keep their
    direction, which they do not once the weights get somewhere; and, of SGD without momentum, one at which all steps
    together hardly change the recurrent weights, whose gradients are small, or, if it is a small one, any weights.

    Causes: a learning rate taken over from another optimizer or size of net; weights of an unusual scale.

    Remedy: change the learning rate by the factor that brings the ratio to 1e-3; then look again.

    Attributes:
        large: the ratio above which weights are replaced within ten steps. Source: a hundred times the usual 1e-3
            (Karpathy's rule of thumb); smdebug's 10 is no bound in practice.
        absurd: the ratio that is told even if the loss falls.
        replaced: the same for the very first step: weights that are all but replaced by it, in a net of several
            layers. Source: adapters that start near zero had 0.44, all other healthy runs less than 0.3.
        halved: the same, where the first steps are ``large`` as well, and little of the loss is gone.
        swept: the same, told whatever the loss does, in a net of three layers and more. Source: of 600 healthy runs the
            first step of none with so many layers reached 1.
        rise, grown: a loss that has grown by so many times its start has diverged: then one step counts at which the
            ratio of most layers is ``absurd``, or ``large`` if their weights have become ``grown`` times as large.
            Source: in nine of ten of 517 sound runs they become less than 2.9 times as large.
        small: the ratio below which a thousand steps change one percent. Source: a hundredth of the usual 1e-3.
        way: the ratio times the number of steps below which the weights are where they began. Source: of runs that
            learned in 150 steps the slowest went 0.1.
        fall: the part of the first loss that should be gone, else it did not fall well.
        half: the same of a recurrent net whose recurrent weights hardly move by SGD without momentum.
        straight: the mean update over the rate, in the last third of the steps. Source: of runs that learned well it
            was 0.28 at most, mostly below 0.15; of those with a hundredth of their rate 0.26 to 1.2.
        apart: how many times less than other optimizers' layers those of one by plain SGD, below ``slow``, may move.
            Source: of ours.
        plain: the rate of SGD without momentum up to which it is to blame if no weight gets anywhere. Source: torch's
            examples train with 0.01 to 0.1, and momentum.
        slow: the ratio below which the loss should have begun to fall nevertheless. Source: of runs that learned
            without having been trained before the slowest had 1.5e-3.
    """

    name = "learning-rate"
    about = "optimizer"
    causes = "A learning rate that does not fit the optimizer, the size of the net, or the scale of its weights."
    remedy = "Change the learning rate so that updates are about a thousandth of the weights, and look again."
    large: float = 0.1
    absurd: float = 0.5
    replaced: float = 0.6
    halved: float = 0.4
    swept: float = 1.1
    rise: float = 2.0
    grown: float = 3.0
    small: float = 1e-5
    way: float = 0.03
    fall: float = 0.1
    half: float = 0.5
    straight: float = 0.35
    slow: float = 7e-4
    apart: float = 8.0
    plain: float = 0.01

    def check(self, view: View) -> Iterable[Finding]:
        if any("max_iter" in group for group in settings(view)):  # LBFGS: a step is many steps
            return
        known = [(layer, update_ratio(view, layer)) for layer in layers(view)]
        known = [(layer, ratios) for layer, ratios in known if len(ratios) >= (1 if view.broken else 3)]
        if not known:
            yield from self._of_tables(view)
            return
        ratio, layer = middle((float(np.median(ratios)), layer) for layer, ratios in known)
        early, _ = middle((float(np.median(ratios[:_FIRST])), layer) for layer, ratios in known)
        first = np.median([float(ratios[0]) if has_size(view, layer) else 0.0 for layer, ratios in known])
        part = _FELL if is_of_policy(view) else fallen(view)
        is_single = count_matrices(view) == 1  # it finds its way from anywhere, unless it is thrown about
        if max(ratio, early) > self.absurd or (not is_single and self._is_high(ratio, early, float(first), part)):
            yield self._finding(view, layer.weight, max(ratio, early), part, "high")
        elif len(known) > 2 and first > self.swept:
            yield self._finding(view, layer.weight, float(first), part, "high", amount="at first ")
        elif (worst := self._of_a_group(view, known)) is not None:
            yield self._finding(view, worst.weight, float(np.median(dict(known)[worst][:_FIRST])), part, "high")
        elif part < -self.rise and not is_single and (peak := highest(known)) > self._too_far(view, known):
            yield self._finding(view, layer.weight, peak, part, "high", amount="up to ")
        elif (
            self._is_slow(view, known, part)
            or self._stands_still(view, known)
            or (part < self.fall and self._is_barely_stepped(view, known))
            or (
                part < self.fall
                and ((ratio < self.slow and is_even(known)) or not moves_elsewhere(view, layer))
                and self._is_low(view, known, part)
            )
        ):
            yield self._finding(view, layer.weight, ratio, part, "low")
        elif part < self.half and (slow := self._standing_recurrence(view)):
            yield self._finding(view, *slow, part, "low")
        elif (standing := self._standing_optimizer(view, known)) is not None:
            yield self._finding(view, standing.weight, median(dict(known)[standing]), part, "low")

    def _too_far(self, view: View, known: Sequence[tuple[Layer, Values]]) -> float:
        """The ratio of one step that counts where the loss has diverged: less if steps have blown up the weights."""
        norms = [view.history(layer.weight).of("norm") for layer, _ in known]
        grown = float(np.median([float(norm[-1] / norm[0]) for norm in norms if norm[0] > 0] or [0.0]))
        return self.large if grown > self.grown else self.absurd

    def _standing_optimizer(self, view: View, known: Sequence[tuple[Layer, Values]]) -> Layer | None:
        """A layer in the middle of those that SGD without momentum hardly moves, far less than others theirs do."""
        if view.training[-1].number - view.began < 2 * _LEAST_STEPS:
            return None
        holders, groups = held_by(view), by_optimizer(view)
        medians = {layer: median(ratios) for layer, ratios in known}
        for name in groups if len(groups) > 1 else ():
            own = [layer for layer in medians if name in holders.get(layer.weight, ())]
            others = [medians[layer] for layer in medians if layer not in own]
            if not own or not others or not all(is_plain(group) for group in groups[name]):
                continue
            ratio, layer = middle((medians[layer], layer) for layer in own)
            if 0 < ratio < min(self.slow, float(np.median(others)) / self.apart):
                return layer
        return None

    def _stands_still(self, view: View, known: Sequence[tuple[Layer, Values]]) -> bool:
        """Whether no layer gets anywhere with all steps together, nor does any of several losses."""
        steps = view.training[-1].number - view.began
        if len(view.objectives) < 2 or steps < _LEAST_STEPS or late(known) * steps >= self.way:
            return False
        curves = [curve for curve in loss_curves(view) if len(curve) >= LEAST_POINTS]
        return bool(curves) and all(abs(curve.start - curve.end) < self.fall * abs(curve.start) for curve in curves)

    def _is_barely_stepped(self, view: View, known: Sequence[tuple[Layer, Values]]) -> bool:
        """Whether no weight gets anywhere by SGD without momentum, at a rate that is small for it."""
        steps = view.training[-1].number - view.began
        is_small = is_all_plain(view) and max(learning_rates(view), default=1.0) <= self.plain
        return is_small and steps >= 2 * _LEAST_STEPS and late(known) * steps < self.way

    def _standing_recurrence(self, view: View) -> tuple[str, float] | None:
        """The recurrent weight, and its ratio, if none of them gets anywhere by SGD without momentum.

        Gradients through time are small, and plain SGD, unlike Adam, does not make up for it.
        """
        steps = view.training[-1].number - view.began
        if steps < 2 * _LEAST_STEPS or not is_all_plain(view):
            return None
        every = [Layer(p.module, p.module_class, p.node, p.shape, 1) for p in trainable(view) if "weight_hh" in p.node]
        known = [(layer, ratios) for layer in every if len(ratios := update_ratio(view, layer)) >= _FIRST]
        if not known or late(known) * steps >= self.way:
            return None
        ratio, layer = middle((float(np.median(ratios)), layer) for layer, ratios in known)
        return layer.weight, ratio

    def _of_tables(self, view: View) -> Iterable[Finding]:
        """Of nets without layers, all tables of vectors, say: that they stand still, or are thrown about."""
        every = [Layer(p.module, p.module_class, p.node, p.shape, 1) for p in trainable(view) if len(p.shape) > 1]
        known = [(layer, ratios) for layer in every if len(ratios := update_ratio(view, layer)) >= _FIRST]
        part = fallen(view)
        steps = view.training[-1].number - view.began if view.training else 0
        is_short = steps >= _LEAST_STEPS and len(known) > 0 and late(known) * steps < self.way
        if not known or part >= _SLOW_FALL:
            return
        ratio, layer = max(((float(np.median(ratios)), layer) for layer, ratios in known), key=lambda entry: entry[0])
        if ratio > self.absurd and part < 0:
            yield self._finding(view, layer.weight, ratio, part, "high")
        elif max(medians(known)) < self.small or is_short:
            ratio, layer = middle((float(np.median(ratios)), layer) for layer, ratios in known)
            yield self._finding(view, layer.weight, ratio, part, "low")

    def _is_high(self, ratio: float, early: float, first: float, part: float) -> bool:
        """By the median of all steps, that of the first ones, the very first, and the part of the loss that is gone.

        Of several layers, which depend on each other.
        """
        largest = max(ratio, early)
        learned = _LEARNED if first > _AS_LARGE else _HALF
        is_large = largest > self.large and (part < self.fall or (part < _LITTLE and first > self.halved))
        return (first > self.replaced and part < learned) or is_large

    def _of_a_group(self, view: View, known: Sequence[tuple[Layer, Values]]) -> Layer | None:
        """The layer that moves most, where groups have rates of their own, if its first steps replace it."""
        if len(set(learning_rates(view))) < 2:
            return None
        layer, ratios = max(known, key=lambda entry: float(np.median(entry[1][:_FIRST])))
        early = float(np.median(ratios[:_FIRST]))
        beyond = has_size(view, layer) and float(ratios[0]) > 1 and early > self.absurd / 2
        return layer if beyond else None

    def _is_low(self, view: View, known: Sequence[tuple[Layer, Values]], part: float) -> bool:
        """Whether no layer gets anywhere: ever, or with all steps together, unless that changes soon (a warm-up)."""
        fastest = max(medians(known))
        if fastest < self.small:
            return True
        steps = view.training[-1].number - view.began
        if steps < _LEAST_STEPS:
            return False
        last = late(known)
        is_late = steps >= 2 * _LEAST_STEPS and last < _RISES * fastest
        return last * steps < self.way or (is_late and part < self.fall / 2 and last < self.slow)

    def _is_slow(self, view: View, known: Sequence[tuple[Layer, Values]], part: float) -> bool:
        """Whether gradients have kept their direction all the way, since the weights hardly moved along it."""
        steps, last = view.training[-1].number - view.began, late(known)
        if part > _SLOW_FALL or steps < 2 * _LEAST_STEPS or last > min(2 * _USUAL, _RISES * max(medians(known))):
            return False
        straight = same_way(view)
        return straight is not None and straight > self.straight

    def _finding(self, view: View, weight: str, ratio: float, part: float, how: str, *, amount: str = "") -> Finding:
        rates = sorted({f"{rate:g}" for rate in learning_rates(view)})
        told = f" of {', '.join(rates)}" if rates else ""
        how += " for SGD without momentum" if how == "low" and is_all_plain(view) else ""
        loss = f"the loss fell by {part:.1%}" if 0 < part <= 1 else "the loss has not fallen"
        summary = (
            f"The learning rate{told} is too {how}: a step changes the weights by {amount}{ratio:.1g} of their size "
            f"(in the median; {weight} is in the middle), where 0.001 is usual; {loss}."
        )
        update = view.history(weight, "update")
        first, last = int(update.steps[0]), int(update.steps[-1])
        ratio_curve = Evidence(weight, None, "update", "ratio", None, first, last, f"{ratio:.1g} in the median")
        shown = [ratio_curve, *(evidence(curve.history, "mean", "the loss") for curve in list(loss_curves(view))[:1])]
        others = [node for node in learning(view) if node != weight]
        why = added_up(view) if how == "high" else None
        return self.finding(
            view, weight, "warning", summary + (f" {why.text}" if why else ""), shown, step=view.began, nodes=others,
            confidence=0.8, source=why.source if why else None,
        )  # fmt: skip
