"""Graphs of watched models: every module's output is a node, whatever shape the output has."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Step
from support.drawing import Program, draw, drawing, record_graphs

X = torch.randn(4, 3)


def call(model: nn.Module, *arguments: torch.Tensor) -> Program:
    """A program that only calls a model."""

    def program(step: Step) -> None:
        model(*(arguments or (X,)))

    return program


def test_sequential_with_its_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert draw(call(model), tmp_path, model, weights=True) == drawing("""
        input ..> model.0
        model.0.weight -> model.0
        model.0.bias -> model.0
        model.0 -> model.1
        model.1 -> model
    """)


def test_functional_operations_in_forward(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.second(F.gelu(self.first(x)))

    model = Model()
    assert draw(call(model), tmp_path, model) == drawing("""
        input ..> model.first
        model.first -> model.second
        model.second -> model
        input ..> model
    """)


@pytest.mark.supports("Modules and outputs", "a module that is called several times (`call 0`, `call 1`)")
def test_a_module_called_twice(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x).tanh())

    model = Model()
    assert draw(call(model), tmp_path, model, weights=True) == drawing("""
        input ..> model.layer:call 0
        model.layer.weight -> model.layer:call 0
        model.layer.bias -> model.layer:call 0
        model.layer:call 0 -> model.layer:call 1
        model.layer.weight -> model.layer:call 1
        model.layer.bias -> model.layer:call 1
        model.layer:call 1 -> model
    """)


def test_a_model_called_twice(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))

    def program(step: Step) -> None:
        step.record("distance", F.pairwise_distance(model(torch.randn(4, 3)), model(torch.randn(4, 3))))

    assert draw(program, tmp_path, model) == drawing("""
        input:call 0 ..> model.0:call 0
        model.0:call 0 -> model:call 0
        input:call 1 ..> model.0:call 1
        model.0:call 1 -> model:call 1
        model:call 0 -> distance
        model:call 1 -> distance
    """)


@pytest.mark.supports("Modules and outputs", "a module that is never called")
def test_a_module_that_is_never_called(tmp_path: Path) -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 3, bias=False), "unused": nn.Linear(3, 3, bias=False)})

    def program(step: Step) -> None:
        step.record("y", model["used"](X))

    assert draw(program, tmp_path, model, weights=True) == drawing("""
        model.used.weight -> model.used
        input ..> model.used
        model.used -> y
        model.unused.weight
    """)


@pytest.mark.supports("Modules and outputs", "one module under two names")
def test_one_module_under_two_names(tmp_path: Path) -> None:
    shared = nn.Linear(3, 3, bias=False)
    model = nn.Sequential(OrderedDict(first=shared, second=shared))
    assert draw(call(model), tmp_path, model, weights=True) == drawing("""
        input ..> model.first:call 0
        model.first.weight -> model.first:call 0
        model.first:call 0 -> model.first:call 1
        model.first.weight -> model.first:call 1
        model.first:call 1 -> model
    """)


@pytest.mark.supports("Parameters", "tied and shared parameters: one node, all names")
def test_tied_parameters(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 3)
            self.head = nn.Linear(3, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(tokens))

    model = Model()
    assert draw(call(model, torch.randint(7, (4, 2))), tmp_path, model, weights=True) == drawing("""
        input ..> model.embed
        model.embed.weight -> model.embed
        model.embed -> model.head
        model.embed.weight -> model.head
        model.head -> model
    """)


def test_tuple_outputs(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            return x.sin(), [x.cos(), x.tan()]

    model = Model()
    assert draw(call(model), tmp_path, model) == drawing("""
        input ..> model:output.0; input ..> model:output.1.0; input ..> model:output.1.1
    """)


def test_dict_outputs(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor | None]:
            return {"mean": x.mean(1), "spread": x.std(1), "nothing": None}

    model = Model()
    assert draw(call(model), tmp_path, model) == drawing("input ..> model:output.mean; input ..> model:output.spread")


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


def test_dataclass_and_named_tuple_outputs(tmp_path: Path) -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> Pair:
            return Pair(x + 1, x + 2)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: torch.Tensor) -> Answer:
            pair = self.inner(x)
            return Answer(pair.left * pair.right)

    model = Model()
    assert draw(call(model), tmp_path, model) == drawing("""
        input ..> model.inner:output.left
        input ..> model.inner:output.right
        model.inner:output.left ..> model:output.logits
        model.inner:output.right ..> model:output.logits
    """)


@pytest.mark.supports("Modules and outputs", "several and keyword inputs")
def test_several_and_keyword_inputs(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor, *, mask: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return x * mask * scale

    model = Model()

    def program(step: Step) -> None:
        model(X, mask=torch.ones(4, 3), scale=2.0)

    assert draw(program, tmp_path, model) == drawing("input.x ..> model; input.mask ..> model")


@pytest.mark.supports("Modules and outputs", "inputs in containers")
def test_inputs_in_a_dict(tmp_path: Path) -> None:
    class Model(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return batch["a"] + batch["b"]

    model = Model()

    def program(step: Step) -> None:
        model({"a": torch.ones(4, 3), "b": torch.ones(4, 3)})

    assert draw(program, tmp_path, model) == drawing("input.batch.a ..> model; input.batch.b ..> model")


def test_a_module_that_returns_its_input(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Identity())
    assert draw(call(model), tmp_path, model) == drawing("""
        input ..> model.0; model.0 -> model.1; model.1 -> model
    """)


@pytest.mark.supports("Graph", "in-place activations after a layer")
def test_in_place_relu_after_a_layer(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    assert draw(call(model), tmp_path, model) == drawing("""
        input ..> model.0; model.0 -> model.1; model.1 -> model.2; model.2 -> model
    """)


@pytest.mark.supports("Parameters", "buffers that a module writes to")
def test_batch_norm_reads_and_writes_its_buffers(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False))
    drawn = draw(call(model), tmp_path, model, weights=True)
    assert {"input ..> model.0", "model.0 ..> model"} <= drawn
    assert {line for line in drawn if "running" in line} == drawing("""
        model.0.running_mean ..> model.0; model.0.running_var ..> model.0
    """)


def test_dropout(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    assert draw(call(model), tmp_path, model) == drawing("input ..> model.0; model.0 -> model.1; model.1 -> model")


def test_frozen_layers_pass_gradients_on(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False))
    model[1].requires_grad_(False)
    assert draw(call(model), tmp_path, model, weights=True) == drawing("""
        input ..> model.0; model.0.weight -> model.0
        model.0 -> model.1; model.1.weight ..> model.1
        model.1 -> model.2; model.2.weight -> model.2
        model.2 -> model
    """)


@pytest.mark.supports("Parameters", "frozen parameters and backbones")
def test_frozen_backbone(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(backbone=nn.Linear(3, 3), head=nn.Linear(3, 1)))
    model.backbone.requires_grad_(False)
    assert draw(call(model), tmp_path, model) == drawing("""
        input ..> model.backbone; model.backbone ..> model.head; model.head -> model
    """)


@pytest.mark.supports("Modules and outputs", "recurrent layers")
def test_lstm(tmp_path: Path) -> None:
    model = nn.LSTM(3, 5, batch_first=True)
    assert draw(call(model, torch.randn(4, 6, 3)), tmp_path, model) == drawing("""
        input ..> model:output.0; input ..> model:output.1.0; input ..> model:output.1.1
    """)


@pytest.mark.supports("Modules and outputs", "recurrent layers")
def test_gru_with_its_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.GRU(3, 2, bias=False))
    drawn = draw(call(model, torch.randn(6, 4, 3)), tmp_path, model, weights=True)
    sinks = ("model.0:output.0", "model.0:output.1")
    assert {line for line in drawn if "weight" in line} == {
        f"model.0.weight_{kind}_l0 -> {sink}" for kind in ("ih", "hh") for sink in sinks
    }


@pytest.mark.supports("Modules and outputs", "recurrent layers")
def test_rnn_cell_in_a_loop(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(3, 3)

        def forward(self, sequence: torch.Tensor) -> torch.Tensor:
            hidden = torch.zeros(4, 3)
            for x in sequence:
                hidden = self.cell(x, hidden)
            return hidden

    model = Model()
    assert draw(call(model, torch.randn(3, 4, 3)), tmp_path, model) == drawing("""
        input ..> model.cell:call 0
        input ..> model.cell:call 1
        input ..> model.cell:call 2
        model.cell:call 0 -> model.cell:call 1
        model.cell:call 1 -> model.cell:call 2
        model.cell:call 2 -> model
    """)


def test_multi_head_attention(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            found, _weights = self.attention(query, memory, memory)
            return found

    model = Model()
    assert draw(call(model, torch.randn(4, 2, 6), torch.randn(4, 5, 6)), tmp_path, model) == drawing("""
        input.query ..> model.attention:output.0
        input.memory ..> model.attention:output.0
        input.query ..> model.attention:output.1
        input.memory ..> model.attention:output.1
        model.attention:output.0 -> model
    """)


@pytest.mark.supports("Modules and outputs", "several models")
def test_two_models(tmp_path: Path) -> None:
    generator, critic = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(3, 1))

    def program(step: Step) -> None:
        noise = torch.randn(4, 2)
        critic(generator(noise))

    assert draw(program, tmp_path, {"generator": generator, "critic": critic}) == drawing("""
        generator input ..> generator.0
        generator.0 -> generator
        generator -> critic.0
        critic.0 -> critic
    """)


@pytest.mark.supports("Modules and outputs", "inputs, targets and losses, found without being named")
def test_target_and_loss_are_found(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))

    def program(step: Step) -> None:
        F.cross_entropy(model(X), torch.tensor([0, 1, 0, 1])).backward()

    assert draw(program, tmp_path, model) == drawing("""
        input ..> model.0; model.0 -> model; model -> loss; target ..> loss
    """)


def test_a_name_of_the_users_inside_a_module(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.step: Step | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            gate = torch.sigmoid(self.layer(x))
            assert self.step is not None
            self.step.record("gate", gate)
            return x * gate

    model = Model()

    def program(step: Step) -> None:
        model.step = step
        model(X)

    graphs = record_graphs(program, tmp_path, model)
    (gate,) = (vertex for vertex in graphs[0].vertices if vertex.node == "gate")
    assert (gate.module, gate.module_class, gate.operation) == ("model", "Model", "sigmoid")
    assert gate.source is not None
    assert gate.source.text == "gate = torch.sigmoid(self.layer(x))"
    assert draw(program, tmp_path, model) == drawing("""
        input ..> model.layer; model.layer -> gate; gate -> model; input ..> model
    """)


@pytest.mark.supports("Modules and outputs", "hooks of your own that replace outputs")
def test_hooks_of_the_users_that_replace_an_output(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].register_forward_hook(lambda module, args, output: output * 0.5)
    assert draw(call(model), tmp_path, model) == drawing("input ..> model.0; model.0 -> model.1; model.1 -> model")


@pytest.mark.supports(
    "Modules and outputs",
    "torch's fused transformer layers in evaluation",
    limit="one step of the graph: watching would make torch leave its fused path",
)
def test_a_fused_layer_is_one_step(tmp_path: Path) -> None:
    model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()

    def program(step: Step) -> None:
        with torch.no_grad():
            step.record("y", model(torch.randn(4, 3, 4)) * 2)

    assert draw(program, tmp_path, model) == drawing("input ..> model; model ..> y")


def test_a_forward_that_fails_leaves_the_rest_in_order(tmp_path: Path) -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("no such word")

    model = nn.Sequential(nn.Linear(3, 3), Failing())
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()

    def program(step: Step) -> None:
        with pytest.raises(KeyError):
            model(X)
        with torch.no_grad(), pytest.raises(AttributeError):
            encoder("no tensor")
        step.record("y", X + 1)

    assert draw(program, tmp_path, {"model": model, "encoder": encoder}) == drawing("""
        model input ..> model.0; model input ..> y
    """)
