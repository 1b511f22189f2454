"""Small tensors without a batch dimension, of whatever shapes, measured all at once.

A net has many of them (biases, norms, their gradients, updates and states), and what one costs is the calls, not its
numbers. They are laid one behind the other, each from a new chunk of ``_WIDTH`` numbers on. Chunks are rows of one
matrix, measured like the rows of a stack; of the last one of a tensor, which may be filled up, only the numbers count.
What was found of the chunks is combined in float64 (Chan, Golub, LeVeque 1983).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stepscope.recorder.histogram import ZERO, bins_of_raw, count_magnitudes, raw_codes
from stepscope.recorder.moments import SAFE_RANGE, rows_of_moments
from stepscope.recorder.statistics import Measured, neuron_positions

LARGEST = 1 << 15
"""Elements of the largest tensor that is small."""
MOST = 1 << 20
"""Elements that are laid together at once, filled up ones included."""
_WIDTH = 256
_RAW = ZERO + 1

_Floats = NDArray[np.float64]


class Alike(NamedTuple):
    """Tensors of the same shape, as real float32 ones; at most ``neurons`` of the values of each are kept."""

    tensors: Sequence[torch.Tensor]
    neurons: int

    @property
    def size(self) -> _Size:
        return _Size(self.tensors[0].numel(), len(self.tensors), self.neurons)


class _Size(NamedTuple):
    elements: int
    tensors: int
    neurons: int


def room_for(elements: int, tensors: int) -> int:
    """How much of ``MOST`` some tensors take."""
    return -(-elements // _WIDTH) * _WIDTH * tensors


def measure_small(groups: Sequence[Alike]) -> list[Measured | None]:
    """Measure tensors of 1 to ``LARGEST`` elements; None for groups that need more care.

    These are the ones with elements that are not finite, or whose squares overflow or vanish.
    """
    layout = _layout(tuple(group.size for group in groups))
    chunks = _joined(groups, layout)
    overall, is_ordinary = _overall(chunks, layout)
    histograms, zeros = _histograms(chunks, layout)
    overall[:, -1] = zeros / layout.counts
    whole = torch.from_numpy(overall)
    return [
        _measured(size, whole[place], histograms[place], neurons) if is_ordinary[place].all() else None
        for size, place, neurons in zip(layout.sizes, layout.places, _neurons(chunks, layout), strict=True)
    ]


def _measured(size: _Size, overall: torch.Tensor, histograms: torch.Tensor, neurons: torch.Tensor | None) -> Measured:
    return Measured(
        overall=overall,
        aggregates=None,
        per_sample=None,
        histograms=histograms,
        neuron_statistics=None,
        neuron_samples=neurons,
        neurons_total=size.elements,
    )


def _neurons(chunks: torch.Tensor, layout: _Layout) -> list[torch.Tensor | None]:
    """Of each group, the values of the chosen neurons: ``(tensors, 1, neurons)``."""
    found = iter(chunks.view(-1).index_select(0, layout.neurons).split(layout.neuron_counts))
    return [next(found).view(size.tensors, 1, -1) if size.neurons > 0 else None for size in layout.sizes]


@dataclass(frozen=True)
class _Layout:
    """Where tensors of these sizes lie. T: tensors, C: chunks."""

    sizes: tuple[_Size, ...]

    @cached_property
    def places(self) -> list[slice]:
        """Of each group, its tensors among all."""
        ends = np.cumsum([size.tensors for size in self.sizes]).tolist()
        return [slice(end - size.tensors, end) for end, size in zip(ends, self.sizes, strict=True)]

    @cached_property
    def counts(self) -> _Floats:
        """``(T,)``: elements of each tensor."""
        return np.repeat([float(size.elements) for size in self.sizes], [size.tensors for size in self.sizes])

    @cached_property
    def chunks(self) -> NDArray[np.int64]:
        """``(T,)``: chunks of each tensor."""
        return -(-self.counts.astype(np.int64) // _WIDTH)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """``(T,)``: the first chunk of each tensor."""
        return np.cumsum(self.chunks) - self.chunks

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """``(C,)``: which tensor each chunk belongs to."""
        return np.repeat(np.arange(len(self.chunks)), self.chunks)

    @cached_property
    def first_bins(self) -> torch.Tensor:
        """``(C, 1)``: where the raw bins of a chunk's tensor begin."""
        return torch.from_numpy((self.owners * _RAW).astype(np.int32)).unsqueeze(1)

    @cached_property
    def weights(self) -> _Floats:
        """``(C,)``: numbers in each chunk."""
        return np.minimum(
            self.counts[self.owners] - (np.arange(len(self.owners)) - self.starts[self.owners]) * _WIDTH, _WIDTH
        )

    @cached_property
    def filling(self) -> list[torch.Tensor | None]:
        """Of each tensor, what its last chunk is filled up with."""
        zeros = torch.zeros(_WIDTH)
        return [zeros[:missing] if missing else None for missing in self.missing.tolist()]

    @cached_property
    def missing(self) -> NDArray[np.int64]:
        """``(T,)``: how many numbers each tensor is filled up with."""
        return self.chunks * _WIDTH - self.counts.astype(np.int64)

    @cached_property
    def filled(self) -> torch.Tensor:
        """Which chunks are filled up."""
        return torch.from_numpy(np.flatnonzero(self.weights < _WIDTH))

    @cached_property
    def is_number(self) -> torch.Tensor:
        """``(filled chunks, _WIDTH)``: where they hold a number of the tensor."""
        return torch.arange(_WIDTH) < torch.from_numpy(self.weights)[self.filled].unsqueeze(1)

    @cached_property
    def neuron_counts(self) -> list[int]:
        """Of each group with neurons, how many values there are of all its tensors."""
        return [size.tensors * min(size.neurons, size.elements) for size in self.sizes if size.neurons > 0]

    @cached_property
    def neurons(self) -> torch.Tensor:
        """Where the values of the chosen neurons lie."""
        found = [np.zeros(0, np.int64)]
        for size, place in zip(self.sizes, self.places, strict=True):
            if size.neurons > 0:
                chosen = np.array(neuron_positions(size.elements, size.neurons))
                found.append((self.starts[place, None] * _WIDTH + chosen).ravel())
        return torch.from_numpy(np.concatenate(found))


