"""Whatever a module returns is recorded, each tensor in a role that says where it was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from stepscope.recorder import Recorder
from stepscope.recorder.outputs import MOST_TENSORS
from stepscope.store import Trial, open_trial

Output = Callable[[torch.Tensor], Any]


@dataclass
class Answer:
    logits: torch.Tensor
    loss: torch.Tensor | None = None
    name: str = "answer"


class Pair(NamedTuple):
    first: torch.Tensor
    second: int


class Model(nn.Module):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> Any:
        return self.output(x * self.scale)


def record(output: Output, folder: Path) -> Trial:
    model = Model(output)
    with Recorder(folder, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(torch.ones(3, 2))
    return open_trial(folder / "trial")


OUTPUTS: dict[str, tuple[Output, set[str]]] = {
    "tensor": (lambda x: x, {"output"}),
    "tuple": (lambda x: (x, x + 1), {"output.0", "output.1"}),
    "list": (lambda x: [x, None, 3, x + 1], {"output.0", "output.3"}),
    "dict": (lambda x: {"a": x, 7: x + 1}, {"output.a", "output.7"}),
    "ordered dict": (lambda x: OrderedDict(a=x), {"output.a"}),
    "named tuple": (lambda x: Pair(x, 1), {"output.first"}),
    "dataclass": (Answer, {"output.logits"}),
    "dataclass with two": (lambda x: Answer(x, x.sum()), {"output.logits", "output.loss"}),
    "nested": (
        lambda x: {"layers": [(x, {"memory": x + 1})], "answer": Answer(x + 2)},
        {"output.layers.0.0", "output.layers.0.1.memory", "output.answer.logits"},
    ),
    "distribution": (lambda x: torch.distributions.Normal(x, 1.0), set()),
    "nothing": (lambda x: None, set()),
    "text": (lambda x: "text", set()),
    "number": (lambda x: float(x.detach().sum()), set()),
    "empty list": (lambda x: [], set()),
    "single number": (lambda x: x.sum(), {"output"}),
    "no elements": (lambda x: x[:0], {"output"}),
    "truth values": (lambda x: x > 0, {"output"}),
    "whole numbers": (lambda x: x.argmax(1), {"output"}),
    "complex": (lambda x: torch.fft.fft(x), {"output"}),
    "half": (lambda x: x.half(), {"output"}),
    "bfloat16": (lambda x: x.bfloat16(), {"output"}),
    "double": (lambda x: x.double(), {"output"}),
    "sparse": (lambda x: x.to_sparse(), {"output"}),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.supports(
    "Modules and outputs",
    "tuples, lists, dicts, named tuples, dataclasses, nested in each other; None and other values beside tensors",
)
def test_roles_of_outputs(name: str, tmp_path: Path) -> None:
    output, roles = OUTPUTS[name]
    trial = record(output, tmp_path)
    found = {row.info.role for row in trial.step(0).rows(quantity="value") if row.info.node == "model"}
    assert found == roles
    assert trial.messages == ()


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("single number", "float32", ()),
        ("no elements", "float32", (0, 2)),
        ("truth values", "bool", (3, 2)),
        ("whole numbers", "int64", (3,)),
        ("complex", "complex64", (3, 2)),
        ("half", "float16", (3, 2)),
        ("bfloat16", "bfloat16", (3, 2)),
        ("double", "float64", (3, 2)),
        ("sparse", "float32", (3, 2)),
    ],
)
def test_kinds_of_outputs(name: str, dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = record(OUTPUTS[name][0], tmp_path).step(0).tensor("model")
    assert (tensor.info.dtype, tensor.shape) == (dtype, shape)
    if tensor.shape != (0, 2):
        expected = {"single number": 6.0, "whole numbers": 0.0, "complex": 1.0}.get(name, 1.0)
        assert tensor.statistics["mean"] == pytest.approx(expected)


def test_many_tensors(tmp_path: Path) -> None:
    trial = record(lambda x: [x + number for number in range(200)], tmp_path)
    assert trial.step(0).tensor("model", role="output.199").statistics["mean"] == pytest.approx(200.0)


@pytest.mark.supports("Modules and outputs", "outputs of many tensors", limit="the first 1,024; the recording says so")
def test_too_many_tensors_are_told_of(tmp_path: Path) -> None:
    trial = record(lambda x: [x + number for number in range(MOST_TENSORS + 5)], tmp_path)
    assert len([row for row in trial.step(0).rows() if row.info.node == "model"]) == MOST_TENSORS
    assert [text for _, text in trial.messages] == ["of what model returns, only the first 1024 tensors are recorded"]


@pytest.mark.supports("Modules and outputs", "one tensor as two arguments")
def test_one_tensor_in_two_arguments_has_its_first_name(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    model, x = Sum(), torch.ones(3, 2)
    with Recorder(tmp_path, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with recorder.step():
            model(x, b=x)
    graph = open_trial(tmp_path / "trial").step(0).graph()
    assert [vertex.node for vertex in graph.vertices] == ["input.a", "model"]
    assert [(edge.source, edge.sink) for edge in graph.edges] == [(0, 1)]
