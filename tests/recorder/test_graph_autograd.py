"""Graphs through what hides computation from torch calls: custom functions, checkpoints, several backward calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stepscope.recorder import Step
from support.drawing import draw, drawing


class Scale(torch.autograd.Function):
    """Doubles forwards, and triples gradients backwards."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 3


class Mix(torch.autograd.Function):
    """Two inputs, two outputs, of which the second takes no gradient."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = (a > b).long()
        ctx.mark_non_differentiable(chosen)
        return a + b, chosen

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradient, gradient


def leaf(step: Step, name: str) -> torch.Tensor:
    tensor = torch.randn(4, 3).requires_grad_()
    step.record(name, tensor)
    return tensor


@pytest.mark.supports("Graph", "custom autograd functions")
def test_custom_function(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        y = Scale.apply(leaf(step, "x"))
        step.record("y", y)
        step.record("z", y + 1)

    assert draw(program, tmp_path) == drawing("x -> y; y -> z")


def test_custom_function_of_unnamed_tensors(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        step.record("y", Scale.apply(x * 2).exp())

    assert draw(program, tmp_path) == drawing("x -> y")


def test_custom_function_with_two_outputs(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        total, chosen = Mix.apply(leaf(step, "a"), leaf(step, "b"))
        step.record("total", total)
        step.record("chosen", chosen)

    assert draw(program, tmp_path) == drawing("a -> total; b -> total; a ..> chosen; b ..> chosen")


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.supports("Graph", "activation checkpointing, both kinds")
def test_checkpoint(tmp_path: Path, reentrant: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)

        def block(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).relu())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(checkpoint(self.block, x, use_reentrant=reentrant))

    model = Model()

    def program(step: Step) -> None:
        model(torch.randn(4, 3, requires_grad=True)).sum().backward()

    assert draw(program, tmp_path, model) == drawing("""
        input -> model.first
        model.first -> model.second
        model.second -> model.last
        model.last -> model
        model -> loss
    """)


def test_several_backward_calls(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        h = x.tanh()
        step.record("h", h)
        h.sum().backward(retain_graph=True)
        h.square().sum().backward()

    assert draw(program, tmp_path) == drawing("x -> h; h -> loss:call 0; h -> loss:call 1")


def test_named_losses_and_their_sum(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        fit, penalty = x.sum(), x.square().sum()
        step.record("fit", fit, type="loss")
        step.record("penalty", penalty, type="loss")
        (fit + 0.1 * penalty).backward()

    assert draw(program, tmp_path) == drawing("x -> fit; x -> penalty; fit -> loss; penalty -> loss")


def test_loss_groups_are_roles_of_the_loss(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        with step.loss_group("first"):
            x.sum().backward()
        with step.loss_group("second"):
            x.square().sum().backward()

    drawn = draw(program, tmp_path)
    assert {line.partition(" -> ")[0] for line in drawn} == {"x"}
    assert len(drawn) == 2


def test_backward_of_several_tensors(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        x = leaf(step, "x")
        torch.autograd.backward([x.sum(), x.mean()])

    assert draw(program, tmp_path) == drawing("x -> loss:call 0; x -> loss:call 1")


def test_backward_inside_the_user_graph_is_no_part_of_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def program(step: Step) -> None:
        model(torch.randn(4, 3)).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    assert draw(program, tmp_path, model) == drawing("""
        input ..> model.0; model.0 -> model.1; model.1 -> model; model -> loss
    """)


@pytest.mark.supports(
    "Graph", "`vmap`, `torch.func`", limit="one operation; tensors inside are not measured, and the recording says so"
)
def test_vmap_is_one_operation(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        a, b = leaf(step, "a"), leaf(step, "b")
        step.record("y", torch.func.vmap(torch.dot)(a, b))

    assert draw(program, tmp_path) == drawing("a -> y; b -> y")
