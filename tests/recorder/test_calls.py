"""Calls that leave no tensor with a name: what cuts a gradient's way, and what else a step calls, at which line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.recorder.reshapes import mixes_samples, scrambles
from stepscope.store import open_trial
from stepscope.store.records import Call, Graph


class Net(nn.Module):
    def __init__(self, cut: str) -> None:
        super().__init__()
        self.first, self.second, self.cut = nn.Linear(4, 4), nn.Linear(4, 1), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        if self.cut == "detach":
            h = h.detach()
        elif self.cut == "data":
            h = h.data * 2
        elif self.cut == "round":
            h = (h > 0).float()
        elif self.cut == "numpy":
            h = torch.from_numpy(h.detach().numpy() * 2)
        elif self.cut == "tolist":
            h = torch.tensor(h.tolist())
        elif self.cut == "mul":
            with torch.no_grad():
                h = h * self.first.bias
        return self.second(h)


def graphs_of(
    folder: Path, cut: str = "", *, clip: bool = False, late: bool = False, train: bool = True
) -> list[Graph]:
    net = Net(cut)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for _ in range(3):
            with recorder.step(), torch.set_grad_enabled(train):
                loss = net(torch.randn(3, 4)).square().mean()
                loss.item()
                if not train:
                    continue
                if not late:
                    optimizer.zero_grad()
                loss.backward()
                if clip:
                    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                if late:
                    optimizer.zero_grad()
    trial = open_trial(folder / "t")
    return [trial.step(int(number)).graph() for number in trial.steps]


def named(graph: Graph, call: Call) -> tuple[list[str], list[str]]:
    """The nodes on both sides of a call."""
    return [graph.vertices[i].node for i in call.before], [graph.vertices[i].node for i in call.after]


LINES = {
    "detach": ("detach", "h = h.detach()", ["model.second"]),
    "data": ("data", "h = h.data * 2", ["model.second"]),
    "round": ("gt", "h = (h > 0).float()", ["model.second"]),
    "numpy": ("detach", "h = torch.from_numpy(h.detach().numpy() * 2)", []),
    "tolist": ("tolist", "h = torch.tensor(h.tolist())", []),
    "mul": ("mul", "h = h * self.first.bias", ["model.second"]),
}


@pytest.mark.parametrize("cut", LINES)
def test_a_cut_knows_its_line_and_what_is_on_both_sides(cut: str, tmp_path: Path) -> None:
    operation, text, after = LINES[cut]
    graph = graphs_of(tmp_path, cut)[-1]
    cuts = [call for call in graph.calls if call.kind == "cut"]
    assert [(call.operation, call.source.text) for call in cuts] == [(operation, text)]
    before, behind = named(graph, cuts[0])
    assert "model.first" in before
    assert behind == after


def test_a_step_names_the_lines_of_backward_and_of_the_optimizer(tmp_path: Path) -> None:
    graph = graphs_of(tmp_path, clip=True)[0]
    calls = {call.operation: call.source.text for call in graph.calls if call.kind == "step"}
    assert calls == {
        "backward": "loss.backward()",
        "clip_grad_norm_": "nn.utils.clip_grad_norm_(net.parameters(), 1.0)",
        "optimizer step": "optimizer.step()",
    }


def test_gradients_set_to_zero_are_told_only_after_backward(tmp_path: Path) -> None:
    early, late = graphs_of(tmp_path / "early"), graphs_of(tmp_path / "late", late=True)
    assert all(call.operation != "zero_grad" for graph in early for call in graph.calls)
    assert all(graph.calls[-1].operation == "zero_grad" for graph in late)


@pytest.mark.parametrize(
    ("clears", "to_none", "held"),
    [("never", True, [False, True, True]), ("before", True, [False] * 3), ("before", False, [False] * 3),
     ("outside", False, [False] * 3), ("outside", True, [False] * 3)],
)  # fmt: skip
def test_gradients_that_backward_finds_there(clears: str, to_none: bool, held: list[bool], tmp_path: Path) -> None:
    net = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net, optimizer)
        for _ in held:
            with recorder.step():
                if clears == "before":
                    optimizer.zero_grad(set_to_none=to_none)
                net(torch.randn(8, 4)).square().mean().backward()
                optimizer.step()
            if clears == "outside":
                optimizer.zero_grad(set_to_none=to_none)
    trial = open_trial(tmp_path / "t")
    graphs = [trial.step(number).graph() for number in range(len(held))]
    assert [any(call.operation == "held gradients" for call in graph.calls) for graph in graphs] == held


def test_steps_of_the_same_loop_share_one_graph(tmp_path: Path) -> None:
    graphs = graphs_of(tmp_path, "round", clip=True)
    assert graphs[0] == graphs[1] == graphs[2]


def test_a_step_without_gradients_has_no_cuts(tmp_path: Path) -> None:
    assert all(not graph.calls for graph in graphs_of(tmp_path, "round", train=False))


def test_an_attention_knows_its_line(tmp_path: Path) -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(attention)
        with recorder.step():
            x = torch.randn(2, 3, 4)
            attention(x, x, x)[0].sum().backward()
    graph = open_trial(tmp_path / "t").step(0).graph()
    found = [call for call in graph.calls if call.operation == "multi_head_attention_forward"]
    assert [call.source.text for call in found] == ["attention(x, x, x)[0].sum().backward()"]
    assert named(graph, found[0])[1] == ["model"]


class Odd(nn.Module):
    """Reads sequences ``(batch, time, 4)``, in an order of dimensions of one's choice."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.read, self.head, self.order = nn.GRU(4, 5), nn.Linear(5, 1), order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, features = x.shape
        if self.order == "reshape":
            x = x.reshape(time, batch, features)
        elif self.order == "transpose":
            x = x.transpose(0, 1)
        else:
            x = x.reshape(batch * time, features).view(batch, time, features).transpose(0, 1)
        return self.head(self.read(x)[0][-1]).square().sqrt()


