"""Gradients before clipping: kept where something writes to them between ``backward`` and their use, nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.recorder import Recorder, Step
from stepscope.store import Step as ReadStep
from stepscope.store import open_trial
from support.effort import effort

BEFORE = "gradient before clipping"
Model = nn.Sequential
Clip = Callable[[Model], object]


def small() -> Model:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


X = torch.linspace(-1, 1, 32).view(8, 4)


def loss_of(model: nn.Module) -> torch.Tensor:
    return (model(X) * 100).square().mean()


def record(
    program: Callable[[Step], object], folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> ReadStep:
    with Recorder(folder, trial="trial", schedule=1, strict=True, neurons=10_000) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step() as step:
            program(step)
    trial = open_trial(folder / "trial")
    assert trial.messages == ()
    return trial.step(0)


def norms(step: ReadStep, quantity: str) -> dict[str, float]:
    rows = [row.info.node for row in step.rows(quantity=quantity) if row.info.type == "parameter"]
    return {node: step.tensor(node, quantity=quantity).statistics["norm"] for node in rows}


def expected_norms(model: nn.Module, gradients: list[torch.Tensor]) -> dict[str, float]:
    names = [name for name, _ in model.named_parameters(prefix="model")]
    return {name: pytest.approx(float(g.double().norm()), rel=1e-5) for name, g in zip(names, gradients, strict=True)}


def gradients_of(model: nn.Module) -> list[torch.Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient.clone() for gradient in found if gradient is not None]


def by_value(model: Model, *, foreach: bool) -> None:
    nn.utils.clip_grad_value_(model.parameters(), 0.1, foreach=foreach)


def by_hand(model: Model) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.mul_(0.5)


def by_operator(model: Model) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad /= 4


def by_replacing(model: Model) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad = parameter.grad.clamp(-0.1, 0.1)


def through_data(model: Model) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.data.clamp_(-0.1, 0.1)


def through_views(model: Model) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.view(-1)[1:].zero_()
        parameter.grad.view(-1)[:1].mul_(2)


def by_out(model: Model) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        torch.mul(parameter.grad, 0.5, out=parameter.grad)


def twice(model: Model) -> None:
    by_hand(model)
    by_value(model, foreach=False)


CLIPS: dict[str, Clip] = {
    "by norm": lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.5, foreach=False),
    "by norm, many at once": lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.5, foreach=True),
    "by value": lambda model: by_value(model, foreach=False),
    "by value, many at once": lambda model: by_value(model, foreach=True),
    "by hand": by_hand,
    "by an operator": by_operator,
    "by replacing": by_replacing,
    "through .data": through_data,
    "through views": through_views,
    "by out=": by_out,
    "twice": twice,
}


@pytest.mark.parametrize("watches_optimizer", [True, False])
@pytest.mark.parametrize("way", CLIPS)
@pytest.mark.supports(
    "Gradients", "before clipping too: by norm, by value, by hand, through views, by replacing `.grad`"
)
def test_before_and_after(way: str, watches_optimizer: bool, tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept: list[list[torch.Tensor]] = []

    def program(_: Step) -> None:
        loss_of(model).backward()
        kept.append(gradients_of(model))
        CLIPS[way](model)
        kept.append(gradients_of(model))
        optimizer.step()

    step = record(program, tmp_path, model, optimizer if watches_optimizer else None)
    assert norms(step, BEFORE) == expected_norms(model, kept[0])
    assert norms(step, "gradient") == expected_norms(model, kept[1])


def test_it_is_measured_like_any_gradient(tmp_path: Path) -> None:
    model = small()

    def program(_: Step) -> None:
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)

    found = record(program, tmp_path, model).tensor("model.0.weight", quantity=BEFORE)
    assert found.shape == (6, 4) and found.histogram.counts.sum() == 24 and found.neurons is not None
    assert found.info.type == "parameter" and found.info.iteration == -1


def without_writing(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    loss_of(model).backward()
    nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def zero_grad_first(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    loss_of(model).backward()
    optimizer.zero_grad(set_to_none=False)
    loss_of(model).backward()
    optimizer.step()


def clipped_but_thrown_away(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    loss_of(model).backward()
    by_hand(model)
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


def zeroed_in_place(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    loss_of(model).backward()
    torch._foreach_zero_([p.grad for p in model.parameters() if p.grad is not None])
    loss_of(model).backward()
    optimizer.step()


def clipped_between(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    loss_of(model).backward()
    by_hand(model)
    loss_of(model).backward()  # what it adds up to was never written to
    optimizer.step()


def scaled(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    scaler.scale(loss_of(model)).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


def after_the_step(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    loss_of(model).backward()
    optimizer.step()
    by_hand(model)
    optimizer.zero_grad(set_to_none=False)


def other_work(model: Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    loss_of(model).backward()
    average = [parameter.detach().clone() for parameter in model.parameters()]
    torch._foreach_lerp_(average, list(model.parameters()), 0.5)
    torch.zeros(6, 4).copy_(model[0].weight.grad).add_(1)
    optimizer.step()


@pytest.mark.parametrize(
    "program",
    [
        without_writing, zero_grad_first, clipped_but_thrown_away, zeroed_in_place, clipped_between, scaled,
        after_the_step, other_work,
    ],
)  # fmt: skip
@pytest.mark.supports(
    "Gradients", "before clipping only where something wrote to them; unscaling and zeroing do not count"
)
def test_nothing_was_clipped(program: Callable[..., None], tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    step = record(lambda _: program(model, optimizer, scaler), tmp_path, model, optimizer)
    assert norms(step, BEFORE) == {}
    assert len(norms(step, "gradient")) == 4


@pytest.mark.parametrize("unscales", ["first", "in the step"])
def test_under_a_gradient_scaler(unscales: str, tmp_path: Path) -> None:
    """Without the scale, whether it was taken out before the clipping (as it should) or is so afterwards."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plain = list(torch.autograd.grad(loss_of(model), list(model.parameters())))

    def program(_: Step) -> None:
        scaler.scale(loss_of(model)).backward()
        if unscales == "first":
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)

    step = record(program, tmp_path, model, optimizer)
    assert norms(step, BEFORE) == expected_norms(model, plain)


