"""Small tensors that are measured together: against the naive twins, and like each of them alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.recorder.memory import Holding, Memory, Rank
from stepscope.recorder.row_groups import Deferred, Group, measure_deferred
from stepscope.recorder.small_tensors import LARGEST, Alike, measure_small
from stepscope.recorder.statistics import Measured, measure
from support import twins

OVERALL = ("mean", "std", "abs_mean", "abs_max", "min", "max", "norm", "zero_fraction")
SIZES = [1, 5, 255, 256, 257, 512, 1000, 3000]
KINDS = {
    "plain": lambda x: x,
    "half zeros": torch.relu,
    "zeros": torch.zeros_like,
    "large mean": lambda x: 1e-3 * x + 300,
    "subnormal": lambda x: torch.where(x > 0, x, x * 1e-40),
}


def made(size: int, count: int, seed: int, kind: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [KINDS[kind](torch.randn(size, generator=generator)) for _ in range(count)]


def check(result: Measured, tensors: list[torch.Tensor], limit: int) -> None:
    alone = measure(torch.stack(tensors).unsqueeze(1), batched=False, samples=(), neuron_limit=limit)
    for position, tensor in enumerate(tensors):
        values = tensor.double().numpy()[None]
        expected = twins.overall(values)
        slack = 2e-6 * float(np.abs(values).max())
        found = result.overall[position].numpy()
        np.testing.assert_allclose(found, [expected[name] for name in OVERALL], rtol=8e-6, atol=slack)
        assert np.array_equal(result.histograms[position].numpy(), twins.histogram(values))
    assert result.neurons_total == alone.neurons_total
    if alone.neuron_samples is None:
        assert result.neuron_samples is None
    else:
        assert result.neuron_samples is not None and torch.equal(result.neuron_samples, alone.neuron_samples)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(SIZES), st.integers(1, 3), st.sampled_from([0, 10, 256]), st.sampled_from(list(KINDS))
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 1000),
)
def test_against_the_twins(groups: list[tuple[int, int, int, str]], seed: int) -> None:
    tensors = [made(size, count, seed + index, kind) for index, (size, count, _, kind) in enumerate(groups)]
    limits = [limit for *_, limit, _ in groups]
    results = measure_small([Alike(alike, limit) for alike, limit in zip(tensors, limits, strict=True)])
    for result, alike, limit in zip(results, tensors, limits, strict=True):
        assert result is not None
        check(result, alike, limit)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e20, 1e-30])
def test_what_needs_care_is_left_to_others(value: float) -> None:
    strange = torch.full((300,), value)
    plain, left, after = measure_small(
        [Alike(made(7, 1, 0, "plain"), 3), Alike([strange], 3), Alike(made(9, 2, 1, "plain"), 3)]
    )
    assert left is None and plain is not None and after is not None
    check(plain, made(7, 1, 0, "plain"), 3)
    check(after, made(9, 2, 1, "plain"), 3)


def deferred(tensors: list[torch.Tensor], held: Holding, batch_dim: int | None = None) -> Deferred:
    strides = tuple(tensor.stride() for tensor in tensors)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert held.take(size, Rank.TENSORS)
    return Deferred(Group(tuple(tensors), ((),) * len(tensors), strides, batch_dim, 4, (0,), size), held)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
def test_groups_of_every_kind_keep_their_order_and_give_their_memory_back(dtype: torch.dtype) -> None:
    memory = Memory(1 << 24)
    held = Holding(memory)
    shapes = [(3,), (4, 5), (0,), (LARGEST + 1,), (2, 300), ()]
    tensors = [[(torch.arange(math.prod(shape)).reshape(shape) % 7).to(dtype)] for shape in shapes]
    waiting = [deferred(alike, held) for alike in tensors] + [deferred([torch.ones(6, 2)], held, batch_dim=0)]
    faults: list[Exception] = []
    found = measure_deferred(waiting, faults)
    assert not faults and memory.held == 0
    assert [rows.batched for rows in found] == [False] * len(shapes) + [True]
    for rows, (tensor,) in zip(found, tensors, strict=False):
        if tensor.numel():
            assert rows.results.overall[0, 0].item() == pytest.approx(tensor.double().mean().item(), rel=1e-6)
            assert int(rows.results.histograms.sum()) == tensor.numel()
    assert measure_deferred(waiting, faults) == []
