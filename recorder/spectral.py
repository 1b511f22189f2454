"""The largest singular values of matrices; of equally shaped ones together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch

_EXACT = 64
_STEPS = 32
_LOOK_EVERY = 4
_NOISE = 1e-5
"""Relative length below which a direction is made of rounding errors: the space is exhausted."""
_ENOUGH = 1e-6
"""Relative growth of the value, between two looks at it, below which the search ends."""
_FRESH = 0.1
"""How much of the fixed start is mixed into that of a search which goes on: what has become largest since is found."""
_TOGETHER = 1 << 20
"""Elements of the matrices that are searched together."""
_SAFE = (1e-15, 1e15)
"""Largest elements for which no square overflows or vanishes in float32."""


class SpectralNorms:
    """Largest singular values of the same weights, step after step: each search begins where the last one ended."""

    def __init__(self) -> None:
        self._ends: dict[str, torch.Tensor] = {}

    def of(self, name: str, matrix: torch.Tensor) -> float:
        """That of ``matrix``, which goes by this name."""
        return self.of_all([(name, matrix)])[0]

    def of_all(self, named: Sequence[tuple[str, torch.Tensor]]) -> list[float]:
        """Those of several matrices with their names."""
        values = [math.nan] * len(named)
        for places in _alike([matrix for _, matrix in named]):
            names = [named[place][0] for place in places]
            matrices = [named[place][1].detach() for place in places]
            found, ends = _largest(matrices, [self._end_of(name, matrices[0]) for name in names])
            for place, name, value, end in zip(places, names, found, ends, strict=True):
                values[place] = value
                if end is not None:
                    self._ends[name] = end
        return values

    def _end_of(self, name: str, matrix: torch.Tensor) -> torch.Tensor | None:
        end = self._ends.get(name)
        return end if end is not None and len(end) == matrix.shape[1] and end.device == matrix.device else None


def spectral_norm(matrix: torch.Tensor) -> float:
    """The largest singular value of ``(rows, columns)``; NaN if an element is not finite.

    Small matrices are decomposed. For larger ones, Golub-Kahan-Lanczos bidiagonalisation with reorthogonalisation
    (Golub and Van Loan, Matrix Computations, 4th ed., 10.4) runs from a fixed start until its largest Ritz value,
    which approaches the largest singular value from below, has settled, or for 32 steps.
    """
    return SpectralNorms().of("", matrix)


def _alike(matrices: Sequence[torch.Tensor]) -> Iterator[list[int]]:
    """Which matrices are searched together: those of one shape, as many as have room."""
    found: dict[object, list[int]] = defaultdict(list)
    for place, matrix in enumerate(matrices):
        found[matrix.shape, matrix.dtype, matrix.device].append(place)
    for places in found.values():
        together = max(1, _TOGETHER // max(1, matrices[places[0]].numel()))
        for start in range(0, len(places), together):
            yield places[start : start + together]


_Found = tuple[list[float], "list[torch.Tensor | None]"]


def _largest(alike: list[torch.Tensor], starts: Sequence[torch.Tensor | None]) -> _Found:
    """The values of matrices of one shape, and the right singular vectors if they were searched for."""
    with torch.no_grad(), _beside_training(alike[0].device):
        stack = torch.stack(alike)
        flat = stack.reshape(len(stack), -1)
        largest = torch.maximum(flat.amax(1), -flat.amin(1)).tolist() if stack.numel() else [math.nan] * len(stack)
        values = [value if value == 0 else math.nan for value in largest]
        ends: list[torch.Tensor | None] = [None] * len(stack)
        usual = [place for place, value in enumerate(largest) if value and math.isfinite(value)]
        if usual:
            matrices, scales = _scaled(stack if len(usual) == len(stack) else stack[usual], [largest[i] for i in usual])
            found, new_ends = _norms(matrices, [starts[place] for place in usual])
            for place, value, end, scale in zip(usual, found, new_ends, scales, strict=True):
                values[place], ends[place] = scale * value, end
        return values, ends


def _scaled(stack: torch.Tensor, largest: list[float]) -> tuple[torch.Tensor, list[float]]:
    """The matrices as float32, and what they were divided by so that no square overflows or vanishes."""
    if all(_SAFE[0] < value < _SAFE[1] for value in largest):
        return stack.float(), [1.0] * len(largest)
    return (stack.double() / stack.new_tensor(largest, dtype=torch.float64).view(-1, 1, 1)).float(), largest


def _norms(matrices: torch.Tensor, starts: Sequence[torch.Tensor | None]) -> _Found:
    if min(matrices.shape[1:]) <= _EXACT:
        return _decomposed(matrices), [None] * len(matrices)
    return _search(matrices, _starts(matrices, starts))


def _beside_training(device: torch.device) -> AbstractContextManager[object]:
    """A stream of its own on a GPU, so that to wait for a result is not to wait for the training."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def _decomposed(matrices: torch.Tensor) -> list[float]:
    gram = matrices @ matrices.mT if matrices.shape[1] <= matrices.shape[2] else matrices.mT @ matrices
    found: list[float] = torch.linalg.eigvalsh(gram.double())[:, -1].clamp(min=0).sqrt().tolist()
    return found


