"""Deep and wide graphs: no recursion, and work that grows in proportion to the size of the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stepscope.recorder import Every, Recorder, Step
from stepscope.store import open_trial
from support.drawing import draw
from support.effort import effort

Program = Callable[[Step, int], object]


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2


def leaf(step: Step) -> torch.Tensor:
    x = torch.ones(2, requires_grad=True)
    step.record("x", x)
    return x


def chain(step: Step, length: int) -> None:
    y = leaf(step)
    for _ in range(length):
        y = y * 1.0
    step.record("y", y)
    y.sum().backward()


def names(step: Step, count: int) -> None:
    y = leaf(step)
    for number in range(count):
        y = y * 1.0
        step.record(f"y{number}", y)
    y.sum().backward()


def names_behind_one_chain(step: Step, count: int) -> None:
    y = leaf(step)
    for _ in range(count):
        y = y * 1.0
    for number in range(count):
        step.record(f"y{number}", y + number)


def names_behind_a_recurrence(step: Step, count: int) -> None:
    """Two named tensors meet again and again before anything else gets a name."""
    x, weight = leaf(step), torch.ones(2, requires_grad=True)
    step.record("weight", weight)
    y = x
    for _ in range(count):
        y = (weight * y).tanh() + x
    for number in range(count):
        step.record(f"y{number}", y + number)


def sum_of_many(step: Step, count: int) -> None:
    total = leaf(step)
    for number in range(count):
        part = torch.ones(2, requires_grad=True) + number
        step.record(f"part{number}", part)
        total = total + part
    step.record("total", total)


def custom_functions(step: Step, length: int) -> None:
    y = leaf(step)
    for _ in range(length):
        y = Double.apply(y).sigmoid()
    step.record("y", y)


def changes_in_place(step: Step, length: int) -> None:
    y = leaf(step) * 1.0
    step.record("before", y)
    for _ in range(length):
        y.add_(1.0)
    step.record("after", y)


def names_and_changes_in_place(step: Step, count: int) -> None:
    x = leaf(step)
    for number in range(count):
        y = x * 2.0
        step.record(f"y{number}", y)
        (x * 3.0).add_(1.0)


def views_and_writes_to_their_base(step: Step, count: int) -> None:
    base = torch.zeros(count, 2)
    views = [base[number] for number in range(count)]
    for number, view in enumerate(views):
        step.record(f"view{number}", view)
    for number in range(count):
        base[number] = 1.0
    for number, view in enumerate(views):
        step.record(f"after{number}", view * 1.0)


def views_named_before_each_write(step: Step, count: int) -> None:
    base = torch.zeros(count, 2)
    for number in range(count):
        step.record(f"view{number}", base[number])
        base[number] = 1.0


def writes_through_views(step: Step, count: int) -> None:
    base = torch.zeros(count, 2)
    views = [base[number] for number in range(count)]
    for number, view in enumerate(views):
        view.add_(1.0)
        step.record(f"view{number}", view)
    step.record("base", base)


def iterations(step: Step, count: int) -> None:
    state = leaf(step)
    for _ in range(count):
        with step.iteration():
            state = state * 1.0
            step.record("state", state)
    state.sum().backward()


PROGRAMS: list[Program] = [
    chain, names, names_behind_one_chain, names_behind_a_recurrence, sum_of_many, custom_functions, changes_in_place,
    names_and_changes_in_place, views_and_writes_to_their_base, views_named_before_each_write,
    writes_through_views, iterations,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.supports("Size", "work in proportion to the size of the step, counted in executed bytecodes")
def test_work_grows_in_proportion(program: Program, tmp_path: Path) -> None:
    def record(size: int) -> None:
        with Recorder(tmp_path, trial=f"{size}", schedule=Every(1), strict=True) as recorder, recorder.step() as step:
            program(step, size)

    record(1)  # what is done once only
    nothing, small, large = (effort(lambda size=size: record(size)) for size in (2, 40, 160))
    assert large - nothing < 1.5 * 4 * (small - nothing)


@pytest.mark.supports("Size", "10,000 operations between two named tensors")
def test_ten_thousand_operations_between_two_names(tmp_path: Path) -> None:
    assert draw(lambda step: chain(step, 10_000), tmp_path) == {"x -> y", "y -> loss"}


def test_thousands_of_custom_functions_between_two_names(tmp_path: Path) -> None:
    assert draw(lambda step: custom_functions(step, 2_000), tmp_path) == {"x -> y"}


@pytest.mark.supports("Size", "5,000 named tensors in a step")
def test_five_thousand_names(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder, recorder.step() as step:
        names(step, 5_000)
    recorded = open_trial(tmp_path / "trial").step(0)
    assert len(recorded.rows(quantity="value")) == len(recorded.rows(quantity="gradient")) == 5_002
    graph = recorded.graph()
    assert sorted((edge.source, edge.sink) for edge in graph.edges) == [(n, n + 1) for n in range(5_001)]


def test_thousands_of_names_behind_one_chain(tmp_path: Path) -> None:
    assert draw(lambda step: names_behind_one_chain(step, 2_000), tmp_path) == {f"x -> y{n}" for n in range(2_000)}


def test_a_sum_of_many_names(tmp_path: Path) -> None:
    lines = draw(lambda step: sum_of_many(step, 2_000), tmp_path)
    assert lines == {"x -> total", *(f"part{number} -> total" for number in range(2_000))}
