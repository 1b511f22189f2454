"""What each of several ``backward`` calls gave to each parameter, against ``torch.autograd.grad``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stepscope.recorder import Recorder, Step
from stepscope.recorder.backward_shares import MOST_CALLS
from stepscope.store import Trial, open_trial
from support.training import fingerprint, seed_everything
from support.training import simple as simple_training

Gradients = list[dict[str, torch.Tensor]]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


BATCHES = [torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def record(
    program: Callable[[Step], object], folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> Trial:
    with Recorder(folder, trial="trial", schedule=1, strict=True, neurons=10_000) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step() as step:
            program(step)
    return open_trial(folder / "trial")


def shares(trial: Trial) -> dict[str, list[str]]:
    """The shares of each parameter, by their quantities."""
    found: dict[str, list[str]] = {}
    for row in trial.step(0).rows():
        if row.info.quantity.startswith("gradient:"):
            found.setdefault(row.info.node, []).append(row.info.quantity.removeprefix("gradient:"))
    return found


def apart(model: nn.Module, losses: list[Callable[[], torch.Tensor]]) -> Gradients:
    """The gradients of each loss alone."""
    names = [name for name, _ in model.named_parameters(prefix="model")]
    return [
        dict(zip(names, torch.autograd.grad(loss(), list(model.parameters())), strict=True)) for loss in losses
    ]  # fmt: skip


def assert_shares(trial: Trial, expected: Gradients) -> None:
    for call, gradients in enumerate(expected):
        for node, gradient in gradients.items():
            found = trial.step(0).tensor(node, quantity=f"gradient:backward {call}").neurons
            assert found is not None
            kept = [index * found.total // len(found.samples[0]) for index in range(len(found.samples[0]))]
            assert found.samples[0].tolist() == gradient.flatten()[kept].tolist(), "equal to the bit"


def losses_of(model: nn.Module) -> list[Callable[[], torch.Tensor]]:
    return [lambda x=x: model(x).square().mean() for x in BATCHES]  # type: ignore[misc]


@pytest.mark.parametrize("start", ["no gradients", "zeros", "left over", "set to none", "set to zero"])
@pytest.mark.parametrize("iterations", [False, True])
@pytest.mark.supports(
    "Gradients",
    "of each micro-batch apart (`gradient:backward 0`, ...), and their sum",
    limit="the first 8 `backward` calls of a step; the recording says so",
)
def test_micro_batches(start: str, iterations: bool, tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if start != "no gradients":
        losses_of(model)[2]().backward()
    if start == "zeros":
        optimizer.zero_grad(set_to_none=False)
    expected = apart(model, losses_of(model))

    def program(step: Step) -> None:
        if start.startswith("set to"):
            optimizer.zero_grad(set_to_none=start == "set to none")
        for loss in losses_of(model):
            if iterations:
                with step.iteration():
                    loss().backward()
            else:
                loss().backward()
        optimizer.step()

    trial = record(program, tmp_path, model, optimizer)
    assert_shares(trial, expected)
    assert set(shares(trial)) == set(expected[0])
    total = trial.step(0).tensor("model.0.weight", quantity="gradient").statistics["norm"]
    assert model[0].weight.grad is not None
    assert total == pytest.approx(float(model[0].weight.grad.norm()), rel=1e-5)
    assert trial.messages == ()


def test_several_losses_of_one_batch(tmp_path: Path) -> None:
    """A parameter that only one of the losses reaches has no shares."""
    model = nn.ModuleDict({name: nn.Linear(4, 3) for name in ("trunk", "left")})
    x = BATCHES[0]

    def program(_: Step) -> None:
        h = model["trunk"](x)
        h.sum().backward(retain_graph=True)
        (h * 2).sum().backward(retain_graph=True)
        model["left"](x).sum().backward()

    found = shares(record(program, tmp_path, model))
    assert found == {f"model.trunk.{name}": ["backward 0", "backward 1"] for name in ("weight", "bias")}


def one_call(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    losses_of(model)[0]().backward()


def thrown_away(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    losses_of(model)[0]().backward()
    optimizer.zero_grad()
    losses_of(model)[1]().backward()


def zeroed(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    losses_of(model)[0]().backward()
    optimizer.zero_grad(set_to_none=False)
    losses_of(model)[1]().backward()


def used_between(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    losses_of(model)[0]().backward()
    optimizer.step()
    losses_of(model)[1]().backward()
    losses_of(model)[2]().backward()


def probed(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    losses_of(model)[0]().backward()
    torch.autograd.grad(losses_of(model)[1](), list(model.parameters()))


@pytest.mark.parametrize("program", [one_call, thrown_away, zeroed, used_between, probed])
def test_gradients_of_one_call_have_no_shares(
    program: Callable[[nn.Module, torch.optim.Optimizer], None], tmp_path: Path
) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert shares(record(lambda _: program(model, optimizer), tmp_path, model, optimizer)) == {}


def test_probes_between_calls_do_not_count(tmp_path: Path) -> None:
    model = small()
    expected = apart(model, losses_of(model))

    def program(_: Step) -> None:
        for loss in losses_of(model):
            loss().backward()
            torch.autograd.grad(loss(), list(model.parameters()))

    assert_shares(record(program, tmp_path, model), expected)


def test_loss_groups_are_kept_apart_by_themselves(tmp_path: Path) -> None:
    model = small()

    def program(step: Step) -> None:
        for name, loss in zip("abc", losses_of(model), strict=True):
            with step.loss_group(name):
                loss().backward()

    found = shares(record(program, tmp_path, model))
    assert found["model.0.weight"] == ["a", "b", "c"]


def test_calls_before_a_loss_group(tmp_path: Path) -> None:
    model = small()
    expected = apart(model, losses_of(model)[:2])

    def program(step: Step) -> None:
        for loss in losses_of(model)[:2]:
            loss().backward()
        with step.loss_group("last"):
            losses_of(model)[2]().backward()

    trial = record(program, tmp_path, model)
    assert_shares(trial, expected)
    assert shares(trial)["model.0.weight"] == ["backward 0", "backward 1", "last"]


def test_clipping_each_micro_batch(tmp_path: Path) -> None:
    """The first share is what the first call gave, not what clipping left of it."""
    model = small()
    expected = apart(model, losses_of(model)[:1])

    def program(_: Step) -> None:
        for loss in losses_of(model):
            loss().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)

    trial = record(program, tmp_path, model)
    assert_shares(trial, expected)


def test_without_the_scale_of_a_gradient_scaler(tmp_path: Path) -> None:
    model = small()
    expected = apart(model, losses_of(model))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def program(_: Step) -> None:
        for loss in losses_of(model):
            scaler.scale(loss()).backward()

    assert_shares(record(program, tmp_path, model), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_parts_that_share_weights(use_reentrant: bool, tmp_path: Path) -> None:
    """A re-entrant checkpoint gives a parameter its gradient in parts; together they are the call's share."""
    model = nn.Linear(4, 4)

    def loss(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        for _ in range(2):
            x = checkpoint(model, x, use_reentrant=use_reentrant)
        return x.square().mean()

    def plain(x: torch.Tensor) -> torch.Tensor:
        return model(model(x)).square().mean()

    expected = apart(model, [lambda x=x: plain(x) for x in BATCHES[:2]])  # type: ignore[misc]

    def program(_: Step) -> None:
        for x in BATCHES[:2]:
            loss(x).backward()

    step = record(program, tmp_path, model).step(0)
    for call in range(2):
        norm = step.tensor("model.weight", quantity=f"gradient:backward {call}").statistics["norm"]
        assert norm == pytest.approx(float(expected[call]["model.weight"].norm()), rel=1e-5)


@pytest.mark.supports("Gradients", "sparse gradients")
def test_sparse_shares(tmp_path: Path) -> None:
    model = nn.Embedding(10, 3, sparse=True)

    def program(_: Step) -> None:
        for index in (1, 7):
            model(torch.tensor([index])).sum().backward()

    step = record(program, tmp_path, model).step(0)
    for call in range(2):
        norm = step.tensor("model.weight", quantity=f"gradient:backward {call}").statistics["norm"]
        assert norm == pytest.approx(3**0.5)


def test_many_micro_batches_are_told_of(tmp_path: Path) -> None:
    model = small()

    def program(_: Step) -> None:
        for number in range(64):
            losses_of(model)[number % 3]().backward()

    trial = record(program, tmp_path, model)
    assert all(len(found) == MOST_CALLS for found in shares(trial).values())
    assert [text for _, text in trial.messages] == [
        "of more than 8 backward calls in a step, the first are recorded apart"
    ]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_training_is_not_changed(set_to_none: bool, tmp_path: Path) -> None:
    """Micro-batches, clipping and all: bit for bit, with no hook left."""

    def train(recorder: Recorder) -> list[dict[str, str]]:
        seed_everything()
        model = small()
        training = simple_training(model, lambda: model(BATCHES[0]).mean())
        optimizer = training.optimizers["optimizer"]
        recorder.watch(model, optimizer)
        found = []
        for _ in range(3):
            with recorder.step():
                optimizer.zero_grad(set_to_none=set_to_none)
                for loss in losses_of(model):
                    loss().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1e-2)
                optimizer.step()
            found.append(fingerprint(training, []))
        return found

    plain = train(Recorder(tmp_path, enabled=False))
    with Recorder(tmp_path, schedule=1, strict=True) as recorder:
        assert train(recorder) == plain
