"""The statistics of a stack of equally shaped tensors, all at once.

Everything is exact to the accuracy of a two-pass algorithm with at least float32 accumulation: the mean is
corrected by the mean of the centred values, so that a large mean does not spoil the standard deviation
(Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance"). Overall statistics are combined in
float64 from those of the samples. Tensors with non-finite or extreme elements take a slower path in float64, scaled
by a power of two and masked, so that finite statistics are of the finite elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stepscope.recorder.histogram import count_bins

_SAFE_RANGE = {torch.float32: (1e-15, 1e15), torch.float64: (1e-140, 1e140)}
"""Largest magnitudes for which squares neither overflow nor vanish in the given type."""


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
class _Moments:
    """Per sample: ``(G, B)`` float64 each; ``count`` of finite elements."""

    count: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    abs_mean: torch.Tensor
    abs_max: torch.Tensor
    minimum: torch.Tensor
    maximum: torch.Tensor


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
    moments = _moments(stack) if stack.numel() else _empty_moments(stack)
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


def neuron_positions(total: int, limit: int) -> list[int]:
    """Which of ``total`` neurons are kept: all, or ``limit`` evenly spaced: ``i * total // limit``."""
    kept = min(total, limit)
    return [i * total // kept for i in range(kept)]


def _take(values: torch.Tensor, samples: tuple[int, ...]) -> torch.Tensor:
    """The kept samples along dimension 1, as a tensor of its own memory."""
    if samples == tuple(range(len(samples))):
        return values[:, : len(samples)].clone()
    return values[:, list(samples)]


def _choose_neurons(stack: torch.Tensor, total: int, limit: int) -> torch.Tensor | None:
    if limit <= 0 or total == 0:
        return None
    if total <= limit:
        return stack
    return stack[:, :, neuron_positions(total, limit)]


def _is_ordinary(abs_max: torch.Tensor) -> bool:
    low, high = _SAFE_RANGE[abs_max.dtype]
    return bool((((abs_max > low) & (abs_max < high)) | (abs_max == 0)).all())


def _moments(stack: torch.Tensor) -> _Moments:
    absolute = stack.abs()
    abs_max = absolute.amax(-1)
    if stack.dtype in _SAFE_RANGE and _is_ordinary(abs_max):
        return _ordinary_moments(stack, absolute, abs_max)
    return _careful_moments(stack)


def _ordinary_moments(stack: torch.Tensor, absolute: torch.Tensor, abs_max: torch.Tensor) -> _Moments:
    mean = stack.mean(-1)
    centred = torch.sub(stack, mean.unsqueeze(-1))
    correction = centred.mean(-1).double()
    variance = (centred.square_().mean(-1).double() - correction.square()).clamp_(min=0)
    return _Moments(
        count=torch.full_like(correction, stack.shape[-1]),
        mean=mean.double() + correction,
        std=variance.sqrt_(),
        abs_mean=absolute.mean(-1).double(),
        abs_max=abs_max.double(),
        minimum=stack.amin(-1).double(),
        maximum=stack.amax(-1).double(),
    )


def _careful_moments(stack: torch.Tensor) -> _Moments:
    finite = torch.isfinite(stack)
    values = torch.where(finite, stack, 0).double()
    magnitude = values.abs().amax((1, 2), keepdim=True)
    # A power of two as scale is exact; one that keeps 2**exponent itself a finite number.
    exponent = torch.frexp(magnitude).exponent.clamp(-1000, 1000)
    values = torch.ldexp(values, -exponent)
    count = finite.sum(-1).double()
    mean = values.sum(-1) / count
    centred = torch.where(finite, values - mean.unsqueeze(-1), 0)
    correction = centred.sum(-1) / count
    variance = (centred.square().sum(-1) / count - correction.square()).clamp(min=0)
    absolute = values.abs()
    none = count == 0
    back = exponent[:, :, 0]
    return _Moments(
        count=count,
        mean=torch.ldexp(mean + correction, back),
        std=torch.ldexp(variance.sqrt(), back),
        abs_mean=torch.ldexp(absolute.sum(-1) / count, back),
        abs_max=_blank(torch.ldexp(absolute.amax(-1), back), none),
        minimum=_blank(torch.where(finite, stack, torch.inf).amin(-1).double(), none),
        maximum=_blank(torch.where(finite, stack, -torch.inf).amax(-1).double(), none),
    )


def _blank(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return torch.where(where, torch.nan, values)


def _empty_moments(stack: torch.Tensor) -> _Moments:
    nothing = torch.full(stack.shape[:2], torch.nan, dtype=torch.float64, device=stack.device)
    return _Moments(torch.zeros_like(nothing), *(nothing for _ in range(6)))


def _overall(moments: _Moments, histograms: torch.Tensor, elements: int) -> torch.Tensor:
    """Combine the samples' moments into those of the whole tensor (law of total variance)."""
    group = histograms.shape[0]
    if elements == 0:
        return torch.full((group, 8), torch.nan, dtype=torch.float64, device=histograms.device)
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
    zeros = histograms[:, histograms.shape[1] // 2 - 1].double() / elements
    columns = [
        mean,
        std,
        weighted(moments.abs_mean),
        scale,
        _extreme(moments.minimum, largest=False),
        _extreme(moments.maximum, largest=True),
        count.sqrt() * torch.hypot(std, mean),
    ]
    return torch.stack([*(_blank(column, ~some) for column in columns), zeros], dim=-1)


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
    return torch.stack([mean, std, _blank(abs_max, ~there.any(1))], dim=-1)


def _over_batch(chosen: torch.Tensor) -> torch.Tensor:
    """Mean, std and abs-max of each neuron over the batch: ``(G, B, n)`` to ``(G, 3, n)`` float32."""
    moments = _moments_over_batch(chosen)
    return torch.stack([m.float() for m in moments], dim=1)


def _moments_over_batch(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    abs_max = chosen.abs().amax(1)
    if chosen.dtype in _SAFE_RANGE and _is_ordinary(abs_max):
        mean = chosen.mean(1, keepdim=True)
        centred = chosen - mean
        correction = centred.mean(1)
        variance = (centred.square_().mean(1) - correction.square()).clamp_(min=0)
        return mean.squeeze(1) + correction, variance.sqrt(), abs_max
    moments = _careful_moments(chosen.transpose(1, 2))
    return moments.mean, moments.std, moments.abs_max
