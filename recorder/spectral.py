"""The largest singular value of a matrix."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch

_EXACT = 64
_STEPS = 32
_NOISE = 1e-5
"""Relative length below which a direction is made of rounding errors: the space is exhausted."""


def spectral_norm(matrix: torch.Tensor) -> float:
    """The largest singular value of ``(rows, columns)``; NaN if an element is not finite.

    Small matrices are decomposed. For larger ones, Golub-Kahan-Lanczos bidiagonalisation with full
    reorthogonalisation (Golub and Van Loan, Matrix Computations, 4th ed., 10.4) runs a fixed number of steps from a
    fixed start; its largest Ritz value approaches the largest singular value from below.
    """
    with torch.no_grad(), _beside_training(matrix.device):
        largest = float(matrix.detach().abs().max()) if matrix.numel() else math.nan
        if largest == 0 or not math.isfinite(largest):
            return largest if largest == 0 else math.nan
        # Scaled to a largest element of 1, so that no square overflows or vanishes.
        scaled = (matrix.detach().double() / largest).float()
        return largest * (_decomposed(scaled) if min(scaled.shape) <= _EXACT else _lanczos(scaled))


def _beside_training(device: torch.device) -> AbstractContextManager[object]:
    """A stream of its own on a GPU, so that to wait for a result is not to wait for the training."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def _decomposed(matrix: torch.Tensor) -> float:
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(torch.linalg.eigvalsh(gram.double())[-1].clamp(min=0).sqrt())


def _lanczos(matrix: torch.Tensor) -> float:
    columns = matrix.shape[1]
    start = torch.cos(torch.arange(1, columns + 1, device=matrix.device, dtype=torch.float64) ** 2).float()
    right = [start / start.norm()]
    left: list[torch.Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    for step in range(min(_STEPS, *matrix.shape)):
        forward = _orthogonal(matrix @ right[step], left)
        alphas.append(float(forward.norm()))
        if alphas[-1] <= _NOISE * max(alphas):
            break
        left.append(forward / alphas[-1])
        back = _orthogonal(matrix.T @ left[step], right)
        betas.append(float(back.norm()))
        if betas[-1] <= _NOISE * max(alphas):
            break
        right.append(back / betas[-1])
    return _norm_of_bidiagonal(alphas, betas)


def _norm_of_bidiagonal(alphas: list[float], betas: list[float]) -> float:
    small = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    for index in range(len(alphas) - 1):
        small[index, index + 1] = betas[index]
    return float(torch.linalg.matrix_norm(small, ord=2))


def _orthogonal(vector: torch.Tensor, basis: list[torch.Tensor]) -> torch.Tensor:
    if not basis:
        return vector
    stacked = torch.stack(basis)
    for _ in range(2):  # twice is enough (Parlett)
        vector = vector - stacked.T @ (stacked @ vector)
    return vector
