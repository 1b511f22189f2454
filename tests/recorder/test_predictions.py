"""What a loss compares with its targets has a name, also if no module made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial

Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]
TARGET = torch.tensor([0, 1, 2, 1])


def recorded(folder: Path, loss_of: Loss) -> Trial:
    model = nn.Linear(3, 4)
    with Recorder(folder, trial="one", schedule=Every(1)) as recorder:
        recorder.watch(model)
        with recorder.step():
            loss_of(model, torch.ones(4, 3)).backward()
    return open_trial(folder / "one")


@pytest.mark.parametrize(
    ("loss_of", "operation"),
    [
        (lambda model, x: F.cross_entropy(F.softmax(model(x), dim=1), TARGET), "softmax"),
        (lambda model, x: F.mse_loss(input=model(x)[:, 0] * 2, target=TARGET.float()), "mul"),
        (lambda model, x: nn.NLLLoss()(model(x).log_softmax(1), TARGET), "log_softmax"),
    ],
)
def test_it_is_named_with_the_operation_that_made_it(tmp_path: Path, loss_of: Loss, operation: str) -> None:
    trial = recorded(tmp_path, loss_of)
    node = trial.node("prediction")
    assert node.operation == operation and node.source is not None
    graph = trial.step(0).graph()
    edges = {(graph.vertices[e.source].node, graph.vertices[e.sink].node, e.differentiable) for e in graph.edges}
    assert ("model", "prediction", True) in edges and ("prediction", "loss", True) in edges
    assert ("model", "loss", True) not in edges
    assert "gradient" in node.quantities


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda model, x: F.cross_entropy(model(x), TARGET),
        lambda model, x: F.cross_entropy(model(x).view(-1, 4), TARGET),
        lambda model, x: F.mse_loss(model(x).flatten(), torch.ones(16)),
        lambda model, x: (model(x) - 1).pow(2).mean(),
    ],
)
def test_the_output_of_a_module_needs_no_other_name(tmp_path: Path, loss_of: Loss) -> None:
    assert "prediction" not in {node.name for node in recorded(tmp_path, loss_of).nodes}


def test_several_of_them_are_counted(tmp_path: Path) -> None:
    def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = model(x)
        return F.mse_loss(y.tanh(), torch.ones(4, 4)) + F.l1_loss(y.sigmoid(), torch.ones(4, 4))

    names = {node.name for node in recorded(tmp_path, loss_of).nodes}
    assert {"prediction", "prediction 2"} <= names


def test_the_parts_of_a_loss_have_names(tmp_path: Path) -> None:
    def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = model(x)
        return F.cross_entropy(y, TARGET) + 0.1 * F.mse_loss(y, torch.ones(4, 4))

    trial = recorded(tmp_path, loss_of)
    graph = trial.step(0).graph()
    edges = {(graph.vertices[e.source].node, graph.vertices[e.sink].node) for e in graph.edges}
    assert {("cross_entropy", "loss"), ("mse_loss", "loss"), ("model", "cross_entropy"), ("model", "mse_loss")} <= edges
    whole, first, second = (
        trial.step(0).tensor(name).statistics["mean"] for name in ("loss", "cross_entropy", "mse_loss")
    )
    assert whole == pytest.approx(first + 0.1 * second, rel=1e-6)


def test_a_scaled_loss_keeps_what_it_was_scaled_from(tmp_path: Path) -> None:
    trial = recorded(tmp_path, lambda model, x: F.cross_entropy(model(x), TARGET) / 4)
    assert (trial.node("cross_entropy").operation, trial.node("loss").operation) == ("cross_entropy", "div")


def test_losses_that_are_not_reduced_have_a_batch(tmp_path: Path) -> None:
    trial = recorded(tmp_path, lambda model, x: F.cross_entropy(model(x), TARGET, reduction="none").mean())
    tensor = trial.step(0).tensor("cross_entropy")
    assert tensor.shape == (4,) and tensor.info.batch_dim == 0 and tensor.info.type == "calculated"


def test_the_loss_of_a_step_without_backward_is_found(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    with Recorder(tmp_path, trial="one", schedule=Every(1)) as recorder:
        recorder.watch(model)
        with recorder.step(kind="validation"), torch.no_grad():
            loss = F.cross_entropy(model(torch.ones(4, 3)), TARGET)
    trial = open_trial(tmp_path / "one")
    assert trial.node("loss").type == "loss"
    assert trial.step(0).tensor("loss").statistics["mean"] == pytest.approx(float(loss))


def test_the_users_name_comes_first(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    with Recorder(tmp_path, trial="one", schedule=Every(1)) as recorder:
        recorder.watch(model)
        with recorder.step() as step:
            loss = F.cross_entropy(model(torch.ones(4, 3)), TARGET)
            step.record("criterion", loss, type="loss")
            loss.backward()
    names = {node.name for node in open_trial(tmp_path / "one").nodes}
    assert "criterion" in names and not names & {"loss", "cross_entropy"}


def test_a_model_called_target_keeps_its_name(tmp_path: Path) -> None:
    online, target = nn.Linear(3, 4), nn.Linear(3, 4)
    with Recorder(tmp_path, trial="one", schedule=Every(1)) as recorder:
        recorder.watch({"online": online, "target": target})
        with recorder.step():
            wanted = target(torch.ones(4, 3)).detach()
            F.mse_loss(online(torch.ones(4, 3)), wanted + 0).backward()
            F.cross_entropy(online(torch.ones(4, 3)), TARGET).backward()
    trial = open_trial(tmp_path / "one")
    assert trial.node("target").module == "target" and trial.node("target").module_class == "Linear"
    assert trial.node("target of the loss").type == "target"


def test_what_is_chosen_in_the_step_is_the_target_and_not_its_indices(tmp_path: Path) -> None:
    answers, chosen = torch.arange(9.0), torch.tensor([3, 1, 0, 2])
    trial = recorded(tmp_path, lambda model, x: F.mse_loss(model(x)[:, 0], answers[chosen]))
    assert [row.info.dtype for row in trial.step(0).rows() if row.info.node.startswith("target")] == ["float32"]
