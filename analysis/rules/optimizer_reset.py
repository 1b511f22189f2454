"""The rule ``optimizer-reset``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.optimizers import held_by, settings
from stepscope.analysis.parameters import learning, listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import STATISTICS, SourceLine

_LEAST, _MOST, _NEAR, _ALWAYS = 10, 20, 0.02, 0.9
_SQUARES = "exp_avg_sq"
_KNOWN = [STATISTICS.index(name) for name in ("mean", "std", "norm")]


@dataclass(frozen=True)
class OptimizerReset(Rule):
    """The optimizer forgets its state in every step, as if it were made anew each time.

    Symptom: momentum has no effect; Adam moves every weight by the same amount, whatever the size of its gradient.

    How it is measured: momentum is a running sum of gradients. Where its norm is that of the present gradient alone,
    times the weight that a first step gives it (``1 - beta1`` for Adam, 1 for SGD), in (almost) all recorded steps and
    for all parameters, nothing is left of the steps before.

    Or at one step: a running mean of squares falls by its decay at most (``beta2`` for each step), and it has fallen
    further for (almost) all parameters at once.

    Or: no watched optimizer ever makes a step, and yet the weights it holds go on changing. Another one moves them: one
    that is made anew, as a rule. Where the kept elements of a weight move by whole numbers of Adam's learning rate, 1,
    -1 or none for each step, whatever their gradients, this is certain: so far goes the first step of an Adam. So it is
    where zeros of a parameter's shape are made outside of the model in every step.

    Causes: the optimizer is made inside the loop, its state is cleared or loaded from an old checkpoint in every step.

    Remedy: make the optimizer once, before the loop, and leave its state alone.

    Attributes:
        share: of the steps. Source: one where no step before had a gradient is the first one only.
        below: the part of what decay leaves, below which a mean of squares is lost. Source: rounding is far less.
        tolerance: of the equality, relative. Source: rounding of float32 norms; gradients that happen to agree with
            their running mean in size do so once in a while, to a percent.
        whole: the share of an element's moves that are whole numbers of learning rates, up to a fiftieth. Source: of
            moves at random a twenty-fifth are.
    """

    name = "optimizer-reset"
    about = "optimizer"
    causes = "The optimizer is made inside the loop, or its state is cleared, or loaded again, in every step."
    remedy = "Make the optimizer once, before the loop, and leave its state alone."
    share: float = 0.95
    below: float = 0.5
    tolerance: float = 1e-3
    whole: float = 0.9

    def check(self, view: View) -> Iterable[Finding]:
        moved = [node for node, names in held_by(view).items() if names and _moves(view, node)]
        if moved and not any(len(view.history(node, "update")) for node in held_by(view)):
            yield self._by_another(view, moved)
            return
        shares = {node: self._share(view, node) for node in learning(view)}
        known = {node: share for node, share in shares.items() if np.isfinite(share)}
        if known and min(known.values()) >= self.share:
            yield self._finding(view, list(known))
            return
        yield from self._at_a_step(view)

    def _at_a_step(self, view: View) -> Iterable[Finding]:
        """Mean squares of gradients that are gone from one step to the next, which decay alone cannot do."""
        found: dict[int, list[str]] = defaultdict(list)
        nodes = learning(view)
        for node in nodes:
            for step in self._losses(view, node):
                found[step].append(node)
        step = max(found, key=lambda number: len(found[number]), default=-1)
        if step < 0 or len(found[step]) < self.share * len(nodes):
            return
        first, *others = found[step]
        state = view.history(first, _SQUARES)
        place = int(np.flatnonzero(state.steps == step)[0])
        before, after = state.of("norm")[place - 1 : place + 1]
        summary = (
            f"The state of the optimizer is lost at step {step}: the mean squares of the gradients of "
            f"{listed(found[step])} fall from {before:.2g} to {after:.2g} ({first}), which decay alone cannot do. "
            f"It begins anew there: a new optimizer, or a checkpoint of which the optimizer's state was not loaded."
        )
        yield self.finding(
            view, first, "warning", summary, [evidence(state, "norm", f"{before:.2g} to {after:.2g}")], step=step,
            nodes=others, confidence=0.85,
            causes="A training that is resumed with the weights only, or an optimizer that is made anew at an epoch.",
            remedy="Save and load optimizer.state_dict(), and that of the schedule, with the weights.",
        )  # fmt: skip

    def _losses(self, view: View, node: str) -> list[int]:
        """The steps at which the running mean of squared gradients has fallen below what decay leaves of it."""
        state = view.history(node, _SQUARES)
        if len(state) < _LEAST:
            return []
        norms, between = state.of("norm"), np.diff(state.steps)
        left = norms[:-1] * _decay(view) ** between
        return [int(number) for number in state.steps[1:][norms[1:] < self.below * left]]

    def _by_another(self, view: View, moved: list[str]) -> Finding:
        whole = float(np.median([_whole_moves(view, node) for node in moved]))
        made = _states_made(view)
        summary = (
            f"The watched optimizer never makes a step, but {len(moved)} of its parameters go on changing: another one "
            f"moves them. If that new optimizer is made in the loop, the state of the optimizer is lost in every step."
        )
        if made is not None:
            summary += " So it is: the state of each parameter is made anew in (almost) all of them."
        elif whole >= self.whole:
            summary += (
                f" So it is: {whole:.0%} of the moves are whole learning rates, as an Adam's first step makes them."
            )
        level: Level = "warning" if made is not None or whole >= self.whole else "info"
        return self.finding(
            view, moved[0], level, summary, [evidence(view.history(moved[0]), "norm", "it changes all the same")],
            step=view.began, nodes=moved[1:], confidence=0.9, source=made,
        )  # fmt: skip

    def _share(self, view: View, node: str) -> float:
        """The share of steps in which the momentum is that of a first step; NaN if nothing can be said."""
        gradient = view.history(node, "gradient")
        for state, weight in _first_weights(view).items():
            momentum = view.history(node, state)
            if len(momentum) < _LEAST or not np.array_equal(momentum.steps, gradient.steps):
                continue
            norms, own = momentum.of("norm")[1:], weight * gradient.of("norm")[1:]
            telling = own > 0
            if telling.sum() >= _LEAST - 1:
                alone = np.abs(norms - own)[telling] <= self.tolerance * own[telling]
                return float(np.mean(alone))
        return float("nan")

    def _finding(self, view: View, nodes: list[str]) -> Finding:
        state = next(state for state in _first_weights(view) if len(view.history(nodes[0], state)))
        momentum = view.history(nodes[0], state)
        summary = (
            f"The optimizer's state is made anew in every step: {state} of {nodes[0]}, and of {len(nodes) - 1} more "
            f"parameters, holds the present gradient alone, in all of {len(momentum)} recorded steps."
        )
        shown = [
            evidence(momentum, "norm", "the momentum"),
            evidence(view.history(nodes[0], "gradient"), "norm", "the gradient of the step"),
        ]
        return self.finding(view, nodes[0], "warning", summary, shown, step=view.began, nodes=nodes[1:], confidence=0.9)


def _moves(view: View, node: str) -> bool:
    """Whether a parameter changes between most of the recorded steps."""
    values = view.history(node).statistics[:, _KNOWN]
    return len(values) >= _LEAST and bool(np.mean((values[1:] != values[:-1]).any(axis=1)) > 0.5)


def _states_made(view: View) -> SourceLine | None:
    """The line at which zeros are made of a parameter's shape in (almost) all steps, and no gradient asks for them."""
    lines: Counter[SourceLine] = Counter()
    for step in view.training[:_MOST]:
        graph = step.graph((step.iterations or (0,))[-1])
        zeros = [call for call in graph.calls if call.kind == "cut" and call.operation == "zeros_like" and call.before]
        made = [call.source for call in zeros if all(graph.vertices[i].type == "parameter" for i in call.before)]
        lines.update(set(made))
    line, count = lines.most_common(1)[0] if lines else (None, 0)
    return line if count >= _ALWAYS * min(_MOST, len(view.training)) else None


