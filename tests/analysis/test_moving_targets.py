"""A loss whose targets move with the net need not fall, and may grow for a while."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import findings, mlp


@pytest.mark.parametrize(("follows", "told"), [(True, []), (False, ["loss-plateau"])])
def test_no_fall_is_asked_of_a_value_that_follows_itself(follows: bool, told: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = mlp(4, 16, 1)
    slow = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    with Recorder(tmp_path, trial="trial", schedule=Every(2)) as recorder:
        recorder.watch({"net": net, "slow": slow}, optimizer)
        for number in range(80):
            now, then, reward = torch.randn(32, 4), torch.randn(32, 4), torch.randn(32, 1)
            with recorder.step():
                with torch.no_grad():
                    value = reward + 0.5 * slow(then)
                optimizer.zero_grad()
                F.mse_loss(net(now), value).backward()
                optimizer.step()
            if follows and number % 10 == 9:
                slow.load_state_dict(net.state_dict())
    trial = open_trial(tmp_path / "trial")
    assert [f.rule for f in findings(trial, "loss-plateau", "loss-divergence")] == told


def test_scales_that_a_low_rate_cannot_move_are_no_mistake_of_the_optimizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-8)
    with Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder:
        recorder.watch(net, optimizer)
        for _ in range(20):
            x = torch.randn(16, 4)
            with recorder.step():
                optimizer.zero_grad()
                F.mse_loss(net(x), x[:, :1]).backward()
                optimizer.step()
    assert not findings(open_trial(tmp_path / "trial"), "unchanged-parameters")
