"""Modules on the short way are recorded just as on the long one, and only where nobody could tell the difference."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from stepscope.recorder import Recorder, Step, leaf_calls
from stepscope.recorder.known_modules import _OPERATIONS
from stepscope.store import Trial, open_trial

TORCHS = nn.Module._call_impl
MAKERS: dict[type[nn.Module], tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    nn.Linear: (lambda: nn.Linear(6, 4), (8, 6)),
    nn.Embedding: (lambda: nn.Embedding(10, 4), (8, 3)),
    nn.LayerNorm: (lambda: nn.LayerNorm(6), (8, 6)),
    nn.GroupNorm: (lambda: nn.GroupNorm(2, 6), (8, 6, 5)),
    nn.Conv1d: (lambda: nn.Conv1d(3, 2, 3), (8, 3, 7)),
    nn.Conv2d: (lambda: nn.Conv2d(3, 2, 3, padding="same"), (8, 3, 7, 7)),
    nn.Conv3d: (lambda: nn.Conv3d(3, 2, 3, bias=False), (8, 3, 5, 5, 5)),
}


class Model(nn.Module):
    """A module with torch calls around it."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.part, nn.Embedding):
            x = x * self.scale
        return self.part(x) * self.scale


def make(kind: type[nn.Module]) -> tuple[nn.Module, torch.Tensor]:
    maker, shape = MAKERS.get(kind, (kind, (8, 6)))
    torch.manual_seed(0)
    x = torch.randint(10, shape) if kind is nn.Embedding else torch.randn(shape)
    return maker(), x


def record(part: nn.Module, x: torch.Tensor, folder: Path) -> Trial:
    model = Model(part)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(step: Step) -> None:
        model(x).square().sum().backward()
        optimizer.step()

    return recorded(loss, model, folder)


