"""Nothing is wrong with these runs, and no rule says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.healthy_objectives import HEALTHY_OBJECTIVES
from support.healthy_runs import HEALTHY
from support.short_runs import alarms


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_raises_no_alarm(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert alarms(HEALTHY[name](tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY_OBJECTIVES)
def test_an_unusual_objective_raises_no_alarm(name: str, tmp_path: Path) -> None:
    assert alarms(HEALTHY_OBJECTIVES[name](tmp_path)) == []