def calls_of_odd(folder: Path, order: str) -> list[tuple[str, str]]:
    net = Odd(order)
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net)
        with recorder.step():
            net(torch.randn(6, 3, 4)).mean().backward()
    graph = open_trial(folder / "t").step(0).graph()
    return [(call.kind, call.operation) for call in graph.calls if call.before]


@pytest.mark.parametrize("order", ["reshape", "transpose", "flat and back"])
def test_a_reshape_that_mixes_samples_is_told_from_those_that_do_not(order: str, tmp_path: Path) -> None:
    mixing = [call for call in calls_of_odd(tmp_path, order) if call[0] == "mix"]
    assert mixing == ([("mix", "reshape")] if order == "reshape" else [])


@pytest.mark.parametrize(
    ("before", "after", "mixed"),
    [
        ((6, 3, 4), (3, 6, 4), True),
        ((6, 3, 8), (3, 6, 2, 4), True),
        ((6, 4), (4, 6), True),
        ((6, 3, 5, 5), (15, 6, 5), True),
        ((6, 3, 4), (18, 4), False),
        ((6, 3, 4), (6, 12), False),
        ((8, 3, 32), (32, 3, 8), False),  # (batch, time, width) -> (batch * heads, time, width / heads)
        ((1, 3, 4), (3, 1, 4), False),
        ((6, 1, 4), (1, 6, 4), False),
        ((6, 3, 3, 4), (6, 3, 4, 3), False),
    ],
)
def test_shapes_tell_a_reshape_that_was_meant_as_a_transposition(
    before: tuple[int, ...], after: tuple[int, ...], mixed: bool
) -> None:
    assert mixes_samples(before, after) is mixed


