"""Rules about calls that were given another dimension, rate or order than the one meant, and look-alikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import Batch, blobs, findings, mlp, record


def told(folder: Path, model: nn.Module, loss_of: Any, data: Any, rule: str, steps: int = 8) -> list[str]:
    """The levels of what a rule finds in a short run."""
    torch.manual_seed(0)
    return [finding.level for finding in findings(record(folder, model, loss_of, data, steps=steps), rule)]


def classified(number: int) -> Batch:
    return blobs(seed=number)


def sequences(number: int) -> Batch:
    x = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(number))
    return x, x[:, 0].argmax(1) % 4


SOFTMAXES = {
    "log_softmax": lambda z: F.log_softmax(z, dim=0),
    "softmax": lambda z: z.softmax(0).log(),
    "by hand": lambda z: (z.exp() / z.exp().sum(0, keepdim=True)).log(),
    "normalize": lambda z: F.log_softmax(F.normalize(z, dim=0), dim=1),
    "right": lambda z: F.log_softmax(z, dim=1),
    "normalize, right": lambda z: F.log_softmax(5 * F.normalize(z, dim=1), dim=1),
    "centred": lambda z: F.log_softmax(z - z.mean(0), dim=1),
}


@pytest.mark.parametrize("way", SOFTMAXES)
def test_what_adds_up_to_one_over_the_samples(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    levels = told(
        tmp_path, model, lambda x, y: F.nll_loss(SOFTMAXES[way](model(x)), y), classified, "softmax-over-batch"
    )
    assert levels == (["error"] if way in ("log_softmax", "softmax", "by hand", "normalize") else [])


def test_a_square_of_similarities_may_be_normalised_both_ways(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = F.normalize(model(x), dim=1)
        scores = z @ F.normalize(model(x + 0.1 * torch.randn_like(x)), dim=1).T
        return -(F.log_softmax(scores, 0) + F.log_softmax(scores, 1)).diag().mean()

    assert told(tmp_path, model, loss_of, classified, "softmax-over-batch") == []


def test_a_softmax_over_moments_that_come_first_is_fine(tmp_path: Path) -> None:
    class Pooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.weigh, self.leave = nn.Linear(8, 6), nn.Linear(6, 2), nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.enter(x))
            weights = self.weigh(h).softmax(0)
            return self.leave((weights[..., None] * h[:, :, None]).sum(0).flatten(1))

    def data(number: int) -> Batch:
        x, y = sequences(number)
        return x.transpose(0, 1).contiguous(), y

    model = Pooling()
    assert told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, "softmax-over-batch") == []


class Attending(nn.Module):
    """Attention by hand, whose softmax is over the keys or over the queries."""

    def __init__(self, over: str) -> None:
        super().__init__()
        self.query, self.key, self.value, self.last = (nn.Linear(8, size) for size in (8, 8, 8, 4))
        self.over = over

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        if self.over == "transposed":
            mixed = scores.transpose(1, 2).softmax(1).transpose(1, 2) @ self.value(x)
        else:
            mixed = F.dropout(scores.softmax({"keys": 2, "queries": 1}[self.over]), 0.1) @ self.value(x)
        return self.last(mixed.mean(1))


@pytest.mark.parametrize("over", ["keys", "queries", "transposed"])
def test_an_attention_whose_weights_add_up_over_the_queries(over: str, tmp_path: Path) -> None:
    model = Attending(over)
    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), sequences, "softmax-over-batch")
    assert levels == (["error"] if over == "queries" else [])


@pytest.mark.parametrize("loss", [F.l1_loss, F.smooth_l1_loss, F.mse_loss])
@pytest.mark.parametrize("column", [True, False])
def test_a_column_against_a_row(loss: Any, column: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 1)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, y.float()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        given = model(x) if column else model(x).squeeze(1)
        return torch.as_tensor(loss(given, y))

    with pytest.warns(UserWarning, match="size") if column else _quietly():
        assert told(tmp_path, model, loss_of, data, "broadcast-target") == (["error"] if column else [])


@pytest.mark.parametrize("way", ["all", "first", "label"])
def test_one_target_for_all_outputs(way: str, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, torch.ones(len(x), 1) if way == "label" else y[:, None].float()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(x)[:, :1] if way == "first" else model(x), y)

    with _quietly() if way == "first" else pytest.warns(UserWarning, match="size"):
        assert told(tmp_path, model, loss_of, data, "broadcast-target") == (["warning"] if way == "all" else [])


@pytest.mark.parametrize("weighed", [True, False])
def test_logarithms_against_the_number_of_the_class(weighed: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4, last=(nn.LogSoftmax(1),))

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, y[:, None] + 1.0

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -(model(x) * y).mean() if weighed else (model(x) - y).square().mean()

    assert told(tmp_path, model, loss_of, data, "unreachable-targets") == ([] if weighed else ["error"])


def test_quantiles_against_all_samples_are_meant(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        wanted = model(x + 1).detach()
        return F.smooth_l1_loss(model(x)[:, :, None].expand(-1, -1, 4), wanted[:, None].expand(-1, 4, -1))

    assert told(tmp_path, model, loss_of, classified, "broadcast-target") == []


@pytest.mark.parametrize("dimension", [1, 2, -1])
def test_classes_of_pictures_that_add_up_over_the_width(dimension: int, tmp_path: Path) -> None:
    model = nn.Conv2d(1, 4, 3, padding=1)

    def data(number: int) -> Batch:
        x = torch.randn(8, 1, 5, 6, generator=torch.Generator().manual_seed(number))
        return x, (x[:, 0] > 0).long()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.nll_loss(F.log_softmax(model(x), dim=dimension), y)

    assert told(tmp_path, model, loss_of, data, "softmax-over-batch") == ([] if dimension == 1 else ["error"])


@pytest.mark.parametrize("dimension", [1, 2])
def test_letters_that_add_up_over_time(dimension: int, tmp_path: Path) -> None:
    model = nn.Linear(8, 4)

    def data(number: int) -> Batch:
        x = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(number))
        return x, x.argmax(2) % 4

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logs = (model(x).softmax(dimension) + 1e-9).log()
        return F.nll_loss(logs.flatten(0, 1), y.flatten())

    assert told(tmp_path, model, loss_of, data, "softmax-over-batch") == ([] if dimension == 2 else ["error"])


@pytest.mark.parametrize("turned", [True, False])
def test_sides_of_a_loss_that_were_flattened_in_another_order(turned: bool, tmp_path: Path) -> None:
    model = nn.Linear(8, 4)

    def data(number: int) -> Batch:
        x = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(number))
        return x, x.argmax(2) % 4

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x).view(-1, 4), (y.T if turned else y).reshape(-1))

    assert told(tmp_path, model, loss_of, data, "unrelated-targets") == (["error"] if turned else [])


@pytest.mark.parametrize("rate", [0.9, 0.5])
@pytest.mark.parametrize("functional", [True, False])
def test_dropout_of_almost_everything(rate: float, functional: bool, tmp_path: Path) -> None:
    enter, leave, module = nn.Linear(8, 16), nn.Linear(16, 4), nn.Dropout(rate)
    model = nn.ModuleDict({"enter": enter, "leave": leave, "drop": module})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = enter(x).relu()
        return F.cross_entropy(leave(F.dropout(hidden, rate) if functional else module(hidden)), y)

    assert told(tmp_path, model, loss_of, classified, "dropout-mode") == (["warning"] if rate > 0.75 else [])


@pytest.mark.parametrize("last", [True, False])
def test_dropout_of_the_answers(last: bool, tmp_path: Path) -> None:
    layers = [nn.Linear(16, 4), nn.Dropout(0.3)]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), *(layers if last else layers[::-1]))
    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), classified, "dropout-mode")
    assert levels == (["warning"] if last else [])


@pytest.mark.parametrize(("momentum", "expected"), [(0.99, 1), (0.001, 1), (0.1, 0), (None, 0)])
def test_a_momentum_that_is_the_other_ones(momentum: float | None, expected: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=momentum), nn.ReLU(), nn.Linear(16, 4))
    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), classified, "batch-norm-mode", steps=60)
    assert levels == ["warning"] * expected


class Reading(nn.Module):
    """Reads sequences, from a state of its own, of zeros, or of the step before."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.read, self.last, self.start = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 4), start
        self.learned, self.kept = nn.Parameter(torch.zeros(1, 1, 8)), torch.zeros(1, 16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        starts = {
            "carried": self.kept, "learned": self.learned.expand(1, 16, 8).contiguous(),
            "zeros": torch.zeros(1, 16, 8), "none": None,
        }  # fmt: skip
        states, last = self.read(x, starts[self.start])
        self.kept = last.detach()
        return self.last(states[:, -1])


@pytest.mark.parametrize("start", ["carried", "learned", "zeros", "none"])
def test_a_state_that_is_carried_to_the_next_batch(start: str, tmp_path: Path) -> None:
    model = Reading(start)
    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), sequences, "batch-leak")
    assert levels == (["info"] if start == "carried" else [])


class _quietly:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
