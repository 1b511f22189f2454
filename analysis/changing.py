"""How often the weights change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepscope.analysis.view import View

_LEAST_PAIRS, _LEAST_CHANGES = 12, 2
_MOSTLY = 0.7


def steps_between_changes(view: View, nodes: Sequence[str]) -> int | None:
    """How many steps lie between two changes of any of these parameters, in the median.

    None where they change in most of the recorded steps, hardly ever, or too few steps are known.
    """
    histories = [view.history(node) for node in nodes]
    if not histories or any(not np.array_equal(one.steps, histories[0].steps) for one in histories):
        return None
    changed = np.logical_or.reduce([history.is_changed for history in histories])
    places = np.flatnonzero(changed)
    if len(changed) < _LEAST_PAIRS or len(places) < _LEAST_CHANGES or changed.mean() > 1 - _MOSTLY:
        return None
    return int(np.median(np.diff(histories[0].steps[places + 1])))
