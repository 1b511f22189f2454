"""The rule ``softmax-over-batch``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.units import late_steps
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import NEURON_STATISTICS

_MEAN = NEURON_STATISTICS.index("mean")


@dataclass(frozen=True)
class SoftmaxOverBatch(Rule):
    """A softmax over another dimension than the one meant: over the samples instead of the classes, or over queries.

    Symptom: probabilities shrink with the batch size; samples influence each other; evaluation one by one fails. Of an
    attention: the weights of a query do not add up to one, and depend on what comes later.

    How it is measured: the dimension that a call of softmax (``log_softmax``, ``normalize``, a division by a sum) was
    given is the first one, that of the samples by the shape of the targets, and no square in which it may be meant. Or
    every kept neuron has a mean over the batch of exactly one over the batch's size. Or: what was made to add up to one
    along one dimension is multiplied with a matrix along the other, or was made so over the heads; also behind a
    reshape, or in an ``einsum``. It is no matter where the product is normalised, as of groups that features are
    gathered in.

    Causes: ``dim=0`` where ``dim=1`` or ``dim=-1`` was meant; a softmax over the queries of an attention.

    Remedy: ``softmax(dim=-1)``.

    Attributes:
        tolerance: of that equality, relative. Source: float32 rounding, with room.
    """

    name = "softmax-over-batch"
    causes = "dim=0 where dim=1 or dim=-1 was meant."
    remedy = "Apply the softmax to the dimension of the classes (in an attention, of the keys): dim=-1."
    tolerance: float = 1e-3

    def check(self, view: View) -> Iterable[Finding]:
        called = list(self._called(view)) or list(self._of_loss(view))
        yield from called
        yield from self._over_queries(view)
        steps = late_steps(view, 3)
        for place, vertex in view.flow.vertices.items():
            if called or vertex.operation != "softmax" or len(list(view.flow.same_tensor(place))) > 1:
                continue
            if len(steps) > 1 and all(self._adds_up(step, place) for step in steps):
                yield self._finding(view, place)

    def _called(self, view: View) -> Iterable[Finding]:
        """Calls that were given the first dimension, where the loss counts its samples by it."""
        sites = sites_of(view, "over samples")
        towards_loss = view.flow.upstream(view.losses) if sites else set()
        for line in dict.fromkeys(site.source for site in sites):
            site = next(site for site in sites if site.source == line)
            before = [place for place in site.before if view.flow.vertices[place].type == "calculated"]
            after = [place for place in site.after if place in towards_loss]
            made = [place for place in after if view.flow.vertices[place].operation == site.operation]
            if before and after and any(_counts_samples(view, place, after) for place in (*before, *made)):
                yield self._of_call(view, site, before, after)

    def _of_call(self, view: View, site: Site, before: list[Place], after: list[Place]) -> Finding:
        first = min(after, key=lambda place: view.position.get(place.node, 0))
        what = "has a norm of" if site.operation == "normalize" else "adds up to"
        summary = (
            f"A {site.operation} between {before[0].node} and {first.node} {what} one over the samples of the batch "
            f"(dim=0), not over the classes or features: samples influence each other."
        )
        history = view.history(first.node, role=first.role)
        nodes = list(dict.fromkeys(place.node for place in (*before, *after) if place.node != first.node))
        return self.finding(
            view, first.node, "error", summary, [evidence(history, "mean", "what is made of it")],
            step=view.began, nodes=nodes, confidence=0.9, source=site.source,
        )  # fmt: skip

    def _of_loss(self, view: View) -> Iterable[Finding]:
        """Losses whose classes do not add up to one: the softmax was over the width, or over time."""
        for site in sites_of(view, "over another"):
            learned = [place for place in site.before if view.flow.vertices[place].type == "calculated"]
            if not learned or not site.after:
                continue
            loss = next(iter(site.after)).node
            summary = (
                f"{site.operation} takes its classes from the second dimension, but the softmax behind "
                f"{learned[0].node} was taken over another dimension (wrong dim): the classes do not add up to one."
            )
            yield self.finding(
                view, learned[0].node, "error", summary, step=view.began, nodes=[loss], confidence=0.95,
                source=site.source, causes="dim=-1 of images, whose classes are dimension 1, or the dimension of time.",
                remedy="Apply the softmax to the dimension of the classes: dim=1 of (batch, classes, ...).",
            )  # fmt: skip

    def _over_queries(self, view: View) -> Iterable[Finding]:
        sites = [*sites_of(view, "over queries"), *sites_of(view, "over heads")]
        towards_loss = view.flow.upstream(view.losses) if sites else set()
        for site in sites:
            after = [place for place in site.after if place in towards_loss]
            if after:
                nodes = list(dict.fromkeys(place.node for place in (*site.before, *after[1:])))
                over = site.kind.removeprefix("over ")
                summary = (
                    f"The weights of the attention before {after[0].node} do not add up to one over the keys: their "
                    f"softmax was taken over the {over}, and the product behind it sums over another dimension."
                )
                yield self.finding(
                    view, after[0].node, "error", summary, step=view.began, nodes=nodes, confidence=0.9,
                    source=site.source, causes=f"The softmax over the wrong dimension: the {over}, not the keys.",
                )  # fmt: skip

    def _adds_up(self, step: Step, place: Place) -> bool:
        tensor, kept = tensor_of(step, place), neurons_of(step, place)
        if tensor is None or kept is None or kept.statistics is None or len(kept.statistics[_MEAN]) < 2:
            return False
        batch = tensor.shape[tensor.info.batch_dim or 0]
        is_square = batch == tensor.shape[-1]  # uniform probabilities would look the same
        close = np.abs(kept.statistics[_MEAN] * batch - 1) < self.tolerance
        return batch > 1 and not is_square and bool(np.all(close))

    def _finding(self, view: View, place: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        summary = f"The softmax of {place.node} adds up to one over the samples of the batch, not over the classes."
        shown = [evidence(history, "mean", "one over the batch's size")]
        return self.finding(view, place.node, "error", summary, shown, step=int(history.steps[0]), confidence=0.95)


def _counts_samples(view: View, place: Place, after: list[Place]) -> bool:
    """Whether the first dimension of a place is that of the samples, as the targets of what follows count them."""
    shape = view.shape(place, view.training[-1]) if view.training else None
    if not shape:
        return False
    behind = view.flow.downstream(after)
    compared = [c for c in comparisons(view) if c.prediction in behind and c.target is not None]
    if compared:
        return all(c.target_shape[:1] == shape[:1] or math.prod(c.target_shape) == shape[0] for c in compared)
    return any(t.node == place.node and t.batch_dim == 0 for t in view.training[-1].layout.tensors)
