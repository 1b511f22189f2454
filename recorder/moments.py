"""The moments of each sample of a stack: count, mean, standard deviation, magnitudes, extremes.

Two ways lead there. The ordinary one computes in the stack's own type, in pieces that fit a processor's cache: the
mean is corrected by the mean of the centred values, so that a large mean does not spoil the standard deviation
(Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance"). The careful one masks non-finite elements
and scales each row by a power of two, so that no square overflows or vanishes. On the CPU it is taken, in float64, by
the few tensors that need it; on other devices by all, in their own type, because to ask which need it would be to
wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch

SAFE_RANGE = {torch.float32: (1e-15, 1e15), torch.float64: (1e-140, 1e140)}
"""Largest magnitudes for which squares neither overflow nor vanish in the given type."""
_PIECE = 1 << 16
"""Elements that are worked on at a time: as float32 they fit a processor's second-level cache."""
_DEVICE_PIECE = 1 << 25
"""The same for other devices, where it only bounds the memory for intermediate results."""
_LARGEST_EXPONENT = {torch.float32: 126, torch.float64: 1000}
"""So that two to the power of it and its inverse are ordinary numbers of the type."""


@dataclass(frozen=True)
class Moments:
    """Per sample: ``(G, B)`` float64 each; ``count`` of finite elements."""

    count: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    abs_mean: torch.Tensor
    abs_max: torch.Tensor
    minimum: torch.Tensor
    maximum: torch.Tensor


def moments_of(stack: torch.Tensor) -> Moments:
    """The moments of each row of ``(G, B, N)`` float32 or float64."""
    if not stack.numel():
        return _empty(stack)
    group, batch, width = stack.shape
    if not may_wait_for(stack):
        return _of_device_rows(stack.reshape(group * batch, 1, width), (group, batch))
    found = rows_of_moments(stack.reshape(group * batch, width)).view(-1, group, batch)
    strange = ~is_ordinary(found[_MAXIMUM].maximum(-found[_MINIMUM])).all(1)
    ordinary = _ordinary(found, width)
    if not bool(strange.any()):
        return ordinary
    return _replaced(ordinary, strange, careful_moments(stack[strange]))


def may_wait_for(tensor: torch.Tensor) -> bool:
    """Whether the values of a tensor may be looked at: on other devices than the CPU, that would stop training."""
    return tensor.device.type == "cpu"


def is_ordinary(abs_max: torch.Tensor) -> torch.Tensor:
    """Which magnitudes can be squared and summed in their own type."""
    low, high = SAFE_RANGE[abs_max.dtype]
    return ((abs_max > low) & (abs_max < high)) | (abs_max == 0)


_MEAN, _CORRECTION, _SQUARES, _ABS_MEAN, _MINIMUM, _MAXIMUM = range(6)


def pieces(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Consecutive rows, as many at a time as make a piece."""
    size = rows[0].numel() if len(rows) else 1
    limit = _PIECE if may_wait_for(rows) else _DEVICE_PIECE
    return iter(rows.split(max(1, limit // max(1, size))))


def rows_of_moments(rows: torch.Tensor) -> torch.Tensor:
    """``(R, N)`` to ``(6, R)``, of each row: mean, what corrects it, mean square about it, mean magnitude, extremes."""
    scratch = torch.empty_like(next(pieces(rows)))
    return torch.cat([_of_piece(piece, scratch[: len(piece)]) for piece in pieces(rows)], dim=1)


def _of_piece(rows: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    mean = rows.mean(-1)
    abs_mean = torch.abs(rows, out=scratch).mean(-1)
    centred = torch.sub(rows, mean.unsqueeze(-1), out=scratch)
    correction = centred.mean(-1)
    squares = torch.mul(centred, centred, out=scratch).mean(-1)
    return torch.stack([mean, correction, squares, abs_mean, rows.amin(-1), rows.amax(-1)])


def _ordinary(found: torch.Tensor, width: int) -> Moments:
    mean, correction, squares, abs_mean, minimum, maximum = found.double()
    return Moments(
        count=torch.full_like(mean, width),
        mean=mean + correction,
        std=(squares - correction.square()).clamp_(min=0).sqrt_(),
        abs_mean=abs_mean,
        abs_max=torch.maximum(maximum, -minimum),
        minimum=minimum,
        maximum=maximum,
    )


def _replaced(moments: Moments, where: torch.Tensor, others: Moments) -> Moments:
    """The moments with those of some tensors of the stack replaced, in place."""
    for field in fields(Moments):
        getattr(moments, field.name)[where] = getattr(others, field.name)
    return moments


def _of_device_rows(rows: torch.Tensor, shape: tuple[int, int]) -> Moments:
    found = [careful_moments(piece, rows.dtype) for piece in pieces(rows)]
    joined = (torch.cat([getattr(part, field.name) for part in found]) for field in fields(Moments))
    return Moments(*(values.reshape(shape) for values in joined))


def careful_moments(stack: torch.Tensor, work: torch.dtype = torch.float64) -> Moments:
    """The moments of the finite elements, whatever their size; ``work`` is the type to compute in."""
    finite = torch.isfinite(stack)
    values = torch.where(finite, stack, 0).to(work)
    magnitude = values.abs().amax(-1, keepdim=True)
    # A power of two as scale is exact; one that keeps 2**exponent itself a finite number.
    limit = _LARGEST_EXPONENT[work]
    exponent = torch.frexp(magnitude).exponent.clamp(-limit, limit)
    values = torch.ldexp(values, -exponent)
    count = finite.sum(-1).double()
    mean = values.sum(-1).div_(count)
    centred = torch.where(finite, values - mean.unsqueeze(-1), 0)
    correction = centred.sum(-1).double() / count
    variance = (centred.square_().sum(-1).double() / count - correction.square()).clamp(min=0)
    absolute = values.abs_()
    none = count == 0
    back = exponent[:, :, 0]
    return Moments(
        count=count,
        mean=torch.ldexp(mean.double() + correction, back),
        std=torch.ldexp(variance.sqrt(), back),
        abs_mean=torch.ldexp(absolute.sum(-1).double() / count, back),
        abs_max=blank(torch.ldexp(absolute.amax(-1).double(), back), none),
        minimum=blank(torch.where(finite, stack, torch.inf).amin(-1).double(), none),
        maximum=blank(torch.where(finite, stack, -torch.inf).amax(-1).double(), none),
    )


def blank(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The values, with NaN at some places."""
    return torch.where(where, torch.nan, values)


def _empty(stack: torch.Tensor) -> Moments:
    nothing = torch.full(stack.shape[:2], torch.nan, dtype=torch.float64, device=stack.device)
    return Moments(torch.zeros_like(nothing), *(nothing for _ in range(6)))
