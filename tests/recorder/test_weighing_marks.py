"""Products with weights that add up to one along another dimension; and sums that are meant so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial

BATCH, QUERIES, KEYS, WIDTH = 2, 5, 7, 4
Way = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def vlad(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Shares of groups of what is there, gathered, and normalised."""
    return F.normalize(torch.bmm(s.softmax(1), v) - s.sum(2, keepdim=True), dim=2)


def slots(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """What is there is shared among slots, each of which then takes a mean."""
    weights = s.softmax(1)
    return (weights / weights.sum(2, keepdim=True)) @ v


def pooled(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Vertices are shared among clusters, and so is what they have to do with each other."""
    share = s.transpose(1, 2).softmax(-1)
    among = share.transpose(1, 2) @ (v @ v.transpose(1, 2)) @ share
    return share.transpose(1, 2) @ v + among.mean()


WAYS: dict[str, Way] = {
    "keys": lambda s, v: torch.bmm(s.softmax(-1), v),
    "queries": lambda s, v: torch.bmm(s.softmax(1), v),
    "queries, reshaped": lambda s, v: torch.bmm(s.flatten(0, 1).softmax(0).unflatten(0, (BATCH, QUERIES)), v),
    "queries, by view": lambda s, v: s.reshape(-1, KEYS).softmax(0).view(BATCH, QUERIES, KEYS) @ v,
    "keys, reshaped": lambda s, v: s.flatten(0, 1).softmax(1).unflatten(0, (BATCH, QUERIES)) @ v,
    "keys, split": lambda s, v: s.flatten(1).softmax(1).view(BATCH, QUERIES, KEYS) @ v,
    "queries, by letters": lambda s, v: torch.einsum("bqk,bkd->bqd", s.softmax(1), v),
    "keys, by letters": lambda s, v: torch.einsum("bqk, bkd -> bqd", s.softmax(2), v),
    "keys, with an extra dimension": lambda s, v: (s.softmax(2)[:, :1].squeeze(1).unsqueeze(1) @ v).expand(-1, 5, -1),
    "clusters, by letters": lambda s, v: torch.einsum("bnc,bnd->bcd", s.transpose(1, 2).softmax(2), v),
    "capsules": lambda s, v: torch.einsum("boi,boid->bod", s.softmax(1), v[:, None].expand(-1, QUERIES, -1, -1)),
    "vlad": vlad,
    "slots": slots,
    "pooled": pooled,
}


def kinds_of(folder: Path, way: Way) -> list[tuple[str, str, str]]:
    torch.manual_seed(0)
    score, value = torch.nn.Linear(WIDTH, QUERIES), torch.nn.Linear(WIDTH, WIDTH)
    with Recorder(folder, trial="t", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"score": score, "value": value})
        with recorder.step():
            x = torch.randn(BATCH, KEYS, WIDTH)
            way(score(x).transpose(1, 2), value(x)).square().mean().backward()
    graph = open_trial(folder / "t").step(0).graph()
    wanted = ("over queries", "over heads")
    return [(call.kind, call.operation, call.source.text) for call in graph.calls if call.kind in wanted]


@pytest.mark.parametrize("name", WAYS)
def test_weights_that_belong_to_another_dimension(name: str, tmp_path: Path) -> None:
    found = kinds_of(tmp_path, WAYS[name])
    assert [kind for kind, _, _ in found] == (["over queries"] if name.startswith("queries") else [])
    assert all(operation == "softmax" and "softmax" in text for _, operation, text in found)


@pytest.mark.parametrize(("dimension", "kinds"), [(1, ["over heads"]), (2, ["over queries"]), (3, [])])
def test_several_heads(dimension: int, kinds: list[str], tmp_path: Path) -> None:
    def way(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return s[:, None].expand(-1, 3, -1, -1).softmax(dimension) @ v[:, None].expand(-1, 3, -1, -1)

    assert [kind for kind, _, _ in kinds_of(tmp_path, way)] == kinds


def test_a_self_attention_that_forgets_to_turn_its_weights(tmp_path: Path) -> None:
    def way(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return v.transpose(1, 2) @ (v @ v.transpose(1, 2)).softmax(-1)

    assert [kind for kind, _, _ in kinds_of(tmp_path, way)] == ["over queries"]
