"""The Lightning example: its trial holds what the Trainer did, with numbers of the first step computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stepscope.store import Trial, open_group

pytest.importorskip("pytorch_lightning", reason="needs the extra 'lightning'")
lightning_fit = pytest.importorskip("stepscope.examples.lightning_fit")
STEPS = 21


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    out = tmp_path_factory.mktemp("lightning")
    accuracy = lightning_fit.run(out, STEPS)
    trial = open_group(out)["lightning"]
    assert trial.scalars("accuracy").values[-1] == pytest.approx(accuracy)
    return trial


def test_kinds_config_and_scalars(trial: Trial) -> None:
    assert trial.state == "finished"
    assert (trial.problems, trial.messages) == ((), ())
    # 20 training steps, one validation of six batches, the 21st training step.
    assert trial.steps.tolist() == [0, 20, 26]
    assert trial.step_kinds == ("train", "validation", "train")
    assert trial.config == {"width": 64, "lr": 0.003}
    assert len(trial.scalars("train", group="loss").steps) == STEPS
    assert trial.scalars("epoch").values.tolist() == [0, 1]


def test_the_first_step_equals_one_computed_by_hand(trial: Trial) -> None:
    torch.manual_seed(0)
    model = lightning_fit.DigitsModule()
    images, labels = next(iter(lightning_fit.make_loaders(0)[0]))
    step = trial.step(0)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    assert step.tensor("loss").statistics["mean"] == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        recorded = step.tensor(f"model.{name}", quantity="gradient").statistics
        assert recorded["norm"] == pytest.approx(parameter.grad.double().norm().item(), rel=1e-5)


def test_source_lines_are_those_of_the_module(trial: Trial) -> None:
    lines = {node.name: node.source.text for node in trial.nodes if node.source is not None}
    assert lines["loss"] == lines["target"] == "loss = F.cross_entropy(self(images), labels)"
    assert lines["model.second"] == "x = F.relu(self.second(x))"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lightning_fit.main(["--out", str(tmp_path), "--steps", "1"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"stepscope view {tmp_path}")
