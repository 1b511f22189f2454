"""The health check of unrecorded steps: what it sees, what it then does, and that it changes nothing."""

from __future__ import annotations

import inspect
import math
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.recorder import Every, Recorder, RecorderError, Steps
from stepscope.recorder import health as health_module
from stepscope.recorder.fused_norm import NormReader
from stepscope.recorder.health import _Pace
from stepscope.recorder.usual import Usual
from stepscope.store import Trial, open_trial


def train(
    folder: Path,
    steps: int,
    *,
    trouble: dict[int, float],
    first: int = 0,
    health: bool = True,
    loss: bool = False,
) -> Trial:
    """A small training whose gradients are multiplied by the given numbers at some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x, target = torch.randn(16, 4), torch.randn(16, 1)
    with Recorder(folder, trial="one", schedule=Steps({first}), health=health, strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(steps):
            with recorder.step() as step:
                error = nn.functional.mse_loss(model(x), target) * trouble.get(number, 1.0)
                if loss:
                    step.record("loss", error, type="loss")
                optimizer.zero_grad()
                if not loss:
                    error.backward()
    return open_trial(folder / "one")


@pytest.fixture(autouse=True)
def always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of these tests take less than a look at them: look all the same."""
    monkeypatch.setattr("stepscope.recorder.health._SHARE", 1e9)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_gradients_that_are_not_finite_are_told_and_recorded(tmp_path: Path, number: float) -> None:
    trial = train(tmp_path, 40, trouble={20: number, 21: number})
    assert trial.steps.tolist() == [0, 21, 22, 23]
    assert [step for step, _ in trial.messages] == [20]
    assert "health check: the gradient norm was nan" in trial.messages[0][1]
    assert "the next 3 steps are recorded" in trial.messages[0][1]
    assert trial.step(21).facts["because"] == "health check"
    assert "because" not in trial.step(0).facts
    points = trial.scalars("gradient norm", group="health")
    assert points.steps[0] == 20 and math.isnan(points.values[0])


def test_a_jump_is_told_once(tmp_path: Path) -> None:
    trial = train(tmp_path, 90, trouble={70: 1000.0, 80: 1000.0})
    assert trial.steps.tolist() == [0, 71, 72, 73]
    assert [step for step, _ in trial.messages] == [70]
    assert "is usual" in trial.messages[0][1]


def test_what_jumps_again_and_again_is_recorded_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "_REST", 20)
    trial = train(tmp_path, 300, trouble={number: 1000.0 for number in range(70, 300, 30)})
    assert trial.steps.tolist() == [0, 71, 72, 73, 101, 102, 103, 161, 162, 163, 251, 252, 253]


def test_a_loss_that_is_not_finite_is_seen(tmp_path: Path) -> None:
    trial = train(tmp_path, 12, trouble={5: math.inf}, loss=True)
    assert trial.steps.tolist() == [0, 6, 7, 8]
    assert trial.scalars("loss", group="health").steps.tolist() == [5]


def test_healthy_training_has_a_curve_and_no_message(tmp_path: Path) -> None:
    trial = train(tmp_path, 251, trouble={})
    assert trial.steps.tolist() == [0] and not trial.messages
    norms = trial.scalars("gradient norm", group="health")
    assert norms.steps.tolist() == [100, 200, 250]
    assert (trial.scalars("largest gradient norm", group="health").values >= norms.values).all()
    assert norms.values[0] == pytest.approx(expected_norm(), rel=1e-3)


def expected_norm() -> float:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x, target = torch.randn(16, 4), torch.randn(16, 1)
    nn.functional.mse_loss(model(x), target).backward()
    return math.sqrt(sum(float(parameter.grad.double().square().sum()) for parameter in model.parameters()))  # type: ignore[union-attr]


def test_parameters_are_looked_at_now_and_then(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    with Recorder(tmp_path, trial="one", schedule=Steps({0}), health=True) as recorder:
        recorder.watch(model)
        for number in range(80):
            with recorder.step():
                if number == 40:
                    model.weight.data.fill_(math.nan)
    trial = open_trial(tmp_path / "one")
    assert 40 <= trial.scalars("parameter norm", group="health").steps[0] <= 72
    assert len(trial.steps) == 4


def test_it_has_to_be_asked_for(tmp_path: Path) -> None:
    assert train(tmp_path, 150, trouble={5: math.nan}, health=False).steps.tolist() == [0]
    assert inspect.signature(Recorder).parameters["health"].default is False


def test_other_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="health='yes'"):
        Recorder(tmp_path, health="yes")  # type: ignore[arg-type]


