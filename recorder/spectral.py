"""The largest singular value of a matrix."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

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


class SpectralNorms:
    """Largest singular values of the same weights, step after step: each search begins where the last one ended."""

    def __init__(self) -> None:
        self._ends: dict[str, torch.Tensor] = {}

    def of(self, name: str, matrix: torch.Tensor) -> float:
        """That of ``matrix``, which goes by this name."""
        end = self._ends.get(name)
        if end is not None and (end.shape[0] != matrix.shape[1] or end.device != matrix.device):
            end = None
        value, end = _largest(matrix, end)
        if end is not None:
            self._ends[name] = end
        return value


def spectral_norm(matrix: torch.Tensor) -> float:
    """The largest singular value of ``(rows, columns)``; NaN if an element is not finite.

    Small matrices are decomposed. For larger ones, Golub-Kahan-Lanczos bidiagonalisation with full
    reorthogonalisation (Golub and Van Loan, Matrix Computations, 4th ed., 10.4) runs from a fixed start until its
    largest Ritz value, which approaches the largest singular value from below, has settled, or for 32 steps.
    """
    return _largest(matrix, None)[0]


def _largest(matrix: torch.Tensor, start: torch.Tensor | None) -> tuple[float, torch.Tensor | None]:
    """The value, and the right singular vector if it was searched for."""
    with torch.no_grad(), _beside_training(matrix.device):
        largest = float(matrix.detach().abs().max()) if matrix.numel() else math.nan
        if largest == 0 or not math.isfinite(largest):
            return (largest if largest == 0 else math.nan), None
        # Scaled to a largest element of 1, so that no square overflows or vanishes.
        scaled = (matrix.detach().double() / largest).float()
        if min(scaled.shape) <= _EXACT:
            return largest * _decomposed(scaled), None
        value, end = _search(scaled, start)
        return largest * value, end


def _beside_training(device: torch.device) -> AbstractContextManager[object]:
    """A stream of its own on a GPU, so that to wait for a result is not to wait for the training."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def _decomposed(matrix: torch.Tensor) -> float:
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(torch.linalg.eigvalsh(gram.double())[-1].clamp(min=0).sqrt())


def _start(columns: int, device: torch.device, before: torch.Tensor | None) -> torch.Tensor:
    fixed = torch.cos(torch.arange(1, columns + 1, device=device, dtype=torch.float64) ** 2).float()
    fixed /= fixed.norm()
    start = fixed if before is None else before + _FRESH * fixed
    return torch.nn.functional.normalize(start, dim=0)


def _search(matrix: torch.Tensor, before: torch.Tensor | None) -> tuple[float, torch.Tensor]:
    rows, columns = matrix.shape
    steps = min(_STEPS, rows, columns)
    right, left = matrix.new_zeros(steps + 1, columns), matrix.new_zeros(steps, rows)
    right[0] = _start(columns, matrix.device, before)
    alphas: list[float] = []
    betas: list[float] = []
    value = 0.0
    for step in range(steps):
        alphas.append(_append(left, step, matrix @ right[step]))
        if alphas[-1] <= _NOISE * max(alphas):
            break
        betas.append(_append(right, step + 1, left[step] @ matrix))
        if betas[-1] <= _NOISE * max(alphas):
            break
        if step % _LOOK_EVERY == _LOOK_EVERY - 1:
            seen, value = value, float(torch.linalg.matrix_norm(_bidiagonal(alphas, betas), ord=2))
            if value - seen <= _ENOUGH * value:
                break
    _, values, vectors = torch.linalg.svd(_bidiagonal(alphas, betas))
    end = vectors[0].float().to(matrix.device) @ right[: len(alphas)]
    return float(values[0]), end


def _append(basis: torch.Tensor, count: int, vector: torch.Tensor) -> float:
    """Make the vector orthogonal to those in the basis, append it at length 1, and return its length before."""
    if count:
        known = basis[:count]
        for _ in range(2):  # twice is enough (Parlett)
            vector = torch.addmv(vector, known.T, known @ vector, alpha=-1)
    length = float(torch.linalg.vector_norm(vector))
    basis[count] = vector / length if length > 0 else vector
    return length


def _bidiagonal(alphas: list[float], betas: list[float]) -> torch.Tensor:
    small = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    for index in range(len(alphas) - 1):
        small[index, index + 1] = betas[index]
    return small
