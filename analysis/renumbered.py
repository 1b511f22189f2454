"""Whether a net is right about classes, but another number stands for each of them than the one it was trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of
from stepscope.store import Step

Numbers = NDArray[np.int64]
_FEWEST, _SAME, _WRONG = 6, 0.8, 0.35
_EACH, _LEARNED = 12, 0.8


def answers(steps: Sequence[Step], prediction: Place, target: Place) -> tuple[Numbers, Numbers]:
    """For each kept sample of some steps the class of the largest score, and the target.

    An evaluation that has the same samples in all steps, as their targets say, counts once, with its last answers.
    """
    found: dict[bytes, tuple[Numbers, Numbers]] = {}
    for step in steps:
        scores, classes = neurons_of(step, prediction), neurons_of(step, target)
        if scores is None or classes is None or scores.samples.shape != (len(classes.samples), scores.total):
            continue
        if classes.samples.size == len(scores.samples):
            wanted = classes.samples.ravel().astype(np.int64)
            found[wanted.tobytes()] = scores.samples.argmax(axis=1).astype(np.int64), wanted
    nothing = np.empty(0, np.int64)
    chosen, targets = zip(*found.values(), strict=True) if found else ((nothing,), (nothing,))
    return np.concatenate(chosen), np.concatenate(targets)


def how_renumbered(chosen: Numbers, wanted: Numbers) -> str:
    """What turns the classes that were chosen into those that were wanted, in words; empty if nothing does."""
    is_wrong = chosen != wanted
    wrong = wanted[is_wrong] - chosen[is_wrong]
    if len(wrong) < max(_FEWEST, _WRONG * len(wanted)):
        return ""
    offset, count = Counter(wrong.tolist()).most_common(1)[0]
    classes = set(chosen[is_wrong][wrong == offset].tolist())  # a single pair of classes is only taken for each other
    if count >= _SAME * len(wrong) and len(classes) > 2:
        return f"{count} of {len(wrong)} wrong answers are off by {offset:+d}"
    share = _told_by_others(chosen, wanted)
    if share >= _LEARNED and np.mean(chosen == wanted) < share / 2:
        return f"{share:.0%} of the targets are told by the answer, if each class is given another number"
    return ""


def _told_by_others(chosen: Numbers, wanted: Numbers) -> float:
    """How often a target is the one that most other samples with the same answer have; 0 if there are too few."""
    told = []
    for index, answer in enumerate(chosen.tolist()):
        others = np.delete(wanted, index)[np.delete(chosen, index) == answer]
        if len(others):
            told.append(Counter(others.tolist()).most_common(1)[0][0] == wanted[index])
    varied = len(set(wanted.tolist())) > 1 and len(set(chosen.tolist())) > 1
    return float(np.mean(told)) if len(told) >= _EACH and varied else 0.0
