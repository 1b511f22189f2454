"""The rule ``state-behind-padding``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.padding import Padding, padding_behind, times_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_CLASSES = ("RNN", "LSTM", "GRU")
_STEPS = 4


@dataclass(frozen=True)
class StateBehindPadding(Rule):
    """What is used of a recurrent layer is its state after the last column, which for most samples is padding.

    Symptom: short sequences are all told the same; the loss stays near that of a constant answer, or falls slowly.

    How it is measured: a recurrent layer is given a whole padded batch (not a packed one). Of what it gives, only the
    last state goes on to a loss, or gradients arrive at the last column of its output alone; and the known samples of
    the input that it reads end in padding before that: in a token that most of them end with, or in rows of zeros. It
    is worth knowing only where little of the input is padding, or the loss has well fallen: a state can learn to wait.

    Causes: ``output[:, -1]`` or ``h_n`` of a batch that was padded to the right, without ``pack_padded_sequence``.

    Remedy: pack the batch with its lengths, or take each sample's own last state: ``output[arange(B), lengths - 1]``.

    Attributes:
        samples: the part of the known samples that must end in padding. Source: of ours; in a batch that is padded to
            its longest sample at least that one does not.
        places: the part of all places that must be padding. Source: of ours; a state bears a few steps of it.
        warned: the same for a warning. Source: of ours.
        fall: the part of the first loss that is gone where it is worth knowing only. Source: of ours.
    """

    name = "state-behind-padding"
    causes = "output[:, -1] or h_n of a batch that was padded to the right, without pack_padded_sequence."
    remedy = "Pack the batch with its lengths; or take each sample's own last state, output[arange(B), lengths - 1]."
    samples: float = 0.5
    places: float = 0.1
    warned: float = 0.3
    fall: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        for module in view.modules.values() if view.training else ():
            place = Place(module.path, "output.0")
            length = _length(view, place) if module.module_class in _CLASSES else 0
            if not length or not (_is_last_state(view, place) or _is_last_column(view, place, length)):
                continue
            for given in _inputs(view, place, length):
                padding = padding_behind(view, given)
                if padding is not None and padding.samples >= self.samples and padding.places >= self.places:
                    yield self._finding(view, place, given, padding)

    def _finding(self, view: View, place: Place, given: Place, padding: Padding) -> Finding:
        summary = (
            f"Only the state of {place.node} after the last column is used, but {padding.samples:.0%} of the known "
            f"samples of {given.node} end before it: {padding.places:.0%} of all places are padding ({padding.value:g} "
            f"at the end), which the state has read, too."
        )
        history = view.history(place.node, role=place.role)
        harms = padding.places >= self.warned and fallen(view) < self.fall
        return self.finding(
            view, place.node, "warning" if harms else "info", summary,
            [evidence(history, "std", "its states, those of padding among them")],
            step=view.began, nodes=[given.node], confidence=0.8,
        )  # fmt: skip


def _length(view: View, place: Place) -> int:
    """The columns that a recurrent layer gives, one for each time; 0 if it was given a packed batch, or one sample."""
    tensor = tensor_of(view.training[0], place)
    if tensor is None or len(tensor.shape) != 3 or tensor.info.batch_dim not in (0, 1):
        return 0
    return int(tensor.shape[1 - tensor.info.batch_dim])


def _is_last_state(view: View, place: Place) -> bool:
    """Whether a loss learns from the last state, and from no column."""
    behind = view.flow.upstream(view.losses, differentiable=True)
    return place not in behind and any(
        other in behind for other in view.flow.of_node(place.node) if other.role.startswith("output.1")
    )


def _is_last_column(view: View, place: Place, length: int) -> bool:
    """Whether gradients arrive at the last column alone."""
    arrived: set[int] = set()
    for step in view.training[:: max(1, len(view.training) // _STEPS)][:_STEPS]:
        kept = neurons_of(step, place, "gradient")
        if kept is not None:
            arrived.update(np.unique(times_of(kept, length)[np.any(kept.samples != 0, axis=0)]).tolist())
    return arrived == {length - 1}


def _inputs(view: View, place: Place, length: int) -> Iterable[Place]:
    """The inputs of the step, as long, that the layer reads."""
    behind = view.flow.upstream([place])
    for given in view.flow.of_type("input"):
        shape = view.shape(given, view.training[-1]) if given in behind else None
        if shape is not None and len(shape) > 1 and shape[1] == length:
            yield given
