"""Curves of all steps, with a line for each kind: what is drawn through all kinds at once is a comb."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stepscope.store import Trial
from stepscope.viewer.chart_parts import Curve

_MOST_KINDS = 3
"""Of more than that, such as lengths of sequences, one line through all is the better picture."""


def by_kind(trial: Trial, curve: Curve) -> Iterator[Curve]:
    """The curve of the kind that trains most, and those of the others, which are marked with their kind."""
    steps, kinds = trial.steps, np.array(trial.step_kinds, dtype=object)
    known = min(len(steps), len(kinds))  # while training goes on, one of them may have been read later
    if not known or not 2 <= len(set(kinds[:known].tolist())) <= _MOST_KINDS:
        yield curve
        return
    own = kinds[np.minimum(np.searchsorted(steps[:known], curve.steps), known - 1)]
    counts = Counter(own.tolist())
    for place, kind in enumerate(sorted(counts, key=lambda kind: ("train" not in kind, -counts[kind], kind))):
        mine = own == kind
        yield replace(curve, steps=curve.steps[mine], values=curve.values[mine], kind=kind if place else "")
