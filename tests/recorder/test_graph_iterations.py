"""One graph an iteration: what is carried over, what belongs to the whole step, what repeats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.recorder import Step
from support.drawing import draw_iterations, drawing, record_graphs


@pytest.mark.supports("Steps", "several iterations in a step, with carried states")
def test_carried_hidden_state(tmp_path: Path) -> None:
    cell = nn.GRUCell(3, 3)

    def program(step: Step) -> None:
        hidden = torch.zeros(4, 3)
        step.record("hidden", hidden, role="initial")
        for _ in range(4):
            with step.iteration():
                hidden = cell(torch.randn(4, 3), hidden)
                step.record("hidden", hidden, role="new")
        loss = hidden.sum()
        step.record("loss", loss, type="loss")

    drawn = draw_iterations(program, tmp_path, {"cell": cell})
    later = drawing("hidden:new@1 -> cell; input.input ..> cell; cell -> hidden:new")
    assert drawn[0] == drawing("hidden:initial ..> cell; input.input ..> cell; cell -> hidden:new")
    assert drawn[1:3] == [later, later]
    assert drawn[3] == later | drawing("hidden:new -> loss")


def test_a_state_that_skips_an_iteration(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        states = []
        for number in range(3):
            with step.iteration():
                x = torch.randn(4, 3)
                step.record("x", x, type="input")
                states.append(x.tanh() if number < 2 else x + states[0] + states[1])
                step.record("state", states[-1])

    assert draw_iterations(program, tmp_path) == [
        drawing("x ..> state"),
        drawing("x ..> state"),
        drawing("x ..> state; state@2 ..> state; state@1 ..> state"),
    ]


def test_detached_carried_state(tmp_path: Path) -> None:
    weight = torch.randn(3, 3).requires_grad_()

    def program(step: Step) -> None:
        step.record("weight", weight, batch_dim=False)
        state = torch.zeros(4, 3)
        for _ in range(2):
            with step.iteration():
                state = (state.detach() @ weight).tanh()
                step.record("state", state)

    assert draw_iterations(program, tmp_path) == [
        drawing("weight -> state"),
        drawing("weight -> state; state@1 ..> state"),
    ]


@pytest.mark.supports("Steps", "gradient accumulation over micro-batches")
def test_gradient_accumulation(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 1))

    def program(step: Step) -> None:
        for _ in range(2):
            with step.iteration():
                model(torch.randn(4, 3)).mean().backward()

    one = drawing("input ..> model.0; model.0 -> model; model -> loss")
    assert draw_iterations(program, tmp_path, model) == [one, one]


def test_a_loss_over_all_iterations(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 1))

    def program(step: Step) -> None:
        total = torch.zeros(())
        for _ in range(3):
            with step.iteration():
                total = total + model(torch.randn(4, 3)).mean()
        total.backward()

    assert (
        draw_iterations(program, tmp_path, model) == [drawing("input ..> model.0; model.0 -> model; model -> loss")] * 3
    )


def test_inner_iterations_share_one_graph(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3))

    def program(step: Step) -> None:
        x = torch.randn(4, 3)
        for _ in range(5):
            with step.iteration():
                x = model(x)

    graphs = record_graphs(program, tmp_path, model)
    assert graphs[1] == graphs[2] == graphs[3]
    assert graphs[0] != graphs[1]


def test_a_tensor_of_the_whole_step_used_in_one_iteration(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        prior = torch.randn(4, 3)
        step.record("prior", prior)
        for number in range(2):
            with step.iteration():
                x = torch.randn(4, 3)
                step.record("x", x, type="input")
                step.record("y", x + prior if number == 1 else x * 2)

    assert draw_iterations(program, tmp_path) == [drawing("x ..> y"), drawing("x ..> y; prior ..> y")]


def test_what_no_iteration_uses_appears_in_each(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        step.record("alone", torch.randn(4, 3))
        for _ in range(2):
            with step.iteration():
                step.record("x", torch.randn(4, 3), type="input")

    assert draw_iterations(program, tmp_path) == [drawing("alone; x")] * 2


def test_a_name_for_what_an_earlier_iteration_made(tmp_path: Path) -> None:
    def program(step: Step) -> None:
        state = torch.zeros(4, 3)
        for _ in range(2):
            with step.iteration():
                step.record("before", state)
                state = state + 1
                step.record("answer", state * 2)
        step.record("last", state)

    assert draw_iterations(program, tmp_path) == [
        drawing("before ..> answer"),
        drawing("before@1 ..> before; before ..> answer; before ..> last"),
    ]


def test_calls_are_counted_in_each_iteration(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3))

    def program(step: Step) -> None:
        for _ in range(2):
            with step.iteration():
                model(model(torch.randn(4, 3)))

    one = drawing("""
        input ..> model.0:call 0
        model.0:call 0 -> model:call 0
        model:call 0 -> model.0:call 1
        model.0:call 1 -> model:call 1
    """)
    assert draw_iterations(program, tmp_path, model) == [one, one]
