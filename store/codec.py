"""Records as plain msgpack values and back; defaults for fields that were added later live here, and only here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgpack

from stepscope.store.records import (
    Edge,
    Graph,
    ModuleInfo,
    Note,
    ParameterInfo,
    Scalar,
    SourceLine,
    TensorInfo,
    TrialEnd,
    TrialInfo,
    Vertex,
)

Plain = Any


def digest(packed: bytes) -> bytes:
    """The stable name of a layout or a graph: 16 bytes of BLAKE2b of its packed form."""
    return hashlib.blake2b(packed, digest_size=16).digest()


def pack(value: Plain) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes) -> Plain:
    return msgpack.unpackb(data, raw=False, strict_map_key=False)


def layout_to_plain(tensors: Sequence[TensorInfo]) -> Plain:
    """One list a row, in the order of the fields of ``TensorInfo``."""
    return [[t.node, t.role, t.iteration, t.quantity, t.type, t.dtype, t.device, t.batch_dim] for t in tensors]


def layout_from_plain(plain: Plain) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(*row[:8]) for row in plain)


def graph_to_plain(graph: Graph) -> Plain:
    """``{"vertices": [...], "edges": [[source, sink, differentiable], ...]}``."""
    return {
        "vertices": [_vertex_to_plain(vertex) for vertex in graph.vertices],
        "edges": [[edge.source, edge.sink, edge.differentiable] for edge in graph.edges],
    }


def _vertex_to_plain(v: Vertex) -> Plain:
    source = None if v.source is None else [v.source.file, v.source.line, v.source.text, v.source.function]
    return [v.node, v.role, v.lag, v.type, v.module, v.module_class, v.operation, source, v.whole_step]


def graph_from_plain(plain: Plain) -> Graph:
    vertices = tuple(_vertex_from_plain(row) for row in plain["vertices"])
    count = len(vertices)
    edges = tuple(Edge(*edge[:3]) for edge in plain["edges"])
    if any(not (0 <= edge.source < count and 0 <= edge.sink < count) for edge in edges):
        raise ValueError("an edge of the graph leads to no vertex")
    return Graph(vertices, edges)


def _vertex_from_plain(row: Plain) -> Vertex:
    node, role, lag, type, module, module_class, operation, source, whole_step = row[:9]
    line = None if source is None else SourceLine(*source[:4])
    return Vertex(node, role, int(lag), type, module, module_class, operation, line, bool(whole_step))


def trial_to_plain(info: TrialInfo) -> Plain:
    return {
        "trial": info.trial,
        "started": info.started,
        "config": dict(info.config),
        "environment": dict(info.environment),
        "samples": info.samples,
        "neuron_limit": info.neuron_limit,
    }


def trial_from_plain(plain: Mapping[str, Plain]) -> TrialInfo:
    return TrialInfo(
        trial=str(plain.get("trial", "")),
        started=float(plain.get("started", 0.0)),
        config=dict(plain.get("config", {})),
        environment=dict(plain.get("environment", {})),
        samples=int(plain.get("samples", 0)),
        neuron_limit=int(plain.get("neuron_limit", 0)),
    )


def network_to_plain(modules: Sequence[ModuleInfo]) -> Plain:
    return [
        [
            m.path,
            m.module_class,
            [[p.name, list(p.shape), p.dtype, p.trainable, list(p.names), p.is_buffer] for p in m.parameters],
            m.training,
        ]
        for m in modules
    ]


def network_from_plain(plain: Plain) -> tuple[ModuleInfo, ...]:
    return tuple(
        ModuleInfo(
            path,
            module_class,
            tuple(
                ParameterInfo(name, tuple(shape), dtype, trainable, tuple(names), is_buffer)
                for name, shape, dtype, trainable, names, is_buffer in parameters
            ),
            training,
        )
        for path, module_class, parameters, training in plain
    )


def scalars_to_plain(scalars: Sequence[Scalar]) -> Plain:
    return [[s.name, s.group, s.step, s.value, s.kind, s.time] for s in scalars]


def scalars_from_plain(plain: Plain) -> list[Scalar]:
    return [Scalar(*row[:6]) for row in plain]


def note_from_plain(plain: Mapping[str, Plain]) -> Note:
    return Note(str(plain["text"]), int(plain["step"]), float(plain["time"]))


def end_from_plain(plain: Mapping[str, Plain]) -> TrialEnd:
    state: Literal["finished", "failed"] = "failed" if plain.get("state") == "failed" else "finished"
    return TrialEnd(state, float(plain["time"]), str(plain.get("exception", "")), str(plain.get("traceback", "")))
