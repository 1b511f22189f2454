"""The work of drawing a graph grows with its size, not with its square; benchmarks/bench_viewer.py takes the time."""

from __future__ import annotations

import pytest

from stepscope import viewer
from stepscope.store.records import Graph
from stepscope.viewer.graph import draw
from support.effort import effort
from support.graph_text import graph_of, modules_of


def tensors_of(blocks: int) -> Graph:
    lines, last = ["input -> net.embed"], "net.embed"
    for block in range(blocks):
        path = f"net.blocks.{block}"
        for part in ("query", "key", "value"):
            lines += [f"{last} -> {path}.{part} -> {path}.mix", f"{path}.{part}.weight -> {path}.{part}"]
        lines += [f"{path}.{layer}.{kind} -> {path}.{layer}" for layer in ("up", "down") for kind in ("weight", "bias")]
        lines += [
            f"{path}.mix -> {path}.add -> {path}.up -> {path}.act -> {path}.down -> {path}",
            f"{last} -> {path}.add",
        ]
        lines += [f"input -> {path}.mix", *(f"{path}.extra{number} -> {path}" for number in range(10))]
        last = path
    return graph_of("\n".join([*lines, f"{last} -> loss", "target -> loss"]))


def work_of(blocks: int, *, opened: bool) -> int:
    graph = tensors_of(blocks)
    expanded = modules_of(graph) if opened else []
    return effort(lambda: draw(graph, expanded, digest=f"{blocks} blocks, {opened}"), (viewer.graph,))


@pytest.mark.parametrize("opened", [False, True])
def test_twice_the_tensors_are_about_twice_the_work(opened: bool) -> None:
    assert work_of(16, opened=opened) < 2.5 * work_of(8, opened=opened)


def test_a_thousand_tensors_are_drawn() -> None:
    graph = tensors_of(40)
    assert len(graph.vertices) > 1000
    ranges = [f"net.blocks.[{start}-{min(start + 11, 39)}]" for start in range(0, 40, 12)]
    assert len(draw(graph, [*modules_of(graph), *ranges])["boxes"]) > 600
