"""Where data enters a computation: inputs of models and of their parts, and targets."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder, Step
from stepscope.store import open_trial
from support.drawing import draw, draw_iterations, drawing

X = torch.randn(4, 3)
Y = torch.tensor([0, 1, 1, 0])


class Parts(nn.Module):
    """A model whose parts are called from outside, as in a training step of Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)
        self.loss = nn.CrossEntropyLoss()


def test_a_part_called_from_outside_has_an_input_and_a_loss_module_has_a_target(tmp_path: Path) -> None:
    model = Parts()
    assert draw(lambda step: model.loss(model.net(X), Y).backward(), tmp_path, model) == drawing("""
        input ..> model.net
        model.net -> model.loss
        target ..> model.loss
    """)


def test_what_is_not_of_the_batch_is_no_input(tmp_path: Path) -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(2, 5), "place": nn.Embedding(3, 5)})

    def program(step: Step) -> None:
        step.record("y", model["embed"](Y.unsqueeze(1).expand(4, 3)) + model["place"](torch.arange(3)))

    assert draw(program, tmp_path, model) == drawing("""
        input ..> model.embed
        model.embed -> y
        model.place -> y
    """)


def test_a_flattened_target(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    x, y = torch.randn(4, 5, 3), torch.zeros(4, 5, dtype=torch.int64)
    program = lambda step: F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()  # noqa: E731
    assert draw(program, tmp_path, model) == drawing("input ..> model; model -> loss; target ..> loss")


def test_each_micro_batch_has_its_target_under_the_same_name(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)

    def program(step: Step) -> None:
        for size in (4, 4, 2):
            with step.iteration():
                F.cross_entropy(model(torch.randn(size, 3)), Y[:size].clone()).backward()

    expected = drawing("input ..> model; model -> loss; target ..> loss")
    assert draw_iterations(program, tmp_path, model) == [expected] * 3


def test_gradients_of_a_closure_are_those_that_the_optimizer_used(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return loss

    with Recorder(tmp_path, trial="t", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        with recorder.step():
            optimizer.step(closure)
            used = model.weight.grad
            assert used is not None
            norm = float(used.norm())
            optimizer.zero_grad()
    step = open_trial(tmp_path / "t").step(0)
    assert abs(step.tensor("model.weight", quantity="gradient").statistics["norm"] - norm) < 1e-6 * norm
    assert abs(step.tensor("model.weight", quantity="update").statistics["norm"] - 0.5 * norm) < 1e-3 * norm
