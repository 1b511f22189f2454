"""Random programs: their graphs equal those of a naive model, their values those of the moment of recording."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepscope.recorder import Step
from stepscope.store import Tensor, open_trial
from support.drawing import Drawing, record_graphs, text_of

Operation = tuple[str, int, int]
OPERATIONS = ["leaf", "data", "add", "multiply", "detach", "no grad", "add in place", "record", "record", "function"]
programs = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 99), st.integers(0, 99)), max_size=40)


class Triple(torch.autograd.Function):
    """Hides its computation from autograd."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 3

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 3


@dataclass
class Modelled:
    """A tensor with the names that it comes from, and those of them that its gradient reaches."""

    tensor: torch.Tensor
    sources: frozenset[str] = frozenset()
    reached: frozenset[str] = frozenset()


@dataclass
class Model:
    """The naive model: every tensor knows its nearest named ancestors at all times."""

    step: Step
    tensors: list[Modelled] = field(default_factory=list)
    drawing: Drawing = field(default_factory=set)
    values: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(self, program: list[Operation]) -> None:
        self.new(torch.rand(3, 2).requires_grad_())
        for operation, first, second in program:
            one, other = (self.tensors[index % len(self.tensors)] for index in (first, second))
            getattr(self, operation.replace(" ", "_"))(one, other)

    def new(self, tensor: torch.Tensor, *parents: Modelled, gradient: bool = True) -> None:
        sources = frozenset().union(*(parent.sources for parent in parents))
        reached = frozenset().union(*(parent.reached for parent in parents)) if gradient else frozenset()
        self.tensors.append(Modelled(tensor, sources, reached))

    def leaf(self, one: Modelled, other: Modelled) -> None:
        self.new(torch.rand(3, 2).requires_grad_())

    def data(self, one: Modelled, other: Modelled) -> None:
        self.new(torch.rand(3, 2))

    def add(self, one: Modelled, other: Modelled) -> None:
        self.new(one.tensor + other.tensor, one, other)

    def multiply(self, one: Modelled, other: Modelled) -> None:
        self.new(torch.mul(one.tensor, other.tensor), one, other)

    def function(self, one: Modelled, other: Modelled) -> None:
        self.new(Triple.apply(one.tensor), one)

    def detach(self, one: Modelled, other: Modelled) -> None:
        self.new(one.tensor.detach() * 2, one, gradient=False)

    def no_grad(self, one: Modelled, other: Modelled) -> None:
        with torch.no_grad():
            self.new(one.tensor - other.tensor, one, other, gradient=False)

    def add_in_place(self, one: Modelled, other: Modelled) -> None:
        if one.tensor.is_leaf:
            return
        one.tensor.add_(other.tensor)
        one.sources, one.reached = one.sources | other.sources, one.reached | other.reached

    def record(self, one: Modelled, other: Modelled) -> None:
        name = f"n{len(self.values)}"
        self.step.record(name, one.tensor)
        self.values[name] = one.tensor.detach().clone()
        edges = {f"{source} {'->' if source in one.reached else '..>'} {name}" for source in one.sources}
        self.drawing |= edges
        one.sources = frozenset([name])
        one.reached = one.sources if one.tensor.requires_grad else frozenset()


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(programs)
@pytest.mark.supports("Graph", "random programs, against a graph that is computed by other means")
def test_graphs_and_values(program: list[Operation]) -> None:
    models: list[Model] = []

    def run(step: Step) -> None:
        models.append(Model(step))
        models[0].run(program)

    with tempfile.TemporaryDirectory() as folder:
        (graph,) = record_graphs(run, Path(folder))
        step = open_trial(Path(folder) / "program").step(0)
        assert {line for line in text_of(graph, weights=True) if ">" in line} == models[0].drawing
        for name, value in models[0].values.items():
            check_value(step.tensor(name), value)


def check_value(found: Tensor, value: torch.Tensor) -> None:
    wide = value.double()
    assert found.statistics["mean"] == pytest.approx(float(wide.mean()), rel=1e-5, abs=1e-6)
    assert found.statistics["max"] == pytest.approx(float(wide.max()), rel=1e-6)
    assert found.neurons is not None
    assert found.neurons.samples.tolist() == value.tolist()
