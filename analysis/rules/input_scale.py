"""The rule ``input-scale``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.history import History
from stepscope.analysis.layers import Layer, gradient_of, layers, recurrent_layers, rms
from stepscope.analysis.loss_inputs import is_floating
from stepscope.analysis.robust import median
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_ENOUGH = 10
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class InputScale(Rule):
    """Inputs whose size is far from 1 go straight into a layer.

    Symptom: slow or unstable learning; the first layer gets gradients that fit no other layer.

    How it is measured: the root mean square of a floating input, in the median of the training steps. It counts only
    where the first layer really gets it like that: the size of its output must be what its weights make of such an
    input (a division by 255 inside ``forward`` is seen by that), and a normalisation in front takes care of it. Of a
    recurrent layer, whose outputs have bounds, the gradient of the weights that read the input tells: it is that of
    their bias times the input.
    The same for an input whose standard deviation is a small part of its mean: all samples look alike, then.
    And one whose mean and deviation are exactly the same in every batch was normalised by its own batch.
    An input with an offset that goes into a frozen layer, which cannot learn to live with it, is worth knowing.
    Besides, mean, standard deviation and the share of zeros in steps that only evaluate are compared with those of the
    training.

    Causes: pixels from 0 to 255, raw table columns, a normalisation that was left out or done twice.

    Remedy: subtract the mean and divide by the standard deviation of the training data.

    Attributes:
        large, small: sizes beyond which it counts. Source: a net with He initialisation keeps sizes, so that outputs
            start this far from the 1 that losses and later layers are made for; SageMaker's CheckInputImages has
            only a mean, of 0.2, and alarms on pixels from 0 to 1.
        severe: a size that counts even if the loss falls; between ``large`` and this, as with ``smallish``.
        smallish, fall: sizes (or deviations, as a part of it) below this are worth knowing, and count if the loss has
            not lost this part of its start in 50 steps or more. Source: pixels that were divided by 255 twice have
            0.002 to 0.004; quiet sounds can do with 0.01.
        shift, stretch: how many standard deviations (within the batches, or of their means, if that is more) the mean
            of a kind of steps that only evaluates may lie beside that of the training, and how many times its standard
            deviation may be another one. Source: of ours; samples of the same data differ by a small part of one.
        masked: the part of an input that is zero in training and not in evaluation. Source: of ours; masked
            autoencoders hide more, but see the whole only as a target.
        off: how many of its standard deviations the mean of an input of a frozen net may lie from 0, or it is worth
            knowing. Source: pixels from 0 to 1 that should have been normalised for nets of ImageNet have about 2.
    """

    name = "input-scale"
    causes = "Pixels from 0 to 255, raw table columns, or a normalisation that was left out or done twice."
    remedy = "Subtract the mean and divide by the standard deviation of the training data."
    large: float = 10.0
    severe: float = 20.0
    fall: float = 0.5
    smallish: float = 2e-2
    small: float = 1e-3
    shift: float = 3.0
    stretch: float = 5.0
    off: float = 1.5
    masked: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        known = {layer.module: layer for layer in (*layers(view), *recurrent_layers(view))}
        for place in view.flow.of_type("input"):
            sinks = [known[link.place.node] for link in view.flow.sinks.get(place, ()) if link.place.node in known]
            history = view.history(place.node, role=place.role)
            if not len(history) or _is_looked_up(view, place):
                continue
            size = median(rms(history))
            level = self._level(view, size) or self._of_offset(view, history) if sinks else None
            if level and any(_arrives(view, size, layer) for layer in sinks):
                yield self._finding(view, place, level, sinks[0])
            yield from self._into_frozen(view, place, history)
        yield from self._of_own_batch(view)
        for place in view.all_flow.of_type("input"):
            yield from self._between_kinds(view, place)

    def _level(self, view: View, size: float) -> Level | None:
        """How bad an input of this size is; None if it is not."""
        if size > self.severe or 0 < size < self.small:
            return "warning"
        if not (0 < size < self.smallish or size > self.large):
            return None
        return "warning" if fallen(view) < self.fall and not view.is_young else "info"

    def _into_frozen(self, view: View, place: Place, history: History) -> Iterable[Finding]:
        """Inputs with an offset that go into a net which was trained before, and cannot learn to live with it."""
        frozen = [link.place.node for link in view.flow.sinks.get(place, ()) if _is_frozen(view, link.place.node)]
        mean, std = median(history.of("mean")), median(history.of("std"))
        if not frozen or not is_floating(view, place):
            return
        if (level := self._level(view, median(rms(history)))) is not None:
            summary = (
                f"{place.node} goes into {frozen[0]} unnormalised (mean {mean:.3g}, std {std:.3g}), which is frozen: a "
                f"pretrained net was hardly trained on such inputs (bytes from 0 to 255, say)."
            )
            yield self.finding(
                view, place.node, level, summary, [evidence(history, "abs_max", "its size")], nodes=frozen,
                step=int(history.steps[0]), confidence=0.7,
                remedy="Prepare the data as for the checkpoint: subtract its mean and divide by its deviation.",
            )  # fmt: skip
        elif abs(mean) > self.off * std > 0:
            summary = (
                f"{place.node} is not centred: its mean is {mean:.3g} and its standard deviation {std:.3g}, and "
                f"{frozen[0]}, which gets it, is frozen: was it trained on such inputs, or is a mean to be subtracted?"
            )
            yield self.finding(
                view, place.node, "info", summary, [evidence(history, "mean", "its mean")], nodes=frozen,
                step=int(history.steps[0]), confidence=0.5,
                causes="Data that are prepared in another way than those the net was trained with.",
                remedy="Subtract the mean, and divide by the standard deviation, that belong to the checkpoint.",
            )  # fmt: skip

    def _of_own_batch(self, view: View) -> Iterable[Finding]:
        """Inputs whose mean and deviation are the same in every batch, to the last digits, but not in every sample."""
        for place in view.flow.of_type("input"):
            history = view.history(place.node, role=place.role)
            if len(history) < _ENOUGH or not is_floating(view, place):
                continue
            mean, std = history.of("mean"), history.of("std")
            same = np.abs(mean).max() < 1e-4 * std.min() and np.ptp(std) < 1e-3 * std.min()
            is_one_batch = np.ptp(history.of("abs_mean")) == 0  # always: then of course its mean is the same
            if same and not is_one_batch and median(history.over_batch("mean", "batch_std")) > 1e-3 * std.min():
                summary = (
                    f"{place.node} seems to be normalised by its own batch: its mean is 0 and its deviation "
                    f"{std[0]:.3g} in every batch, so that what a sample is depends on the others beside it."
                )
                yield self.finding(
                    view, place.node, "info", summary, [evidence(history, "mean", "the same in every batch")],
                    step=int(history.steps[0]), confidence=0.7, causes="Mean and deviation are taken of each batch.",
                    remedy="Take mean and standard deviation of the training data once, and use them everywhere.",
                )  # fmt: skip

    def _of_offset(self, view: View, history: History) -> Level | None:
        """How bad it is that an input hardly differs from its mean; None if it does. What is constant has a rule."""
        share = median(history.of("std")) / max(median(rms(history)), 1e-30)
        if not 0 < share < self.smallish:
            return None
        return "warning" if fallen(view) < self.fall and not view.is_young else "info"

    def _between_kinds(self, view: View, place: Place) -> Iterable[Finding]:
        """Whether a kind of steps that only evaluates gets inputs of another size than the training."""
        trained, every = (
            view.history(place.node, role=place.role),
            view.history(place.node, role=place.role, training=False),
        )
        kinds = {step.number: step.kind for step in view.steps if step.kind not in view.training_kinds}
        for kind in dict.fromkeys(kinds.values()) if len(trained) and is_floating(view, place) else ():
            mine = np.array([kinds.get(number) == kind for number in every.steps.tolist()], bool)
            if mine.any() and (hidden := self._holes(trained, every, mine)) is not None:
                yield self._masked(view, place, kind, every, *hidden)
            elif mine.any() and self._is_other(trained, every, mine):
                yield self._other(view, place, kind, trained, every, mine)

    def _is_other(self, trained: History, every: History, mine: Mask) -> bool:
        spread, other = median(trained.of("std")), median(every.of("std")[mine])
        moved = abs(median(every.of("mean")[mine]) - median(trained.of("mean")))
        around = max(spread, float(trained.of("mean").std()))  # batches of few samples differ among themselves
        return spread > 0 and (moved > self.shift * around or not 1 / self.stretch < other / spread < self.stretch)

    def _other(self, view: View, place: Place, kind: str, trained: History, every: History, mine: Mask) -> Finding:
        means = median(trained.of("mean")), median(every.of("mean")[mine])
        stds = median(trained.of("std")), median(every.of("std")[mine])
        summary = (
            f"{place.node} is not normalised alike: in training its mean is {means[0]:.3g} and its std {stds[0]:.3g}, "
            f"in {kind} they are {means[1]:.3g} and {stds[1]:.3g}"
            f"{'; or the training data cover a part of these only' if stds[0] < stds[1] else ''}."
        )
        shown = [evidence(every, "mean", "in all steps"), evidence(trained, "mean", "in training")]
        return self.finding(
            view, place.node, "warning", summary, shown, step=int(every.steps[mine][0]), confidence=0.85,
            remedy="Give both kinds of steps the same normalisation, with the numbers of the training data.",
        )  # fmt: skip

    def _holes(self, trained: History, every: History, mine: Mask) -> tuple[float, float] | None:
        """The part of an input that is zero in training, and where the net is evaluated, if they are far apart."""
        zero, other = median(trained.of("zero_fraction")), median(every.of("zero_fraction")[mine])
        return (zero, other) if zero - other > self.masked else None

    def _masked(self, view: View, place: Place, kind: str, every: History, zero: float, other: float) -> Finding:
        summary = (
            f"{zero:.0%} of {place.node} are zero in training, and {other:.0%} in {kind}: an augmentation masks nearly "
            f"all of it."
        )
        return self.finding(
            view, place.node, "warning", summary, [evidence(every, "zero_fraction", "in all steps")],
            step=view.training[0].number, confidence=0.8,
            causes="Masks, crops or a dropout of the input that are too large, or come on top of each other.",
            remedy="Look at some inputs as the model gets them, and hide less of them.",
        )  # fmt: skip

    def _finding(self, view: View, place: Place, level: Level, layer: Layer) -> Finding:
        history = view.history(place.node, role=place.role)
        mean, std = float(history.of("mean")[0]), float(history.of("std")[0])
        summary = (
            f"{place.node} goes into {layer.module} unnormalised: mean {mean:.3g}, std {std:.3g}, "
            f"from {float(history.of('min')[0]):.3g} to {float(history.of('max')[0]):.3g}."
        )
        shown = [evidence(history, "std", f"std {std:.3g}"), evidence(history, "mean", f"mean {mean:.3g}")]
        return self.finding(
            view, place.node, level, summary, shown,
            step=int(history.steps[0]), nodes=[layer.module], confidence=0.8,
        )  # fmt: skip


def _is_looked_up(view: View, place: Place) -> bool:
    """Whether an embedding reads it: what goes elsewhere, too, is a mask that was made of it."""
    modules = (view.modules.get(link.place.node) for link in view.flow.sinks.get(place, ()))
    return any(module is not None and module.module_class.startswith("Embedding") for module in modules)


def _arrives(view: View, size: float, layer: Layer) -> bool:
    """Whether the layer's output is as large as its weights make of an input of this size, within a factor of 30."""
    if layer.weight.rpartition(".")[2].startswith("weight_ih"):
        return _arrives_at_gates(view, size, layer)
    output, weight = view.history(layer.module), view.history(layer.weight)
    if not len(output) or not len(weight):
        return False
    expected = float(weight.of("std")[0]) * math.sqrt(layer.fan_in) * size
    bias = view.history(f"{layer.module}.bias")
    expected = math.hypot(expected, float(rms(bias)[0]) if len(bias) else 0.0)
    ratio = float(rms(output)[0]) / max(expected, 1e-30)
    return 1 / 30 < ratio < 30


def _arrives_at_gates(view: View, size: float, layer: Layer) -> bool:
    """The same of a recurrent layer: the gradient of its weight against that of its bias, in the first step."""
    weight, bias = gradient_of(view, layer.weight), gradient_of(view, layer.weight.replace("weight_ih", "bias_ih"))
    if weight is None or bias is None or not len(weight) or not len(bias):
        return False
    own, unit = float(weight.of("norm")[0]) / math.sqrt(layer.fan_in), float(bias.of("norm")[0])
    return 1 / 30 < own / (unit * size) < 30 if unit > 0 and size > 0 else own == 0  # gates that are all shut or open


def _is_frozen(view: View, path: str) -> bool:
    """Whether a module has weights, none of which learns."""
    module = view.modules.get(path)
    weights = [info for info in module.parameters if not info.is_buffer] if module else []
    return any(len(info.shape) > 1 for info in weights) and not any(info.trainable for info in weights)
