"""Gradients, updates and optimizer states are those that training used."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder, Step
from stepscope.store import Step as ReadStep
from stepscope.store import UnknownNameError, open_trial


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def record(
    program: Callable[[Step], object], folder: Path, model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | list[torch.optim.Optimizer] | None = None,
) -> ReadStep:  # fmt: skip
    """Record one step and read it back."""
    with Recorder(folder, trial="trial", schedule=1, strict=True, neurons=10_000) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step() as step:
            program(step)
    return open_trial(folder / "trial").step(0)


class WithoutGradient(torch.autograd.Function):
    """Twice its input; its backward gives nothing at all."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, given: torch.Tensor) -> torch.Tensor:
        return 2 * given

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: torch.Tensor) -> None:
        return None


def test_a_custom_function_that_gives_no_gradient(tmp_path: Path) -> None:
    model = small()

    def program(step: Step) -> None:
        hidden = model(torch.randn(3, 4))
        step.record("hidden", hidden)
        step.record("doubled", WithoutGradient.apply(hidden))
        (WithoutGradient.apply(hidden).sum() + model[2].bias.sum()).backward()

    step = record(program, tmp_path, model)
    assert_recorded(step, "model.2.bias", torch.ones(2))
    with pytest.raises(UnknownNameError):
        step.tensor("hidden", quantity="gradient")


def assert_recorded(step: ReadStep, node: str, expected: torch.Tensor, quantity: str = "gradient") -> None:
    """The recorded tensor has the norm and the extremes of the expected one."""
    found = step.tensor(node, quantity=quantity).statistics
    wide = expected.detach().to_dense().double()
    assert found["norm"] == pytest.approx(float(wide.norm()), rel=1e-5)
    assert found["max"] == pytest.approx(float(wide.max()), rel=1e-5)
    assert found["mean"] == pytest.approx(float(wide.mean()), rel=1e-4, abs=1e-7)


def quantities(step: ReadStep, node: str) -> set[str]:
    return {row.info.quantity for row in step.rows() if row.info.node == node}


@pytest.mark.supports("Gradients", "of every named tensor and parameter")
def test_of_activations_and_parameters(tmp_path: Path) -> None:
    model = small()
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: torch.Tensor) -> None:
            output.retain_grad()
            kept[name] = output

        return hook

    for name, module in model.named_children():
        module.register_forward_hook(keep(f"model.{name}"))
    step = record(lambda _: F.mse_loss(model(torch.randn(8, 4)), torch.randn(8, 2)).backward(), tmp_path, model)
    for name, output in kept.items():
        assert output.grad is not None
        assert_recorded(step, name, output.grad)
    for name, parameter in model.named_parameters(prefix="model"):
        assert parameter.grad is not None
        assert_recorded(step, name, parameter.grad)
    assert step.tensor("loss", quantity="gradient").statistics["mean"] == 1.0


@pytest.mark.supports("Gradients", "as the optimizer uses them, after clipping")
def test_as_the_optimizer_used_them_after_clipping(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters(prefix="model")}

    def program(_: Step) -> None:
        (model(torch.randn(8, 4)) * 100).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    step = record(program, tmp_path, model, optimizer)
    norms = [step.tensor(name, quantity="gradient").statistics["norm"] for name in before]
    assert math.hypot(*norms) == pytest.approx(0.5, rel=1e-4)
    for name, parameter in model.named_parameters(prefix="model"):
        assert_recorded(step, name, before[name], "value")
        assert_recorded(step, name, parameter - before[name], "update")
        found = step.tensor(name, quantity="update").statistics["norm"]
        assert found == pytest.approx(0.1 * step.tensor(name, quantity="gradient").statistics["norm"], rel=1e-4)


def test_accumulated_over_iterations(tmp_path: Path) -> None:
    model = small()

    def program(step: Step) -> None:
        for _ in range(3):
            with step.iteration():
                model(torch.randn(8, 4)).mean().backward()

    step = record(program, tmp_path, model)
    weight = model[0].weight
    assert weight.grad is not None
    assert_recorded(step, "model.0.weight", weight.grad)
    for iteration in range(3):
        assert step.tensor("model", iteration=iteration, quantity="gradient").shape == (8, 2)


