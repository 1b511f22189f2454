"""What is only worth knowing: a training that ended early, layers without biases; and matrices made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import blob_batches, findings, mlp, record


@pytest.mark.parametrize(("steps", "told"), [(32, ["info"]), (400, [])])
def test_a_training_that_ended_while_the_loss_fell(steps: int, told: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, lr=3e-3, steps=steps)
    assert [finding.level for finding in findings(trial, "short-training")] == told


def test_a_training_that_goes_on_is_not_too_short(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder:
        recorder.watch(model, optimizer)
        for number in range(32):
            points, labels = blob_batches(number)
            with recorder.step():
                optimizer.zero_grad()
                F.cross_entropy(model(points), labels).backward()
                optimizer.step()
        recorder.flush()
        assert diagnose(open_trial(tmp_path / "trial"), rules=["short-training"]) == ()
    assert [found.rule for found in diagnose(open_trial(tmp_path / "trial"), rules=["short-training"])] == [
        "short-training"
    ]


@pytest.mark.parametrize("bias", ["none", "last", "norm"])
def test_layers_without_any_bias(bias: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    middle = nn.LayerNorm(16) if bias == "norm" else nn.ReLU()
    model = nn.Sequential(nn.Linear(8, 16, bias=False), middle, nn.Linear(16, 4, bias=bias == "last"))
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=5)
    assert [finding.level for finding in findings(trial, "missing-bias")] == (["info"] if bias == "none" else [])


class _ByHand(nn.Module):
    def __init__(self, spread: float, *, transposed: bool) -> None:
        super().__init__()
        shapes = [(8, 48), (48, 48), (48, 4)]
        self.transposed = transposed
        self.matrices = nn.ParameterList(
            spread * torch.randn(shape[::-1] if transposed else shape) / shape[0] ** 0.5 for shape in shapes
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, matrix in enumerate(self.matrices):
            x = F.linear(x, matrix) if self.transposed else x @ matrix
            x = x.tanh() if number < 2 else x
        return x


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("spread", "how"), [(8.0, "too large"), (1.0, "")])
def test_matrices_made_by_hand(spread: float, how: str, transposed: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _ByHand(spread, transposed=transposed)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=5)
    found = findings(trial, "weight-scale")
    assert bool(found) == bool(how) and all(how in finding.summary for finding in found)


def test_tables_that_do_not_follow_each_other_are_no_layers(tmp_path: Path) -> None:
    class Tables(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Parameter(torch.randn(40, 30)), nn.Parameter(torch.randn(50, 30))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return (self.one[rows[:, 0]] * self.two[rows[:, 1]]).mean(1)

    torch.manual_seed(0)
    model = Tables()
    rows, scores = torch.randint(40, (64, 2)), torch.randn(64)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), lambda _: (rows, scores), steps=5)
    assert findings(trial, "weight-scale") == []


@pytest.mark.parametrize(("momentum", "rate", "told"), [(0.0, 1e-2, True), (0.9, 0.1, False)])
def test_a_recurrent_net_that_plain_descent_does_not_move(
    momentum: float, rate: float, told: bool, tmp_path: Path
) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x = torch.randn(32, 8, 1, generator=torch.Generator().manual_seed(number))
        return x, x.mean(1)

    torch.manual_seed(0)
    model = Reader()
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum)
    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y), batches, optimizer=optimizer, steps=120, every=4
    )
    found = findings(trial, "learning-rate")
    assert [("too low" in one.summary, one.node) for one in found] == [(True, "model.rnn.weight_hh_l0")] * told


class _Scaled(nn.Module):
    """Divides by a length that is computed in half precision."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.one, self.two, self.size = nn.Linear(8, 32), nn.Linear(32, 4), size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = (self.size * self.one(x)).half()
        energy = (hidden * hidden).sum(1, keepdim=True)
        return self.two((hidden / (energy + 1).sqrt()).float())


@pytest.mark.parametrize(("size", "told"), [(300.0, True), (1.0, False)])
def test_an_overflow_that_a_division_hides(size: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Scaled(size)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, lr=1e-4, steps=8)
    found = [one for one in findings(trial, "dtype-range") if "hides" in one.summary]
    assert [one.node for one in found] == ["model.two"] * told
    for one in found:
        assert one.source is not None and one.source.text.startswith("energy = (hidden * hidden)")