def recorded(program: Callable[[Step], object], model: nn.Module, folder: Path) -> Trial:
    with Recorder(folder, trial="trial", schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with recorder.step() as step:
            program(step)
    assert nn.Module._call_impl is TORCHS
    return open_trial(folder / "trial")


def assert_same(one: Trial, other: Trial) -> None:
    assert one.step(0).graph() == other.step(0).graph()
    assert [(row.info, row.shape, row.strides) for row in one.step(0).rows()] == [
        (row.info, row.shape, row.strides) for row in other.step(0).rows()
    ]
    np.testing.assert_array_equal(one.step(0).statistics(), other.step(0).statistics())
    for name in (node.name for node in one.nodes):
        assert one.node(name).operation == other.node(name).operation
        assert one.node(name).source == other.node(name).source


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that went the short way."""
    taken: list[str] = []
    find = leaf_calls.LeafCalls.leaf

    def counted(self: leaf_calls.LeafCalls, module: nn.Module, given: object) -> leaf_calls.Leaf | None:
        leaf = find(self, module, given)
        if leaf is not None:
            taken.append(leaf.operation)
        return leaf

    monkeypatch.setattr(leaf_calls.LeafCalls, "leaf", counted)
    return taken


@pytest.mark.parametrize("kind", _OPERATIONS, ids=lambda kind: kind.__name__)
def test_both_ways_give_the_same(
    kind: type[nn.Module], short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, x = make(kind)
    untouched = copy.deepcopy(part)
    quick = record(part, x, tmp_path / "short")
    assert short == [_OPERATIONS[kind]]
    monkeypatch.setattr(leaf_calls, "_IS_TORCHS", False)
    long = record(untouched, x, tmp_path / "long")
    assert short == [_OPERATIONS[kind]]
    assert_same(quick, long)
    for one, other in zip(part.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(one, other)


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def with_hook() -> nn.Module:
    part = nn.Linear(6, 6)
    part.register_forward_hook(lambda module, args, output: 2 * output)
    return part


def with_pre_hook() -> nn.Module:
    part = nn.Linear(6, 6)
    part.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    return part


def with_backward_hook() -> nn.Module:
    part = nn.Linear(6, 6)
    part.register_full_backward_hook(lambda module, given, gradients: None)
    return part


def with_a_forward_of_its_own() -> nn.Module:
    part = nn.Linear(6, 6)
    part.forward = lambda x: 2 * x  # type: ignore[method-assign]
    return part


STRANGE: dict[str, Callable[[], nn.Module]] = {
    "a subclass": lambda: Doubled(6, 6),
    "a forward hook": with_hook,
    "a hook before it": with_pre_hook,
    "a backward hook": with_backward_hook,
    "its own forward": with_a_forward_of_its_own,
    "in place": lambda: nn.ReLU(inplace=True),
    "parametrized": lambda: parametrizations.weight_norm(nn.Linear(6, 6)),
    "with a spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(6, 6)),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_as_known_goes_the_long_way(name: str, short: list[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    record(STRANGE[name](), torch.randn(8, 6), tmp_path)
    assert short == []


def test_of_a_change_within_the_step(short: list[str], tmp_path: Path) -> None:
    model, x = Model(nn.Linear(6, 6)), torch.randn(8, 6)
    part = model.part

    def program(step: Step) -> None:
        model(x)
        parametrizations.weight_norm(part)
        model(x)
        part.register_forward_hook(lambda module, args, output: None)
        model(x)

    recorded(program, model, tmp_path)
    assert short == ["linear"]


def test_weights_that_stand_in_for_others(short: list[str], tmp_path: Path) -> None:
    model, x = Model(nn.Linear(6, 6)), torch.randn(8, 6)
    others = {name: 2 * value.detach() for name, value in model.named_parameters()}

    def program(step: Step) -> None:
        torch.func.functional_call(model, others, (x,))

    recorded(program, model, tmp_path)
    assert short == []


def test_everything_is_put_back_after_an_error(tmp_path: Path) -> None:
    model = Model(nn.Linear(6, 6))
    with Recorder(tmp_path, schedule=1, strict=True) as recorder:
        recorder.watch(model)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), recorder.step():
            model(torch.randn(8, 5))
        assert nn.Module._call_impl is TORCHS
        assert torch._C._len_torch_function_stack() == 0
        with recorder.step():
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                model(torch.randn(8, 5))
            y = model(torch.randn(8, 6)).relu()
            recorder.current.record("y", y)
    graph = open_trial(recorder.path).step(1).graph()
    assert {graph.vertices[edge.source].node for edge in graph.edges if graph.vertices[edge.sink].node == "y"} == {
        "model"
    }


def test_models_are_copied_and_pickled_within_a_step(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())

    def program(step: Step) -> None:
        x = torch.randn(8, 6)
        expected = model(x)
        assert torch.equal(copy.deepcopy(model)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)

    recorded(program, model, tmp_path)


def test_two_recorders_at_once_take_the_long_way(short: list[str], tmp_path: Path) -> None:
    model, x = Model(nn.Linear(6, 6)), torch.randn(8, 6)
    with Recorder(tmp_path / "a", trial="a", schedule=1) as one, Recorder(tmp_path / "b", trial="b", schedule=1) as two:
        one.watch(model)
        two.watch(model)
        with one.step(), two.step():
            model(x)
        assert nn.Module._call_impl is TORCHS
        assert short == []
        with two.step():
            model(x)
    assert short == ["linear"]
    trial = open_trial(two.path)
    assert len(trial.step(0).graph().edges) == len(trial.step(1).graph().edges)
    np.testing.assert_array_equal(trial.step(0).statistics(), trial.step(1).statistics())


def test_another_thread_takes_the_long_way(short: list[str], tmp_path: Path) -> None:
    model, x = Model(nn.Linear(6, 6)), torch.randn(8, 6)
    answers: list[torch.Tensor] = []

    def program(step: Step) -> None:
        thread = threading.Thread(target=lambda: answers.append(model.part(x)))
        thread.start()
        thread.join()

    recorded(program, model, tmp_path)
    assert short == []
    assert torch.equal(answers[0], model.part(x))


def test_somebody_elses_way_of_calling_stays(short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Model(nn.Linear(6, 6)), torch.randn(8, 6)
    called: list[nn.Module] = []

    def theirs(self: nn.Module, *args: object, **kwargs: object) -> object:
        called.append(self)
        return TORCHS(self, *args, **kwargs)

    with monkeypatch.context() as patch, Recorder(tmp_path, schedule=1) as recorder:
        patch.setattr(nn.Module, "_call_impl", theirs)
        recorder.watch(model)
        with recorder.step():
            model(x)
        assert nn.Module._call_impl is theirs
    assert short == []
    assert called == [model, model.part]
