"""What a diagnosis reads does not grow with a recording; benchmarks/bench_diagnosis.py takes the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepscope.analysis import diagnose
from stepscope.analysis.readings import MOST_STEPS, choose_steps
from stepscope.store import Step, open_trial
from support.synthetic import write_trial


@pytest.mark.slow
def test_no_more_steps_are_read_than_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = open_trial(write_trial(tmp_path, trial="long", steps=450, blocks=1, iterations=1))
    chosen = choose_steps(trial)
    assert len(chosen) <= MOST_STEPS and chosen[0] == trial.steps[0] and chosen[-1] == trial.steps[-1]
    read: set[int] = set()
    for name in ("statistics", "aggregates", "per_sample", "tensor"):
        monkeypatch.setattr(Step, name, _noting(getattr(Step, name), read))
    diagnose(trial)
    assert read == {*chosen}


def _noting(method: object, read: set[int]) -> object:
    def noted(self: Step, *args: object, **named: object) -> object:
        read.add(self.number)
        return method(self, *args, **named)  # type: ignore[operator]

    return noted


def test_short_trials_are_read_in_full_and_long_ones_at_both_ends(tmp_path: Path) -> None:
    trial = open_trial(write_trial(tmp_path, trial="short", steps=70, blocks=1, iterations=1))
    assert choose_steps(trial) == trial.steps.tolist()
    chosen = choose_steps(trial, most=50)
    assert len(chosen) <= 50 and chosen[:2] == trial.steps[:2].tolist() and chosen[-2:] == trial.steps[-2:].tolist()
