"""Recorded steps run uncompiled; the compiled steps around them neither recompile nor leave the compiled code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters

from stepscope.recorder import Every, Recorder, Steps
from stepscope.store import open_trial

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


class Backend:
    """Compiles to the graph as it is, and counts how often it compiles and how often its code runs."""

    def __init__(self) -> None:
        self.compiled = 0
        self.called = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*arguments: Any) -> Any:
            self.called += 1
            return graph.forward(*arguments)

        return run


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def train(model: nn.Module, called: nn.Module, recorder: Recorder, steps: int, backend: Backend) -> list[int]:
    """How often compiled code ran, after each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder.watch(called, optimizer)
    found = []
    for _ in range(steps):
        with recorder.step():
            optimizer.zero_grad()
            F.mse_loss(called(torch.ones(8, 4)), torch.zeros(8, 2)).backward()
            optimizer.step()
        found.append(backend.called)
    return found


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.supports(
    "Compilation",
    "`torch.compile`, `fullgraph` too: recorded steps run uncompiled, the others neither recompile nor change",
)
def test_one_graph_for_all_steps(fullgraph: bool, tmp_path: Path) -> None:
    model, backend = net(), Backend()
    compiled = torch.compile(model, backend=backend, fullgraph=fullgraph)
    with Recorder(tmp_path, trial="trial", schedule=Steps({3, 6, 7}), strict=True) as recorder:
        calls = train(model, compiled, recorder, 10, backend)
    assert backend.compiled == 1
    assert calls == [1, 2, 3, 3, 4, 5, 5, 5, 6, 7]
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    trial = open_trial(tmp_path / "trial")
    assert trial.steps.tolist() == [3, 6, 7]
    for name in ("model.0", "model.1", "model.2", "model"):
        assert {"value", "gradient"} <= set(trial.node(name).quantities)


def test_recording_from_the_first_step(tmp_path: Path) -> None:
    model, backend = net(), Backend()
    compiled = torch.compile(model, backend=backend)
    with Recorder(tmp_path, trial="trial", schedule=Every(3), strict=True) as recorder:
        calls = train(model, compiled, recorder, 6, backend)
    assert (backend.compiled, calls) == (1, [0, 1, 2, 2, 3, 4])


@pytest.mark.supports("Compilation", "`model.compile()` in place")
def test_a_model_compiled_in_place(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    model, backend = Wrapped(), Backend()
    model.compile(backend=backend)
    with Recorder(tmp_path, trial="trial", schedule=Steps({2}), strict=True) as recorder:
        calls = train(model, model, recorder, 5, backend)
    assert (backend.compiled, calls) == (1, [1, 2, 2, 3, 4])
    assert "model.net.1" in {node.name for node in open_trial(tmp_path / "trial").nodes}


@pytest.mark.supports("Compilation", "compiled functions around a model")
def test_a_compiled_function_around_the_model(tmp_path: Path) -> None:
    model, backend = net(), Backend()
    loss_of = torch.compile(lambda x: model(x).square().mean(), backend=backend)
    with Recorder(tmp_path, trial="trial", schedule=Steps({1}), strict=True) as recorder:
        recorder.watch(model)
        for _ in range(3):
            with recorder.step():
                loss_of(torch.ones(8, 4)).backward()
    assert (backend.compiled, backend.called) == (1, 2)
    step = open_trial(tmp_path / "trial").step(1)
    assert step.tensor("loss").statistics["mean"] > 0
    assert step.tensor("model.0", quantity="gradient").shape == (8, 8)


def test_training_is_the_same(tmp_path: Path) -> None:
    def weights(schedule: Steps | Every, folder: Path) -> list[torch.Tensor]:
        model = net()
        with Recorder(folder, schedule=schedule, strict=True) as recorder:
            train(model, torch.compile(model, backend="eager"), recorder, 5, Backend())
        return list(model.parameters())

    for one, other in zip(weights(Steps(()), tmp_path / "a"), weights(Every(2), tmp_path / "b"), strict=True):
        assert torch.equal(one, other)
