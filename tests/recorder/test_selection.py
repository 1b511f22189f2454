"""Recording a part of a model: what is chosen, what is said of the rest, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Every, Recorder, SelectionError
from stepscope.store import Trial, open_trial


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.attn(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embed(x)))


def record(folder: Path, model: Any = None, **selection: Any) -> Trial:
    model = model or Net()
    parameters = [p for part in (model.values() if isinstance(model, dict) else [model]) for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters)
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True, if_exists="overwrite") as recorder:
        recorder.watch(model, optimizer, **selection)
        for _ in range(2):
            with recorder.step():
                x = torch.randn(5, 3)
                for part in model.values() if isinstance(model, dict) else [model]:
                    part(x).square().mean().backward()
                optimizer.step()
    return open_trial(folder / "trial")


def chosen(trial: Trial, *types: str) -> set[str]:
    return {node.name.removeprefix("model.") for node in trial.nodes if node.type in (types or ("calculated",))}


BLOCKS = {f"blocks.{number}{part}" for number in (0, 1) for part in ("", ".attn", ".norm")}
NORMS, ATTENTIONS = {"blocks.0.norm", "blocks.1.norm"}, {"blocks.0.attn", "blocks.1.attn"}
CHOICES: list[tuple[dict[str, Any], set[str], int]] = [
    ({"include": "model.blocks.*.attn"}, ATTENTIONS, 4),
    ({"include": ["model.head", "model.embed"]}, {"head", "embed"}, 4),
    ({"include": "*.weight"}, set(), 6),
    ({"include": re.compile(r"blocks\.1\b")}, {name for name in BLOCKS if "1" in name}, 4),
    ({"exclude": "model.blocks*"}, {"model", "embed", "head"}, 4),
    ({"exclude": ["model.blocks.?", "*.bias"]}, {"model", "embed", "blocks", "head", *ATTENTIONS, *NORMS}, 6),
    ({"include": "model.blocks.*", "exclude": re.compile("norm")}, BLOCKS - NORMS, 4),
    ({"depth": 0}, {"model"}, 0),
    ({"depth": 1}, {"model", "embed", "blocks", "head"}, 4),
    ({"types": nn.LayerNorm}, NORMS, 4),
    ({"types": (nn.Linear, nn.LayerNorm), "depth": 1}, {"embed", "head"}, 4),
]


@pytest.mark.parametrize(
    ("selection", "modules", "parameters"),
    CHOICES,
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
@pytest.mark.supports(
    "Selection", "`watch(include=, exclude=, depth=, types=)`: globs, regular expressions, depth, classes"
)
def test_what_is_chosen(selection: dict[str, Any], modules: set[str], parameters: int, tmp_path: Path) -> None:
    trial = record(tmp_path, **selection)
    assert chosen(trial) == modules
    assert len(chosen(trial, "parameter")) == parameters
    assert chosen(trial, "input", "loss") == {"input", "loss"}


def test_patterns_of_parameters_alone(tmp_path: Path) -> None:
    trial = record(tmp_path, exclude=["model.embed.weight", re.compile(r"norm\.(weight|bias)$")])
    assert chosen(trial, "parameter") == {
        "embed.bias", "blocks.0.attn.weight", "blocks.0.attn.bias", "blocks.1.attn.weight", "blocks.1.attn.bias",
        "head.weight", "head.bias",
    }  # fmt: skip
    assert "blocks.0.norm" in chosen(trial)


def test_nothing_of_what_is_left_out_is_measured(tmp_path: Path) -> None:
    trial = record(tmp_path, include="model.head")
    rows = {(row.info.node, row.info.quantity) for row in trial.step(1).rows()}
    assert {node for node, _ in rows} == {"model.head", "model.head.weight", "model.head.bias", "input", "loss"}
    assert {quantity for node, quantity in rows if node == "model.head.weight"} >= {"value", "gradient", "update"}


@pytest.mark.supports("Selection", "edges pass through what is left out")
def test_edges_pass_through_what_is_left_out(tmp_path: Path) -> None:
    graph = record(tmp_path, include="model.head", exclude="*.bias").step(0).graph()
    names = [vertex.node for vertex in graph.vertices]
    edges = {(names[edge.source], names[edge.sink], edge.differentiable) for edge in graph.edges}
    assert edges == {
        ("input", "model.head", False), ("model.head.weight", "model.head", True), ("model.head", "loss", True)
    }  # fmt: skip


@pytest.mark.supports("Selection", "what is left out is said in the recording, and marked in the table of modules")
def test_the_recording_says_what_is_left_out(tmp_path: Path) -> None:
    trial = record(tmp_path, exclude=["model.blocks.*", re.compile("head")], depth=2)
    assert [text for _, text in trial.messages] == [
        "model: watch(exclude='model.blocks.*', exclude=re.compile('head'), depth=2) leaves out 7 of 10 modules and "
        "10 of 12 parameters and buffers"
    ]
    assert len(trial.network) == 10


@pytest.mark.supports("Selection", "what is left out is said in the recording, and marked in the table of modules")
def test_what_is_left_out_is_no_finding(tmp_path: Path) -> None:
    trial = record(tmp_path, include="model.head")
    assert {module.path for module in trial.network if module.recorded} == {"model.head"}
    assert diagnose(trial, rules=["module-never-called", "no-gradient", "unchanged-parameters"]) == ()


def test_nothing_is_said_without_a_selection(tmp_path: Path) -> None:
    assert record(tmp_path).messages == ()


def test_what_joins_the_model_later_is_selected_too(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, types=nn.Linear)
        for _ in range(2):
            with recorder.step():
                model(torch.randn(3, 2))
            model.extend([nn.Linear(2, 2), nn.ReLU()])
    trial = open_trial(tmp_path / "trial")
    assert chosen(trial) == {"0", "2"}
    assert [text.partition("leaves out ")[2] for _, text in trial.messages] == [
        "2 of 3 modules and 0 of 2 parameters and buffers",
        "3 of 5 modules and 0 of 4 parameters and buffers",
    ]


def test_each_model_has_its_own_selection(tmp_path: Path) -> None:
    one, two = nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"one": one}, depth=0)
        recorder.watch({"two": two})
        with recorder.step():
            two(one(torch.randn(3, 2)))
    assert chosen(open_trial(tmp_path / "trial")) == {"one", "two", "two.0", "two.1"}


def test_tied_parameters_are_chosen_by_any_of_their_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    trial = record(tmp_path, model, include="model.1.weight")
    assert chosen(trial, "parameter") == {"0.weight"}


def test_training_is_the_same(tmp_path: Path) -> None:
    def trained(folder: Path, **selection: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = Net()
        record(folder, model, **selection)
        return list(model.parameters())

    everything = trained(tmp_path / "all")
    part = trained(tmp_path / "part", include="model.blocks.*", exclude="*.norm")
    assert all(torch.equal(one, other) for one, other in zip(everything, part, strict=True))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            {"include": "model.block.0"},
            r"include='model.block.0' fits nothing in the models; there is .*model.blocks.0",
        ),
        ({"exclude": ["model.head", "model.heed"]}, r"exclude='model.heed' fits nothing in the models; .*model.head"),
        ({"include": re.compile("^head")}, r"include=re.compile\('\^head'\) fits nothing"),
        ({"types": nn.Conv2d}, r"types=Conv2d: no module is one; there is Block, LayerNorm, Linear, Net, Sequential"),
        ({"include": "model.head", "exclude": "model.head"}, r"together these leave nothing"),
        ({"depth": -1}, r"depth=-1: expected a whole number, 0 \(the model itself\) or more"),
        ({"depth": True}, r"depth=True: expected a whole number"),
        ({"types": "Linear"}, r"types: 'Linear' is no class of modules"),
        ({"types": [int]}, r"types: <class 'int'> is no class of modules"),
        ({"include": 3}, r"include=3: expected a glob"),
        ({"include": [b"model"]}, r"include: b'model' is no pattern; expected a glob"),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_meant_is_refused(selection: dict[str, Any], message: str, strict: bool, tmp_path: Path) -> None:
    with (
        Recorder(tmp_path, trial="trial", strict=strict) as recorder,
        pytest.raises(SelectionError, match=message),
    ):
        recorder.watch(Net(), **selection)


def test_a_selection_needs_a_model(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(Net().parameters())
    with Recorder(tmp_path, trial="trial") as recorder, pytest.raises(SelectionError, match="there is no model"):
        recorder.watch(None, optimizer, depth=1)


def test_a_refused_selection_leaves_nothing_watched(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder:
        with pytest.raises(SelectionError):
            recorder.watch(Net(), depth=-1)
        with recorder.step():
            pass
    assert open_trial(tmp_path / "trial").network == ()
