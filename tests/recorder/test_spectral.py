"""The largest singular value equals that of a full decomposition in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.recorder.spectral import SpectralNorms, spectral_norm


def exact(matrix: torch.Tensor) -> float:
    return float(torch.linalg.svdvals(matrix.double())[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 1 << 16), st.sampled_from([1e-20, 1e-3, 1.0, 1e15]))
def test_small_matrices(rows: int, columns: int, seed: int, scale: float) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    assert spectral_norm(matrix) == pytest.approx(exact(matrix), rel=1e-5)


@pytest.mark.parametrize("shape", [(65, 65), (100, 300), (400, 120)])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_large_random_matrices(shape: tuple[int, int], scale: float) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(7)) * scale
    assert spectral_norm(matrix) == pytest.approx(exact(matrix), rel=1e-2)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_large_matrices_of_low_rank(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    matrix = torch.randn(128, rank, generator=generator) @ torch.randn(rank, 96, generator=generator)
    assert spectral_norm(matrix) == pytest.approx(exact(matrix), rel=1e-4)


@pytest.mark.parametrize("size", [3, 100])
def test_plain_matrices(size: int) -> None:
    assert spectral_norm(torch.zeros(size, size)) == 0.0
    assert spectral_norm(torch.eye(size) * 3) == pytest.approx(3.0, rel=1e-5)
    assert spectral_norm(torch.ones(size, size)) == pytest.approx(size, rel=1e-5)
    diagonal = torch.zeros(size, size)
    diagonal[size - 1, 0] = -2.0
    assert spectral_norm(diagonal) == pytest.approx(2.0, rel=1e-5)


def test_no_number_without_finite_elements() -> None:
    assert math.isnan(spectral_norm(torch.zeros(0, 4)))
    assert math.isnan(spectral_norm(torch.tensor([[1.0, math.nan]])))
    assert math.isnan(spectral_norm(torch.full((100, 100), math.inf)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    matrix = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert spectral_norm(matrix) == pytest.approx(exact(matrix), rel=1e-5)


def test_a_search_that_goes_on_follows_weights_that_change() -> None:
    generator = torch.Generator().manual_seed(3)
    norms, matrix = SpectralNorms(), torch.randn(200, 150, generator=generator)
    for _ in range(20):
        matrix = matrix + 0.01 * torch.randn(200, 150, generator=generator)
        found = norms.of("weight", matrix)
    assert found == pytest.approx(exact(matrix), rel=1e-4)


def test_a_search_that_goes_on_sees_another_direction_take_over() -> None:
    generator = torch.Generator().manual_seed(5)
    left = torch.linalg.qr(torch.randn(90, 90, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(80, 80, generator=generator))[0]
    norms = SpectralNorms()
    for first, second in ((3.0, 1.0), (3.0, 2.9), (3.0, 3.1), (3.0, 10.0)):
        sizes = torch.cat([torch.tensor([first, second]), torch.linspace(0.9, 0.1, 78)])
        matrix = left[:, :80] @ torch.diag(sizes) @ right.T
        assert norms.of("weight", matrix) == pytest.approx(max(first, second), rel=1e-4)


def test_a_weight_that_is_replaced_by_another_shape() -> None:
    norms = SpectralNorms()
    for shape in ((70, 80), (80, 90)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        assert norms.of("weight", matrix) == pytest.approx(exact(matrix), rel=1e-2)
