"""The line that a finding names is the one to be edited, not the one that made the tensor it was seen in."""

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

Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    def __init__(self, way: str = "") -> None:
        super().__init__()
        self.first, self.read, self.last, self.way = nn.Linear(4, 8), nn.GRU(8, 8), nn.Linear(8, 3), way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        if self.way == "detach":
            h = h.detach()
        elif self.way == "numpy":
            h = torch.from_numpy(h.detach().numpy().clip(0))
        elif self.way == "no_grad":
            with torch.no_grad():
                h = self.first(x)
        elif self.way == "root":
            h = (h * 0).square().sum(-1, keepdim=True).sqrt() + h
        elif self.way == "reshape":
            h = h.reshape(5, 32, 8)
        if self.way != "reshape":
            h = h.transpose(0, 1)
        return self.last(self.read(h)[0][-1])


def cross_entropy(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(net(x), torch.randint(3, (len(x),)))


def scores(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output = net(x)
    return F.nll_loss(output, x[:, 0].argmax(1) % 3)


def findings(folder: Path, way: str, loss_of: Loss = cross_entropy, *, loop: str = "") -> tuple[Finding, ...]:
    torch.manual_seed(0)
    net = Net(way)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for _ in range(12):
            with recorder.step():
                loss = loss_of(net, torch.randn(32, 5, 4))
                if loop != "never":
                    optimizer.zero_grad()
                loss.backward()
                if loop == "too late":
                    optimizer.zero_grad()
                optimizer.step()
    return diagnose(open_trial(folder / "t"))


def lines_of(found: tuple[Finding, ...], rule: str) -> list[str]:
    return [f.source.text for tree in found for f in tree.walk() if f.rule == rule and f.source is not None]


@pytest.mark.parametrize(
    ("way", "rule", "text"),
    [
        ("detach", "gradient-cut", "h = h.detach()"),
        ("numpy", "gradient-cut", "h = torch.from_numpy(h.detach().numpy().clip(0))"),
        ("no_grad", "gradient-cut", "h = self.first(x)"),
        ("root", "non-finite", "h = (h * 0).square().sum(-1, keepdim=True).sqrt() + h"),
        ("reshape", "batch-leak", "h = h.reshape(5, 32, 8)"),
    ],
)
def test_a_finding_names_the_line_between_two_tensors(way: str, rule: str, text: str, tmp_path: Path) -> None:
    assert lines_of(findings(tmp_path, way), rule) == [text]


def test_a_loss_that_misses_something_is_named_itself(tmp_path: Path) -> None:
    found = lines_of(findings(tmp_path, "", scores), "activation-before-loss")
    assert found == ["return F.nll_loss(output, x[:, 0].argmax(1) % 3)"]


def test_gradients_that_are_zeroed_too_late_name_that_line(tmp_path: Path) -> None:
    found = [f for f in findings(tmp_path, "", loop="too late") if f.rule == "unchanged-parameters"]
    assert [f.source.text for f in found if f.source] == ["optimizer.zero_grad()"]


def test_samples_that_are_transposed_are_not_mixed(tmp_path: Path) -> None:
    assert not lines_of(findings(tmp_path, ""), "batch-leak")


def summed(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return 1 * F.cross_entropy(net(x), torch.randint(3, (len(x),)), reduction="sum")


@pytest.mark.parametrize("micro", [1, 4])
def test_a_rate_that_is_too_high_for_sums_names_what_sums(micro: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 50.0)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for _ in range(15):
            with recorder.step() as step:
                optimizer.zero_grad()
                for _ in range(micro):
                    with step.iteration():
                        (summed if micro == 1 else cross_entropy)(net, torch.randn(32, 5, 4)).backward()
                optimizer.step()
    found = diagnose(open_trial(tmp_path / "t"), rules=["learning-rate"])
    assert len(found) == 1 and found[0].source is not None
    assert ("backward()" if micro > 1 else "reduction") in found[0].source.text


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read, self.score = nn.Embedding(50, 12), nn.GRU(12, 16, batch_first=True), nn.Linear(16, 50)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.score(self.read(self.embed(text))[0])


@pytest.mark.parametrize("is_made", [True, False])
def test_a_target_that_a_step_makes_is_named_where_it_is_made(is_made: bool, tmp_path: Path) -> None:
    net = Reader()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for _ in range(12):
            text = torch.randint(50, (8, 10))
            others = text.roll(-1, dims=0)
            with recorder.step():
                optimizer.zero_grad()
                if is_made:
                    others = text.roll(-1, dims=0)
                F.cross_entropy(net(text).transpose(1, 2), others).backward()
                optimizer.step()
    (line,) = lines_of(diagnose(open_trial(tmp_path / "t")), "labels-of-others")
    assert ("roll" in line) == is_made and ("cross_entropy" in line) != is_made
