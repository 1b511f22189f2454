"""The signed logarithmic histogram: counts by sign, octave and half-octave, straight from the bits of the numbers.

A float32 already holds its sign, its power of two and whether it lies above 1.5 times that power in its top ten
bits: shifting them down *is* the binning. Zero, infinities and NaN have bins of their own.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from stepscope.recorder.moments import may_wait_for, pieces
from stepscope.store.records import (
    HISTOGRAM_BINS,
    HISTOGRAM_HALF_BINS,
    HISTOGRAM_MAX_EXPONENT,
    HISTOGRAM_MIN_EXPONENT,
)

ZERO = 1024
"""The raw code of zero; those before it are ten bits of a number."""
_RAW_BINS = ZERO + 1
_SHIFT = np.uint32(22)
_MINUS_ZERO = ZERO >> 1
_OWN_CALL = 1 << 14
"""On a GPU, rows longer than this are counted by themselves: so few bins fit the memory that threads share."""


def count_bins(stack: torch.Tensor) -> torch.Tensor:
    """Histograms of G rows: ``(G, n)`` float32 or float64 to ``(G, HISTOGRAM_BINS)`` int64."""
    group, width = stack.shape
    if group and width:
        raw = torch.cat([_count_raw(piece) for piece in pieces(stack)])
    else:
        raw = torch.zeros((group, _RAW_BINS), dtype=torch.int64, device=stack.device)
    return bins_of_raw(raw)


def bins_of_raw(raw: torch.Tensor) -> torch.Tensor:
    """The histograms of counts of raw codes: ``(G, ZERO + 1)`` to ``(G, HISTOGRAM_BINS)``."""
    bins = torch.zeros((len(raw), HISTOGRAM_BINS), dtype=torch.int64, device=raw.device)
    return bins.index_add_(1, _bin_of_raw(raw.device), raw)


def _count_raw(part: torch.Tensor) -> torch.Tensor:
    if part.dtype != torch.float32 or not may_wait_for(part):
        part = part.contiguous()
        codes = raw_codes(part) if part.dtype == torch.float32 else _codes64(part)
        return _count_codes(codes.masked_fill_(part == 0, ZERO))
    return _count_raw32(part.contiguous())


def _count_raw32(part: torch.Tensor) -> torch.Tensor:
    raw = _count_codes(raw_codes(part))
    tiny = raw[:, 0] + raw[:, _MINUS_ZERO]  # zeros of either sign, and the smallest numbers that can be written
    if not bool(tiny.any()):
        return raw
    zeros = part.shape[1] - count_magnitudes(part)
    if not torch.equal(zeros, tiny):
        return _count_codes(raw_codes(part).masked_fill_(part == 0, ZERO))
    raw[:, 0] = raw[:, _MINUS_ZERO] = 0
    raw[:, ZERO] = zeros
    return raw


def count_magnitudes(part: torch.Tensor) -> torch.Tensor:
    """How many numbers of each row are not zero; on the bits, which is faster than comparing, and in 32 bits."""
    ones = part.view(torch.int32).bitwise_and(0x7FFFFFFF).clamp_(max=1)
    return ones.sum(1, dtype=torch.int32 if part.shape[1] < 1 << 31 else torch.int64).long()


def _count_codes(codes: torch.Tensor) -> torch.Tensor:
    group, width = codes.shape
    if codes.is_cuda and width > _OWN_CALL:
        return torch.stack([_bincount(row, _RAW_BINS) for row in codes])
    if group > 1:
        codes += torch.arange(group, dtype=codes.dtype, device=codes.device).mul_(_RAW_BINS).unsqueeze(1)
    return _bincount(codes.reshape(-1), group * _RAW_BINS).reshape(group, _RAW_BINS)


def _bincount(codes: torch.Tensor, bins: int) -> torch.Tensor:
    if codes.is_cuda:  # torch.bincount waits for the device, to learn the largest code
        return torch.histc(codes, bins=bins, min=0, max=bins).long()
    return torch.bincount(codes, minlength=bins)


def raw_codes(part: torch.Tensor) -> torch.Tensor:
    """The top ten bits of float32 numbers; those of zero are among the codes of the smallest numbers."""
    if part.device.type == "cpu":  # numpy shifts unsigned numbers, and needs no mask
        return torch.from_numpy((part.numpy().view(np.uint32) >> _SHIFT).view(np.int32))
    return (part.view(torch.int32) >> 22).bitwise_and_(1023)


def _codes64(part: torch.Tensor) -> torch.Tensor:
    """The same codes for float64, whose exponents are clamped to the range of float32."""
    mantissa, exponent = torch.frexp(part)
    field = (exponent.to(torch.int32) - 1).clamp_(-127, 127) + 127
    half = (mantissa.abs() >= 0.75).to(torch.int32)
    codes = (field << 1) | half
    codes = torch.where(torch.isinf(part), 255 << 1, codes)
    codes = torch.where(torch.isnan(part), (255 << 1) | 1, codes)
    return codes | (torch.signbit(part).to(torch.int32) << 9)


@lru_cache(maxsize=8)
def _bin_of_raw(device: torch.device) -> torch.Tensor:
    """Where each raw code is counted among the bins of ``records.HISTOGRAM_BINS``."""
    zero = HISTOGRAM_HALF_BINS + 1
    table = []
    for code in range(1024):
        sign, field, half = code >> 9, (code >> 1) & 255, code & 1
        if field == 255:
            table.append(HISTOGRAM_BINS - 1 if half else (0 if sign else HISTOGRAM_BINS - 2))
            continue
        exponent = field - 127 if field else -200
        position = 2 * (exponent - HISTOGRAM_MIN_EXPONENT) + half
        if exponent < HISTOGRAM_MIN_EXPONENT:
            position = 0
        elif exponent >= HISTOGRAM_MAX_EXPONENT:
            position = HISTOGRAM_HALF_BINS - 1
        table.append(zero - 1 - position if sign else zero + 1 + position)
    return torch.tensor([*table, zero], device=device)
