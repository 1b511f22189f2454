"""The rule ``single-class``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.bounds import line_of_making, operation_of
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import line_of_node
from stepscope.analysis.loss_inputs import MADE, OF_CLASSES, comparisons
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
_LEAST, _FEWEST = 20, 3
_ALWAYS = {"softmax": 1.0, "log_softmax": 0.0}


@dataclass(frozen=True)
class SingleClass(Rule):
    """A cross-entropy over one class only: it is zero whatever the net says.

    Symptom: the loss is 0 from the first step on; no gradient flows.

    How it is measured: the prediction that goes into cross_entropy or nll_loss has a size of one in the dimension of
    the classes. Or what goes into another loss is a softmax of one number each, or its logarithm: 1 or 0 in all steps.
    So is a softmax inside of a net that always gives 1.

    Or all targets of the binary cross-entropies of a training are the same number, zero or one, in every step, and were
    not made in the step (as the labels of a GAN are): nothing positive is there to be found.

    Causes: a binary problem with one output and the loss for several classes.

    Remedy: binary_cross_entropy_with_logits for one output, or two outputs for cross_entropy.

    Source: no threshold.
    """

    name = "single-class"
    about = "loss"
    causes = "A yes-or-no problem with one output and the loss for several classes."
    remedy = "Use binary_cross_entropy_with_logits for one output, or give the net two outputs."

    def check(self, view: View) -> Iterable[Finding]:
        yield from self._without_another(view)
        yield from self._within(view)
        seen: set[str] = set()
        for comparison in comparisons(view):
            is_one = len(comparison.shape) > 1 and comparison.shape[1] == 1
            name = comparison.prediction.node
            if comparison.operation in OF_CLASSES and is_one and name not in seen:
                seen.add(name)
                loss = view.history(comparison.loss.node, role=comparison.loss.role)
                summary = f"{comparison.loss.node} compares {name} {comparison.shape} over a single class."
                yield self.finding(
                    view, name, "error", summary, [evidence(loss, "mean", "always zero")],
                    step=view.began, nodes=[comparison.loss.node], confidence=0.97,
                )  # fmt: skip
            elif is_one and name not in seen and (given := _of_one(view, comparison.prediction)):
                seen.add(name)
                operation = operation_of(view, comparison.prediction)
                history = view.history(name, role=comparison.prediction.role)
                summary = (
                    f"{name} {comparison.shape} is the {operation} of a single number: it is {given} whatever it gets."
                )
                yield self.finding(
                    view, name, "error", summary, [evidence(history, "mean", "always the same")],
                    step=view.began, nodes=[comparison.loss.node], confidence=0.97,
                    source=line_of_making(view, comparison.prediction) or line_of_node(view, name),
                    remedy="Use a sigmoid for one output, or give the net two outputs.",
                )  # fmt: skip

    def _within(self, view: View) -> Iterable[Finding]:
        """Softmaxes inside of a net whose weights are all 1."""
        compared = {one.prediction for one in comparisons(view)}
        for place, vertex in view.flow.vertices.items():
            is_inside = vertex.operation == "softmax" and vertex.type == "calculated" and place not in compared
            if is_inside and len(list(view.flow.same_tensor(place))) == 1 and _of_one(view, place):
                history = view.history(place.node, role=place.role)
                summary = (
                    f"{place.node} {view.shape(place, view.training[-1])} is a softmax over a single number: its "
                    f"weights are all 1, whatever the scores are."
                )
                yield self.finding(
                    view, place.node, "warning", summary, [evidence(history, "min", "always 1")], confidence=0.9,
                    step=int(history.steps[0]), nodes=[link.place.node for link in view.flow.sources.get(place, ())],
                    causes="A softmax over the wrong dimension, the last one of scores that have one number each.",
                    remedy="Take the softmax over the dimension of what is to be weighed.",
                )  # fmt: skip

    def _without_another(self, view: View) -> Iterable[Finding]:
        """Yes-or-no questions whose answer is the same every time."""
        binary = [c for c in comparisons(view) if c.operation in _BINARY]
        targets = list(dict.fromkeys(c.target for c in binary if c.target is not None))
        histories = [view.history(place.node, role=place.role) for place in targets]
        made = any(view.flow.vertices[place].operation in MADE for place in targets)
        if made or not histories or min(map(len, histories)) < _LEAST or len(binary) > len(targets):
            return  # what is made of a target in the step, its opposite say, has no name of its own
        ends = {float(history.of(name).min()) for history in histories for name in ("min", "max")}
        ends |= {float(history.of(name).max()) for history in histories for name in ("min", "max")}
        if len(ends) == 1 and ends <= {0.0, 1.0}:
            answer = "zero, there is no positive one" if ends == {0.0} else "one, there is no negative one"
            first = targets[0].node
            summary = (
                f"The targets {first} of {binary[0].loss.node} are of one class in all of {len(histories[0])} steps: "
                f"all are {answer}."
            )
            yield self.finding(
                view, first, "warning", summary, [evidence(histories[0], "mean", "the same answer every time")],
                step=view.began, nodes=[binary[0].loss.node], confidence=0.85,
                causes="Anchors, thresholds or samples among which nothing is positive (or negative).",
                remedy="Look at how the targets are made: anchors of the right sizes, negative samples.",
            )  # fmt: skip


def _of_one(view: View, place: Place) -> str:
    """What a softmax of one number each (or its logarithm) gives in all steps; empty if it is none."""
    wanted = _ALWAYS.get(operation_of(view, place))
    history = view.history(place.node, role=place.role)
    if wanted is None or len(history) < _FEWEST:
        return ""
    same = all(bool(np.all(history.of(name) == wanted)) for name in ("min", "max"))
    return f"{wanted:g}" if same else ""
