"""The rule ``broadcast-target``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import Comparison, comparisons
from stepscope.analysis.mean_square import is_mean_square
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST = 5


@dataclass(frozen=True)
class BroadcastTarget(Rule):
    """Prediction and target have different shapes and are broadcast: every sample is compared with every target.

    Symptom: the net learns the mean of the targets and nothing else; PyTorch warns of it, in its own losses only.

    How it is measured: the shapes differ and broadcast to a larger one, such as ``(B, 1)`` against ``(B,)``. A squeeze
    on the way has no name, so the loss decides: if all pairs are compared, the mean square is exactly
    ``var(p) + var(t) + (mean(p) - mean(t))²``, in every training step. Losses of torch are told by the shapes that
    they were given, if one has fewer dimensions: singletons on both sides are meant. In code of one's own, an addition,
    subtraction or product of ``(B,)`` and ``(B, 1)``, made of two different tensors, is told by its shapes.
    A reduction without a dimension, ``max()`` say, broadcasts, too: one number of the whole batch is added to what each
    sample has, and no gradient comes back from there, so that it is a part of the targets.
    A column for each class (one-hot) is told if the net gives one number for a sample: it is held against all of them.
    A target of fewer numbers than the prediction is told if torch's ``mse_loss`` holds it against all of them: their
    gradients show it.

    Causes: a last dimension of size one on one side only.

    Remedy: ``prediction.squeeze(-1)`` or ``target.unsqueeze(-1)``, so that both have the same shape.

    Attributes:
        tolerance: of that equality, relative. Source: float32 rounding, with room; a loss over matching pairs comes
            this near in every step only by chance.
        both: where the shapes are the same, and a change of one has no name: the part of the other's spread that
            predictions and targets must have in five steps. Source: of ours; matching pairs differ by their covariance.
    """

    name = "broadcast-target"
    about = "loss"
    causes = "One of them has a last dimension of size one that the other has not."
    remedy = "Give both the same shape: prediction.squeeze(-1), or target.unsqueeze(-1)."
    tolerance: float = 1e-4
    both: float = 0.01

    def check(self, view: View) -> Iterable[Finding]:
        compared = [
            comparison
            for comparison in comparisons(view)
            if comparison.target is not None and self._is_all_pairs(view, comparison)
        ]
        for comparison in compared:
            yield self._finding(view, comparison)
        called = [] if compared else list(self._called(view))
        yield from called
        if not compared and not called:  # else the squares found are these
            yield from self._squares(view)
            yield from self._repeated(view)
            yield from self._one_for_all(view)
        yield from self._of_whole(view)

    def _of_whole(self, view: View) -> Iterable[Finding]:
        """One number of a whole batch, the greatest say, that is added to what each sample has of its own."""
        losses = set(view.losses)
        sites = {site.source: site for site in sites_of(view, "whole batch")}  # one for each line
        for site in sites.values():
            made = [place for place in site.before if view.flow.vertices[place].type == "calculated"]
            loss = next((place for place in site.after if place in losses), None)
            if loss is None or not made or any(_learns_from(view, place, loss) for place in made):
                continue
            first = max(made, key=lambda place: view.position.get(place.node, 0))
            summary = (
                f"{site.operation}() without a dimension makes one number of the whole batch out of {first.node}, "
                f"and it is added to what each sample has of its own: all get the same one as a part of their target."
            )
            nodes = [place.node for place in (*site.after, *made) if place != first]
            yield self.finding(
                view, first.node, "warning", summary, step=view.began, confidence=0.9,
                nodes=list(dict.fromkeys(nodes)), source=site.source,
                causes=f"{site.operation}() over everything, where the one of each sample is meant.",
                remedy=f"Give it the dimension: .{site.operation}(1).values, or .amax(1).",
            )  # fmt: skip

    def _called(self, view: View) -> Iterable[Finding]:
        """Losses of torch that were given shapes with another number of dimensions, which grow."""
        for site in sites_of(view, "broadcast"):
            sources = sorted(site.before, key=lambda place: view.position.get(place.node, 0))
            learned = [place for place in sources if view.flow.vertices[place].type == "calculated"]
            if not learned or not site.after:
                continue
            loss = next(iter(site.after)).node
            summary = (
                f"{site.operation} was given shapes of different lengths, from {listed(p.node for p in sources)}, "
                f"which are broadcast to a larger one: it compares every sample with every target."
            )
            nodes = list(dict.fromkeys(place.node for place in sources))
            yield self.finding(
                view, loss, "error", summary, step=view.began, nodes=nodes, confidence=0.95,
                source=site.source,
            )  # fmt: skip

    def _repeated(self, view: View) -> Iterable[Finding]:
        """One target for several numbers of the prediction, by a loss of torch, which warns of it."""
        for comparison in comparisons(view):
            target = comparison.target
            if target is None or comparison.operation != "mse_loss" or view.flow.vertices[target].type != "target":
                continue
            fewer = math.prod(comparison.target_shape) < math.prod(comparison.shape)
            varies = np.ptp(view.history(target.node, role=target.role).of("mean")) > 0
            if not fewer or not varies or not is_mean_square(view, comparison):
                continue  # an unchanging number may be meant: the label of a GAN
            summary = (
                f"{target.node} {comparison.target_shape} is broadcast to the shape of {comparison.prediction.node} "
                f"{comparison.shape}: all of its outputs are drawn to the same numbers."
            )
            yield self.finding(
                view, comparison.loss.node, "warning", summary, step=view.began, confidence=0.85,
                nodes=[comparison.prediction.node, target.node], causes="A net with more outputs than targets: those "
                "of all moments, or of all classes.", remedy="Take the output that is meant, or give each its target.",
            )  # fmt: skip

    def _one_for_all(self, view: View) -> Iterable[Finding]:
        """One number for each sample, held against a column for each class."""
        for comparison in comparisons(view):
            target, shape = comparison.target, comparison.target_shape
            if target is None or len(shape) != 2 or shape[1] < 2 or comparison.shape not in ((shape[0], 1), shape[:1]):
                continue
            if view.flow.vertices[target].type != "target" or not _is_one_hot(view, target, shape[1]):
                continue
            summary = (
                f"{target.node} {shape} has a column for each class (one-hot), and the one number that "
                f"{comparison.prediction.node} {comparison.shape} gives for a sample is broadcast to all of them: what "
                f"one column asks for, another forbids."
            )
            yield self.finding(
                view, comparison.loss.node, "error", summary, step=view.began, confidence=0.9,
                nodes=[comparison.prediction.node, target.node],
                causes="Labels of several columns (one-hot) for a net with a single output.",
                remedy="Give the net one output for each class and use cross_entropy; or labels in a single column.",
            )  # fmt: skip

    def _squares(self, view: View) -> Iterable[Finding]:
        """Arithmetic in the loss's own code between a row and a column, one of which the net has made."""
        sites = sites_of(view, "square")
        towards_loss = view.flow.upstream(view.losses) if sites else set()
        for site in sites:
            sources = sorted(site.before, key=lambda place: view.position.get(place.node, 0))
            made = [place for place in sources if view.flow.vertices[place].type == "calculated"]
            if len(sources) < 2 or not made or not any(place in towards_loss for place in site.after):
                continue
            names = listed(place.node for place in sources)
            summary = (
                f"A {site.operation} broadcasts a row and a column of the same length, from {names}, to a square: "
                f"every sample is compared with every other one."
            )
            nodes = list(dict.fromkeys(place.node for place in (*sources, *site.after) if place != made[-1]))
            yield self.finding(
                view, made[-1].node, "warning", summary, step=view.began, nodes=nodes, confidence=0.85,
                source=site.source,
            )  # fmt: skip

    def _is_all_pairs(self, view: View, comparison: Comparison) -> bool:
        assert comparison.target is not None
        histories = [
            view.history(place.node, role=place.role)
            for place in (comparison.loss, comparison.prediction, comparison.target)
        ]
        loss, prediction, target = histories
        if len({len(history) for history in histories}) > 1 or len(loss) < 3:
            return False
        mean = (prediction.of("mean") - target.of("mean")) ** 2
        spreads = prediction.of("std"), target.of("std")
        pairs = spreads[0] ** 2 + spreads[1] ** 2 + mean
        off = float(np.max(np.abs(loss.of("mean") - pairs) / np.maximum(pairs, 1e-30)))
        if _grows(comparison) or not off <= self.tolerance / 10:
            return _grows(comparison) and off <= self.tolerance
        tells: NDArray[np.bool_] = (spreads[0] > self.both * spreads[1]) & (spreads[1] > self.both * spreads[0])
        return _are_rows(comparison) and int(tells.sum()) >= _LEAST  # else it holds of matching pairs, too

    def _finding(self, view: View, comparison: Comparison) -> Finding:
        assert comparison.target is not None
        samples = math.prod(comparison.shape)
        whole = np.broadcast_shapes(comparison.shape, comparison.target_shape) if _grows(comparison) else (samples,) * 2
        summary = (
            f"{comparison.prediction.node} {comparison.shape} and {comparison.target.node} {comparison.target_shape} "
            f"are broadcast to {whole}: {comparison.loss.node} compares every sample with every target."
        )
        loss = view.history(comparison.loss.node, role=comparison.loss.role)
        shown = [evidence(loss, "mean", "the mean over all pairs")]
        return self.finding(
            view, comparison.loss.node, "error", summary, shown, step=int(loss.steps[0]), confidence=0.97,
            nodes=[comparison.prediction.node, comparison.target.node],
        )  # fmt: skip


def _are_rows(comparison: Comparison) -> bool:
    """Whether both sides have one number for each of the same samples."""
    one, two = comparison.shape, comparison.target_shape
    return math.prod(one) == math.prod(two) == max(one, default=0) == max(two, default=0) > 1


def _is_one_hot(view: View, target: Place, classes: int) -> bool:
    """Whether the kept rows have exactly one 1 each, and zeros."""
    steps = view.training[:: max(1, len(view.training) // 20)]
    tables = [kept.samples for step in steps if (kept := neurons_of(step, target)) is not None]
    tables = [table for table in tables if table.ndim == 2 and table.shape[1] == classes]
    return bool(tables) and all(np.isin(table, (0, 1)).all() and (table.sum(1) == 1).all() for table in tables)


def _learns_from(view: View, place: Place, loss: Place) -> bool:
    return any(link.differentiable for link in view.flow.sources.get(loss, ()) if link.place == place)


def _grows(comparison: Comparison) -> bool:
    """Whether the shapes broadcast to something larger than both."""
    try:
        whole = np.broadcast_shapes(comparison.shape, comparison.target_shape)
    except ValueError:
        return False
    return math.prod(whole) > max(math.prod(comparison.shape), math.prod(comparison.target_shape))
