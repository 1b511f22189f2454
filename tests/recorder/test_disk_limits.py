"""What a recording may take on the disk: for a trial, for a step, and raw values in 16 bits."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stepscope.recorder import Every, Recorder, RecorderError, RecorderWarning
from stepscope.recorder.guard import Faults
from stepscope.recorder.stretch import Stretch
from stepscope.store import Step, Trial, open_trial, verify


def record(folder: Path, steps: int, *, trial: str = "trial", **options: Any) -> Trial:
    """Trains a small net, the same each time, and opens what was recorded."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with Recorder(folder, trial=trial, schedule=Every(1), **options) as recorder:
        recorder.watch(model, optimizer)
        for _ in range(steps):
            with recorder.step():
                loss = model(torch.randn(16, 32)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            recorder.flush()  # so that every machine is as far behind as any other
    return open_trial(folder / trial)


def size_of(trial: Trial) -> int:
    return sum(file.stat().st_size for file in trial.path.iterdir())


def assert_same_statistics(step: Step, own: Step) -> None:
    assert np.array_equal(step.statistics(), own.statistics(), equal_nan=True)
    assert np.array_equal(step.aggregates(), own.aggregates(), equal_nan=True)
    assert np.array_equal(step.per_sample(), own.per_sample(), equal_nan=True)
    for row in range(len(step.rows())):
        assert np.array_equal(step.detail.histogram(row), own.detail.histogram(row))


@pytest.mark.slow
@pytest.mark.supports("It is cheap, and says what it costs", "a trial stays within `max_bytes`")
def test_a_trial_stays_within_its_limit(tmp_path: Path) -> None:
    limit = 600_000
    trial, twin = record(tmp_path, 40, max_bytes="600 kB"), record(tmp_path, 40, trial="twin")
    assert size_of(trial) <= limit < size_of(twin) and verify(trial.path) == []
    assert trial.steps.tolist() == list(range(40))
    for number in (0, 10, 39):
        assert_same_statistics(trial.step(number), twin.step(number))
    states = [trial.step(number).detail_state for number in range(40)]
    assert states[0] == states[-1] == "full" and "thinned" in states
    assert {twin.step(number).detail_state for number in range(40)} == {"full"}


@pytest.mark.slow
def test_where_even_statistics_are_too_much_fewer_steps_are_recorded(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trial = record(tmp_path, 150, max_bytes="700 KiB")
    assert size_of(trial) <= 700 * 1024 and verify(trial.path) == []
    gaps = np.diff(trial.steps)
    assert gaps[:3].tolist() == [1, 1, 1] and gaps.max() > 2
    told = [str(warning.message) for warning in caught if issubclass(warning.category, RecorderWarning)]
    assert 1 <= len(told) <= 2 and "statistics alone come near to 700 KiB (max_bytes)" in told[0]
    assert any("fewer steps are recorded" in message.text for message in trial.messages)


def test_a_limit_for_each_step(tmp_path: Path) -> None:
    free, bound = record(tmp_path, 2), record(tmp_path, 2, trial="bound", max_step_bytes="28kB")
    assert free.step(1).detail_state == "full" and bound.step(1).detail_state == "thinned"
    assert_same_statistics(bound.step(1), free.step(1))


@pytest.mark.supports("Numbers are right", '`precision="bf16"` rounds raw neurons only, and says so')
def test_raw_values_in_16_bits(tmp_path: Path) -> None:
    exact, rounded = record(tmp_path, 3), record(tmp_path, 3, trial="rounded", precision="bf16")
    sizes = [(trial.path / "detail.stepscope").stat().st_size for trial in (rounded, exact)]
    assert sizes[0] < 0.8 * sizes[1]
    for number in range(3):
        step, own = rounded.step(number), exact.step(number)
        assert_same_statistics(step, own)
        for row in range(len(step.rows())):
            found, whole = step.detail.neurons(row), own.detail.neurons(row)
            if found is None or whole is None:
                assert found is whole
                continue
            assert (found.precision, whole.precision) == ("bf16", "float32")
            assert found.samples.dtype == np.float32
            assert np.array_equal(found.samples, by_torch(whole.samples))
            if found.statistics is not None:
                assert np.array_equal(found.statistics, whole.statistics)


def by_torch(values: Any) -> Any:
    return torch.from_numpy(np.array(values)).bfloat16().float().numpy()


@pytest.mark.parametrize(
    "wrong",
    [{"max_bytes": "much"}, {"max_bytes": 1000}, {"max_step_bytes": 0}, {"precision": "fp8"}, {"precision": None}],
)
def test_limits_that_make_no_sense(wrong: dict[str, Any], tmp_path: Path) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(RecorderError, match=rf"{name}={value!r}: expected"):
        Recorder(tmp_path, **wrong)


def test_gaps_double() -> None:
    stretch = Stretch(Faults(strict=False), "2 GB (max_bytes)")
    assert all(stretch.allows(number, "train", left) for number, left in enumerate([None, 1e9, 64.0]))
    with pytest.warns(RecorderWarning, match=r"statistics alone come near to 2 GB \(max_bytes\): from step 3 on"):
        taken = [number for number in range(3, 67) if stretch.allows(number, "train", 40)]  # 2 ** 3
    assert set(np.diff(taken)) == {8} and len(taken) == 8
    with pytest.warns(RecorderWarning, match="the recording is full: step 67 and those after it"):
        assert not stretch.allows(67, "train", 0.5)


@pytest.mark.slow
def test_alarms_stay_within_the_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The health check asks for steps that the schedule does not want: not if there is no room for them."""
    monkeypatch.setattr("stepscope.recorder.health._SHARE", 1e9)  # it looks at each step, however short these are
    monkeypatch.setattr("stepscope.recorder.health._REST", 1)
    monkeypatch.setattr("stepscope.recorder.health._LONGER", 1)  # and does not tire of asking
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Recorder(tmp_path, trial="trial", schedule=Every(50), max_bytes="150 kB", health=True) as recorder:
            recorder.watch(model)
            for number in range(300):
                with recorder.step():
                    model.zero_grad()
                    (model(torch.ones(4, 32)).sum() * (math.nan if number % 5 == 3 else 1)).backward()
                recorder.flush()
    trial = open_trial(tmp_path / "trial")
    assert any("the recording is full" in str(warning.message) for warning in told)
    assert any(trial.step(number).facts.get("because") == "health check" for number in trial.steps.tolist())
    assert size_of(trial) <= 150_000
