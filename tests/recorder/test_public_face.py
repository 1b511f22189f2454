"""What a training script can call, and what the recording then holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stepscope.recorder
from stepscope.recorder import Every, Recorder, Steps
from stepscope.store import Trial, open_trial


def recorder_in(folder: Path, schedule: object = 1, **options: object) -> Recorder:
    return Recorder(folder, trial="trial", schedule=schedule, strict=True, **options)  # type: ignore[arg-type]


def trial_in(folder: Path) -> Trial:
    return open_trial(folder / "trial")


def test_the_public_names_are_sorted_and_exist() -> None:
    names = stepscope.recorder.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(stepscope.recorder, name).__doc__


def test_active_says_whether_the_step_is_recorded(tmp_path: Path) -> None:
    with recorder_in(tmp_path, Every(2)) as recorder:
        seen = []
        for _ in range(3):
            with recorder.step() as step:
                seen.append((recorder.active, step.active, recorder.current.active))
        assert seen == [(True,) * 3, (False,) * 3, (True,) * 3]
        assert not recorder.active


def test_everything_does_nothing_when_disabled(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path / "none", enabled=False)
    model = nn.Linear(2, 1)
    recorder.watch(model, torch.optim.SGD(model.parameters()))
    with recorder.step() as step, step.iteration(), step.loss_group("a"):
        step.record("x", torch.ones(2))
        step.connect(torch.ones(2), torch.ones(2))
        step.decide("train")
    recorder.scalar("loss", 1.0)
    recorder.note("nothing")
    recorder.flush()
    recorder.close()
    assert (recorder.active, recorder.path, recorder.name, recorder.name_of(model)) == (False, None, "", "")
    assert not (tmp_path / "none").exists()


def test_unrecorded_steps_do_nothing(tmp_path: Path) -> None:
    with recorder_in(tmp_path, Steps(())) as recorder, recorder.step() as step:
        step.record("x", torch.ones(2))
        step.record("x", "no tensor")
        with step.iteration(), step.iteration(), step.loss_group("a"):
            step.connect(torch.ones(2), torch.ones(2))
        step.decide("train")
    assert trial_in(tmp_path).steps.tolist() == []


def test_config_and_environment(tmp_path: Path) -> None:
    config = {"lr": 1e-3, "layers": [1, 2], "optimizer": {"name": "adam"}, "device": torch.device("cpu"), 3: None}
    with recorder_in(tmp_path, config=config):
        pass
    trial = trial_in(tmp_path)
    assert dict(trial.config) == {
        "lr": 1e-3, "layers": [1, 2], "optimizer": {"name": "adam"}, "device": "cpu", "3": None,
    }  # fmt: skip
    assert trial.environment["torch"] == torch.__version__
    assert {"python", "numpy", "platform", "pid", "command", "folder", "device"} <= set(trial.environment)


def test_scalars(tmp_path: Path) -> None:
    with recorder_in(tmp_path, Every(2)) as recorder:
        for number in range(4):
            with recorder.step():
                recorder.scalar("loss", torch.tensor(float(number)))
            recorder.scalar("accuracy", np.float32(number / 10), group="eval", kind="test")
        recorder.scalar("accuracy", 7, group="eval", step=100)
    trial = trial_in(tmp_path)
    loss = trial.scalars("loss")
    assert (loss.steps.tolist(), loss.values.tolist()) == ([0, 1, 2, 3], [0.0, 1.0, 2.0, 3.0])
    accuracy = trial.scalars("accuracy", group="eval")
    assert accuracy.steps.tolist() == [0, 1, 2, 3, 100]
    assert accuracy.values == pytest.approx([0.0, 0.1, 0.2, 0.3, 7.0])
    assert trial.scalars("accuracy", group="eval", kind="test").steps.tolist() == [0, 1, 2, 3]


def test_a_scalar_is_taken_when_it_is_given(tmp_path: Path) -> None:
    value = torch.tensor(1.0)
    with recorder_in(tmp_path) as recorder, recorder.step():
        recorder.scalar("x", value)
        value.fill_(2.0)
    assert trial_in(tmp_path).scalars("x").values.tolist() == [1.0]


def test_learning_rates_are_scalars(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1].parameters(), "lr": 0.25}]
    with recorder_in(tmp_path) as recorder:
        recorder.watch(model, torch.optim.SGD(groups))
        with recorder.step():
            pass
    trial = trial_in(tmp_path)
    assert trial.scalars("lr[0]", group="optimizer").values.tolist() == [0.5]
    assert trial.scalars("lr[1]", group="optimizer").values.tolist() == [0.25]


def test_notes(tmp_path: Path) -> None:
    with recorder_in(tmp_path, Steps(())) as recorder:
        recorder.note("before")
        for _ in range(3):
            with recorder.step():
                pass
        recorder.note("learning rate lowered")
    assert [(note.step, note.text) for note in trial_in(tmp_path).notes] == [
        (0, "before"),
        (2, "learning rate lowered"),
    ]


def test_name_of(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    other = nn.Linear(1, 1)
    with recorder_in(tmp_path) as recorder:
        recorder.watch({"net": model})
        recorder.watch([other])
        assert recorder.name_of(model) == "net"
        assert recorder.name_of(model[1][0]) == "net.1.0"
        assert recorder.name_of(other) == "linear"


@pytest.mark.supports("Steps", "deciding after the step whether it is kept")
def test_deciding_afterwards(tmp_path: Path) -> None:
    kinds = ["easy", "hard", "easy", "hard", "easy"]
    with recorder_in(tmp_path, {"easy": 2, "hard": 1}) as recorder:
        for number, kind in enumerate(kinds):
            with recorder.step(kind=None) as step:
                step.record("x", torch.full((2, 1), float(number)))
                step.decide(kind)
                assert step.active == (number not in (2,))
        with recorder.step(kind=None):
            pass  # never decided: not kept
    trial = trial_in(tmp_path)
    assert list(zip(trial.steps.tolist(), trial.step_kinds, strict=True)) == [
        (0, "easy"), (1, "hard"), (3, "hard"), (4, "easy"),
    ]  # fmt: skip
    assert trial.step(3).tensor("x").statistics["mean"] == 3.0


def test_categories_spread_the_samples(tmp_path: Path) -> None:
    with recorder_in(tmp_path, samples=3) as recorder, recorder.step(kind=None) as step:
        step.record("x", torch.arange(6.0)[:, None])
        step.decide("train", categories=["a", "a", "a", "a", "b", "c"])
    step_read = trial_in(tmp_path).step(0)
    assert tuple(step_read.samples) == (0, 4, 5)
    assert tuple(step_read.categories) == ("a", "b", "c")
    neurons = step_read.tensor("x").neurons
    assert neurons is not None
    assert neurons.samples[:, 0].tolist() == [0.0, 4.0, 5.0]


@pytest.mark.supports("Selection", "limits on samples and neurons")
def test_samples_and_neurons_are_limited(tmp_path: Path) -> None:
    with recorder_in(tmp_path, samples=2, neurons=4) as recorder, recorder.step() as step:
        step.record("x", torch.arange(60.0).reshape(3, 20))
    tensor = trial_in(tmp_path).step(0).tensor("x")
    assert tensor.neurons is not None
    assert tensor.neurons.total == 20
    assert tensor.neurons.samples.tolist() == [[0, 5, 10, 15], [20, 25, 30, 35]]
    assert tensor.per_sample.shape == (2, 4)


@pytest.mark.supports("Tensors", "the batch dimension, found or given, or none")
def test_batch_dimension_found_given_and_none(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    with recorder_in(tmp_path) as recorder:
        recorder.watch(model)
        with recorder.step() as step:
            model(torch.randn(5, 3))
            step.record("first", torch.randn(5, 2))
            step.record("second", torch.randn(2, 5))
            step.record("none found", torch.randn(2, 3))
            step.record("given", torch.randn(2, 3), batch_dim=-1)
            step.record("refused", torch.randn(5, 2), batch_dim=False)
            step.record("loss", torch.randn(5), type="loss")
    rows = {row.info.node: row.info for row in trial_in(tmp_path).step(0).rows()}
    found = {name: rows[name].batch_dim for name in ("first", "second", "none found", "given", "refused", "loss")}
    assert found == {"first": 0, "second": 1, "none found": None, "given": 1, "refused": None, "loss": None}


def test_step_numbers_of_the_users(tmp_path: Path) -> None:
    with recorder_in(tmp_path) as recorder:
        for number in (10, 11, 20):
            with recorder.step(number=number):
                pass
        with recorder.step():
            pass
    assert trial_in(tmp_path).steps.tolist() == [10, 11, 20, 21]


def test_an_exception_in_a_step_is_kept_with_it(tmp_path: Path) -> None:
    with recorder_in(tmp_path) as recorder, pytest.raises(ZeroDivisionError), recorder.step() as step:
        step.record("x", torch.ones(2))
        raise ZeroDivisionError("by hand")
    step_read = trial_in(tmp_path).step(0)
    assert step_read.facts["exception"] == "ZeroDivisionError: by hand"
    assert step_read.tensor("x").statistics["mean"] == 1.0


@pytest.mark.supports("Steps", "steps without any `with`")
def test_auto_steps(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = recorder_in(tmp_path, Every(2))
    recorder.watch(model, optimizer, auto_step=True)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(4, 2)).sum().backward()
        optimizer.step()
    recorder.close()
    trial = trial_in(tmp_path)
    assert trial.steps.tolist() == [0, 2]
    assert set(trial.quantities) >= {"value", "gradient", "update"}
    assert not optimizer._optimizer_step_post_hooks


def test_the_network_follows_the_model(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    with recorder_in(tmp_path) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(torch.randn(4, 2))
        model.append(nn.Linear(3, 1))
        model[0].requires_grad_(False)
        with recorder.step():
            model(torch.randn(4, 2))
    trial = trial_in(tmp_path)
    assert [(module.path, module.module_class) for module in trial.network] == [
        ("model", "Sequential"), ("model.0", "Linear"), ("model.1", "Linear"),
    ]  # fmt: skip
    assert [parameter.trainable for module in trial.network for parameter in module.parameters] == [False] * 2 + [
        True
    ] * 2
    assert trial.step(1).tensor("model.1").shape == (4, 1)


@pytest.mark.supports("Selection", "gradients, updates, optimizer state, buffers: each can be left out")
def test_quantities_can_be_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    options = {"gradients": False, "updates": False, "optimizer_state": False, "buffers": False}
    with recorder_in(tmp_path, **options) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step():
            model(torch.randn(4, 2)).sum().backward()
            optimizer.step()
    trial = trial_in(tmp_path)
    assert trial.quantities == ("value",)
    assert not [node for node in trial.nodes if node.type == "buffer"]


@pytest.mark.supports("Tensors", "tensors that are changed in place later: the values are those of the moment")
def test_values_are_those_of_the_moment(tmp_path: Path) -> None:
    with recorder_in(tmp_path) as recorder, recorder.step() as step:
        x = torch.ones(3, 2)
        step.record("before", x)
        x.mul_(5)
        step.record("after", x)
        x[0] = 7
        view = x.view(-1)
        step.record("view", view, batch_dim=False)
        x.zero_()
    read = trial_in(tmp_path).step(0)
    means = {name: read.tensor(name).statistics["mean"] for name in ("before", "after", "view")}
    assert means == pytest.approx({"before": 1.0, "after": 5.0, "view": 34 / 6})