@pytest.mark.supports("Gradients", "of each loss apart (`loss_group`)")
def test_of_each_loss_group(tmp_path: Path) -> None:
    model, x = small(), torch.randn(8, 4)

    def losses() -> list[torch.Tensor]:
        out = model(x)
        return [out.square().mean(), out.abs().mean()]

    def program(step: Step) -> None:
        first, second = losses()
        with step.loss_group("first"):
            first.backward(retain_graph=True)
        with step.loss_group("second"):
            second.backward()

    step = record(program, tmp_path, model)
    weight = model[0].weight
    assert weight.grad is not None
    assert_recorded(step, "model.0.weight", weight.grad)
    for loss, name in zip(losses(), ("first", "second"), strict=True):
        (alone,) = torch.autograd.grad(loss, weight, retain_graph=True)
        assert_recorded(step, "model.0.weight", alone, f"gradient:{name}")
    assert quantities(step, "model.0") == {"value", "gradient:first", "gradient:second"}


@pytest.mark.supports("Gradients", "several `backward` calls in a step")
def test_several_backward_calls_add_up(tmp_path: Path) -> None:
    x = torch.randn(4, 3, requires_grad=True)

    def program(step: Step) -> None:
        h = x * 2
        step.record("h", h)
        h.sum().backward(retain_graph=True)
        (h * 3).sum().backward()

    assert_recorded(record(program, tmp_path), "h", torch.full((4, 3), 4.0))


@pytest.mark.supports("Gradients", '"never received one" is told apart from zero')
def test_never_received_is_told_apart_from_zero(tmp_path: Path) -> None:
    model = nn.ModuleDict({name: nn.Linear(3, 1, bias=False) for name in ("used", "zero", "unused", "frozen")})
    model["frozen"].requires_grad_(False)

    def program(step: Step) -> None:
        x = torch.randn(4, 3)
        (model["used"](x) + model["zero"](x) * 0 + model["frozen"](x)).sum().backward()

    step = record(program, tmp_path, model)
    assert step.tensor("model.zero.weight", quantity="gradient").statistics["zero_fraction"] == 1.0
    for name in ("unused", "frozen"):
        with pytest.raises(UnknownNameError):
            step.tensor(f"model.{name}.weight", quantity="gradient")
    assert quantities(step, "model.frozen.weight") == {"value"}


@pytest.mark.supports("Gradients", "sparse gradients")
def test_sparse_gradients(tmp_path: Path) -> None:
    model = nn.Embedding(10, 3, sparse=True)
    step = record(lambda _: model(torch.tensor([[1, 1], [7, 2]])).square().sum().backward(), tmp_path, model)
    assert model.weight.grad is not None
    assert_recorded(step, "model.weight", model.weight.grad)


@pytest.mark.parametrize("ending", ["step", "unscale only", "nothing"])
@pytest.mark.supports("Gradients", "under a `GradScaler`: without the scale, which is a curve of its own")
def test_without_the_scale_of_a_gradient_scaler(ending: str, tmp_path: Path) -> None:
    model, x = small(), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    plain = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))

    def program(step: Step) -> None:
        loss = model(x).square().mean()
        scaler.scale(loss).backward()
        if ending == "unscale only":
            scaler.unscale_(optimizer)
        elif ending == "step":
            scaler.step(optimizer)
            scaler.update()

    step = record(program, tmp_path, model, optimizer)
    for (name, _), gradient in zip(model.named_parameters(prefix="model"), plain, strict=True):
        assert_recorded(step, name, gradient)
    loss = model(x).square().mean() if ending != "step" else None
    assert step.tensor("loss", quantity="gradient").statistics["mean"] == 1.0
    assert step.tensor("model", quantity="gradient").statistics["abs_max"] < 1
    if loss is not None:
        assert step.tensor("loss").statistics["mean"] == pytest.approx(loss.item(), rel=1e-6)
    assert open_trial(tmp_path / "trial").scalars("loss scale", group="optimizer").values.tolist() == [2.0**12]


