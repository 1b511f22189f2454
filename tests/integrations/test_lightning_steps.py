"""What the callback makes of a Trainer's batches: steps, kinds, iterations, scalars, config, exit state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("pytorch_lightning", reason="needs the extra 'lightning'")

import pytorch_lightning as pl

from stepscope.integrations.lightning import StepscopeCallback
from stepscope.recorder import Every, RecorderError
from stepscope.store import Trial, TrialExistsError, open_group, open_trial
from support.lightning_models import (
    Classifier,
    Crash,
    Crashing,
    ManualAccumulation,
    TwoOptimizers,
    make_batches,
    make_trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning")


def fit(folder: Path, model: pl.LightningModule, *, train: int = 4, validate: int = 0, **options: Any) -> Trial:
    """Train for one epoch, record every step, and open what was recorded."""
    torch.manual_seed(0)
    callback = StepscopeCallback(folder, schedule=Every(1), trial="t", strict=True)
    make_trainer(callback, **options).fit(model, make_batches(train), make_batches(validate) if validate else None)
    return open_trial(folder / "t")


def edges_of(trial: Trial, step: int, iteration: int = 0) -> set[tuple[str, str]]:
    graph = trial.step(step).graph(iteration)
    return {(graph.vertices[edge.source].node, graph.vertices[edge.sink].node) for edge in graph.edges}


@pytest.mark.supports("Lightning", "automatic optimisation")
def test_automatic_optimisation(tmp_path: Path) -> None:
    model = Classifier()
    trial = fit(tmp_path, model)
    assert trial.state == "finished"
    assert (trial.problems, trial.messages) == ((), ())
    assert trial.steps.tolist() == [0, 1, 2, 3]
    assert trial.kinds == ("train",)
    step = trial.step(0)
    assert step.iterations == (0,)
    assert step.tensor("input").shape == (5, 4)
    assert trial.series("loss").values == pytest.approx(model.losses, rel=1e-6)
    # Lightning divides the loss by the number of accumulated batches.
    wanted = {
        ("input", "model.net.0"),
        ("model", "cross_entropy"),
        ("target", "cross_entropy"),
        ("cross_entropy", "loss"),
    }
    assert wanted <= edges_of(trial, 0)
    quantities = set(trial.node("model.head.weight").quantities)
    assert quantities == {"value", "gradient", "update", "exp_avg", "exp_avg_sq"}


def test_the_loss_stands_on_the_line_that_computes_it(tmp_path: Path) -> None:
    source = fit(tmp_path, Classifier(), train=1).node("loss").source
    assert source is not None
    assert source.text == "loss = F.cross_entropy(self(x), y)"


def test_gradients_are_those_that_the_optimizer_uses_after_clipping(tmp_path: Path) -> None:
    step = fit(tmp_path, Classifier(), gradient_clip_val=1e-3).step(0)
    parameters = [row.info.node for row in step.rows(quantity="gradient") if row.info.type == "parameter"]

    def total(quantity: str) -> float:
        return sum(step.tensor(node, quantity=quantity).statistics["norm"] ** 2 for node in parameters) ** 0.5

    assert total("gradient") == pytest.approx(1e-3, rel=1e-3)
    assert total("gradient before clipping") > 0.1


@pytest.mark.supports("Lightning", "accumulated batches")
def test_accumulated_batches_are_iterations_of_one_step(tmp_path: Path) -> None:
    model = Classifier()
    trial = fit(tmp_path, model, train=7, accumulate_grad_batches=3)
    assert [trial.step(number).iterations for number in range(3)] == [(0, 1, 2), (0, 1, 2), (0,)]
    step = trial.step(1)
    recorded = [step.tensor("loss", iteration=iteration).statistics["mean"] for iteration in range(3)]
    assert recorded == pytest.approx([loss / 3 for loss in model.losses[3:6]], rel=1e-6)
    assert edges_of(trial, 1, 0) == edges_of(trial, 1, 2)
    assert {f"gradient:backward {batch}" for batch in range(3)} <= {
        row.info.quantity for row in step.rows() if row.info.node == "model.head.weight"
    }
    batches = list(make_batches(7))
    inputs = [step.tensor("input", iteration=iteration).neurons for iteration in range(3)]
    for neurons, (x, _) in zip(inputs, batches[3:6], strict=True):
        assert neurons is not None
        assert np.array_equal(neurons.samples, x.numpy())


def test_accumulated_gradients_equal_those_of_one_large_batch(tmp_path: Path) -> None:
    model = Classifier()
    model.net[1] = torch.nn.Identity()  # batch norm and dropout would make the batches differ
    model.net[3] = torch.nn.Identity()
    twin = Classifier()
    twin.net[1], twin.net[3] = torch.nn.Identity(), torch.nn.Identity()
    twin.load_state_dict(model.state_dict())
    trial = fit(tmp_path, model, train=3, accumulate_grad_batches=3)
    xs, ys = zip(*make_batches(3), strict=True)
    F.cross_entropy(twin(torch.cat(xs)), torch.cat(ys)).backward()
    assert twin.head.weight.grad is not None
    recorded = trial.step(0).tensor("model.head.weight", quantity="gradient").neurons
    assert recorded is not None
    assert recorded.samples[0] == pytest.approx(twin.head.weight.grad.flatten().numpy(), rel=1e-4, abs=1e-7)


@pytest.mark.supports("Lightning", "manual optimisation, several optimizers")
def test_manual_optimisation_with_two_optimizers(tmp_path: Path) -> None:
    trial = fit(tmp_path, TwoOptimizers(), train=2)
    assert trial.steps.tolist() == [0, 1]
    step = trial.step(0)
    assert step.iterations == (0,)
    generator, critic = trial.node("model.generator.weight"), trial.node("model.critic.weight")
    assert set(generator.quantities) == {"value", "gradient", "update"}
    assert set(critic.quantities) == {"value", "gradient", "update", "exp_avg", "exp_avg_sq"}
    # The generator's gradient is taken when its optimizer steps, not after it was set to zero.
    gradient = step.tensor("model.generator.weight", quantity="gradient").statistics["norm"]
    update = step.tensor("model.generator.weight", quantity="update").statistics["norm"]
    assert update == pytest.approx(0.1 * gradient, rel=1e-5) and update > 0
    assert trial.node("model.critic").roles == ("call 0", "call 1", "call 2")
    assert trial.node("loss").roles == ("call 0", "call 1")
    assert {name for group, name in trial.scalar_names if group == "optimizer"} == {"optimizer.0 lr", "optimizer.1 lr"}


def test_manual_accumulation_ends_a_step_when_the_optimizer_steps(tmp_path: Path) -> None:
    trial = fit(tmp_path, ManualAccumulation(), train=6)
    assert [trial.step(number).iterations for number in range(3)] == [(0, 1)] * 3
    assert trial.steps.tolist() == [0, 1, 2]


def test_optimizers_that_step_around_lightning_end_a_step(tmp_path: Path) -> None:
    class Around(ManualAccumulation):
        def optimizers(self, use_pl_optimizer: bool = True) -> Any:
            return super().optimizers(use_pl_optimizer=False)

    assert fit(tmp_path, Around(), train=4).steps.tolist() == [0, 1]


def test_batches_that_lead_to_no_optimizer_step_are_left_out(tmp_path: Path) -> None:
    trial = fit(tmp_path, ManualAccumulation(), train=5)
    assert trial.steps.tolist() == [0, 1]
    assert trial.state == "finished"


@pytest.mark.supports("Lightning", "validation steps")
def test_validation_is_a_kind(tmp_path: Path) -> None:
    trial = fit(tmp_path, Classifier(), train=2, validate=3)
    assert trial.step_kinds == ("train", "train", "validation", "validation", "validation")
    step = trial.step(2)
    assert {row.info.quantity for row in step.rows()} == {"value"}
    assert {("model", "loss"), ("target", "loss")} <= edges_of(trial, 2)
    recorded = [trial.step(number).tensor("loss").statistics["mean"] for number in (2, 3, 4)]
    assert trial.scalars("loss", group="validation").values == pytest.approx([np.mean(recorded)], rel=1e-6)


def test_validation_between_accumulated_batches_leaves_that_step_out(tmp_path: Path) -> None:
    trial = fit(tmp_path, Classifier(), train=4, validate=1, accumulate_grad_batches=2, val_check_interval=3)
    kinds = list(trial.step_kinds)
    assert kinds == ["train", "validation"]
    assert ("model", "loss") in edges_of(trial, int(trial.steps[1]))


def test_a_second_validation_loader_is_a_kind_of_its_own(tmp_path: Path) -> None:
    class Two(Classifier):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return super().validation_step(batch, batch_idx)

    callback = StepscopeCallback(tmp_path, schedule=1, trial="t", strict=True)
    make_trainer(callback).fit(Two(), make_batches(1), [make_batches(1), make_batches(1)])
    assert open_trial(tmp_path / "t").step_kinds == ("train", "validation", "validation 1")


def test_logged_metrics_are_scalars_each_once(tmp_path: Path) -> None:
    model = Classifier()
    trial = fit(tmp_path, model, train=4, validate=1, max_epochs=2)
    each = trial.scalars("loss_step", group="train")
    assert each.values == pytest.approx(model.losses, rel=1e-6)
    assert each.steps.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    means = [np.mean(model.losses[:4]), np.mean(model.losses[4:])]
    assert trial.scalars("loss_epoch", group="train").values == pytest.approx(means, rel=1e-6)
    assert len(trial.scalars("loss", group="validation").values) == 2
    assert trial.scalars("epoch").values.tolist() == [0, 1]
    assert trial.scalars("epoch").steps.tolist() == [0, 5]


def test_hyper_parameters_are_the_config(tmp_path: Path) -> None:
    class Data(pl.LightningDataModule):
        def __init__(self, batches: int) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return make_batches(self.hparams["batches"])

    callback = StepscopeCallback(tmp_path, trial="t", config={"why": "a test"})
    make_trainer(callback).fit(Classifier(width=6), datamodule=Data(2))
    assert open_trial(tmp_path / "t").config == {"width": 6, "lr": 0.1, "batches": 2, "why": "a test"}


def test_the_exception_that_ended_the_run(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        fit(tmp_path, Crashing())
    trial = open_trial(tmp_path / "t")
    assert trial.state == "failed"
    assert trial.end is not None
    assert trial.end.exception == "Crash: the third batch is too much"
    assert "training_step" in trial.end.traceback
    assert trial.steps.tolist() == [0, 1, 2]
    assert trial.step(2).facts["exception"] == "Crash: the third batch is too much"
    assert trial.step(2).tensor("model").shape == (5, 2)


def test_each_fit_is_a_trial(tmp_path: Path) -> None:
    callback = StepscopeCallback(tmp_path, trial="t", schedule=1)
    assert callback.recorder is None
    for _ in range(2):
        make_trainer(callback).fit(Classifier(), make_batches(1))
    assert open_group(tmp_path).names == ("t", "t-2")
    assert callback.recorder is not None
    assert callback.recorder.name == "t-2"


def test_the_schedule_counts_each_kind(tmp_path: Path) -> None:
    callback = StepscopeCallback(tmp_path, trial="t", schedule={"train": Every(2), "validation": Every(3)})
    make_trainer(callback, max_epochs=2).fit(Classifier(), make_batches(3), make_batches(2))
    trial = open_trial(tmp_path / "t")
    assert list(zip(trial.steps.tolist(), trial.step_kinds, strict=True)) == [
        (0, "train"), (2, "train"), (3, "validation"), (6, "train"), (9, "validation"),
    ]  # fmt: skip


def test_disabled_it_does_nothing(tmp_path: Path) -> None:
    make_trainer(StepscopeCallback(tmp_path / "none", enabled=False)).fit(Classifier(), make_batches(1))
    assert not (tmp_path / "none").exists()


def test_a_senseless_schedule_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="expected Every"):
        StepscopeCallback(tmp_path, schedule="often")  # type: ignore[arg-type]


def test_an_existing_trial_is_refused_before_training(tmp_path: Path) -> None:
    fit(tmp_path, Classifier(), train=1)
    model = Classifier()
    callback = StepscopeCallback(tmp_path, trial="t", if_exists="fail")
    with pytest.raises(TrialExistsError):
        make_trainer(callback).fit(model, make_batches(1))
    assert model.losses == []
