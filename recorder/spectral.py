"""The largest singular value of a matrix."""

from __future__ import annotations

import torch

_EXACT = 64
_STEPS = 32


def spectral_norm(matrix: torch.Tensor) -> float:
    """The largest singular value of ``(rows, columns)``; NaN if an element is not finite.

    Small matrices are decomposed. For larger ones, Golub-Kahan-Lanczos bidiagonalisation with full
    reorthogonalisation (Golub and Van Loan, Matrix Computations, 4th ed., 10.4) runs a fixed number of steps from a
    fixed start; its largest Ritz value approaches the largest singular value from below.
    """
    matrix = matrix.detach().float()
    if matrix.numel() == 0 or not bool(torch.isfinite(matrix).all()):
        return float("nan")
    with torch.no_grad():
        if min(matrix.shape) <= _EXACT:
            gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
            scale = float(matrix.abs().max())
            if not 1e-12 < scale < 1e12:
                return float(torch.linalg.matrix_norm(matrix.double(), ord=2))
            return float(torch.linalg.eigvalsh(gram.double())[-1].clamp(min=0).sqrt())
        return _lanczos(matrix)


def _lanczos(matrix: torch.Tensor) -> float:
    columns = matrix.shape[1]
    start = torch.cos(torch.arange(1, columns + 1, device=matrix.device, dtype=torch.float64) ** 2).float()
    right = [start / start.norm()]
    left: list[torch.Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    for step in range(min(_STEPS, *matrix.shape)):
        forward = matrix @ right[step]
        forward = _orthogonal(forward, left)
        alpha = float(forward.norm())
        alphas.append(alpha)
        if alpha == 0.0:
            break
        left.append(forward / alpha)
        back = _orthogonal(matrix.T @ left[step], right)
        beta = float(back.norm())
        betas.append(beta)
        if beta <= 1e-7 * alpha:
            break
        right.append(back / beta)
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
