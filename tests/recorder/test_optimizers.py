"""Every optimizer of torch: its state, its settings as curves, and which parameters it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Step, Trial, open_trial

Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, tuple[Make, set[str]]] = {
    "SGD": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), {"momentum_buffer"}),
    "Adam": (lambda p: torch.optim.Adam(p, amsgrad=True), {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
    "AdamW": (lambda p: torch.optim.AdamW(p), {"exp_avg", "exp_avg_sq"}),
    "Adamax": (lambda p: torch.optim.Adamax(p), {"exp_avg", "exp_inf"}),
    "NAdam": (lambda p: torch.optim.NAdam(p), {"exp_avg", "exp_avg_sq"}),
    "RAdam": (lambda p: torch.optim.RAdam(p), {"exp_avg", "exp_avg_sq"}),
    "RMSprop": (
        lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.5),
        {"square_avg", "grad_avg", "momentum_buffer"},
    ),
    "Adagrad": (lambda p: torch.optim.Adagrad(p), {"sum"}),
    "Adadelta": (lambda p: torch.optim.Adadelta(p), {"square_avg", "acc_delta"}),
    "ASGD": (lambda p: torch.optim.ASGD(p), {"ax"}),
    "Rprop": (lambda p: torch.optim.Rprop(p), {"prev", "step_size"}),
    "Adafactor": (lambda p: torch.optim.Adafactor(p), {"row_var", "col_var"}),
    "Muon": (lambda p: torch.optim.Muon([one for one in p if one.dim() == 2]), {"momentum_buffer"}),
    "SparseAdam": (lambda p: torch.optim.SparseAdam(p), {"exp_avg", "exp_avg_sq"}),
    "LBFGS": (lambda p: torch.optim.LBFGS(p, max_iter=3), {"d", "prev_flat_grad"}),
}


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def regression(model: nn.Module) -> torch.Tensor:
    return F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 2))


def record(folder: Path, model: Any, optimizer: Any, train: Callable[[int], object], *, steps: int = 1) -> Trial:
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(steps):
            with recorder.step():
                train(number)
    return open_trial(folder / "trial")


def quantities(step: Step, node: str) -> set[str]:
    return {row.info.quantity for row in step.rows() if row.info.node == node}


def assert_recorded(step: Step, node: str, quantity: str, expected: torch.Tensor) -> None:
    found = step.tensor(node, quantity=quantity)
    assert found.shape == tuple(expected.shape)
    assert found.statistics["norm"] == pytest.approx(float(expected.double().norm()), rel=1e-5, abs=1e-12)
    assert found.statistics["mean"] == pytest.approx(float(expected.double().mean()), rel=1e-4, abs=1e-7)


@pytest.mark.supports("Optimizers", "updates and state of every optimizer of `torch.optim`")
def test_no_optimizer_of_torch_is_forgotten() -> None:
    known = {name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)}
    assert set(OPTIMIZERS) == known - {"Optimizer"}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"LBFGS", "SparseAdam"}))
@pytest.mark.supports("Optimizers", "updates and state of every optimizer of `torch.optim`")
def test_state_and_update(name: str, tmp_path: Path) -> None:
    make, states = OPTIMIZERS[name]
    model = small()
    optimizer = make(model.parameters())
    before = model[0].weight.detach().clone()

    def train(_: int) -> None:
        regression(model).backward()
        optimizer.step()

    step = record(tmp_path, model, optimizer, train).step(0)
    assert quantities(step, "model.0.weight") == {"value", "gradient", "update", *states}
    assert_recorded(step, "model.0.weight", "update", model[0].weight.detach() - before)
    for state in states:
        assert_recorded(step, "model.0.weight", state, optimizer.state[model[0].weight][state])
    assert step.facts["optimizers"]["optimizer"][0]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.supports("Optimizers", "SparseAdam")
def test_state_of_sparse_gradients(tmp_path: Path) -> None:
    make, states = OPTIMIZERS["SparseAdam"]
    model = nn.Embedding(10, 3, sparse=True)
    optimizer = make(list(model.parameters()))

    def train(_: int) -> None:
        model(torch.tensor([1, 4, 4])).square().sum().backward()
        optimizer.step()

    step = record(tmp_path, model, optimizer, train).step(0)
    assert quantities(step, "model.weight") == {"value", "gradient", "update", *states}
    for state in states:
        assert_recorded(step, "model.weight", state, optimizer.state[model.weight][state])


@pytest.mark.supports("Optimizers", "LBFGS with a closure: its vectors, cut into the part of each parameter")
def test_state_over_all_parameters_is_cut_into_the_part_of_each(tmp_path: Path) -> None:
    make, states = OPTIMIZERS["LBFGS"]
    model, x, y = small(), torch.randn(8, 4), torch.randn(8, 2)
    optimizer = make(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    step = record(tmp_path, model, optimizer, lambda _: optimizer.step(closure)).step(0)
    state = optimizer.state[model[0].weight]
    for name in states:
        parts = state[name].split([parameter.numel() for parameter in model.parameters()])
        for (key, parameter), part in zip(model.named_parameters(), parts, strict=True):
            assert_recorded(step, f"model.{key}", name, part.view(parameter.shape))


class Scaled(nn.Module):
    """A complex weight between two real ones, one of them a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.weight = nn.Parameter(torch.randn(3, 2, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(torch.complex64) @ self.weight).abs() * self.scale + self.bias


@pytest.mark.parametrize("name", ["Adam", "LBFGS"])
def test_state_of_complex_and_single_numbers(name: str, tmp_path: Path) -> None:
    make, states = OPTIMIZERS[name]
    model, x = Scaled(), torch.randn(5, 3)
    optimizer = make(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    step = record(tmp_path, model, optimizer, lambda _: optimizer.step(closure)).step(0)
    for parameter in ("scale", "weight", "bias"):
        assert quantities(step, f"model.{parameter}") == {"value", "gradient", "update", *states}
        for state in states:
            assert step.tensor(f"model.{parameter}", quantity=state).shape == getattr(model, parameter).shape


@pytest.mark.supports("Optimizers", "learning rates of every group as curves; other settings once they change")
def test_learning_rates_of_groups_and_optimizers(tmp_path: Path) -> None:
    model = small()
    optimizers = {
        "first": torch.optim.SGD([{"params": [model[0].weight], "lr": 0.5}, {"params": [model[0].bias]}], lr=0.25),
        "second": torch.optim.Adam(model[2].parameters(), lr=torch.tensor(0.125)),
    }
    trial = record(tmp_path, model, optimizers, lambda _: None)
    assert {name: trial.scalars(name, group="optimizer").values.tolist() for _, name in trial.scalar_names} == {
        "first lr[0]": [0.5], "first lr[1]": [0.25], "second lr": [0.125]
    }  # fmt: skip


@pytest.mark.supports("Optimizers", "learning rates of every group as curves; other settings once they change")
def test_settings_are_curves_once_they_change(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def train(number: int) -> None:
        if number >= 2:
            optimizer.param_groups[0].update(betas=(0.9 - number / 10, 0.999), weight_decay=0.5)

    trial = record(tmp_path, model, optimizer, train, steps=4)
    assert {name for _, name in trial.scalar_names} == {"lr", "beta1", "weight_decay"}
    decay = trial.scalars("weight_decay", group="optimizer")
    assert (decay.steps.tolist(), decay.values.tolist()) == ([0, 2, 3], [0.01, 0.5, 0.5])
    assert trial.scalars("beta1", group="optimizer").values.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert trial.scalars("lr", group="optimizer").values.tolist() == pytest.approx([0.1] * 4)
    assert [trial.step(number).facts["optimizers"]["optimizer"][0]["weight_decay"] for number in (1, 2)] == [0.01, 0.5]


def holders(trial: Trial) -> dict[str, tuple[str, ...]]:
    return {info.names[0]: info.optimizers for module in trial.network for info in module.parameters}


@pytest.mark.supports("Optimizers", "parameters that no optimizer holds, or two")
def test_parameters_in_no_optimizer_and_in_two(tmp_path: Path) -> None:
    model = small()
    optimizers = {
        "first": torch.optim.SGD(model[0].parameters(), lr=0.1),
        "second": torch.optim.SGD([model[0].weight, model[2].weight], lr=0.1),
    }
    assert holders(record(tmp_path, model, optimizers, lambda _: None)) == {
        "model.0.weight": ("first", "second"), "model.0.bias": ("first",), "model.2.weight": ("second",),
        "model.2.bias": (),
    }  # fmt: skip


def test_a_parameter_that_joins_an_optimizer(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)

    def train(number: int) -> None:
        if number == 1:
            optimizer.add_param_group({"params": [model[2].weight]})

    found = holders(record(tmp_path, model, optimizer, train, steps=2))
    assert (found["model.2.weight"], found["model.2.bias"]) == (("optimizer",), ())


def test_parameters_of_a_model_that_is_not_watched(tmp_path: Path) -> None:
    model, other = small(), nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1)
    trial = record(tmp_path, model, optimizer, lambda _: None, steps=2)
    assert [text for _, text in trial.messages] == [
        "optimizer holds 2 of its 6 parameters for no watched model: nothing is recorded of them; give their model to "
        "watch(), too"
    ]
