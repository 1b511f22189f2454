"""The rule ``lost-scale``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.loss_inputs import OF_CLASSES, Comparison, comparisons
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step
from stepscope.store.records import SAMPLE_STATISTICS

_NORMS = ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "GroupNorm", "LocalResponseNorm")
_INSTANCE = ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
_LAYERS = ("Conv1d", "Conv2d", "Conv3d")
_SIZES = ("mean", "std")
_MOST, _LEAST = 40, 40
_FLAT = 0.1


@dataclass(frozen=True)
class LostScale(Rule):
    """The first layer normalises each sample by itself, and takes away what the targets ask for.

    Symptom: a regression of loudness, brightness, size or level stays where a constant answer would be.

    How it is measured: an input goes straight into a normalisation over each sample (instance, layer or group
    normalisation), and nowhere else; or through one convolution into an instance normalisation. The mean or the
    standard deviation of each kept sample, as it comes in, goes with its target, by a correlation that is far above
    chance; behind the normalisation, it is the same for all.

    Causes: an instance normalisation at the entrance of a net that shall tell sizes.

    Remedy: normalise by the statistics of the whole data set (or by a batch normalisation).

    Attributes:
        related: the correlation. Source: of ours; of forty pairs without relation one in a thousand goes beyond 0.5.
        learned: the part of the first loss that is gone where the targets are learned nevertheless. Source: of ours.
    """

    name = "lost-scale"
    causes = "A normalisation of each sample by itself, in front of a net that shall tell its size or level."
    remedy = "Normalise by the statistics of the whole data set, or use a batch normalisation there."
    related: float = 0.6
    learned: float = 0.8

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // _MOST)]
        if fallen(view) > self.learned:
            return  # there are other ways to it
        compared = [c for c in comparisons(view) if c.target is not None and _is_asked(c)]
        for place in view.flow.of_type("input") if compared and steps else ():
            norms = _norms_behind(view, place)
            if norms:
                yield from self._look(view, steps, place, norms[0], compared[0])

    def _look(
        self, view: View, steps: list[Step], place: Place, norm: Place, comparison: Comparison
    ) -> Iterable[Finding]:
        for name in _SIZES:
            is_class = comparison.operation in OF_CLASSES
            before, after = (_together(steps, one, name, comparison.target, is_class) for one in (place, norm))
            if before > self.related and after < self.related / 2:
                target = comparison.target.node if comparison.target is not None else ""
                history = view.history(norm.node, role=norm.role)
                summary = (
                    f"{norm.node} normalises each sample of {place.node} by itself, and takes away what {target} asks "
                    f"for: the {name} of a sample goes with its target (correlation {before:.2f}), and behind it "
                    f"all have the same."
                )
                yield self.finding(
                    view, norm.node, "warning", summary, [evidence(history, "std", "the same for all samples")],
                    step=view.began, nodes=[place.node, target], confidence=0.85,
                )  # fmt: skip
                return


def _is_asked(comparison: Comparison) -> bool:
    """Whether numbers, or a class of each sample, are asked for."""
    is_class = comparison.operation in OF_CLASSES and len(comparison.target_shape) == 1
    return is_class or "float" in comparison.target_dtype


def _norms_behind(view: View, place: Place) -> list[Place]:
    """The normalisations of samples that all of an input goes into, at once or behind one layer without a bias' say."""
    sinks = [link.place for link in view.flow.sinks.get(place, ()) if not link.lag]
    classes = [view.flow.vertices[sink].module_class for sink in sinks]
    if sinks and all(one in _NORMS for one in classes):
        return sinks
    if len(sinks) != 1 or classes[0] not in _LAYERS:
        return []
    behind = [link.place for link in view.flow.sinks.get(sinks[0], ()) if not link.lag]
    return behind if behind and all(view.flow.vertices[one].module_class in _INSTANCE for one in behind) else []


def _together(steps: list[Step], place: Place, name: str, target: Place | None, is_class: bool) -> float:
    """How far a statistic of the kept samples goes with their targets, or classes: the size of the correlation, or 0.

    With classes it is the correlation ratio: the root of the part of the variance that lies between classes.
    """
    pairs = [pair for step in steps if target is not None and (pair := _pair(step, place, name, target)) is not None]
    if not pairs:
        return 0.0
    x, y = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    if len(x) < _LEAST or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return 0.0
    if x.std() <= _FLAT * max(float(np.abs(x).max()), 1e-6) or y.std() == 0:
        return 0.0
    if is_class:
        means = {one: x[y == one].mean() for one in np.unique(y)}
        return float(np.std([means[one] for one in y]) / x.std())
    return abs(float(np.corrcoef(x, y)[0, 1]))


def _pair(step: Step, place: Place, name: str, target: Place) -> tuple[Values, Values] | None:
    tensor, wanted = tensor_of(step, place), neurons_of(step, target)
    if (
        tensor is None
        or wanted is None
        or wanted.samples.shape[1] != 1
        or len(tensor.per_sample) != len(wanted.samples)
    ):
        return None
    sizes = tensor.per_sample[:, SAMPLE_STATISTICS.index(name)].astype(np.float64)
    return sizes, wanted.samples[:, 0].astype(np.float64)
