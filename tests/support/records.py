"""Step records of any shape for tests of the store, and the comparison of what is read with what was written."""

from __future__ import annotations

import string
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis.extra import numpy as hnp

from stepscope.store import Step
from stepscope.store.records import (
    HISTOGRAM_BINS,
    STATISTICS,
    WHOLE_STEP,
    Call,
    Edge,
    Graph,
    Neurons,
    SourceLine,
    StepRecord,
    TensorInfo,
    TrialInfo,
    Vertex,
)

INFO = TrialInfo("trial", 1_700_000_000.0, {"lr": 0.1}, {"python": "3.11"}, 2, 100)
TYPES = ("input", "parameter", "buffer", "calculated", "target", "loss")

names = st.text(string.ascii_letters + "._ é", min_size=1, max_size=12)
numbers32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def tensor_infos(draw: st.DrawFn) -> TensorInfo:
    return TensorInfo(
        draw(names), draw(names), draw(st.integers(WHOLE_STEP, 3)), draw(st.sampled_from(["value", "gradient:a"])),
        draw(st.sampled_from(TYPES)), draw(st.sampled_from(["float32", "bfloat16"])), "cpu",
        draw(st.none() | st.integers(0, 2)),
    )  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    source = st.none() | st.builds(SourceLine, names, st.integers(1, 9999), names, names)
    vertex = st.builds(
        Vertex, names, names, st.integers(0, 2), st.sampled_from(TYPES), names, names, names, source, st.booleans()
    )
    vertices = tuple(draw(st.lists(vertex, max_size=4)))
    if not vertices:
        return Graph((), ())
    index = st.integers(0, len(vertices) - 1)
    edges = st.lists(st.builds(Edge, index, index, st.booleans()), max_size=4)
    places = st.lists(index, max_size=2).map(tuple)
    line = st.builds(SourceLine, names, st.integers(1, 9999), names, names)
    calls = st.lists(st.builds(Call, names, names, line, places, places), max_size=2)
    return Graph(vertices, tuple(draw(edges)), tuple(draw(calls)))


@st.composite
def neurons(draw: st.DrawFn, samples: int) -> Neurons | None:
    if draw(st.booleans()):
        return None
    kept = draw(st.integers(0, 5))
    values = draw(hnp.arrays(draw(st.sampled_from([np.float32, np.float64])), (samples, kept), elements=numbers32))
    statistics = draw(st.none() | hnp.arrays(np.float32, (3, kept), elements=numbers32))
    return Neurons(draw(st.integers(kept, 10**12)), statistics, values)


@st.composite
def step_records(draw: st.DrawFn, number: int | None = None) -> StepRecord:
    """Any legal record: no rows, empty and 0-d tensors, NaN and infinities everywhere."""
    rows, samples = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    shapes = draw(st.lists(st.lists(st.integers(0, 2**40), max_size=4).map(tuple), min_size=rows, max_size=rows))
    return StepRecord(
        number=draw(st.integers(0, 2**62)) if number is None else number,
        kind=draw(names), time=draw(st.floats(0, 1e10)), seconds=draw(st.floats(0, 1e4)),
        tensors=tuple(draw(st.lists(tensor_infos(), min_size=rows, max_size=rows, unique_by=_identity))),
        shapes=tuple(shapes), strides=tuple(shapes),
        statistics=draw(hnp.arrays(np.float64, (rows, len(STATISTICS)), elements=st.floats())),
        aggregates=draw(hnp.arrays(np.float32, (rows, 4, 3), elements=numbers32)),
        per_sample=draw(hnp.arrays(np.float32, (rows, samples, 4), elements=numbers32)),
        histograms=draw(hnp.arrays(np.uint32, (rows, HISTOGRAM_BINS), fill=st.just(0))),
        neurons=tuple(draw(neurons(samples)) for _ in range(rows)),
        graphs=tuple(draw(st.lists(graphs(), min_size=1, max_size=3))),
        samples=tuple(range(samples)),
        categories=draw(st.just(()) | st.lists(names, min_size=samples, max_size=samples).map(tuple)),
        facts=draw(st.dictionaries(st.text(max_size=4), plain, max_size=3)),
    )  # fmt: skip


def _identity(tensor: TensorInfo) -> tuple[object, ...]:
    return tensor.node, tensor.role, tensor.iteration, tensor.quantity


def same(one: Any, two: Any) -> bool:
    """Whether two arrays are equal bit for bit, of the same type and shape."""
    one, two = np.asarray(one), np.asarray(two)
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


def assert_step_is(step: Step, record: StepRecord) -> None:
    """The step that was read holds exactly what was written."""
    for name in ("number", "kind", "time", "seconds", "samples", "categories"):
        assert getattr(step, name) == getattr(record, name), name
    assert step.facts == dict(record.facts)
    assert tuple(step.graph(i) for i in step.iterations) == record.graphs
    rows = step.rows()
    assert tuple(row.info for row in rows) == record.tensors
    assert tuple(row.shape for row in rows) == record.shapes
    assert tuple(row.strides for row in rows) == record.strides
    assert same(step.statistics(), record.statistics)
    assert same(step.aggregates(), record.aggregates)
    assert same(step.per_sample(), record.per_sample)
    for index in range(len(rows)):
        _assert_detail_is(step, record, index)


def _assert_detail_is(step: Step, record: StepRecord, index: int) -> None:
    info, written = record.tensors[index], record.neurons[index]
    tensor = step.tensor(info.node, role=info.role, iteration=info.iteration, quantity=info.quantity)
    assert np.array_equal(tensor.histogram.counts, record.histograms[index])
    read = tensor.neurons
    if written is None or read is None:
        assert read is written
        return
    assert read.total == written.total
    assert same(read.samples, written.samples)
    if written.statistics is None or read.statistics is None:
        assert read.statistics is written.statistics
    else:
        assert same(read.statistics, written.statistics)
