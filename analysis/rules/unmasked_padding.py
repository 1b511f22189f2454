"""The rule ``unmasked-padding``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.history import Values
from stepscope.analysis.neurons import neurons_of
from stepscope.analysis.padding import Padding, ends_of, padding_behind, times_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_STEPS, _MOST = 6, 24


@dataclass(frozen=True)
class UnmaskedPadding(Rule):
    """What a net makes of the padding behind short sequences counts as much as what it makes of them.

    Symptom: short sequences are told worse than long ones; what is said of one depends on what else is in its batch.

    How it is measured: the input is padded: most of its known samples end in the same token, or in rows of zeros. Of
    what the net makes of each place (an embedding, what a layer makes of that), the gradient at the places behind the
    end is compared with zero, where what stands there is not zero itself: masks of an attention, a mean over the words
    that are there, a packed batch, and losses that leave out padding all make it exactly zero. It counts where (almost)
    all of these places get a gradient; a few may get one by a maximum that picks them, or a filter at the border. It is
    worth knowing only where little of the input is padding, or the loss has well fallen.

    Causes: a mean, sum or softmax over all places of a padded batch; an attention without ``key_padding_mask``; a loss
    over padding.

    Remedy: hand the lengths, or a mask, to what puts places together, and to the loss.

    Attributes:
        samples: the part of the known samples that must end in padding. Source: of ours; in a batch that is padded to
            its longest sample at least that one does not.
        places: the part of all places that must be padding. Source: of ours.
        counted: the part of the places behind an end whose gradient is not zero. Source: of ours.
        warned: the part of all places that must be padding for a warning. Source: of ours.
        fall: the part of the first loss that is gone where it is worth knowing only. Source: of ours.
    """

    name = "unmasked-padding"
    causes = "A mean, sum or softmax over all places of a padded batch, an attention or a loss without its mask."
    remedy = "Hand the lengths, or a mask, to what puts places together (key_padding_mask), and to the loss."
    samples: float = 0.5
    places: float = 0.1
    counted: float = 0.9
    warned: float = 0.3
    fall: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        for given in view.flow.of_type("input") if view.training else ():
            padding = padding_behind(view, given)
            if padding is None or padding.samples < self.samples or padding.places < self.places:
                continue
            counting = (p for p in _made_of(view, given) if _share_that_counts(view, given, p, padding) >= self.counted)
            if (place := next(counting, None)) is not None:
                yield self._finding(view, given, place, padding)

    def _finding(self, view: View, given: Place, place: Place, padding: Padding) -> Finding:
        harms = padding.places >= self.warned and fallen(view) < self.fall
        summary = (
            f"The padding of {given.node} ({padding.places:.0%} of its places, {padding.value:g} behind the end) is "
            f"not masked: what {place.node} makes of it gets gradients from the loss, as what it makes of data does."
        )
        history = view.history(place.node, "gradient", role=place.role)
        return self.finding(
            view, place.node, "warning" if harms else "info", summary,
            [evidence(history, "zero_fraction", "would be the part that is padding")],
            step=view.began, nodes=[given.node, *_behind(view, place)], confidence=0.75,
        )  # fmt: skip


def _made_of(view: View, given: Place) -> Iterator[Place]:
    """What is made of each place of an input, in turn: ``(batch, time)`` becomes ``(batch, time, features)``."""
    shape = view.shape(given, view.training[-1]) or ()
    waiting, seen = [given], {given}
    while waiting and len(seen) < _MOST:
        for link in view.flow.sinks.get(waiting.pop(0), ()):
            made = view.shape(link.place, view.training[-1]) or ()
            is_calculated = view.flow.vertices[link.place].type == "calculated"
            if is_calculated and link.place not in seen and len(made) == 3 and made[:2] == shape[:2]:
                seen.add(link.place)
                waiting.append(link.place)
                yield link.place


def _behind(view: View, place: Place) -> list[str]:
    """What is made of it next."""
    return list(dict.fromkeys(link.place.node for link in view.flow.sinks.get(place, ())))


def _share_that_counts(view: View, given: Place, place: Place, padding: Padding) -> float:
    """The part of the known places behind an end at which something else than zero stands that has a gradient."""
    counted, every = 0, 0
    for step in view.training[:: max(1, len(view.training) // _STEPS)][:_STEPS]:
        ends, values, gradients = (
            ends_of(step, given, padding),
            neurons_of(step, place),
            neurons_of(step, place, "gradient"),
        )
        shape = view.shape(place, step)
        if ends is None or values is None or gradients is None or shape is None or len(gradients.samples) != len(ends):
            continue
        times = times_of(gradients, shape[1])
        for end, value, gradient in zip(ends, values.samples, gradients.samples, strict=True):
            behind = np.unique(times[times >= end])
            every += len(behind)
            counted += sum(_counts(value[times == time], gradient[times == time]) for time in behind)
    return counted / every if every else 0.0


def _counts(value: Values, gradient: Values) -> bool:
    return bool(np.any(value != 0) and np.any(gradient != 0))
