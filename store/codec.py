"""Records as plain msgpack values and back; defaults for fields that were added later live here, and only here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgpack

from stepscope.store.records import (
    Call,
    Edge,
    Graph,
    ModuleInfo,
    Note,
    ParameterInfo,
    Scalar,
    SourceLine,
    TensorInfo,
    TensorType,
    TrialEnd,
    TrialInfo,
    Vertex,
)

Plain = Any
_DIGEST_SIZE = 16
_LATER_MODULE_FIELDS: tuple[bool, tuple[str, ...], tuple[str, ...], str] = (True, (), (), "")
_LATER_PARAMETER_FIELDS: tuple[bool, tuple[str, ...]] = (True, ())
_TENSOR_TYPES = get_args(TensorType)


def digest(packed: bytes) -> bytes:
    """The stable name of a layout or a graph: 16 bytes of BLAKE2b of its packed form."""
    return hashlib.blake2b(packed, digest_size=_DIGEST_SIZE).digest()


def digest_from_plain(plain: Plain) -> bytes:
    """A digest out of a header. (``bytes(plain)`` would make as many zeros as a damaged header says.)"""
    if not isinstance(plain, bytes) or len(plain) != _DIGEST_SIZE:
        raise ValueError(f"{plain!r:.60} is no digest")
    return plain


def step_from_plain(plain: Plain) -> int:
    """The number of a step; it fits into 64 bits."""
    number = int(plain)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} is no number of a step")
    return number


def pack(value: Plain) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes) -> Plain:
    return msgpack.unpackb(data, raw=False, strict_map_key=False)


def layout_to_plain(tensors: Sequence[TensorInfo]) -> Plain:
    """One list a row, in the order of the fields of ``TensorInfo``."""
    return [[t.node, t.role, t.iteration, t.quantity, t.type, t.dtype, t.device, t.batch_dim] for t in tensors]


def layout_from_plain(plain: Plain) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            str(node), str(role), int(iteration), str(quantity), _tensor_type(type), str(dtype), str(device),
            None if batch_dim is None else int(batch_dim),
        )
        for node, role, iteration, quantity, type, dtype, device, batch_dim in (row[:8] for row in plain)
    )  # fmt: skip


def _tensor_type(plain: Plain) -> TensorType:
    """The type of a tensor; one that a later version added counts as calculated."""
    return plain if plain in _TENSOR_TYPES else "calculated"


def graph_to_plain(graph: Graph) -> Plain:
    """``{"vertices": [...], "edges": [[source, sink, differentiable], ...]}``, and ``"calls"`` if there are any."""
    plain = {
        "vertices": [_vertex_to_plain(vertex) for vertex in graph.vertices],
        "edges": [[edge.source, edge.sink, edge.differentiable] for edge in graph.edges],
    }
    calls = [[c.kind, c.operation, _source_to_plain(c.source), list(c.before), list(c.after)] for c in graph.calls]
    return {**plain, "calls": calls} if calls else plain


def _vertex_to_plain(v: Vertex) -> Plain:
    source = _source_to_plain(v.source)
    return [v.node, v.role, v.lag, v.type, v.module, v.module_class, v.operation, source, v.whole_step]


def _source_to_plain(source: SourceLine | None) -> Plain:
    return None if source is None else [source.file, source.line, source.text, source.function]


def graph_from_plain(plain: Plain) -> Graph:
    vertices = tuple(_vertex_from_plain(row) for row in plain["vertices"])
    count = len(vertices)
    edges = tuple(Edge(int(source), int(sink), bool(free)) for source, sink, free in (e[:3] for e in plain["edges"]))
    if any(not (0 <= edge.source < count and 0 <= edge.sink < count) for edge in edges):
        raise ValueError("an edge of the graph leads to no vertex")
    return Graph(vertices, edges, tuple(_call_from_plain(row, count) for row in plain.get("calls", ())))


def _call_from_plain(row: Plain, vertices: int) -> Call:
    kind, operation, plain, before, after = row[:5]
    source = _source(plain)
    call = Call(
        str(kind), str(operation), source or SourceLine("", 0, ""), tuple(map(int, before)), tuple(map(int, after))
    )  # fmt: skip
    if not all(0 <= index < vertices for index in (*call.before, *call.after)):
        raise ValueError("a call of the graph belongs to no vertex")
    return call


def _vertex_from_plain(row: Plain) -> Vertex:
    node, role, lag, type, module, module_class, operation, source, whole_step = row[:9]
    names = (str(module), str(module_class), str(operation))
    return Vertex(str(node), str(role), int(lag), _tensor_type(type), *names, _source(source), bool(whole_step))


def _source(plain: Plain) -> SourceLine | None:
    if plain is None:
        return None
    file, line, text, function = plain[:4]
    return SourceLine(str(file), int(line), str(text), str(function))


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
    return [_module_to_plain(module) for module in modules]


def _module_to_plain(m: ModuleInfo) -> Plain:
    """A module without what is empty at its end."""
    parameters = [_parameter_to_plain(parameter) for parameter in m.parameters]
    later = [list(m.ignored), list(m.drawn), m.settings]
    while later and not later[-1]:
        later.pop()
    return [m.path, m.module_class, parameters, m.training, m.recorded, *later]


def _parameter_to_plain(p: ParameterInfo) -> Plain:
    optimizers = list(p.optimizers)
    return [p.name, list(p.shape), p.dtype, p.trainable, list(p.names), p.is_buffer, p.recorded, optimizers]


def network_from_plain(plain: Plain) -> tuple[ModuleInfo, ...]:
    return tuple(
        ModuleInfo(
            str(path), str(module_class), tuple(map(_parameter_from_plain, parameters)), bool(training), bool(recorded),
            tuple(map(str, ignored)), tuple(map(str, drawn)), str(settings),
        )
        for path, module_class, parameters, training, recorded, ignored, drawn, settings in map(_whole_module, plain)
    )  # fmt: skip


def _whole_module(row: Plain) -> Sequence[Plain]:
    return [*row, *_LATER_MODULE_FIELDS[max(0, len(row) - 4) :]][:8]


def _parameter_from_plain(row: Plain) -> ParameterInfo:
    row = [*row, *_LATER_PARAMETER_FIELDS[max(0, len(row) - 6) :]]
    name, shape, dtype, trainable, names, is_buffer, recorded, optimizers = row[:8]
    return ParameterInfo(
        str(name), tuple(map(int, shape)), str(dtype), bool(trainable), tuple(map(str, names)), bool(is_buffer),
        bool(recorded), tuple(map(str, optimizers)),
    )  # fmt: skip


def scalars_to_plain(scalars: Sequence[Scalar]) -> Plain:
    return [[s.name, s.group, s.step, s.value, s.kind, s.time] for s in scalars]


def scalars_from_plain(plain: Plain) -> list[Scalar]:
    return [
        Scalar(str(name), str(group), step_from_plain(step), float(value), str(kind), float(time))
        for name, group, step, value, kind, time in (row[:6] for row in plain)
    ]


def note_from_plain(plain: Mapping[str, Plain]) -> Note:
    return Note(str(plain["text"]), step_from_plain(plain["step"]), float(plain["time"]))


def end_from_plain(plain: Mapping[str, Plain]) -> TrialEnd:
    state: Literal["finished", "failed"] = "failed" if plain.get("state") == "failed" else "finished"
    return TrialEnd(state, float(plain["time"]), str(plain.get("exception", "")), str(plain.get("traceback", "")))