@lru_cache(maxsize=8)
def _layout(sizes: tuple[_Size, ...]) -> _Layout:
    """A training records the same tensors again and again."""
    return _Layout(sizes)


def _joined(groups: Sequence[Alike], layout: _Layout) -> torch.Tensor:
    """``(C, _WIDTH)``: all numbers."""
    parts: list[torch.Tensor] = []
    tensors = (tensor for group in groups for tensor in group.tensors)
    for tensor, filling in zip(tensors, layout.filling, strict=True):
        parts.append(tensor.reshape(-1))
        if filling is not None:
            parts.append(filling)
    return torch.cat(parts).view(-1, _WIDTH)


def _overall(chunks: torch.Tensor, layout: _Layout) -> tuple[_Floats, NDArray[np.bool_]]:
    """``(T, 8)`` as in ``Measured``, without the zeros; and which tensors could be measured in this way."""
    with np.errstate(all="ignore"):  # of those that could not
        mean, squares, abs_mean, minimum, maximum = _of_chunks(chunks, layout)
        weights, starts = layout.weights, layout.starts
        sums = np.add.reduceat(np.stack([mean, abs_mean]) * weights, starts, axis=1)
        means, abs_means = sums / layout.counts
        apart = squares + (mean - means[layout.owners]) ** 2
        std = np.sqrt(np.add.reduceat(apart * weights, starts) / layout.counts)
        smallest, largest = np.minimum.reduceat(minimum, starts), np.maximum.reduceat(maximum, starts)
        magnitude = np.maximum(largest, -smallest)
        norm = np.sqrt(layout.counts) * np.hypot(std, means)
        low, high = SAFE_RANGE[torch.float32]
        is_ordinary = ((magnitude > low) & (magnitude < high)) | (magnitude == 0)
    columns = [means, std, abs_means, magnitude, smallest, largest, norm, np.zeros_like(norm)]
    return np.stack(columns, axis=1), is_ordinary


def _of_chunks(chunks: torch.Tensor, layout: _Layout) -> _Floats:
    """``(5, C)``: mean, mean square about it, mean magnitude, minimum, maximum."""
    filled = layout.filled
    if len(filled) == len(chunks):
        return _of_filled(chunks, layout)
    mean, correction, squares, abs_mean, minimum, maximum = rows_of_moments(chunks).double().numpy()
    found = np.stack([mean + correction, np.maximum(squares - correction**2, 0), abs_mean, minimum, maximum])
    if len(filled):
        found[:, filled.numpy()] = _of_filled(chunks.index_select(0, filled), layout)
    return found


def _of_filled(rows: torch.Tensor, layout: _Layout) -> _Floats:
    """The same of rows that are filled up, in float64."""
    is_number, count = layout.is_number, torch.from_numpy(layout.weights)[layout.filled]
    values = rows.double()
    mean = values.sum(1) / count
    centred = torch.where(is_number, values - mean.unsqueeze(1), 0)
    correction = centred.sum(1) / count
    squares = (centred.square_().sum(1) / count - correction**2).clamp_(min=0)
    found = [
        mean + correction,
        squares,
        values.abs().sum(1) / count,
        torch.where(is_number, values, torch.inf).amin(1),
        torch.where(is_number, values, -torch.inf).amax(1),
    ]
    return torch.stack(found).numpy()


def _histograms(chunks: torch.Tensor, layout: _Layout) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """``(T, HISTOGRAM_BINS)``, and how many zeros each tensor has."""
    tensors = len(layout.counts)
    raw = _count(raw_codes(chunks), layout)
    counted = raw.numpy()
    tiny = counted[:, 0] + counted[:, ZERO >> 1] - layout.missing  # zeros, and the smallest numbers that can be written
    zeros = np.zeros(tensors, np.int64)
    if tiny.any():
        nonzero = np.add.reduceat(count_magnitudes(chunks).numpy(), layout.starts)
        zeros = layout.counts.astype(np.int64) - nonzero
        if not np.array_equal(zeros, tiny):
            raw = _count(raw_codes(chunks).masked_fill_(chunks == 0, ZERO), layout)
            counted = raw.numpy()
        else:
            counted[:, 0] = counted[:, ZERO >> 1] = 0
    else:
        counted[:, 0] = counted[:, ZERO >> 1] = 0
    counted[:, ZERO] = zeros
    return bins_of_raw(raw), zeros


def _count(codes: torch.Tensor, layout: _Layout) -> torch.Tensor:
    tensors = len(layout.counts)
    return torch.bincount(codes.add_(layout.first_bins).view(-1), minlength=tensors * _RAW).view(tensors, _RAW)
