"""Rules about calls that are odd by themselves: torn views, layers that read time first, squares, draws, dropout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding, diagnose
from stepscope.recorder import Recorder
from stepscope.store import open_trial

Step = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Sequences ``(32, 5, 4)`` to three scores."""

    def __init__(self, way: str = "") -> None:
        super().__init__()
        self.enter, self.read = nn.Linear(4, 8), nn.GRU(8, 8, batch_first=way != "time first")
        self.attend, self.leave, self.way = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3), way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x)
        if self.way == "heads":
            h = h.view(32, 2, 5, 4).transpose(1, 2).flatten(2)
        elif self.way == "heads, right":
            h = h.view(32, 5, 2, 4).transpose(1, 2).transpose(1, 2).flatten(2)
        elif self.way == "sample":
            h = torch.distributions.Normal(h, 0.1).sample()
        elif self.way == "rsample":
            h = torch.distributions.Normal(h, 0.1).rsample()
        elif self.way == "dropout":
            h = F.dropout(h, 0.2)
        elif self.way == "dropout, told":
            h = F.dropout(h, 0.2, self.training)
        elif self.way == "turned":
            return self.leave(self.read(h.transpose(0, 1).transpose(0, 1))[0][:, -1])
        return self.leave(self.read(h)[0][:, -1])


def scores(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(net(x), torch.randint(3, (32,)))


def found(folder: Path, net: nn.Module, step_of: Step = scores, *, evaluated: bool = False) -> tuple[Finding, ...]:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for number in range(8):
            with recorder.step():
                loss = step_of(net, torch.randn(32, 5, 4))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if evaluated and number % 2:
                net.eval()
                with torch.no_grad(), recorder.step("validation"):
                    step_of(net, torch.randn(32, 5, 4))
                net.train()
    return diagnose(open_trial(folder / "t"))


def rules(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.rule for tree in findings for finding in tree.walk() if finding.level != "info"]


@pytest.mark.parametrize(
    ("way", "evaluated", "rule", "text"),
    [
        ("heads", False, "batch-leak", "h = h.view(32, 2, 5, 4).transpose(1, 2).flatten(2)"),
        ("time first", False, "batch-leak", "return self.leave(self.read(h)[0][:, -1])"),
        ("sample", False, "gradient-cut", "h = torch.distributions.Normal(h, 0.1).sample()"),
        ("dropout", True, "dropout-mode", "h = F.dropout(h, 0.2)"),
    ],
)
def test_an_odd_call_is_found_at_its_line(way: str, evaluated: bool, rule: str, text: str, tmp_path: Path) -> None:
    findings = found(tmp_path, Net(way), evaluated=evaluated)
    lines = [f.source.text for tree in findings for f in tree.walk() if f.rule == rule and f.source]
    assert lines == [text]


@pytest.mark.parametrize("way", ["heads, right", "turned", "rsample", "dropout, told"])
def test_calls_that_look_alike_are_fine(way: str, tmp_path: Path) -> None:
    findings = found(tmp_path, Net(way), evaluated=True)
    assert not set(rules(findings)) & {"batch-leak", "gradient-cut", "dropout-mode", "broadcast-target"}


def test_a_model_of_sequences_that_come_time_first_is_fine(tmp_path: Path) -> None:
    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.head = nn.GRU(4, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.read(x)[0])

    def each_moment(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(x).flatten(0, 1), torch.randint(3, (32 * 5,)))

    assert "batch-leak" not in rules(found(tmp_path, Writer(), each_moment))


class Critic(nn.Module):
    def __init__(self, *, column: bool) -> None:
        super().__init__()
        self.value, self.column = nn.Linear(20, 1), column

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.value(x.flatten(1))
        return value if self.column else value[:, 0]


@pytest.mark.parametrize("column", [True, False])
def test_rewards_minus_a_column(column: bool, tmp_path: Path) -> None:
    def advantage(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0, 0] - net(x)).square().mean() + 0.1 * torch.ones(()).exp()

    assert ("broadcast-target" in rules(found(tmp_path, Critic(column=column), advantage))) == column


def test_distances_of_all_pairs_of_one_tensor_are_fine(tmp_path: Path) -> None:
    def spread(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        value = net(x)
        return (value - value.unsqueeze(1)).abs().mean() + value.square().mean()

    assert "broadcast-target" not in rules(found(tmp_path, Critic(column=False), spread))
