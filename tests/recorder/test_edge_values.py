"""Operations that make infinite numbers out of finite ones, and the line of the first of several that did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stepscope.analysis import Finding, diagnose
from stepscope.recorder import Every, Recorder
from stepscope.recorder.edge_values import EdgeSums, not_finite
from stepscope.store import open_trial

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=5), min_size=1, max_size=4))
def test_what_is_not_finite(rows: list[list[float]]) -> None:
    sums, wanted = EdgeSums(), set()
    for node, numbers in enumerate(rows):
        made = torch.tensor(numbers, dtype=torch.float64)
        sums.note(node, "log", (), made)
        if not bool(made.isfinite().all()):
            wanted.add(node)
    assert not_finite(sums.take()) == wanted
    assert not_finite(sums.take()) == set()


def test_sums_of_half_precision_do_not_overflow() -> None:
    sums = EdgeSums()
    sums.note(0, "exp", (), torch.full((100,), 60_000.0, dtype=torch.float16))
    sums.note(1, "mul", (), torch.full((2,), 60_000.0, dtype=torch.float16) * 2)
    assert not_finite(sums.take()) == {1}


@pytest.mark.parametrize(
    ("name", "args", "made"),
    [
        ("div", (torch.ones(2), 2.0), torch.ones(2)),
        ("mul", (), torch.ones(2)),
        ("log", (), torch.ones(2, dtype=torch.int64)),
        ("log", (), torch.ones(0)),
        ("log", (), torch.ones(600, 600)),
        ("log", (), torch.ones(2, device="meta")),
        ("exp", (), torch.eye(3).to_sparse()),
        ("exp", (), torch.ones(2, dtype=torch.complex64)),
    ],
)
def test_what_is_not_looked_at(name: str, args: tuple[object, ...], made: torch.Tensor) -> None:
    sums = EdgeSums()
    sums.note(0, name, args, made)
    assert not sums.take()


Way = Callable[[torch.Tensor], torch.Tensor]


class _Net(nn.Module):
    """A layer, and a chain of operations behind it, each on a line of its own."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.layer, self.way = nn.Linear(4, 3), way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(self.layer(x))


def _own_softmax(scores: torch.Tensor) -> torch.Tensor:
    powers = (100 * scores).exp()
    shares = powers / powers.sum(1, keepdim=True)
    return shares.log().mean(1)


def _standardised(scores: torch.Tensor) -> torch.Tensor:
    spread = scores[:1].std(0)
    return ((scores - scores.mean(0)) / spread).exp()


def _energy_in_half(scores: torch.Tensor) -> torch.Tensor:
    large = (300 * scores).half()
    energy = large * large
    return energy.float().log().mean(1)


def _logarithm_of_zero(scores: torch.Tensor) -> torch.Tensor:
    chances = scores.relu()
    information = -chances.log()
    return (chances * information).sum(1) / chances.exp().sum(1)


def _shares_of_the_batch(scores: torch.Tensor) -> torch.Tensor:
    """A division that is odd by itself, as it is over the samples."""
    closed = (scores - 100).relu()
    shares = closed / closed.sum(0)
    return shares.exp().sum(1)


@pytest.mark.parametrize(
    ("way", "operation", "line"),
    [
        (_own_softmax, "exp", "powers = (100 * scores).exp()"),
        (_standardised, "std", "spread = scores[:1].std(0)"),
        (_energy_in_half, "mul", "energy = large * large"),
        (_shares_of_the_batch, "div", "shares = closed / closed.sum(0)"),
        (_logarithm_of_zero, "log", "information = -chances.log()"),
    ],
)
@pytest.mark.filterwarnings("ignore:std")
def test_the_line_of_the_first_of_several(way: Way, operation: str, line: str, tmp_path: Path) -> None:
    finding = _finding(way, tmp_path)
    assert finding.node == "model" and f"(made by {operation})" in finding.summary
    assert finding.source is not None and finding.source.text == line


def test_functions_that_are_mapped_over_samples_are_left_alone(tmp_path: Path) -> None:
    def way(scores: torch.Tensor) -> torch.Tensor:
        return torch.func.vmap(lambda row: (1000 * row).exp().log())(scores)

    assert _finding(way, tmp_path).node == "model"


def _finding(way: Way, folder: Path) -> Finding:
    torch.manual_seed(0)
    model = _Net(way)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for _ in range(2):
            with recorder.step():
                optimizer.zero_grad()
                model(3 * torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
    (finding,) = diagnose(open_trial(folder / "trial"), rules=["non-finite"])
    return finding