def test_steps_without_a_block_and_by_the_optimizer_are_looked_at(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Recorder(tmp_path, trial="one", schedule=Steps({0}), health=True) as recorder:
        recorder.watch(model, optimizer, auto_step=True)
        for number in range(10):
            optimizer.zero_grad()
            model(torch.full((2, 2), math.nan if number == 4 else 1.0)).sum().backward()
            optimizer.step()
    assert open_trial(tmp_path / "one").steps.tolist() == [0, 5, 6, 7]


def test_training_is_the_same_with_it() -> None:
    def run(folder: Path | None) -> list[torch.Tensor]:
        torch.manual_seed(1)
        random.seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters())
        recorder = Recorder(folder or ".", trial="one", schedule=Every(1000), health=True, enabled=folder is not None)
        recorder.watch(model, optimizer)
        for _ in range(40):
            with recorder.step() as step:
                loss = model(torch.randn(8, 4)).square().mean()
                step.record("loss", loss, type="loss")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        recorder.close()
        return [*(parameter.detach() for parameter in model.parameters()), torch.rand(3)]

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for with_it, without in zip(run(Path(folder)), run(None), strict=True):
            assert torch.equal(with_it, without)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norms_of_every_type(dtype: torch.dtype) -> None:
    tensors = [torch.full((300, 300), 200.0, dtype=dtype), torch.ones(7, dtype=dtype), torch.ones((), dtype=dtype)]
    reader = NormReader()
    reader.take("gradient norm", tensors, 3, "train")
    (reading,) = reader.ready()
    assert reading[:3] == ("gradient norm", 3, "train")
    assert reading.value == pytest.approx(math.sqrt(90000 * 40000 + 8), rel=1e-2)
    assert reader.ready() == []


def test_sparse_gradients_are_left_out() -> None:
    reader = NormReader()
    reader.take("gradient norm", [torch.eye(3).to_sparse(), torch.full((4,), 2.0)], 0, "train")
    assert [reading.value for reading in reader.ready()] == [4.0]


def test_the_usual_follows_and_is_robust() -> None:
    usual = Usual()
    for number in range(64):
        assert not usual.is_exceeded_by(1e9 if number < 31 else 9.0)
        usual.add(1.0 + 0.01 * (number % 5))
    assert usual.middle == pytest.approx(1.02)
    assert usual.is_exceeded_by(11.0)
    usual.add(1e6)  # one outlier moves nothing
    for _ in range(15):
        usual.add(1.0)
    assert usual.is_exceeded_by(11.0)


def test_noise_at_the_end_of_training_is_no_jump() -> None:
    usual = Usual()
    for number in range(300):
        usual.add(1.0 if number < 100 else 1e-7)
    assert not usual.is_exceeded_by(1e-3)
    assert usual.is_exceeded_by(0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_norms_on_a_gpu_arrive_without_waiting() -> None:
    reader = NormReader()
    tensors = [torch.full((4,), 2.0, device="cuda"), torch.full((9,), 1.0, device="cuda", dtype=torch.float16)]
    reader.take("gradient norm", tensors, 0, "train")  # once, to have loaded what it needs
    torch.cuda.synchronize()
    reader.ready()
    torch.cuda.set_sync_debug_mode("error")
    try:
        reader.take("gradient norm", tensors, 1, "train")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert [(reading.step, reading.value) for reading in reader.ready()] == [(1, 5.0)]


def test_dear_looks_are_rare_also_if_only_some_are_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepscope.recorder.health._SHARE", 0.01)
    clock = [0.0]
    monkeypatch.setattr("stepscope.recorder.health.time.thread_time", lambda: clock[0])
    pace, looks, spent = _Pace(), 0, 0.0
    for number in range(2000):
        clock[0] += 1e-3
        if number >= pace.next_look:
            started, cost = clock[0], 1e-3 if looks % 8 == 0 else 1e-5
            clock[0] += cost
            pace.looked(number, started)
            looks, spent = looks + 1, spent + cost
        if number == 100:
            spent = 0.0
    assert 0.003 < spent / 1.9 < 0.013
    assert looks > 100


def test_steps_between_looks_pass_and_those_set_back_are_looked_at(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    with Recorder(tmp_path, trial="one", schedule=Steps({0}), health=True) as recorder:
        recorder.watch(model)
        health = recorder._health
        assert health is not None
        for _ in range(20):
            with recorder.step():
                pass
        health._pace.next_look = 50
        assert health.rest(20) == 29 and health.rest(60) == 0
        looks = health._looks
        for _ in range(40):
            with recorder.step():
                pass
        assert health._looks == looks + 10
        recorder.rewind(5)
        with recorder.step():
            pass
        assert health._looks == looks + 11
