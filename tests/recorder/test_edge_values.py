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
from stepscope.recorder import Recorder, Schedule, Steps
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


def _roots_of_some(scores: torch.Tensor) -> torch.Tensor:
    some = scores > 0
    return torch.where(some, scores.sqrt(), 0).sum(1)


def test_what_is_hidden_from_the_values_is_told_of_the_gradients(tmp_path: Path) -> None:
    finding = _finding(_roots_of_some, tmp_path)
    assert "gradients are born in model.layer" in finding.summary
    assert "sqrt gives numbers that are not finite" in finding.summary and "too late" in finding.remedy
    assert finding.source is not None and finding.source.text == "return torch.where(some, scores.sqrt(), 0).sum(1)"


def _roots_and_shares(scores: torch.Tensor) -> torch.Tensor:
    roots = (scores - scores[:1]).square().sum(1).sqrt()
    return roots / (1 + scores.exp().sum(1))


def test_of_several_lines_the_slope_that_can_be_infinite_is_named(tmp_path: Path) -> None:
    finding = _finding(_roots_and_shares, tmp_path)
    assert "gradients are born in model.layer" in finding.summary
    assert finding.source is not None and finding.source.text == "roots = (scores - scores[:1]).square().sum(1).sqrt()"


def _logistic(scores: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + (-scores).exp())


def _speech(scores: torch.Tensor) -> torch.Tensor:
    heard, letters = scores[:, None].log_softmax(2), torch.tensor([[1, 2, 1, 2, 1]])
    if scores.abs().max() > 50:
        letters = letters.clamp(max=1)  # each of them takes a frame more, to be told from the one before
    return nn.functional.ctc_loss(heard, letters, torch.tensor([8]), torch.tensor([5]))


@pytest.mark.parametrize(
    ("way", "said", "line"),
    [
        (_logistic, "an exp, which overflows", "return 1 / (1 + (-scores).exp())"),
        (_speech, "a ctc_loss, which is infinite", "return nn.functional.ctc_loss("),
    ],
)
def test_what_an_unrecorded_step_overflowed_in(way: Way, said: str, line: str, tmp_path: Path) -> None:
    finding = _finding(way, tmp_path, scales=(3.0, 1e4, 3.0), schedule=Steps([0, 2]))
    assert "an earlier update broke it" in finding.summary and said in finding.summary
    assert finding.source is not None and finding.source.text.startswith(line)


def test_functions_that_are_mapped_over_samples_are_left_alone(tmp_path: Path) -> None:
    def way(scores: torch.Tensor) -> torch.Tensor:
        return torch.func.vmap(lambda row: (1000 * row).exp().log())(scores)

    assert _finding(way, tmp_path).node == "model"


def _finding(
    way: Way, folder: Path, *, scales: tuple[float, ...] = (3.0, 3.0), schedule: Schedule | int = 1
) -> Finding:
    """What is said of some steps, by the scale of their inputs."""
    torch.manual_seed(0)
    model = _Net(way)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with Recorder(folder, trial="trial", schedule=schedule, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for scale in scales:
            with recorder.step():
                optimizer.zero_grad()
                model(scale * torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
    (finding,) = diagnose(open_trial(folder / "trial"), rules=["non-finite"])
    return finding
