"""The rule ``accumulated-gradients``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.carried_on import carried_on
from stepscope.analysis.changing import steps_between_changes
from stepscope.analysis.finding import Finding
from stepscope.analysis.leftovers import Leftover, leftovers
from stepscope.analysis.lines import line_of_step
from stepscope.analysis.optimizers import held_by
from stepscope.analysis.own_sums import OwnSums, norms, own_sums, sums_of_groups, with_bias
from stepscope.analysis.parameters import is_unchanged, learning, listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import BACKWARD

_LEAST = 5


@dataclass(frozen=True)
class AccumulatedGradients(Rule):
    """Gradients are never set to zero, so that each step adds its own to those of all steps before.

    Symptom: training starts well and becomes unstable; gradient norms grow with the number of steps.

    How it is measured: a bias is added to every sample, so the sum of its gradient is exactly the sum of the
    gradient of the output of its layer (or normalisation). Where it is instead that sum plus the bias's gradient of
    the step before, in (almost) all pairs of neighbouring recorded steps, nothing was set to zero. Accumulation on
    purpose starts anew now and then. In a net without such layers (of tables, say), gradients count that hardly
    turn from one recorded step to the next and become ever larger, where ``backward`` finds those of an earlier step.
    The layers of each optimizer are judged together. Of a layer that is called up to four times in a step (a critic),
    those calls count whose sum the first gradient is; of groups of losses, those groups.

    Or an optimizer uses the sum of what two losses gave, although one of them trains the parameters of another one that
    lie before: its gradient was left over in a net that it only went through. It is a warning where both work against
    each other, as those of a GAN do; else two losses may be meant.

    Causes: ``optimizer.zero_grad()`` is missing, sits outside the loop, or is called on another optimizer.

    Remedy: call ``optimizer.zero_grad()`` once a step, before ``backward()``.

    Attributes:
        share: of the pairs of steps. Source: accumulation over 16 micro-batches still starts anew in every 16th step,
            15 of 16 are 0.94. Where an optimizer is watched, it must step wherever gradients arrive, besides.
        tolerance: of the equality, relative to the terms. Source: float32 rounding of long sums.
        against: the cosine of both, in the median. Source: a critic is to lower what its generator wants to raise.
        times: without neighbouring steps: how many times its own sum the bias's gradient must be in the median.
            Clipping and averaging over devices only make it smaller.
        kept: and the cosine with that of the recorded step before: of what is carried on most is still there. Noise
            that is added to gradients, for privacy say, is another one in each step.
    """

    name = "accumulated-gradients"
    causes = "optimizer.zero_grad() is missing, sits outside of the loop, or is called on another optimizer."
    remedy = "Call optimizer.zero_grad() once in every step, before backward()."
    share: float = 0.95
    tolerance: float = 5e-3
    times: float = 3.0
    kept: float = 0.3
    against: float = -0.3

    def check(self, view: View) -> Iterable[Finding]:
        judged: dict[tuple[str, ...], list[tuple[float, str]]] = {}
        holders = held_by(view)
        for module in with_bias(view):
            if is_unchanged(view, f"{module}.bias"):
                continue  # in no optimizer, so that its zero_grad does not reach it
            sums = own_sums(view, module) or sums_of_groups(view, f"{module}.bias")
            share = self._share(sums) if sums is not None and _is_stepped(view, f"{module}.bias") else None
            if share is not None:
                judged.setdefault(holders.get(f"{module}.bias", ()), []).append((share, f"{module}.bias"))
        if not judged and (node := carried_on(view)) is not None:
            yield self._finding(view, node, learning(view))
        for names, shares in judged.items():
            if np.median([share for share, _ in shares]) >= self.share:
                held = [node for node in learning(view) if holders.get(node, ()) == names]
                yield self._finding(view, max(shares)[1], held)
        left: dict[tuple[tuple[str, ...], str, str], list[Leftover]] = {}
        for found in leftovers(view):
            left.setdefault((found.optimizers, found.left, found.own), []).append(found)
        yield from (self._left_over(view, group) for group in left.values())

    def _left_over(self, view: View, group: list[Leftover]) -> Finding:
        first, *others = group
        other, own = (name.partition(":")[2] for name in (first.left, first.own))
        against = float(np.median([found.against for found in group]))
        summary = (
            f"Gradients are left over: the optimizer of {listed(found.node for found in group)} uses the sum of what "
            f"{own!r} and {other!r} gave (their cosine is {against:.2g}), but {other!r} trains the parameters of "
            f"another optimizer, and only passed through. No zero_grad() lies between."
        )
        shown = [evidence(view.history(first.node, name), "norm", name) for name in (first.left, first.own, "gradient")]
        return self.finding(
            view, first.node, "warning" if against < self.against else "info", summary, shown,
            step=view.began, nodes=[found.node for found in others], confidence=0.9,
            source=line_of_step(view, BACKWARD), causes="All gradients are set to zero once, before both losses.",
            remedy="Call zero_grad() of an optimizer right before backward() of its own loss.",
        )  # fmt: skip

    def _share(self, sums: OwnSums) -> float | None:
        """The share of neighbouring steps in which the gradient was carried on; None if too few can tell."""
        following = np.flatnonzero(np.diff(sums.steps) == 1) + 1
        if len(following) < _LEAST or sums.of_calls:
            return self._share_of_far_steps(sums)
        before, now, own = sums.bias[following - 1], sums.bias[following], sums.output[following]
        size = norms(before) + norms(now) + norms(own)
        telling = norms(before) > 0.05 * size
        if telling.sum() < _LEAST:
            return None
        carried = norms(now - before - own) <= self.tolerance * size
        return float(np.mean(carried[telling]))

    def _share_of_far_steps(self, sums: OwnSums) -> float | None:
        """The same where no neighbouring steps were recorded: never its own sum alone, but several times as much."""
        bias, own = sums.bias[1:], sums.output[1:]
        if len(own) < _LEAST or not np.all(norms(own) > 0):
            return None
        alone = norms(bias - own) <= self.tolerance * (norms(bias) + norms(own))
        before = sums.bias[:-1]
        cosines = (before * bias).sum(-1) / np.maximum(norms(before) * norms(bias), 1e-300)
        kept = min(np.median(cosines), np.mean(cosines))  # of one number they are 1 or -1, and the median by chance
        is_more = np.median(norms(bias) / norms(own)) > self.times and kept > self.kept
        return float(np.mean(~alone)) if is_more else 0.0

    def _finding(self, view: View, bias: str, held: list[str]) -> Finding:
        history = view.history(bias, "gradient")
        norms = history.of("norm")
        summary = (
            f"Gradients are never set to zero: that of {bias} is carried on from step to step "
            f"(its norm goes from {norms[0]:.2g} to {norms[-1]:.2g})."
        )
        shown = [evidence(history, "norm", "carried on from step to step")]
        return self.finding(
            view, bias, "error", summary, shown, step=int(history.steps[0]), confidence=0.97,
            source=line_of_step(view, BACKWARD), nodes=[node for node in held if node != bias],
        )  # fmt: skip


def _is_stepped(view: View, bias: str) -> bool:
    """Whether the optimizer steps (or no optimizer is known) wherever gradients arrive: else they add up on purpose."""
    updates, given = len(view.history(bias, "update")), len(view.history(bias, "gradient"))
    if updates == 0:
        return steps_between_changes(view, [bias]) is None
    return updates > given / 2