def _starts(matrices: torch.Tensor, before: Sequence[torch.Tensor | None]) -> torch.Tensor:
    fixed = _fixed_start(matrices.shape[2], matrices.device)
    starts = torch.stack([fixed if end is None else torch.add(end, fixed, alpha=_FRESH) for end in before])
    return torch.nn.functional.normalize(starts, dim=1)


@lru_cache(maxsize=32)
def _fixed_start(columns: int, device: torch.device) -> torch.Tensor:
    fixed = torch.cos(torch.arange(1, columns + 1, device=device, dtype=torch.float64) ** 2).float()
    return fixed.div_(fixed.norm())


def _search(matrices: torch.Tensor, starts: torch.Tensor) -> tuple[list[float], list[torch.Tensor | None]]:
    group, rows, columns = matrices.shape
    steps = min(_STEPS, rows, columns)
    right, left = matrices.new_zeros(group, steps + 1, columns), matrices.new_zeros(group, steps, rows)
    right[:, 0] = starts
    alphas: list[torch.Tensor] = []
    betas: list[torch.Tensor] = []
    least = matrices.new_zeros(group, 1)
    seen = torch.zeros(group, dtype=torch.float64, device=matrices.device)
    for step in range(steps):
        alphas.append(_append(left, step, right[:, step : step + 1] @ matrices.mT, least))
        least = torch.maximum(least, _NOISE * alphas[-1])
        if step % _LOOK_EVERY == _LOOK_EVERY - 1:
            before, seen = seen, torch.linalg.svdvals(_bidiagonal(alphas, betas))[:, 0]
            if bool((seen - before <= _ENOUGH * seen).all()):
                break
        betas.append(_append(right, step + 1, left[:, step : step + 1] @ matrices, least))
    _, values, vectors = torch.linalg.svd(_bidiagonal(alphas, betas))
    ends = vectors[:, :1].float() @ right[:, : len(alphas)]
    return values[:, 0].tolist(), list(ends[:, 0])


def _append(basis: torch.Tensor, count: int, vectors: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Make vectors ``(G, 1, n)`` orthogonal to those in the bases, and append them at length 1; returns their lengths.

    What is not longer than ``least`` is appended as zero: there, the search is over.
    """
    if count:  # rows all along: products with columns take ten times as long
        known = basis[:, :count]
        vectors = torch.baddbmm(vectors, vectors @ known.mT, known, alpha=-1)
    lengths = torch.linalg.vector_norm(vectors, dim=2)
    inverse = torch.where(lengths > least, lengths.reciprocal(), 0)
    torch.mul(vectors, inverse.unsqueeze(2), out=basis[:, count : count + 1])
    return torch.where(lengths > least, lengths, 0)


def _bidiagonal(alphas: list[torch.Tensor], betas: list[torch.Tensor]) -> torch.Tensor:
    small = torch.diag_embed(torch.cat(alphas, dim=1).double())
    if len(alphas) > 1:
        small += torch.diag_embed(torch.cat(betas[: len(alphas) - 1], dim=1).double(), offset=1)
    return small