def test_small_half_precision_gradients_survive_unscaling(tmp_path: Path) -> None:
    x = torch.ones(4, 3, dtype=torch.float16, requires_grad=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    def program(step: Step) -> None:
        h = x * 1
        step.record("h", h)
        scaler.scale((h.float() * 1e-9).sum()).backward()

    assert_recorded(record(program, tmp_path), "h", torch.full((4, 3), 1e-9 * 65536).half().double() / 65536)


def test_parameters_after_a_closure(tmp_path: Path) -> None:
    model, x, y = small(), torch.randn(8, 4), torch.randn(8, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    before = model[0].weight.detach().clone()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    step = record(lambda _: optimizer.step(closure), tmp_path, model, optimizer)
    assert_recorded(step, "model.0.weight", before, "value")
    assert_recorded(step, "model.0.weight", model[0].weight - before, "update")


@pytest.mark.supports("Optimizers", "several optimizers")
def test_two_optimizers(tmp_path: Path) -> None:
    model = small()
    optimizers = [torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[2].parameters())]

    def program(_: Step) -> None:
        model(torch.randn(8, 4)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()

    step = record(program, tmp_path, model, optimizers)
    assert quantities(step, "model.0.weight") == {"value", "gradient", "update"}
    assert quantities(step, "model.2.weight") == {"value", "gradient", "update", "exp_avg", "exp_avg_sq"}


def test_a_gradient_penalty_is_no_gradient_of_the_loss(tmp_path: Path) -> None:
    x = torch.randn(4, 3, requires_grad=True)

    def program(step: Step) -> None:
        h = x * 2
        step.record("h", h)
        torch.autograd.grad(h.square().sum(), x, create_graph=True)
        h.sum().backward()

    assert_recorded(record(program, tmp_path), "h", torch.ones(4, 3))


def test_gradients_by_hand(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def program(_: Step) -> None:
        loss = model(torch.randn(8, 4)).square().mean()
        for parameter, gradient in zip(
            model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()

    step = record(program, tmp_path, model, optimizer)
    assert model[0].weight.grad is not None
    assert_recorded(step, "model.0.weight", model[0].weight.grad)
    assert step.tensor("model", quantity="gradient").shape == (8, 2)


def test_evaluation_has_no_gradients(tmp_path: Path) -> None:
    model = small().eval()

    def program(_: Step) -> None:
        with torch.inference_mode():
            model(torch.randn(8, 4))

    step = record(program, tmp_path, model, torch.optim.Adam(model.parameters()))
    assert {row.info.quantity for row in step.rows()} == {"value"}
    assert step.tensor("model").shape == (8, 2)


def test_gradients_changed_in_place_later_are_kept_as_they_were(tmp_path: Path) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    seen: list[np.ndarray] = []

    def program(step: Step) -> None:
        h = x * 2
        h.register_hook(lambda gradient: seen.append(gradient.numpy().copy()))
        step.record("h", h)
        h.sum().backward()
        assert x.grad is not None
        x.grad.zero_()

    step = record(program, tmp_path)
    assert_recorded(step, "h", torch.from_numpy(seen[0]))


def test_a_scaled_and_a_plain_backward_of_one_step(tmp_path: Path) -> None:
    model, x = small(), torch.randn(8, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)

    def program(step: Step) -> None:
        answer = model(x)
        scaler.scale(answer.sum()).backward(retain_graph=True)
        answer.sum().backward()

    assert_recorded(record(program, tmp_path, model), "model", torch.full((8, 2), 2.0))


def test_a_gradient_that_would_become_a_parameters_own(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(8))

    def program(step: Step) -> None:
        moved = weight + 1
        step.record("moved", moved)
        (3 * moved).sum().backward()  # autograd may hand the gradient of ``moved`` itself to ``weight``
        assert weight.grad is not None
        weight.grad.zero_()

    assert_recorded(record(program, tmp_path), "moved", torch.full((8,), 3.0))
