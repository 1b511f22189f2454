"""How long a diagnosis takes, and that it does not depend on the number of steps beyond a limit."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stepscope.analysis import diagnose
from stepscope.analysis.readings import MOST_STEPS, choose_steps
from stepscope.store import open_trial
from support.synthetic import write_trial


@pytest.mark.slow
def test_a_thousand_steps_of_two_hundred_nodes(tmp_path: Path) -> None:
    trial = open_trial(write_trial(tmp_path, trial="long", steps=1000, blocks=7, iterations=1))
    assert len(trial.nodes) > 200 and len(trial.steps) == 1000
    chosen = choose_steps(trial)
    assert len(chosen) <= MOST_STEPS and chosen[0] == trial.steps[0] and chosen[-1] == trial.steps[-1]
    started = time.process_time()
    diagnose(trial)
    assert time.process_time() - started < 2


def test_short_trials_are_read_in_full_and_long_ones_at_both_ends(tmp_path: Path) -> None:
    trial = open_trial(write_trial(tmp_path, trial="short", steps=70, blocks=1, iterations=1))
    assert choose_steps(trial) == trial.steps.tolist()
    chosen = choose_steps(trial, most=50)
    assert len(chosen) <= 50 and chosen[:2] == trial.steps[:2].tolist() and chosen[-2:] == trial.steps[-2:].tolist()
