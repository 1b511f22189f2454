"""The statistics of a stack of equally shaped tensors, all at once.

Everything is exact to the accuracy of a two-pass algorithm with at least float32 accumulation. Overall statistics
are combined in float64 from those of the samples. Finite statistics are of the finite elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch

from stepscope.recorder.histogram import count_bins
from stepscope.recorder.moments import (
    Moments,
    blank,
    careful_moments,
    is_ordinary,
    may_wait_for,
    moments_of,
    pieces,
)
from stepscope.store.records import HISTOGRAM_BINS

_ZERO = HISTOGRAM_BINS // 2 - 1
"""The bin of zeros."""


@dataclass(frozen=True)
class Measured:
    """What was measured of G stacked tensors. S: kept samples, n: kept neurons, on the device of the tensors.

    Attributes:
        overall: ``(G, 8)`` float64: mean, std, abs_mean, abs_max, min, max, norm, zero_fraction.
        aggregates: ``(G, 4, 3)`` float64, or None without a batch dimension.
        per_sample: ``(G, S, 4)`` float64, or None without a batch dimension.
        histograms: ``(G, HISTOGRAM_BINS)`` int64; zeros, NaNs and infinities have bins of their own.
        neuron_statistics: ``(G, 3, n)``, or None.
        neuron_samples: ``(G, S or 1, n)``, or None.
        neurons_total: how many neurons there are.
    """

    overall: torch.Tensor
    aggregates: torch.Tensor | None
    per_sample: torch.Tensor | None
    histograms: torch.Tensor
    neuron_statistics: torch.Tensor | None
    neuron_samples: torch.Tensor | None
    neurons_total: int


@dataclass(frozen=True)
class Survey:
    """What was found of G stacked tensors, sample by sample: ``moments`` are ``(G, B)``; the rest as in ``Measured``.

    ``kept`` samples are kept; each tensor has so many ``elements``.
    """

    moments: Moments
    histograms: torch.Tensor
    neuron_statistics: torch.Tensor | None
    neuron_samples: torch.Tensor | None
    neurons_total: int
    batched: bool
    kept: tuple[int, ...]
    elements: int

    @property
    def kind(self) -> object:
        """What surveys share that can be combined together."""
        return self.moments.mean.shape[1], self.batched, self.kept, self.elements == 0, self.moments.mean.device


def measure(stack: torch.Tensor, *, batched: bool, samples: tuple[int, ...], neuron_limit: int) -> Measured:
    """Measure a stack of G tensors.

    Args:
        stack: ``(G, B, N)`` real floating point (float32 or float64): G tensors of B samples of N neurons. Without a
            batch dimension B is 1.
        batched: whether the second dimension is a batch.
        samples: which samples' raw values and statistics are kept; those beyond B are left out.
        neuron_limit: how many neurons are kept at most; 0 for none.
    """
    return combined([survey(stack, batched=batched, samples=samples, neuron_limit=neuron_limit)])[0]


def survey(stack: torch.Tensor, *, batched: bool, samples: tuple[int, ...], neuron_limit: int) -> Survey:
    """The first part of ``measure``: all that needs the elements themselves."""
    group, batch, total = stack.shape
    kept = tuple(sample for sample in samples if sample < batch) if batched else ((0,) if batch else ())
    chosen = _choose_neurons(stack, total, neuron_limit)
    return Survey(
        moments=moments_of(stack),
        histograms=count_bins(stack.reshape(group, -1)),
        neuron_statistics=_over_batch(chosen) if batched and chosen is not None and batch else None,
        neuron_samples=None if chosen is None else _take(chosen, kept),
        neurons_total=total,
        batched=batched,
        kept=kept,
        elements=batch * total,
    )


def combined(surveys: Sequence[Survey]) -> list[Measured]:
    """The second part, for many stacks: of a few numbers each, it is mostly calls, whatever the shapes of tensors."""
    alike: dict[object, list[int]] = defaultdict(list)
    for place, one in enumerate(surveys):
        alike[one.kind].append(place)
    found: dict[int, Measured] = {}
    for places in alike.values():
        found.update(zip(places, _combined([surveys[place] for place in places]), strict=True))
    return [found[place] for place in range(len(surveys))]


def _combined(surveys: list[Survey]) -> Iterator[Measured]:
    """Of surveys of one kind."""
    first = surveys[0]
    moments = _joined([one.moments for one in surveys])
    per_sample = torch.stack([moments.mean, moments.std, moments.abs_mean, moments.abs_max], dim=-1)
    zeros = torch.cat([one.histograms[:, _ZERO].double() / max(1, one.elements) for one in surveys])
    sizes = [len(one.histograms) for one in surveys]
    overall = _overall(moments, zeros, first.elements)
    results = [overall, _aggregates(per_sample), _take(per_sample, first.kept)] if first.batched else [overall]
    for one, (found, *of_samples) in zip(
        surveys, zip(*(part.split(sizes) for part in results), strict=True), strict=True
    ):
        aggregates, kept = of_samples or (None, None)
        yield Measured(
            overall=found,
            aggregates=aggregates,
            per_sample=kept,
            histograms=one.histograms,
            neuron_statistics=one.neuron_statistics,
            neuron_samples=one.neuron_samples,
            neurons_total=one.neurons_total,
        )


def _joined(moments: list[Moments]) -> Moments:
    if len(moments) == 1:
        return moments[0]
    return Moments(*(torch.cat([getattr(one, field.name) for one in moments]) for field in fields(Moments)))


def bytes_of_results(elements: int, batch: int, *, batched: bool, samples: int, neuron_limit: int) -> int:
    """What the results for one tensor of that many elements take, in bytes; at most."""
    kept = min(neuron_limit, elements // batch if batched and batch else elements)
    fixed = 8 * (8 + HISTOGRAM_BINS) + (8 * (12 + 4 * samples) if batched else 0)
    return fixed + 8 * kept * (3 + samples if batched else 1)


def neuron_positions(total: int, limit: int) -> list[int]:
    """Which of ``total`` neurons are kept: all, or ``limit`` evenly spaced: ``i * total // limit``."""
    kept = min(total, limit)
    return [i * total // kept for i in range(kept)]


def _take(values: torch.Tensor, samples: tuple[int, ...]) -> torch.Tensor:
    """The kept samples along dimension 1, as a tensor of its own memory."""
    if samples == tuple(range(len(samples))):
        return values[:, : len(samples)].clone()
    return torch.stack([values[:, sample] for sample in samples], dim=1)


def _choose_neurons(stack: torch.Tensor, total: int, limit: int) -> torch.Tensor | None:
    if limit <= 0 or total == 0:
        return None
    if total <= limit:
        return stack
    positions = torch.arange(limit, device=stack.device) * total // limit  # as neuron_positions, without a copy
    return stack.index_select(2, positions)


def _overall(moments: Moments, zeros: torch.Tensor, elements: int) -> torch.Tensor:
    """Combine the samples' moments into those of the whole tensor (law of total variance)."""
    if elements == 0:
        return torch.full((len(zeros), 8), torch.nan, dtype=torch.float64, device=zeros.device)
    if moments.count.shape[1] == 1:
        return torch.stack([*_of_the_only_sample(moments), zeros], dim=-1)
    count = moments.count.sum(1)
    weight = moments.count / count.unsqueeze(1)

    def weighted(values: torch.Tensor) -> torch.Tensor:
        return torch.where(moments.count > 0, values * weight, 0).sum(1)

    mean = weighted(moments.mean)
    # Scaled by the largest magnitude, so that no square overflows or vanishes.
    scale = _extreme(moments.abs_max, largest=True)
    unit = torch.where(scale > 0, scale, 1).unsqueeze(1)
    spread = (moments.mean - mean.unsqueeze(1)) / unit
    std = unit.squeeze(1) * (weighted((moments.std / unit).square()) + weighted(spread.square())).sqrt()
    some = count > 0
    columns = [
        mean,
        std,
        weighted(moments.abs_mean),
        scale,
        _extreme(moments.minimum, largest=False),
        _extreme(moments.maximum, largest=True),
        count.sqrt() * torch.hypot(std, mean),
    ]
    return torch.stack([*(blank(column, ~some) for column in columns), zeros], dim=-1)


def _of_the_only_sample(moments: Moments) -> list[torch.Tensor]:
    """What is measured of whole tensors without a batch; NaN where none of the elements is finite."""
    norm = moments.count.sqrt() * torch.hypot(moments.std, moments.mean)
    found = (moments.mean, moments.std, moments.abs_mean, moments.abs_max, moments.minimum, moments.maximum, norm)
    return [values[:, 0] for values in found]


def _extreme(values: torch.Tensor, *, largest: bool) -> torch.Tensor:
    """Largest or smallest over the batch, ignoring samples without a finite element."""
    if largest:
        return torch.where(values.isnan(), -torch.inf, values).amax(1)
    return torch.where(values.isnan(), torch.inf, values).amin(1)


def _aggregates(per_sample: torch.Tensor) -> torch.Tensor:
    """Over the batch, of each per-sample statistic ``(G, B, 4)``: mean, std and abs-max, as ``(G, 4, 3)``."""
    if per_sample.shape[1] == 0:
        shape = (per_sample.shape[0], per_sample.shape[2], 3)
        return torch.full(shape, torch.nan, dtype=per_sample.dtype, device=per_sample.device)
    mean = per_sample.nanmean(1)
    std = (per_sample - mean.unsqueeze(1)).square().nanmean(1).sqrt()
    there = ~per_sample.isnan()
    abs_max = torch.where(there, per_sample.abs(), -torch.inf).amax(1)
    return torch.stack([mean, std, blank(abs_max, ~there.any(1))], dim=-1)


def _over_batch(chosen: torch.Tensor) -> torch.Tensor:
    """Mean, std and abs-max of each neuron over the batch: ``(G, B, n)`` to ``(G, 3, n)`` float32."""
    if not may_wait_for(chosen):
        return torch.cat([_careful_over_batch(piece, piece.dtype) for piece in pieces(chosen)])
    scratch = torch.empty_like(next(pieces(chosen)))
    found = [_piece_over_batch(piece, scratch[: len(piece)]) for piece in pieces(chosen)]
    mean, correction, squares, abs_max = torch.cat(found, dim=1)
    std = (squares - correction.square()).clamp_(min=0).sqrt_()
    ordinary = torch.stack([mean + correction, std, abs_max], dim=1).float()
    strange = ~is_ordinary(abs_max).all(1)
    if bool(strange.any()):
        ordinary[strange] = _careful_over_batch(chosen[strange], torch.float64)
    return ordinary


def _piece_over_batch(chosen: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """``(g, B, n)`` to ``(4, g, n)``: mean, what corrects it, mean square about it, largest magnitude."""
    abs_max = torch.abs(chosen, out=scratch).amax(1)
    mean = chosen.mean(1)
    centred = torch.sub(chosen, mean.unsqueeze(1), out=scratch)
    correction = centred.mean(1)
    return torch.stack([mean, correction, torch.mul(centred, centred, out=scratch).mean(1), abs_max])


def _careful_over_batch(chosen: torch.Tensor, work: torch.dtype) -> torch.Tensor:
    careful = careful_moments(chosen.transpose(1, 2), work)
    return torch.stack([careful.mean, careful.std, careful.abs_max], dim=1).float()
