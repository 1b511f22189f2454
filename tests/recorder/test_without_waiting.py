"""The way of measuring that never looks at a value, as devices need it, against the naive twins; on the CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stepscope.recorder import histogram, moments, statistics
from stepscope.recorder.statistics import Measured, measure
from support import twins

OVERALL = ("mean", "std", "abs_mean", "abs_max", "min", "max", "norm", "zero_fraction")
SCALES = [1.0, 1e-30, 1e-42, 1e18, 3e37]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (moments, statistics, histogram):
        monkeypatch.setattr(module, "may_wait_for", lambda tensor: False)


def stack_of(seed: int, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Three tensors of 4 samples of 7 neurons: plain, with zeros, with elements that are not finite."""
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randn(3, 4, 7, generator=generator, dtype=torch.float64) * scale + 0.5 * scale
    stack[1, :, ::2] = 0
    stack[2, 0, 1], stack[2, 1, 2], stack[2, 2, :] = math.nan, math.inf, -math.inf
    return stack.to(dtype)


def check(result: Measured, position: int, values: twins.Floats, dtype: torch.dtype) -> None:
    error = 2e-6 if dtype == torch.float32 else 1e-12
    finite = np.abs(values[np.isfinite(values)])
    slack = error * float(finite.max()) + (1e-44 if dtype == torch.float32 else 0)
    expected = twins.overall(values)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            result.overall[position].numpy(), [expected[name] for name in OVERALL], rtol=4 * error, atol=slack
        )
        assert np.array_equal(result.histograms[position].numpy(), twins.histogram(values))
        assert result.per_sample is not None and result.neuron_statistics is not None
        for found, twin in (
            (result.per_sample[position], twins.per_sample(values)[[0, 3]]),
            (result.neuron_statistics[position], twins.neurons(values)),
        ):
            expected_as_stored = twin.astype(np.float32)
            np.testing.assert_allclose(found.float().numpy(), expected_as_stored, rtol=1e-5, atol=max(slack, 1e-44))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("seed", range(5))
def test_against_the_twins(seed: int, scale: float, dtype: torch.dtype) -> None:
    stack = stack_of(seed, scale, dtype)
    result = measure(stack, batched=True, samples=(0, 3), neuron_limit=100)
    for position in range(len(stack)):
        check(result, position, stack[position].double().numpy(), dtype)


def test_chosen_neurons_are_the_stated_ones() -> None:
    stack = torch.arange(103.0).reshape(1, 1, 103)
    result = measure(stack, batched=False, samples=(), neuron_limit=10)
    assert result.neuron_samples is not None
    assert result.neuron_samples.flatten().tolist() == statistics.neuron_positions(103, 10)
