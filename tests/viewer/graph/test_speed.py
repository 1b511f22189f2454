"""A thousand tensors are drawn before anybody notices; the bounds leave room for a slow core."""

from __future__ import annotations

import time
from collections.abc import Callable

from stepscope.store.records import Graph
from stepscope.viewer.graph import draw
from support.graph_text import graph_of, modules_of


def thousand_tensors() -> Graph:
    lines, last = ["input -> net.embed"], "net.embed"
    for block in range(40):
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


def fastest(action: Callable[[], object]) -> float:
    """Seconds of the processor's time, the least of three."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        action()
        taken.append(time.process_time() - start)
    return min(taken)


def test_a_thousand_tensors_are_drawn_at_once() -> None:
    graph = thousand_tensors()
    assert len(graph.vertices) > 1000
    digests = iter(range(100))
    ranges = [f"net.blocks.[{start}-{min(start + 11, 39)}]" for start in range(0, 40, 12)]
    everything = [*modules_of(graph), *ranges]
    assert fastest(lambda: draw(graph, digest=f"closed {next(digests)}")) < 0.15
    assert len(draw(graph, everything)["boxes"]) > 600
    assert fastest(lambda: draw(graph, everything, digest=f"open {next(digests)}")) < 1.5
