"""The rule ``flipped-masks``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.relation import gather_pairs
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_MOST_STEPS, _LEAST_SAMPLES, _LEAST_PLACES = 15, 20, 6
_KNOWN = 0.5
"""The part of the samples that must be told apart from their mirror images."""
_FLIPS = {"left to right": (2,), "upside down": (1,), "by half a turn": (1, 2)}


class _Share(NamedTuple):
    """Of the samples: those that fit their target as it is, and those that fit it flipped only."""

    own: float
    flipped: float


@dataclass(frozen=True)
class FlippedMasks(Rule):
    """Pictures that were flipped by an augmentation, without the masks that belong to them.

    Symptom: a segmentation learns blurred, symmetrical masks, and stays far below what is possible.

    How it is measured: of inputs and targets of the same height and width that are kept whole (``neurons`` of the
    recorder), the correlation over the places is taken for each kept sample: with the target, and with the flipped one.
    In some samples the target itself goes with the picture, in others clearly the flipped one; or it is so in nearly
    all. Where pictures and masks do not go together place by place, nothing is said.

    Causes: random transforms that draw anew for the mask; a transform of the picture alone.

    Remedy: draw once, and apply it to both; look at some pictures with their masks on top.

    Attributes:
        related: the correlation that the better one must have. Source: of ours; half of a mask by chance has less.
        better: by how much it must be better than the other one.
        share: of the samples for which each of the two must be so.
    """

    name = "flipped-masks"
    causes = "An augmentation draws anew for the mask, or flips the picture alone."
    remedy = "Draw the random transform once and apply it to both; look at some pictures with their masks on top."
    related: float = 0.4
    better: float = 0.15
    share: float = 0.15

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // _MOST_STEPS)]
        seen: set[tuple[Place, Place]] = set()
        for comparison in comparisons(view):
            for place in view.flow.of_type("input") if comparison.target is not None else ():
                target = comparison.target
                shape = view.shape(place, view.training[-1]) or ()
                size = _size(shape, comparison.target_shape)
                if target is None or target == place or not size or (place, target) in seen:
                    continue
                seen.add((place, target))
                pictures, masks = gather_pairs(steps, place, target)
                if len(pictures) >= _LEAST_SAMPLES and _is_whole(pictures, shape):
                    yield from self._look(view, place, target, _maps(pictures, size), _maps(masks, size))

    def _look(
        self, view: View, place: Place, target: Place, pictures: NDArray[np.float64], masks: NDArray[np.float64]
    ) -> Iterable[Finding]:
        shares = {how: self._compare(pictures, masks, axes) for how, axes in _FLIPS.items()}
        how = max(shares, key=lambda name: shares[name].flipped)
        own, flipped = shares[how]
        if flipped < self.share or own + flipped < _KNOWN or 0.05 * flipped < own < self.share:
            return  # a few samples may fit better by chance
        summary = (
            f"{place.node} and {target.node} were flipped apart: in {flipped:.0%} of the kept samples the target fits "
            f"its picture only if it is flipped {how}, in {own:.0%} as it is (an augmentation of one alone?)."
        )
        history = view.history(target.node, role=target.role)
        yield self.finding(
            view, target.node, "warning", summary, [evidence(history, "mean", "the masks")],
            step=view.began, nodes=[place.node], confidence=0.93,
        )  # fmt: skip

    def _compare(self, pictures: NDArray[np.float64], masks: NDArray[np.float64], axes: tuple[int, ...]) -> _Share:
        one, other = (np.abs(_together(pictures, each)) for each in (masks, np.flip(masks, axes)))
        own = (one > self.related) & (one > other + self.better)
        flipped = (other > self.related) & (other > one + self.better)
        return _Share(float(own.mean()), float(flipped.mean()))


def _size(picture: tuple[int, ...], mask: tuple[int, ...]) -> tuple[int, int] | None:
    """The height and width that both have: ``(batch, channels, height, width)``, or a mask without channels."""
    if len(picture) != 4 or len(mask) not in (3, 4) or picture[-2:] != mask[-2:] or min(mask[-2:]) < _LEAST_PLACES:
        return None
    return mask[-2], mask[-1]


def _is_whole(pictures: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    return bool(pictures.shape[1] == math.prod(shape[1:]))


def _maps(values: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """One map for each sample: the mean over the channels."""
    if values.shape[1] % math.prod(size):
        return np.zeros((len(values), *size))
    return np.asarray(values.reshape(len(values), -1, *size).mean(1))


def _together(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correlation over the places, of each sample."""
    x, y = (maps.reshape(len(maps), -1) - maps.reshape(len(maps), -1).mean(1, keepdims=True) for maps in (one, other))
    spread = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.asarray((x * y).sum(1) / np.maximum(spread, 1e-30))
