"""When trouble began, as the health check of unrecorded steps saw it."""

from __future__ import annotations

import numpy as np

from stepscope.analysis.section import Recording

GROUP = "health"


def first_not_finite(trial: Recording) -> tuple[int, str] | None:
    """The first step at which the health check saw a number that is not finite, and which; None if it saw none."""
    found = []
    for group, name in trial.scalar_names:
        if group == GROUP:
            steps, values = trial.scalars(name, group=group)
            found += [(int(step), name) for step in steps[~np.isfinite(values)][:1]]
    return min(found, default=None)