def _whole_moves(view: View, node: str) -> float:
    """The share of the kept elements' moves between recorded steps that are whole numbers of an Adam's rate."""
    group = next((group for group in settings(view) if "betas" in group and not group.get("weight_decay")), None)
    place = Place(node, view.nodes[node].roles[-1])
    kept = [(step.number, neurons_of(step, place)) for step in view.training[:_MOST]]
    values = [(number, found.samples.ravel().astype(np.float64)) for number, found in kept if found is not None]
    if group is None or len(values) < 2 or not group["lr"]:
        return 0.0
    shares = [
        float(np.mean(np.abs(times - np.round(times)) < _NEAR))
        for (before, one), (after, two) in pairwise(values)
        if (times := np.abs(two - one) / float(group["lr"])).max() <= after - before + 0.1 and times.max() > 1 - _NEAR
    ]
    return float(np.mean(shares)) if shares else 0.0


def _first_weights(view: View) -> dict[str, float]:
    """By the name of an optimizer's state: the weight that it gives to the gradient of its very first step."""
    found: dict[str, float] = {}
    for group in settings(view):
        beta = _beta(group)
        if beta is not None and 0 < beta < 1:
            found["exp_avg"] = 1 - beta
        elif group.get("momentum"):
            found["momentum_buffer"] = 1.0
    return found


def _beta(group: dict[str, Any]) -> float | None:
    betas = group.get("betas")
    return float(betas[0]) if isinstance(betas, (list, tuple)) and betas else None


def _decay(view: View) -> float:
    """The smallest share of a mean of squares that the optimizers keep from step to step; 0 if it is not known."""
    betas = [group.get("betas") for group in settings(view)]
    return min((float(pair[1]) for pair in betas if isinstance(pair, (list, tuple)) and len(pair) > 1), default=0.0)
