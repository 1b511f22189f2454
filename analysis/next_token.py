"""Whether the targets of a trial are its inputs, one position later: the task of a language model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepscope.analysis.flow import Place
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.view import View
from stepscope.store import Step, Tensor
from stepscope.store.records import Neurons

_FEWEST = 8
_IGNORED = -100
"""The label that torch's losses leave out."""

Tokens = dict[tuple[int, int], float]
"""The known tokens by sample and position."""


def predicted_inputs(view: View) -> list[Place]:
    """The inputs whose next token is what a loss asks for, in all of some steps."""
    steps = view.training[:: max(1, len(view.training) // 3)][:3]
    targets = {comparison.target for comparison in comparisons(view) if comparison.target is not None}
    return [
        place
        for place in view.flow.of_type("input")
        if any(steps and all(_is_next(step, place, target) for step in steps) for target in targets)
    ]


def _is_next(step: Step, place: Place, target: Place) -> bool:
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or not _is_sequence(tensor):
        return False
    batch = tensor.info.batch_dim or 0
    given = known_tokens(step, kept)
    wanted = known_targets(step, target, tensor.shape[batch], is_batch_first=batch == 0)
    pairs = [
        (value, given[sample, position + 1])
        for (sample, position), value in wanted.items()
        if (sample, position + 1) in given and value != _IGNORED
    ]
    return len(pairs) >= _FEWEST and len(set(pairs)) > 1 and all(one == two for one, two in pairs)


def _is_sequence(tensor: Tensor) -> bool:
    """Whether each sample is a row of tokens, or a series of one channel, ``(batch, time, 1)``."""
    dims = len(tensor.shape)
    return tensor.info.batch_dim is not None and (dims == 2 or (dims == 3 and tensor.shape[2] == 1))


def known_tokens(step: Step, kept: Neurons) -> Tokens:
    """The kept tokens."""
    positions = _positions(kept)
    return {
        (sample, int(position)): float(value)
        for sample, row in zip(step.samples, kept.samples, strict=False)
        for position, value in zip(positions, row, strict=True)
    }


def known_targets(step: Step, place: Place, batch: int, *, is_batch_first: bool) -> Tokens:
    """The targets as they are, or out of one long row of all samples."""
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None:
        return {}
    if _is_sequence(tensor):
        return known_tokens(step, kept)
    if len(tensor.shape) != 1 or not batch or kept.total % batch or len(kept.samples) != 1:
        return {}
    places, length = _positions(kept), kept.total // batch
    samples, positions = (places // length, places % length) if is_batch_first else (places % batch, places // batch)
    return {
        (int(sample), int(position)): float(value)
        for sample, position, value in zip(samples, positions, kept.samples[0], strict=True)
    }


def _positions(kept: Neurons) -> NDArray[np.int64]:
    """Which neuron each kept one is."""
    count = kept.samples.shape[-1]
    return np.asarray(np.arange(count) * kept.total // max(count, 1))
