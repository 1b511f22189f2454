"""Gradients that one loss leaves in a net which another optimizer trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import blobs, findings, mlp


@pytest.mark.parametrize("clears", [False, True])
def test_a_critic_with_gradients_of_the_generators_turn(clears: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator, critic = mlp(4, 16, 8), mlp(8, 16, 1, activation=nn.LeakyReLU)
    make, judge = torch.optim.Adam(generator.parameters(), 2e-3), torch.optim.Adam(critic.parameters(), 2e-3)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"generator": generator, "critic": critic}, [make, judge])
        for number in range(12):
            with recorder.step():
                make.zero_grad()
                judge.zero_grad()
                made = generator(torch.randn(32, 4))
                F.softplus(-critic(made)).mean().backward()
                make.step()
                if clears:
                    judge.zero_grad()
                real, _ = blobs(seed=number, samples=32)
                (F.softplus(critic(made.detach())).mean() + F.softplus(-critic(real)).mean()).backward()
                judge.step()
    found = findings(open_trial(tmp_path / "trial"), "accumulated-gradients")
    assert [(finding.node, finding.level) for finding in found] == ([] if clears else [("critic.0.weight", "warning")])
    assert all("left over" in finding.summary for finding in found)


def test_two_losses_that_are_added_up_on_purpose(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk, head = mlp(8, 16, 16), nn.Linear(16, 4)
    optimizers = [torch.optim.SGD(trunk.parameters(), 0.1), torch.optim.Adam(head.parameters(), 1e-3)]
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"trunk": trunk, "head": head}, optimizers)
        for number in range(12):
            points, labels = blobs(seed=number)
            with recorder.step() as step:
                for optimizer in optimizers:
                    optimizer.zero_grad()
                with step.loss_group("classes"):
                    F.cross_entropy(head(trunk(points)), labels).backward()
                with step.loss_group("size"):
                    (0.05 * sum(weight.square().sum() for weight in trunk.parameters())).backward()
                for optimizer in optimizers:
                    optimizer.step()
    assert not findings(open_trial(tmp_path / "trial"), "accumulated-gradients")


@pytest.mark.parametrize("way", ["never cleared", "cleared", "a loss comes in later"])
def test_a_critic_in_groups_of_losses_that_nobody_clears(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    maker, critic = mlp(4, 16, 2), mlp(2, 16, 1, activation=lambda: nn.LeakyReLU(0.2))
    make, judge = (torch.optim.Adam(net.parameters(), 1e-3) for net in (maker, critic))
    with Recorder(tmp_path, trial="trial", schedule=Every(2), strict=True) as recorder:
        recorder.watch({"maker": maker, "critic": critic}, [make, judge])
        for number in range(40):
            real, made = torch.randn(32, 2) + 1, maker(torch.randn(32, 4))
            if way != "never cleared":
                critic.zero_grad()
            with recorder.step() as step:
                with step.loss_group("real and fake"):
                    (F.softplus(critic(made.detach())).mean() + F.softplus(-critic(real)).mean()).backward()
                if way == "a loss comes in later":
                    with step.loss_group("size"):
                        (10 * min(number, 1) * critic(real).square().mean()).backward()
                judge.step()
                maker.zero_grad()
                with step.loss_group("maker"):
                    F.softplus(-critic(made)).mean().backward()
                make.step()
    found = findings(open_trial(tmp_path / "trial"), "accumulated-gradients")
    assert [finding.level for finding in found] == (["error"] if way == "never cleared" else [])
