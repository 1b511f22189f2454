"""Recorded graphs as text, so that tests can draw what they expect.

A drawing is a set of lines: ``a -> b`` for an edge along which gradients flow, ``a ..> b`` for one that they cannot
pass, and ``c`` alone for what is connected to nothing. A role is written ``node:role`` unless it is one of the plain
ones; ``node@2`` is a tensor that was made two iterations ago.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from stepscope.recorder import Every, Recorder, Step
from stepscope.store import open_trial
from stepscope.store.records import Graph, Vertex

PLAIN_ROLES = ("tensor", "output", "parameter", "buffer")
Program = Callable[[Step], object]
Drawing = set[str]


def drawing(text: str) -> Drawing:
    """A drawing from its lines, or from parts between semicolons.

    >>> sorted(drawing("a -> b; c"))
    ['a -> b', 'c']
    """
    parts = (" ".join(part.split()) for line in text.splitlines() for part in line.split(";"))
    return {part for part in parts if part}


def draw(
    program: Program, folder: Path, model: nn.Module | dict[str, nn.Module] | None = None, *, weights: bool = False
) -> Drawing:
    """Record one step of a program and draw its first graph, without parameters and buffers unless ``weights``."""
    return draw_iterations(program, folder, model, weights=weights)[0]


def draw_iterations(
    program: Program, folder: Path, model: nn.Module | dict[str, nn.Module] | None = None, *, weights: bool = False
) -> list[Drawing]:
    """Record one step of a program and draw the graph of each of its iterations."""
    return [text_of(graph, weights=weights) for graph in record_graphs(program, folder, model)]


def record_graphs(program: Program, folder: Path, model: nn.Module | dict[str, nn.Module] | None = None) -> list[Graph]:
    """Record one step of a program, strictly, and read its graphs back from the disk."""
    with Recorder(folder, trial="program", schedule=Every(1), strict=True, if_exists="overwrite") as recorder:
        recorder.watch(model)
        with recorder.step() as step:
            program(step)
    recorded = open_trial(folder / "program").step(0)
    return [recorded.graph(iteration) for iteration in recorded.iterations]


def text_of(graph: Graph, *, weights: bool) -> Drawing:
    shown = [weights or vertex.type not in ("parameter", "buffer") for vertex in graph.vertices]
    lines: Drawing = set()
    connected: set[int] = set()
    for edge in graph.edges:
        if shown[edge.source] and shown[edge.sink]:
            arrow = "->" if edge.differentiable else "..>"
            lines.add(f"{_name(graph.vertices[edge.source])} {arrow} {_name(graph.vertices[edge.sink])}")
            connected |= {edge.source, edge.sink}
    alone = {_name(v) for i, v in enumerate(graph.vertices) if shown[i] and i not in connected}
    return lines | alone


def _name(vertex: Vertex) -> str:
    role = "" if vertex.role in PLAIN_ROLES else f":{vertex.role}"
    return f"{vertex.node}{role}" + (f"@{vertex.lag}" if vertex.lag else "")