def test_an_operation_at_the_edge_of_its_domain_is_known_if_it_has_no_name(tmp_path: Path) -> None:
    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale(x).square().sum(1).sqrt() * 2

    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        net = Distance()
        recorder.watch(net)
        with recorder.step():
            net(torch.randn(3, 4)).mean().backward()
    graph = open_trial(tmp_path / "t").step(0).graph()
    edges = [call for call in graph.calls if call.kind == "edge"]
    assert [(call.operation, *named(graph, call)) for call in edges] == [("sqrt", ["model.scale"], ["model"])]


@pytest.mark.parametrize(
    ("before", "after", "torn"),
    [
        ((6, 12, 8), (6, 2, 12, 4), True),  # heads split by a view
        ((6, 12, 8), (6, 12, 2, 4), False),
        ((6, 5, 7), (6, 7, 5), True),
        ((6, 5, 5, 3), (6, 3, 5, 5), True),  # channels last, viewed as channels first
        ((6, 64, 16), (6, 8, 8, 16), False),
        ((6, 64, 64), (6, 8, 8, 64), False),
        ((6, 12, 8, 8), (6, 12, 64), False),
        ((6, 3, 32, 32), (6, 3, 8, 4, 8, 4), False),
        ((6, 8, 64), (6, 8, 8, 8), False),
        ((6, 36, 10), (6, 6, 6, 10), False),
    ],
)
def test_shapes_tell_where_a_dimension_within_the_samples_is_torn(
    before: tuple[int, ...], after: tuple[int, ...], torn: bool
) -> None:
    assert scrambles(before, after) is torn


class Marked(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.drop, self.last, self.way = nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 1), way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        if self.way == "shift":
            h = F.pad(h.view(2, 3, 4), (0, 1)).view(2, 5, 3)[:, 1:].reshape(6, 4)
        elif self.way == "functional":
            h = F.dropout(h)
        elif self.way == "module":
            h = self.drop(h)
        elif self.way == "draw":
            h = torch.distributions.Normal(h, 1).sample()
        elif self.way == "square":
            h = h + (h.mean(1) - h[:, :1]).mean(1, keepdim=True)
        return self.last(h)


@pytest.mark.parametrize(
    ("way", "train", "kinds"),
    [
        ("shift", True, ["pad"]),
        ("functional", True, []),
        ("functional", False, ["dropout"]),
        ("module", False, []),
        ("draw", True, ["draw"]),
        ("square", True, ["square"]),
    ],
)
def test_odd_calls_are_told_from_usual_ones(way: str, train: bool, kinds: list[str], tmp_path: Path) -> None:
    net = Marked(way)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net)
        with recorder.step(), torch.set_grad_enabled(train):
            loss = net(torch.randn(6, 4)).mean()
            if train:
                loss.backward()
    graph = open_trial(tmp_path / "t").step(0).graph()
    assert [call.kind for call in graph.calls if call.kind not in ("step", "cut", "no activation")] == kinds


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_recurrent_layer_says_whether_it_reads_time_first(batch_first: bool, tmp_path: Path) -> None:
    net = nn.LSTM(4, 3, batch_first=batch_first)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net)
        with recorder.step():
            net(torch.randn(6, 5, 4))[0].mean().backward()
    kinds = {call.kind for call in open_trial(tmp_path / "t").step(0).graph().calls}
    assert ("time first" in kinds) != batch_first


def test_an_operation_at_the_edge_is_known_on_data_too(tmp_path: Path) -> None:
    net = nn.Linear(4, 1)
    with Recorder(tmp_path, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net)
        with recorder.step() as step:
            x = torch.rand(3, 4)
            step.record("raw", x)
            spread = x.max(1, keepdim=True).values - x.min(1, keepdim=True).values
            net((x - 0.5) / spread).square().mean().backward()
    (graph,) = (open_trial(tmp_path / "t").step(0).graph(0),)
    edges = [call for call in graph.calls if call.kind == "edge"]
    assert [call.operation for call in edges] == ["div"] and "/ spread" in edges[0].source.text
