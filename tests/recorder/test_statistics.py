"""Every statistic equals its naive twin, for every dtype and shape, with NaN, infinities, empty and 0-d tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepscope.recorder.row_groups import stack_of
from stepscope.recorder.statistics import Measured, measure, neuron_positions
from support import twins

OVERALL = ("mean", "std", "abs_mean", "abs_max", "min", "max", "norm", "zero_fraction")
REAL = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
WHOLE = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
SPECIAL = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, 1e-30, 1e-20, 1e18, -1e30, 3e38]
LARGE = [1e-320, 1e-200, 1e200, -1e307]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], int | None]:
    """A shape of 0 to 4 dimensions, and one of them as the batch, or none."""
    shape = tuple(draw(st.lists(st.integers(0, 7), max_size=4)))
    return shape, draw(st.sampled_from([None, *range(len(shape))]))


def random_tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int, *, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) > 0.5
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.randint(0, 100, shape, generator=generator).to(dtype)
    values = torch.randn(shape, generator=generator, dtype=torch.complex128 if dtype.is_complex else torch.float64)
    offset = 10.0 ** float(torch.randint(-3, 4, (), generator=generator))
    return ((values + offset) * scale).to(dtype)


def measured(tensor: torch.Tensor, batch_dim: int | None, *, samples: int = 3, neurons: int = 10_000) -> Measured:
    stack = stack_of([tensor], batch_dim)
    return measure(stack, batched=batch_dim is not None, samples=tuple(range(samples)), neuron_limit=neurons)


def as_samples(tensor: torch.Tensor, batch_dim: int | None) -> twins.Floats:
    """``(samples, neurons)`` in float64, by numpy alone."""
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64).numpy()
    real = np.abs(wide) if tensor.is_complex() else wide
    if batch_dim is None:
        return real.reshape(1, -1)
    moved = np.moveaxis(real, batch_dim, 0)
    return moved.reshape(moved.shape[0], math.prod(moved.shape[1:]))


def tolerance(dtype: torch.dtype) -> float:
    """Relative to the largest magnitude: float32 sums for all but float64, whole numbers and their kin."""
    wide = dtype in (torch.float64, torch.complex128) or not (dtype.is_floating_point or dtype.is_complex)
    return 1e-12 if wide else 2e-6


def assert_close(found: torch.Tensor, expected: twins.Floats, values: twins.Floats, dtype: torch.dtype) -> None:
    """Within the tolerance of what was expected, plus that of the largest finite magnitude."""
    finite = np.abs(values[np.isfinite(values)])
    scale = float(finite.max()) if finite.size else 1.0
    error = tolerance(dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(found.double().numpy(), expected, rtol=4 * error, atol=min(scale * error, 1e300))


def assert_close_as_stored(found: torch.Tensor, expected: twins.Floats, values: twins.Floats) -> None:
    """What is kept in float32: too large is infinite there, too small is zero."""
    with np.errstate(all="ignore"):
        assert_close(found.float(), expected.astype(np.float32).astype(np.float64), values, torch.float32)


def check_all(tensor: torch.Tensor, batch_dim: int | None) -> None:
    """Compare everything that is measured of one tensor with the twins."""
    values = as_samples(tensor, batch_dim)
    result = measured(tensor, batch_dim)
    expected = twins.overall(values)
    norm = OVERALL.index("norm")
    assert_close(result.overall[0, :norm], np.array([expected[name] for name in OVERALL[:norm]]), values, tensor.dtype)
    np.testing.assert_allclose(float(result.overall[0, norm]), expected["norm"], 4 * tolerance(tensor.dtype), 1e-322)
    np.testing.assert_allclose(float(result.overall[0, norm + 1]), expected["zero_fraction"], rtol=1e-12)
    assert np.array_equal(result.histograms[0].numpy(), twins.histogram(values))
    if batch_dim is None:
        assert result.aggregates is None and result.per_sample is None and result.neuron_statistics is None
    else:
        check_batch(result, values)
    check_neurons(result, values, batch_dim)


def check_batch(result: Measured, values: twins.Floats) -> None:
    assert result.aggregates is not None and result.per_sample is not None
    assert_close_as_stored(result.per_sample[0], twins.per_sample(values)[:3], values)
    assert_close_as_stored(result.aggregates[0], twins.aggregates(values), values)


def check_neurons(result: Measured, values: twins.Floats, batch_dim: int | None) -> None:
    if values.shape[1] == 0:
        assert result.neuron_samples is None
        return
    assert result.neurons_total == values.shape[1]
    assert result.neuron_samples is not None
    kept = result.neuron_samples[0].double().numpy()
    assert np.array_equal(kept, values[: 3 if batch_dim is not None else 1], equal_nan=True)
    if batch_dim is not None and len(values):
        assert result.neuron_statistics is not None
        assert_close_as_stored(result.neuron_statistics[0], twins.neurons(values), values)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(shapes(), st.sampled_from(REAL), st.integers(0, 1 << 20), st.sampled_from([1.0, 1e-3, 1e2]))
def test_real_tensors(
    shape_and_batch: tuple[tuple[int, ...], int | None], dtype: torch.dtype, seed: int, scale: float
) -> None:
    shape, batch_dim = shape_and_batch
    check_all(random_tensor(shape, dtype, seed, scale=scale), batch_dim)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shapes(), st.sampled_from(WHOLE), st.integers(0, 1 << 20))
def test_whole_numbers_and_truth_values(
    shape_and_batch: tuple[tuple[int, ...], int | None], dtype: torch.dtype, seed: int
) -> None:
    shape, batch_dim = shape_and_batch
    check_all(random_tensor(shape, dtype, seed), batch_dim)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes(), st.sampled_from([torch.complex64, torch.complex128]), st.integers(0, 1 << 20))
def test_complex_numbers_are_measured_by_magnitude(
    shape_and_batch: tuple[tuple[int, ...], int | None], dtype: torch.dtype, seed: int
) -> None:
    shape, batch_dim = shape_and_batch
    tensor = random_tensor(shape, dtype, seed)
    values = as_samples(tensor, batch_dim)
    result = measured(tensor, batch_dim)
    expected = twins.overall(values)
    assert_close(result.overall[0], np.array([expected[name] for name in OVERALL]), values, dtype)
    if batch_dim is not None:
        check_batch(result, values)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from([*SPECIAL, 1.0, -2.5]), min_size=5, max_size=5), min_size=1, max_size=4),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([None, 0, 1]),
)
def test_nan_infinities_and_extremes(rows: list[list[float]], dtype: torch.dtype, batch_dim: int | None) -> None:
    check_all(torch.tensor(rows, dtype=torch.float64).to(dtype), batch_dim)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from([*SPECIAL, *LARGE, 1.0]), min_size=4, max_size=4), min_size=1, max_size=4),
    st.sampled_from([None, 0, 1]),
)
def test_extremes_that_only_float64_can_hold(rows: list[list[float]], batch_dim: int | None) -> None:
    check_all(torch.tensor(rows, dtype=torch.float64), batch_dim)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0])
def test_half_precision_with_a_special_value(dtype: torch.dtype, value: float) -> None:
    tensor = random_tensor((4, 6), dtype, 1)
    tensor[1, 2] = value
    check_all(tensor, 0)
    check_all(tensor, None)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e8, math.nan, math.inf])
def test_constant_tensors_have_no_spread(value: float) -> None:
    tensor = torch.full((7, 13), value)
    check_all(tensor, 0)
    std = float(measured(tensor, 0).overall[0, 1])
    assert std == pytest.approx(0.0, abs=1e-7 * abs(value)) if math.isfinite(value) else math.isnan(std)


@pytest.mark.parametrize("offset", [1e3, 1e5, 1e7])
def test_a_large_mean_does_not_spoil_the_spread(offset: float) -> None:
    values = (torch.randn(16, 1000, generator=torch.Generator().manual_seed(0)) + offset).float()
    wide = values.double().numpy()
    assert float(measured(values, 0).overall[0, 1]) == pytest.approx(wide.std(), rel=1e-6)
    assert float(measured(values, None).overall[0, 0]) == pytest.approx(wide.mean(), rel=1e-9)


def test_a_stack_is_measured_like_its_tensors() -> None:
    tensors = [random_tensor((5, 3, 2), torch.float32, seed) for seed in range(6)]
    tensors[2][1, 0, 0] = math.nan
    tensors[3][4] = math.inf
    together = measure(stack_of(tensors, 0), batched=True, samples=(0, 2), neuron_limit=4)
    for index, tensor in enumerate(tensors):
        alone = measure(stack_of([tensor], 0), batched=True, samples=(0, 2), neuron_limit=4)
        for name in ("overall", "aggregates", "per_sample", "neuron_statistics"):
            torch.testing.assert_close(
                getattr(together, name)[index], getattr(alone, name)[0], rtol=3e-6, atol=1e-5, equal_nan=True
            )
        assert torch.equal(together.histograms[index], alone.histograms[0])
        assert together.neuron_samples is not None and alone.neuron_samples is not None
        torch.testing.assert_close(together.neuron_samples[index], alone.neuron_samples[0], equal_nan=True)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(0, 20), st.lists(st.integers(0, 9), unique=True, max_size=4).map(sorted))
def test_chosen_neurons_and_samples(total: int, limit: int, samples: list[int]) -> None:
    tensor = random_tensor((6, total), torch.float32, total)
    result = measure(stack_of([tensor], 0), batched=True, samples=tuple(samples), neuron_limit=limit)
    rows = [sample for sample in samples if sample < 6]
    assert result.per_sample is not None and result.per_sample.shape == (1, len(rows), 4)
    if limit == 0:
        assert result.neuron_samples is None
        return
    columns = [i * total // min(total, limit) for i in range(min(total, limit))]
    assert neuron_positions(total, limit) == columns
    assert result.neuron_samples is not None
    assert torch.equal(result.neuron_samples[0], tensor[rows][:, columns])


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "sparse csr": lambda: torch.eye(4).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.tensor([[0.5, -1.0], [0.0, 2.0]]), 0.5, 0, torch.qint8),
    "transposed": lambda: torch.randn(3, 4, 5).transpose(0, 2),
    "strided": lambda: torch.randn(6, 4)[::2, ::2],
    "expanded": lambda: torch.randn(3, 1).expand(3, 5),
    "channels last": lambda: torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, about sparse rows and quantised tensors
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    tensor = LAYOUTS[layout]()
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    dense = dense.dequantize() if dense.is_quantized else dense
    values = as_samples(dense, 0)
    result = measured(tensor, 0)
    expected = twins.overall(values)
    assert_close(result.overall[0], np.array([expected[name] for name in OVERALL]), values, torch.float32)
    check_batch(result, values)
