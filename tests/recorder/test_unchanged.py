"""Training with the recorder is bitwise the training without it."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from stepscope.recorder import Every, Schedule, Steps
from stepscope.store import open_trial
from support.architectures import ARCHITECTURES
from support.training import Fingerprint, open_recorder, train

STEPS = 5
SCHEDULES: dict[str, Schedule] = {"every step": Every(1), "every third step": Every(3), "never": Steps(())}


@functools.cache
def without_recorder(name: str) -> list[Fingerprint]:
    return train(ARCHITECTURES[name], STEPS, None)


def differences(found: list[Fingerprint], expected: list[Fingerprint]) -> list[str]:
    return [
        f"step {number}: {key}"
        for number, (one, other) in enumerate(zip(found, expected, strict=True))
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def test_there_are_enough_architectures() -> None:
    assert len(ARCHITECTURES) >= 35


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.supports(
    "Training is not changed",
    "weights, buffers, optimizer state, losses, gradients, random streams, hooks, modes: equal bit for bit",
)
def test_training_is_bitwise_the_same(name: str, schedule: str, tmp_path: Path) -> None:
    expected = without_recorder(name)
    with open_recorder(tmp_path, SCHEDULES[schedule]) as recorder:
        found = train(ARCHITECTURES[name], STEPS, recorder)
    assert differences(found, expected) == []
    trial = open_trial(tmp_path / "trial")
    assert [int(number) for number in trial.steps] == {"every step": [0, 1, 2, 3, 4], "every third step": [0, 3]}.get(
        schedule, []
    )
    assert all("function transform" in text for _, text in trial.messages)
    assert trial.problems == ()
