"""The moment that a selection means: the step, its counterpart in the compared trial, and the selected tensor."""

from __future__ import annotations

from dataclasses import dataclass

from stepscope.analysis.compare import counterpart, row_of
from stepscope.store import Group, Step, Tensor, Trial
from stepscope.store.errors import StoreError
from stepscope.viewer.selection import Selection


@dataclass(frozen=True)
class Moment:
    """What a resolved selection points at; ``other`` and ``there`` are of the compared trial, if there is one."""

    selection: Selection
    trial: Trial
    step: Step
    other: Trial | None
    there: Step | None

    @property
    def iteration(self) -> int:
        assert self.selection.iteration is not None
        return self.selection.iteration

    def tensor(self) -> Tensor | None:
        """The selected tensor; None if there is none at this step."""
        wish = self.selection
        if not wish.node or not wish.role:
            return None
        index = self.step.layout.row(wish.node, wish.quantity, wish.role, self.iteration - wish.lag)
        if index is None:
            index = self.step.layout.row(wish.node, wish.quantity, wish.role, None)
        return None if index is None else Tensor(self.step, self.step.rows()[index])

    def counterpart_of(self, tensor: Tensor) -> Tensor | None:
        """The same tensor in the compared trial."""
        row = row_of(self.there, tensor.row) if self.there is not None else None
        return None if row is None or self.there is None else Tensor(self.there, row)


def moment(selection: Selection, group: Group) -> Moment | None:
    """The moment of a resolved selection; None if there is no step, or it cannot be read."""
    if selection.step is None or selection.trial not in group.names:
        return None
    trial = group[selection.trial]
    step = trial.step(selection.step)
    other = _opened(group, selection.compare)
    return Moment(selection, trial, step, other, counterpart(step, other) if other is not None else None)


def _opened(group: Group, name: str) -> Trial | None:
    try:
        return group[name] if name in group.names else None
    except StoreError:
        return None
