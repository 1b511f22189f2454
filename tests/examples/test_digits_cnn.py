"""The CNN on digits: kinds, nodes and edges, and the numbers of one step against those computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stepscope.examples import digits, digits_cnn
from stepscope.store import Trial, open_group

STEPS = 21


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    out = tmp_path_factory.mktemp("digits")
    accuracy = digits_cnn.run(out, STEPS)
    trial = open_group(out)["cnn"]
    assert trial.scalars("accuracy").values[-1] == accuracy
    return trial


def test_both_kinds_are_recorded(trial: Trial) -> None:
    assert trial.state == "finished"
    assert (trial.problems, trial.messages) == ((), ())
    # 21 training steps, of which the first and every 20th is recorded, and then the test.
    assert trial.steps.tolist() == [0, 20, 21]
    assert trial.step_kinds == ("train", "train", "test")
    assert trial.config["momentum"] == 0.9
    assert len(trial.scalars("train", group="loss").steps) == STEPS


def test_the_graph_runs_from_the_input_to_the_loss(trial: Trial) -> None:
    graph = trial.step(0).graph()
    edges = {(graph.vertices[e.source].node, graph.vertices[e.sink].node, e.differentiable) for e in graph.edges}
    assert ("input", "model.first.conv", False) in edges
    assert ("model.first.conv", "model.first.norm", True) in edges
    assert ("model.first.norm", "model.first.relu", True) in edges  # in place: still two tensors, and an edge
    assert ("model.first.relu", "model.first.pool", True) in edges
    assert ("model.classify.weight", "model.classify", True) in edges
    assert ("model", "loss", True) in edges
    assert ("target", "loss", False) in edges


def test_values_and_gradients_equal_those_computed_by_hand(trial: Trial) -> None:
    torch.manual_seed(0)
    train_set, _ = digits.load(0)
    model = digits_cnn.DigitsCNN()
    chosen = torch.randint(len(train_set.labels), (digits.BATCH,))
    kept: list[torch.Tensor] = []
    gradients: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        kept.append(output.detach().clone())  # the ReLU is about to overwrite it
        output.register_hook(gradients.append)

    model.first.norm.register_forward_hook(keep)
    loss = F.cross_entropy(model(train_set.images[chosen]), train_set.labels[chosen])
    loss.backward()

    step = trial.step(0)
    assert step.tensor("loss").statistics["mean"] == pytest.approx(loss.item(), rel=1e-6)
    norm = step.tensor("model.first.norm")
    assert norm.statistics["min"] == kept[0].min().item() < 0
    assert norm.statistics["std"] == pytest.approx(kept[0].double().std(correction=0).item(), rel=1e-6)
    relu = step.tensor("model.first.relu")
    assert relu.statistics["zero_fraction"] == pytest.approx((kept[0] <= 0).double().mean().item())
    gradient = step.tensor("model.first.norm", quantity="gradient")
    assert gradient.statistics["norm"] == pytest.approx(gradients[0].double().norm().item(), rel=1e-6)
    weight = model.first.conv.weight
    assert weight.grad is not None
    recorded = step.tensor("model.first.conv.weight", quantity="gradient").neurons
    assert recorded is not None
    kept_neurons = np.arange(64) * weight.numel() // 64
    assert np.array_equal(recorded.samples[0], weight.grad.flatten().numpy()[kept_neurons])


def test_the_first_update_is_the_learning_rate_times_the_gradient(trial: Trial) -> None:
    step = trial.step(0)
    gradient = step.tensor("model.classify.weight", quantity="gradient").statistics["norm"]
    update = step.tensor("model.classify.weight", quantity="update").statistics["norm"]
    assert update == pytest.approx(digits_cnn.LEARNING_RATE * gradient, rel=1e-4)


def test_the_test_step_has_no_gradients_and_uses_all_test_images(trial: Trial) -> None:
    step = trial.step(21)
    assert step.tensor("input").shape == (digits.TEST_IMAGES, 1, 8, 8)
    assert {row.info.quantity for row in step.rows()} == {"value"}
    assert step.tensor("loss").statistics["mean"] == pytest.approx(trial.scalars("test", group="loss").values[-1])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert digits_cnn.main(["--out", str(tmp_path), "--steps", "2"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"stepscope view {tmp_path}")