def test_of_accumulated_gradients_that_are_clipped_each_time(tmp_path: Path) -> None:
    """What the last clipping found is kept."""
    model = small()
    kept: list[list[torch.Tensor]] = []

    def program(_: Step) -> None:
        for _ in range(2):
            loss_of(model).backward()
            kept.append(gradients_of(model))
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)

    assert norms(record(program, tmp_path, model), BEFORE) == expected_norms(model, kept[1])


def test_of_two_networks_that_train_in_turns(tmp_path: Path) -> None:
    """The second ``backward`` does not disturb what was kept of the first network's gradients."""
    first, second = small(), small()
    optimizers = [torch.optim.SGD(first.parameters(), lr=0.1), torch.optim.SGD(second.parameters(), lr=0.1)]
    kept: list[list[torch.Tensor]] = []
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch({"first": first, "second": second}, optimizers)
        with recorder.step():
            for model in (first, second):
                loss_of(model).backward()
                kept.append(gradients_of(model))
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            for optimizer in optimizers:
                optimizer.step()
    found = norms(open_trial(tmp_path / "trial").step(0), BEFORE)
    assert len(found) == 8
    for name, gradients in zip(("first", "second"), kept, strict=True):
        assert found[f"{name}.0.weight"] == pytest.approx(float(gradients[0].norm()), rel=1e-5)


def test_of_gradients_in_one_flat_buffer(tmp_path: Path) -> None:
    """A write to the buffer is one to every gradient in it; a write to one of them is one to that alone."""
    model = small()
    flat = torch.zeros(sum(parameter.numel() for parameter in model.parameters()))
    offset = 0
    for parameter in model.parameters():
        parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()

    def one(_: Step) -> None:
        loss_of(model).backward()
        assert model[2].bias.grad is not None
        model[2].bias.grad.mul_(0.5)

    def all_of_them(_: Step) -> None:
        loss_of(model).backward()
        flat.mul_(0.5)

    assert set(norms(record(one, tmp_path / "one", model), BEFORE)) == {"model.2.bias"}
    assert len(norms(record(all_of_them, tmp_path / "all", model), BEFORE)) == 4


def test_of_sparse_gradients(tmp_path: Path) -> None:
    model = nn.Embedding(10, 3, sparse=True)

    def program(_: Step) -> None:
        model(torch.tensor([1, 7])).square().sum().backward()
        assert model.weight.grad is not None
        model.weight.grad.mul_(0.5)

    step = record(program, tmp_path, model)
    assert norms(step, BEFORE)["model.weight"] == pytest.approx(2 * norms(step, "gradient")["model.weight"])


def test_in_a_closure(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    kept: list[list[torch.Tensor]] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        kept.append(gradients_of(model))
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        return loss

    step = record(lambda _: optimizer.step(closure), tmp_path, model, optimizer)
    assert norms(step, BEFORE) == expected_norms(model, kept[-1])


def test_not_without_gradients(tmp_path: Path) -> None:
    model = small()
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True, gradients=False) as recorder:
        recorder.watch(model)
        with recorder.step():
            loss_of(model).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            loss_of(model).backward()
    assert {row.info.quantity for row in open_trial(tmp_path / "trial").step(0).rows()} == {"value", "update"}


def test_work_grows_in_proportion_to_the_gradients_in_one_buffer(tmp_path: Path) -> None:
    def clip(count: int) -> None:
        model = nn.ParameterList([torch.ones(2) for _ in range(count)])
        buffer = torch.zeros(count, 2)
        for number, parameter in enumerate(model):
            parameter.grad = buffer[number]
        with Recorder(tmp_path, trial=f"{count}", schedule=1, strict=True) as recorder:
            recorder.watch(model)
            with recorder.step():
                torch.stack(list(model)).sum().backward()
                for parameter in model:
                    parameter.grad.mul_(0.5)

    clip(1)
    nothing, small_one, large_one = (effort(lambda count=count: clip(count)) for count in (2, 40, 160))
    assert large_one - nothing < 1.5 * 4 * (small_one - nothing)
