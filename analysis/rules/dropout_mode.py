"""The rule ``dropout-mode``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.alike import together
from stepscope.analysis.bounds import maker
from stepscope.analysis.finding import Finding
from stepscope.analysis.history import History
from stepscope.analysis.lines import line_of_call, sites_of
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_ENOUGH = 0.05
"""Of what goes into a dropout, the share that must not be zero already."""


@dataclass(frozen=True)
class DropoutMode(Rule):
    """Dropout that is active where the net is evaluated, or no longer where it trains, or drops almost everything.

    Symptom: validation is noisy and worse than it should be; or the net overfits; or it hardly learns.

    How it is measured: the share of zeros in the output of a dropout module, less that of what goes into it, as a part
    of what was not zero, in the median of the training steps, and of the steps of each kind that computes no gradients.
    In evaluation mode it is zero. Something without a name in between (a ReLU makes zeros, too) shows in the mean,
    which dropout keeps: such modules are left out. Dropout that was active in training steps and drops nothing from one
    of them on is in evaluation mode. The rate of training is that which a call was given, of a module or a function; so
    is whether a function's dropout is active in evaluation. Dropout that makes what a loss looks at is told, too.

    Causes: ``model.eval()`` is not called before evaluating, or ``model.train()`` not after it; a keep rate that was
    given as the drop rate.

    Remedy: ``model.eval()`` before evaluating and ``model.train()`` after it; a dropout rate of 0.1 to 0.5.

    Attributes:
        active: the share that shows that dropout is active. Source: lower rates than 0.02 are not in use.
        high: the share of training steps that is too much. Source: 0.5 is the highest rate in Srivastava et al. (2014)
            for hidden units.
    """

    name = "dropout-mode"
    causes = "model.eval() is not called before evaluating; or a keep rate was given where a drop rate is wanted."
    remedy = "Call model.eval() before evaluating and model.train() after it; use rates of 0.1 to 0.5."
    active: float = 0.02
    high: float = 0.75

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._called(view)
        yield from self._drops_most(view)
        yield from self._drops_answers(view)
        yield from together(self._of_modules(view))

    def _of_modules(self, view: View) -> Iterable[Finding]:
        """Modules in the wrong mode, one by one."""
        for path, module in view.modules.items() if view.training else ():
            if not module.module_class.startswith("Dropout") or path not in view.nodes:
                continue
            trained = _dropped(view, view.history(path), training=True)
            since = _stops(trained, self.active)
            if since is not None:
                step = int(view.history(path).steps[since])
                text = f"{path} drops nothing from step {step} on: model.train() was not called after model.eval()."
                yield self._finding(view, path, text, step)
            if any(_is_active(view, path, self.active)):
                steps = [step.number for step in view.steps if step.kind not in view.training_kinds]
                text = f"{path} is active while the net is evaluated: model.eval() was not called."
                yield self._finding(view, path, text, steps[0])

    def _drops_most(self, view: View) -> Iterable[Finding]:
        """Calls in training, of modules and functions, whose rate is beyond any use."""
        for site in sites_of(view, "high dropout"):
            rate = float(site.operation.partition("p=")[2].rstrip(")") or 0)
            if rate < self.high:
                continue
            nodes = list(dict.fromkeys(place.node for place in (*site.after, *site.before)))
            modules = [node for node in nodes if view.nodes[node].module_class.startswith("Dropout")]
            node = (modules or nodes)[0]
            text = f"{node} sets {rate:.0%} of its input to zero in training: dropout drops almost everything."
            if not modules:
                text = f"{site.operation} before {node} sets {rate:.0%} of its input to zero in training."
            yield self.finding(
                view, node, "warning", text, step=view.began, nodes=[n for n in nodes if n != node],
                source=site.source, confidence=0.9, causes="A keep rate was given where a drop rate is wanted.",
            )  # fmt: skip

    def _drops_answers(self, view: View) -> Iterable[Finding]:
        """Dropout behind the last layer: of the scores that a loss looks at, some are zero by chance."""
        for place in {maker(view, comparison.prediction): None for comparison in comparisons(view)}:
            if "dropout" in view.flow.vertices[place].operation:
                summary = (
                    f"{place.node} is what a loss looks at, and is made by dropout: it drops some of the answers "
                    f"themselves, not hidden units."
                )
                history = view.history(place.node, role=place.role)
                shown = [evidence(history, "zero_fraction", "the share of zeros")]
                yield self.finding(
                    view, place.node, "warning", summary, shown, step=view.began, confidence=0.85,
                    causes="Dropout behind the last layer, often by a block that is used for hidden layers, too.",
                    remedy="Put it before the last layer.",
                )  # fmt: skip

    def _called(self, view: View) -> Iterable[Finding]:
        """Dropout that is called as a function, and not told that the net is being evaluated."""
        sites = [site for site in view.all_flow.sites if site.kind == "dropout"]
        if not sites:
            return
        steps = [step.number for step in view.steps if step.kind not in view.training_kinds] or [view.steps[0].number]
        nodes = list(dict.fromkeys(place.node for site in sites for place in (*site.after, *site.before)))
        text = (
            f"{sites[0].operation}() is active while the net is evaluated: it is called without "
            f"training=self.training, so that model.eval() does not reach it."
        )
        yield self.finding(
            view, nodes[0], "warning", text, step=steps[0], nodes=nodes[1:], source=sites[0].source, confidence=0.9,
            remedy="Call it with training=self.training, or use nn.Dropout.",
        )  # fmt: skip

    def _finding(self, view: View, path: str, summary: str, step: int) -> Finding:
        shown = [evidence(view.history(path, training=False), "zero_fraction", "the share of zeros")]
        call = line_of_call(view.trial.step(step), path)
        return self.finding(view, path, "warning", summary, shown, step=step, confidence=0.9, source=call)


def _stops(trained: np.ndarray[tuple[int], np.dtype[np.float64]], least: float) -> int | None:
    """The position from which on nothing is dropped any more; None if it never was, or still is."""
    known = np.flatnonzero(np.isfinite(trained))
    active = np.flatnonzero(trained[known] > least)
    if len(active) < 3 or len(known) - active[-1] <= 5 or len(active) < 0.9 * (active[-1] + 1):
        return None
    return int(known[active[-1] + 1])


def _is_active(view: View, path: str, least: float) -> Iterable[bool]:
    """For each kind of steps that only evaluates, whether dropout was active in it."""
    history = view.history(path, training=False)
    kinds = {step.number: step.kind for step in view.steps if step.kind not in view.training_kinds}
    for kind in dict.fromkeys(kinds.values()):
        mine = np.array([kinds.get(number) == kind for number in history.steps.tolist()], bool)
        dropped = _dropped(view, history, training=False)
        yield len(dropped) == len(mine) and median(dropped[mine]) > least


def _dropped(view: View, history: History, *, training: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """``(n,)``: the share of what is not zero that dropout made zero; NaN where there is too little of it, or a ReLU.

    Empty if what goes in has no name.
    """
    places = view.all_flow.of_node(history.node)
    sources = [link.place for place in places for link in view.all_flow.sources.get(place, ()) if not link.lag]
    if len(places) != 1 or len(sources) != 1:
        return np.empty(0)
    before = view.history(sources[0].node, role=sources[0].role, training=training)
    if len(before) != len(history) or not _is_direct(before, history):
        return np.empty(0)
    kept = 1 - before.of("zero_fraction")
    dropped = history.of("zero_fraction") - before.of("zero_fraction")
    is_rectified = (before.of("min") < 0) & (history.of("min") >= 0)  # by something without a name in between
    return np.where((kept > _ENOUGH) & ~is_rectified, dropped / np.maximum(kept, _ENOUGH), np.nan)


def _is_direct(before: History, after: History) -> bool:
    """Whether nothing but dropout lies between two tensors: their means agree."""
    distance = np.abs(after.of("mean") - before.of("mean"))
    return bool(median(distance) < 0.1 * median(before.of("std")) + 1e-12)
