"""Rules that look at what changes later, or only where the net is evaluated; each with what looks alike and is fine."""

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

After = Callable[[int], None]


def found(
    folder: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    after: After,
    *,
    steps: int = 40,
    factor: float = 1.0,
) -> tuple[Finding, ...]:
    """Train on vectors of 4 numbers, and every eighth step evaluate on some that are ``factor`` times as large."""
    torch.manual_seed(1)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for number in range(steps):
            x = torch.randn(32, 4)
            with recorder.step():
                loss = F.mse_loss(net(x), x.sum(1, keepdim=True))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            after(number)
            if number % 8 == 7:
                with torch.no_grad(), recorder.step("validation"):
                    F.mse_loss(net(factor * x + factor - 1), x.sum(1, keepdim=True))
    return diagnose(open_trial(folder / "t"))


def of_rule(findings: tuple[Finding, ...], rule: str) -> list[Finding]:
    return [finding for tree in findings for finding in tree.walk() if finding.rule == rule]


def nothing(_: int) -> None:
    pass


def net_and_optimizer(rate: float = 1e-2) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return net, torch.optim.Adam(net.parameters(), rate)


@pytest.mark.parametrize("assign", [True, False])
def test_weights_that_the_optimizer_no_longer_holds_stand_still(assign: bool, tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()

    def load(number: int) -> None:
        if number == 14:
            net.load_state_dict({name: value.clone() for name, value in net.state_dict().items()}, assign=assign)

    findings = of_rule(found(tmp_path, net, optimizer, load), "unchanged-parameters")
    assert [finding.step for finding in findings] == ([16] if assign else [])  # a validation has a number, too


def test_weights_that_rest_because_the_rate_is_over_are_fine(tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()

    def stop(number: int) -> None:
        if number == 14:
            optimizer.param_groups[0]["lr"] = 0.0

    assert not of_rule(found(tmp_path, net, optimizer, stop), "unchanged-parameters")


def test_weights_that_are_stepped_now_and_then_are_fine(tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    every = torch.optim.SGD(net.parameters(), 0.0)
    gradients = [torch.zeros_like(parameter) for parameter in net.parameters()]

    def now_and_then(number: int) -> None:
        for total, parameter in zip(gradients, net.parameters(), strict=True):
            assert parameter.grad is not None
            total += parameter.grad
        if number % 9 == 8 and number < 30:
            for total, parameter in zip(gradients, net.parameters(), strict=True):
                parameter.grad = total / 9
                total.zero_()
            optimizer.step()

    assert not of_rule(found(tmp_path, net, every, now_and_then), "unchanged-parameters")


@pytest.mark.parametrize(("factor", "names"), [(1.0, []), (1.5, []), (10.0, ["input"])])
def test_inputs_that_are_not_normalised_alike(factor: float, names: list[str], tmp_path: Path) -> None:
    findings = found(tmp_path, *net_and_optimizer(), nothing, factor=factor)
    assert [f.node for f in of_rule(findings, "evaluation-data")] == names
    assert all("in validation they are" in f.summary for f in of_rule(findings, "evaluation-data"))


@pytest.mark.parametrize(
    ("rate", "is_told"),
    [
        (lambda number: 0.1 ** (number // 7), True),  # less than a hundredth is left after half of the steps
        (lambda number: 0.1 ** sum(number > limit for limit in (12, 24, 36)), False),  # as ResNets are trained
        (lambda number: 1 - number / 40, False),
    ],
)
def test_a_rate_that_runs_out(rate: Callable[[int], float], is_told: bool, tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    findings = found(tmp_path, net, optimizer, lambda _: scheduler.step())
    assert bool(of_rule(findings, "learning-rate-decay")) == is_told


class Places(nn.Module):
    """Adds to each of 12 moments ``(batch, 12, 4)`` a vector of its place, and gives the sum of the first one."""

    def __init__(self, *, rows: int, same: bool, masked: str = "") -> None:
        super().__init__()
        self.embed, self.place, self.leave = nn.Linear(4, 4), nn.Embedding(rows, 4), nn.Linear(4, 1)
        self.number = torch.zeros(12, dtype=torch.long) if same else torch.arange(12) % rows
        self.masked = masked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        real = (x != 0).any(2, keepdim=True)
        counted = ~real if self.masked == "real" else real
        h = (self.embed(x) + self.place(self.number)) * counted
        return self.leave(h.tanh().mean(1))


def places(folder: Path, net: nn.Module) -> tuple[Finding, ...]:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for _ in range(24):
            x = torch.randn(16, 12, 4) * (torch.arange(12)[:, None] < torch.randint(4, 10, (16, 1, 1)))
            with recorder.step():
                loss = F.mse_loss(net(x), x[:, 0].sum(1, keepdim=True))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return diagnose(open_trial(folder / "t"))


@pytest.mark.parametrize(("rows", "same", "is_told"), [(12, True, True), (12, False, False), (2, True, False)])
def test_a_table_that_is_always_asked_for_one_row(rows: int, same: bool, is_told: bool, tmp_path: Path) -> None:
    findings = of_rule(places(tmp_path, Places(rows=rows, same=same)), "unused-embeddings")
    assert [finding.level for finding in findings] == (["warning"] if is_told else [])


@pytest.mark.parametrize("masked", ["padding", "real"])
def test_a_mask_that_leaves_only_the_padding(masked: str, tmp_path: Path) -> None:
    findings = of_rule(places(tmp_path, Places(rows=12, same=False, masked=masked)), "no-gradient")
    said = [f.summary for f in findings if f.summary.startswith("Only zeros that go into model.embed count")]
    assert bool(said) == (masked == "real")


@pytest.mark.parametrize("contained", [True, False])
def test_a_window_that_contains_its_target(contained: bool, tmp_path: Path) -> None:
    net, optimizer = net_and_optimizer()
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for _ in range(12):
            x = torch.randn(16, 5)
            with recorder.step():
                F.mse_loss(net(x[:, :4]), x[:, 3:4] if contained else x[:, 4:]).backward()
                optimizer.step()
                optimizer.zero_grad()
    assert bool(of_rule(diagnose(open_trial(tmp_path / "t")), "targets-equal-inputs")) == contained


def test_what_reconstructs_its_input_is_fine(tmp_path: Path) -> None:
    net = nn.Linear(4, 4)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net)
        for _ in range(12):
            x = torch.randn(16, 4)
            with recorder.step():
                F.mse_loss(net(x), x.clone()).backward()
    assert not of_rule(diagnose(open_trial(tmp_path / "t")), "targets-equal-inputs")


def test_a_sum_that_starts_at_zero_is_no_constant_target(tmp_path: Path) -> None:
    net = nn.Linear(4, 1)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net)
        for _ in range(8):
            with recorder.step():
                (net(torch.randn(16, 4))[:, 0].square() + torch.zeros(16)).mean().backward()
    assert not of_rule(diagnose(open_trial(tmp_path / "t")), "constant-data")
