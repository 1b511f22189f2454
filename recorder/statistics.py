"""The statistics of a stack of equally shaped tensors, all at once.

Everything is exact to the accuracy of a two-pass algorithm with at least float32 accumulation. Overall statistics
are combined in float64 from those of the samples. Finite statistics are of the finite elements.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def measure(stack: torch.Tensor, *, batched: bool, samples: tuple[int, ...], neuron_limit: int) -> Measured:
    """Measure a stack of G tensors.

    Args:
        stack: ``(G, B, N)`` real floating point (float32 or float64): G tensors of B samples of N neurons. Without a
            batch dimension B is 1.
        batched: whether the second dimension is a batch.
        samples: which samples' raw values and statistics are kept; those beyond B are left out.
        neuron_limit: how many neurons are kept at most; 0 for none.
    """
    group, batch, total = stack.shape
    kept = tuple(sample for sample in samples if sample < batch) if batched else ((0,) if batch else ())
    moments = moments_of(stack)
    per_sample = torch.stack([moments.mean, moments.std, moments.abs_mean, moments.abs_max], dim=-1)
    histograms = count_bins(stack.reshape(group, -1))
    chosen = _choose_neurons(stack, total, neuron_limit)
    return Measured(
        overall=_overall(moments, histograms, batch * total),
        aggregates=_aggregates(per_sample) if batched else None,
        per_sample=_take(per_sample, kept) if batched else None,
        histograms=histograms,
        neuron_statistics=_over_batch(chosen) if batched and chosen is not None and batch else None,
        neuron_samples=None if chosen is None else _take(chosen, kept),
        neurons_total=total,
    )


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


def _overall(moments: Moments, histograms: torch.Tensor, elements: int) -> torch.Tensor:
    """Combine the samples' moments into those of the whole tensor (law of total variance)."""
    group = histograms.shape[0]
    if elements == 0:
        return torch.full((group, 8), torch.nan, dtype=torch.float64, device=histograms.device)
    zeros = histograms[:, histograms.shape[1] // 2 - 1].double() / elements
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
    return torch.cat([_piece_over_batch(piece) for piece in pieces(chosen)])


def _piece_over_batch(chosen: torch.Tensor) -> torch.Tensor:
    if not may_wait_for(chosen):
        return _careful_over_batch(chosen, chosen.dtype)
    abs_max = chosen.abs().amax(1)
    if not is_ordinary(abs_max):
        return _careful_over_batch(chosen, torch.float64)
    mean = chosen.mean(1, keepdim=True)
    centred = chosen - mean
    correction = centred.mean(1)
    variance = (centred.square_().mean(1) - correction.square()).clamp_(min=0)
    return torch.stack([mean.squeeze(1) + correction, variance.sqrt_(), abs_max], dim=1).float()


def _careful_over_batch(chosen: torch.Tensor, work: torch.dtype) -> torch.Tensor:
    careful = careful_moments(chosen.transpose(1, 2), work)
    return torch.stack([careful.mean, careful.std, careful.abs_max], dim=1).float()
