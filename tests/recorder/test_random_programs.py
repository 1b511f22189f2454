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
    """A tensor, and its number among all tensors and their states after changes in place."""

    tensor: torch.Tensor
    number: int


@dataclass
class Model:
    """The naive model: every state of every tensor has a number, parents, and perhaps a name."""

    step: Step
    tensors: list[Modelled] = field(default_factory=list)
    parents: list[set[int]] = field(default_factory=list)
    passes: list[bool] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    values: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(self, program: list[Operation]) -> None:
        self.new(torch.rand(3, 2).requires_grad_())
        for operation, first, second in program:
            one, other = (self.tensors[index % len(self.tensors)] for index in (first, second))
            getattr(self, operation.replace(" ", "_"))(one, other)

    def new(self, tensor: torch.Tensor, *parents: Modelled) -> None:
        self.tensors.append(Modelled(tensor, self.state(tensor, {parent.number for parent in parents})))

    def state(self, tensor: torch.Tensor, parents: set[int]) -> int:
        self.parents.append(parents)
        self.passes.append(tensor.requires_grad)
        return len(self.parents) - 1

    def sources(self, number: int, *, gradient: bool = False) -> set[str]:
        """Names of the nearest named ancestors; those that a gradient reaches, if asked."""
        found = set()
        for parent in self.parents[number]:
            if not gradient or self.passes[parent]:
                found |= {self.names[parent]} if parent in self.names else self.sources(parent, gradient=gradient)
        return found

    def drawing(self) -> Drawing:
        drawn = set()
        for number, name in self.names.items():
            reached = self.sources(number, gradient=True) if self.passes[number] else set()
            drawn |= {f"{source} {'->' if source in reached else '..>'} {name}" for source in self.sources(number)}
        return drawn

    def leaf(self, one: Modelled, other: Modelled) -> None:
        self.new(torch.rand(3, 2).requires_grad_())

    def data(self, one: Modelled, other: Modelled) -> None:
        self.new(torch.rand(3, 2))

    def add(self, one: Modelled, other: Modelled) -> None:
        self.new(one.tensor + other.tensor, one, other)

    def multiply(self, one: Modelled, other: Modelled) -> None:
        self.new(torch.mul(one.tensor, other.tensor), one, other)

    def function(self, one: Modelled, other: Modelled) -> None:
        if one.number not in self.names:
            self.record(one, other)  # behind a custom function, only names of that moment are seen
        self.new(Triple.apply(one.tensor), one)

    def detach(self, one: Modelled, other: Modelled) -> None:
        self.new(one.tensor.detach() * 2, one)

    def no_grad(self, one: Modelled, other: Modelled) -> None:
        with torch.no_grad():
            self.new(one.tensor - other.tensor, one, other)

    def add_in_place(self, one: Modelled, other: Modelled) -> None:
        if one.tensor.is_leaf:
            return
        one.tensor.add_(other.tensor)
        one.number = self.state(one.tensor, {one.number, other.number})

    def record(self, one: Modelled, other: Modelled) -> None:
        if one.tensor.is_leaf and one.number in self.names:
            return  # autograd does not tell under which of its names a leaf went into a custom function
        name = f"n{len(self.values)}"
        self.step.record(name, one.tensor)
        self.values[name] = one.tensor.detach().clone()
        if one.number in self.names:
            one.number = self.state(one.tensor, {one.number})
        self.names[one.number] = name


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
        assert {line for line in text_of(graph, weights=True) if ">" in line} == models[0].drawing()
        for name, value in models[0].values.items():
            check_value(step.tensor(name), value)


def check_value(found: Tensor, value: torch.Tensor) -> None:
    wide = value.double()
    assert found.statistics["mean"] == pytest.approx(float(wide.mean()), rel=1e-5, abs=1e-6)
    assert found.statistics["max"] == pytest.approx(float(wide.max()), rel=1e-6)
    assert found.neurons is not None
    assert found.neurons.samples.tolist() == value.tolist()
