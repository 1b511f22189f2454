"""Models that change while they are trained: the graph, the values and the network table follow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from stepscope.recorder import Every, Recorder
from stepscope.store import Step, Trial, open_trial


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def train(
    folder: Path, model: nn.Module, change: Callable[[torch.optim.Optimizer], object], *, steps: int = 2
) -> Trial:
    """Train some steps; the change is made before the second."""
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(steps):
            if number == 1:
                change(optimizer)
            with recorder.step():
                optimizer.zero_grad()
                F.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 2)).backward()
                optimizer.step()
    return open_trial(folder / "trial")


def quantities(step: Step, node: str) -> set[str]:
    return {row.info.quantity for row in step.rows() if row.info.node == node}


def edges(step: Step) -> dict[tuple[str, str], bool]:
    graph = step.graph()
    return {
        (graph.vertices[edge.source].node, graph.vertices[edge.sink].node): edge.differentiable for edge in graph.edges
    }


@pytest.mark.supports("Changing models", "modules that are added")
def test_a_module_is_added(tmp_path: Path) -> None:
    model = small()
    trial = train(tmp_path, model, lambda optimizer: model.append(nn.Linear(2, 2)))
    assert "model.3" not in {row.info.node for row in trial.step(0).rows()}
    assert ("model.2", "model.3") in edges(trial.step(1))
    assert quantities(trial.step(1), "model.3.weight") >= {"value", "gradient"}
    assert trial.network[-1].path == "model.3"
    assert {info.optimizers for info in trial.network[-1].parameters} == {()}


@pytest.mark.parametrize("change", ["append", "insert", "replace", "tie"])
def test_what_changes_within_the_last_recorded_step_is_in_the_table(change: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(torch.randn(8, 4)).sum().backward()
            if change == "append":
                model.append(nn.Linear(4, 1))
            elif change == "insert":
                model.insert(1, nn.ReLU())
            elif change == "replace":
                model[2].weight = nn.Parameter(torch.zeros(4, 9))
            else:
                model[2].weight = model[0].weight
    network = open_trial(tmp_path / "trial").network
    assert [module.path for module in network[1:]] == [f"model.{index}" for index in range(len(model))]
    names = {name for module in network for parameter in module.parameters for name in parameter.names}
    assert names == {f"model.{name}" for name, _ in model.named_parameters(remove_duplicate=False)}
    assert network[-1].parameters[0].shape == tuple(model[-1].weight.shape)


@pytest.mark.supports("Changing models", "modules that are removed")
def test_a_module_is_removed(tmp_path: Path) -> None:
    model = small()
    model.insert(2, nn.Linear(6, 6))
    trial = train(tmp_path, model, lambda optimizer: model.pop(2))
    assert ("model.2", "model.3") in edges(trial.step(0))
    assert ("model.1", "model.2") in edges(trial.step(1))
    assert [module.path for module in trial.network] == ["model", "model.0", "model.1", "model.2"]
    assert trial.step(1).tensor("model.2.weight").shape == (2, 6)


@pytest.mark.supports("Changing models", "modules and parameters that are replaced")
def test_a_module_is_replaced_by_one_of_another_class(tmp_path: Path) -> None:
    model = small()

    def change(optimizer: torch.optim.Optimizer) -> None:
        model[1] = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        optimizer.add_param_group({"params": list(model[1].parameters())})

    trial = train(tmp_path, model, change)
    assert ("model.0", "model.1.0") in edges(trial.step(1))
    assert quantities(trial.step(1), "model.1.0.weight") >= {"value", "gradient", "update"}
    classes = {module.path: module.module_class for module in trial.network}
    assert (classes["model.1"], classes["model.1.1"]) == ("Sequential", "ReLU")


@pytest.mark.supports("Changing models", "modules and parameters that are replaced")
def test_a_parameter_is_replaced(tmp_path: Path) -> None:
    model = small()

    def change(optimizer: torch.optim.Optimizer) -> None:
        model[2].bias = None
        model[0].weight = nn.Parameter(torch.zeros(6, 4))

    trial = train(tmp_path, model, change)
    assert "model.2.bias" not in {row.info.node for row in trial.step(1).rows()}
    assert trial.step(1).tensor("model.0.weight").statistics["zero_fraction"] == 1.0
    holders = {info.names[0]: info.optimizers for module in trial.network for info in module.parameters}
    assert holders["model.0.weight"] == (), "the optimizer still has the old one"


@pytest.mark.supports("Changing models", "layers that are frozen or unfrozen")
def test_layers_are_frozen(tmp_path: Path) -> None:
    model = small()
    trial = train(tmp_path, model, lambda _: model[0].requires_grad_(False).zero_grad())
    assert edges(trial.step(0))["model.0.weight", "model.0"] and not edges(trial.step(1))["model.0.weight", "model.0"]
    assert "gradient" in quantities(trial.step(0), "model.0.weight")
    assert "gradient" not in quantities(trial.step(1), "model.0.weight")
    assert trial.step(1).tensor("model.0.weight", quantity="update").statistics["norm"] == 0.0
    assert not any(info.trainable for info in trial.network[1].parameters)


@pytest.mark.supports("Changing models", "layers that are frozen or unfrozen")
def test_layers_are_unfrozen(tmp_path: Path) -> None:
    model = small()
    model[0].requires_grad_(False)

    def change(optimizer: torch.optim.Optimizer) -> None:
        model[0].requires_grad_(True)
        optimizer.add_param_group({"params": list(model[0].parameters())})

    trial = train(tmp_path, model, change)
    assert quantities(trial.step(0), "model.0.weight") == {"value"}
    assert quantities(trial.step(1), "model.0.weight") == {"value", "gradient", "update"}
    assert edges(trial.step(1))["model.0", "model.1"] and not edges(trial.step(0))["model.0", "model.1"]
    assert all(info.trainable and info.optimizers == ("optimizer",) for info in trial.network[1].parameters)


@pytest.mark.supports("Changing models", "weights that are tied")
def test_weights_are_tied(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))

    def change(optimizer: torch.optim.Optimizer) -> None:
        model[1].weight = model[0].weight

    trial = train(tmp_path, model, change)
    assert {("model.0.weight", "model.0"), ("model.0.weight", "model.1")} <= edges(trial.step(1)).keys()
    assert "model.1.weight" not in {row.info.node for row in trial.step(1).rows()}
    assert trial.network[2].parameters[0].names == ("model.0.weight", "model.1.weight")


@pytest.mark.supports("Changing models", "parametrizations: weight norm, spectral norm, your own")
def test_a_parametrization_is_registered(tmp_path: Path) -> None:
    model = small()

    def change(optimizer: torch.optim.Optimizer) -> None:
        parametrizations.weight_norm(model[0])
        optimizer.add_param_group({"params": list(model[0].parametrizations.parameters())})

    trial = train(tmp_path, model, change)
    parts = [f"model.0.parametrizations.weight.original{number}" for number in (0, 1)]
    found = edges(trial.step(1))
    assert all(found[part, "model.0.parametrizations.weight.0"] for part in parts)
    assert found["model.0.parametrizations.weight", "model.0"]
    assert all(quantities(trial.step(1), part) == {"value", "gradient", "update"} for part in parts)
    assert "model.0.weight" not in {row.info.node for row in trial.step(1).rows()}


class Symmetric(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).mT


@pytest.mark.supports("Changing models", "parametrizations: weight norm, spectral norm, your own")
def test_a_parametrization_of_the_users_is_removed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    trial = train(tmp_path, model, lambda _: parametrize.remove_parametrizations(model[0], "weight"))
    weight = "model.0.parametrizations.weight.original"
    assert quantities(trial.step(0), weight) == {"value", "gradient", "update"}
    assert edges(trial.step(0))[weight, "model.0.parametrizations.weight.0"]
    assert edges(trial.step(1))["model.0.weight", "model.0"]
    assert [module.path for module in trial.network] == ["model", "model.0", "model.1"]


@pytest.mark.supports("Parameters", "moving averages of the weights (EMA, `AveragedModel`)")
def test_a_moving_average_of_the_weights(tmp_path: Path) -> None:
    model = small()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"model": model, "average": average}, optimizer)
        for _ in range(2):
            with recorder.step():
                x = torch.randn(8, 4)
                F.mse_loss(model(x), average(x) + 1).backward()
                optimizer.step()
                with torch.no_grad():
                    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                        slow.lerp_(fast, 0.5)
    trial = open_trial(tmp_path / "trial")
    before, after = (trial.step(number).tensor("average.0.weight").statistics["norm"] for number in (0, 1))
    assert before != after
    assert quantities(trial.step(1), "average.0.weight") == {"value"}
    found = edges(trial.step(1))
    assert found["model", "loss"] and not found["average", "loss"]


@pytest.mark.supports("Parameters", "moving averages of the weights (EMA, `AveragedModel`)")
def test_an_averaged_model_of_torch(tmp_path: Path) -> None:
    model = small()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"model": model, "average": average}, optimizer)
        for _ in range(2):
            with recorder.step():
                model(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
                average.update_parameters(model)
    trial = open_trial(tmp_path / "trial")
    names = {node.name for node in trial.nodes}
    assert {"average.module.0.weight", "average.n_averaged"} <= names
    assert trial.step(1).tensor("average.n_averaged").statistics["mean"] == 1.0


@pytest.mark.supports("Gradients", "of each sample by `torch.func`", limit="recorded if you name the result")
def test_gradients_of_each_sample_by_torch_func(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(weights: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, weights, (x[None],)).square().mean()

    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step() as step:
            weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
            x = torch.randn(8, 4)
            each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
            step.record("each", each["0.weight"])
            for name, parameter in model.named_parameters():
                parameter.grad = each[name].mean(0)
            optimizer.step()
    trial = open_trial(tmp_path / "trial")
    tensor = trial.step(0).tensor("each")
    assert (tensor.shape, tensor.info.batch_dim) == ((8, 6, 4), 0)
    assert quantities(trial.step(0), "model.0.weight") >= {"value", "update"}
    assert [text for _, text in trial.messages] == [
        "tensors inside a function transform (vmap, grad, jvp) were not measured"
    ]
