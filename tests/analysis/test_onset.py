"""The step at which trouble began, between the recorded ones."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from stepscope.analysis import diagnose
from stepscope.analysis.onset import first_not_finite
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial


def train(folder: Path, *, breaks_at: int | None) -> Trial:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(folder, trial="one", schedule=Every(50), health=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(80):
            with recorder.step():
                x, target = torch.randn(16, 4), torch.randn(16, 2)
                if number == breaks_at:
                    x[3, 1] = math.nan
                loss = nn.functional.mse_loss(model(x), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return open_trial(folder / "one")


def test_a_finding_names_the_step_at_which_it_began(tmp_path: Path) -> None:
    trial = train(tmp_path, breaks_at=5)
    step, name = first_not_finite(trial) or (-1, "")
    # The first sixteen are all looked at; of steps as small as these, few later ones are.
    assert step == 5 and name in ("gradient norm", "parameter norm")
    finding = next(finding for finding in diagnose(trial) if finding.rule == "non-finite")
    assert step < (finding.step or 0) <= 50
    assert f"It began at step {step}, which was not recorded" in finding.summary


def test_healthy_trials_have_no_onset(tmp_path: Path) -> None:
    assert first_not_finite(train(tmp_path, breaks_at=None)) is None
