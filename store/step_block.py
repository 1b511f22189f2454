"""The block of a step: its numbers, without histograms and neurons. See FORMAT.md, "step"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store import codec
from stepscope.store.blocks import BlockPlace, encode_block
from stepscope.store.errors import StoreError, damaged_unless
from stepscope.store.frames import ArrayEntry, FrameList, array_entries
from stepscope.store.records import (
    BATCH_AGGREGATES,
    HISTOGRAM_BINS,
    NEURON_STATISTICS,
    SAMPLE_STATISTICS,
    STATISTICS,
    Neurons,
    StepRecord,
)

_FIXED_BYTES = 1 << 12
"""For the header, the frames' own bytes, and some facts."""


@dataclass(frozen=True)
class StepHeader:
    """What a step's header says, checked; ``detail`` is the offset of its block in the detail file.

    ``lost`` are the parts that a repair found to be damaged beyond help; ``part`` is the number of the detail file.
    """

    number: int
    kind: str
    time: float
    seconds: float
    layout: bytes
    graphs: tuple[bytes, ...]
    samples: tuple[int, ...]
    categories: tuple[str, ...]
    detail: int
    arrays: Mapping[str, ArrayEntry]
    lost: tuple[str, ...] = ()
    part: int = 0


def parse_step(header: Mapping[str, Any], place: BlockPlace) -> StepHeader:
    """A step's header.

    Raises:
        DamagedError: it makes no sense.
    """
    with damaged_unless("a step"):
        return StepHeader(
            number=codec.step_from_plain(header["number"]),
            kind=str(header["kind"]),
            time=float(header["time"]),
            seconds=float(header["seconds"]),
            layout=codec.digest_from_plain(header["layout"]),
            graphs=tuple(map(codec.digest_from_plain, header["graphs"])),
            samples=tuple(map(int, header["samples"])),
            categories=tuple(map(str, header["categories"])),
            detail=int(header["detail"]),
            arrays=array_entries(header["arrays"], place.payload_length),
            lost=tuple(map(str, header.get("lost", ()))),
            part=max(0, int(header.get("part", 0))),
        )


def most_bytes(record: StepRecord, graphs: int) -> int:
    """What a step's block may take at most, without its detail."""
    rows = len(record.tensors)
    numbers = record.statistics.nbytes + record.aggregates.nbytes + record.per_sample.nbytes
    places = sum(len(shape) + len(strides) for shape, strides in zip(record.shapes, record.strides, strict=True))
    texts = 4 * sum(len(str(text)) for text in (*record.categories, record.kind))
    return _FIXED_BYTES + numbers + 8 * places + 2 * rows + 32 * graphs + 16 * len(record.samples) + texts


def encode_step(record: StepRecord, layout: bytes, graphs: Sequence[bytes], detail: int, part: int = 0) -> bytes:
    """A step's block; its detail is at this offset of the detail file, or of a part of it."""
    frames = FrameList()
    frames.add("ranks", np.array([len(shape) for shape in record.shapes], np.uint8))
    frames.add("shapes", _flat(record.shapes))
    frames.add("stride_ranks", np.array([len(strides) for strides in record.strides], np.uint8))
    frames.add("strides", _flat(record.strides))
    frames.add("statistics", np.asarray(record.statistics, np.float64), shuffled=False)
    frames.add("aggregates", np.asarray(record.aggregates, np.float32))
    frames.add("per_sample", np.asarray(record.per_sample, np.float32))
    frames.add("facts", np.frombuffer(_packed_facts(record), np.uint8))
    header: dict[str, Any] = {
        "number": int(record.number),
        "kind": record.kind,
        "time": float(record.time),
        "seconds": float(record.seconds),
        "layout": layout,
        "graphs": list(graphs),
        "samples": list(record.samples),
        "categories": list(record.categories),
        "detail": detail,
        "arrays": frames.entries,
    }
    if part:
        header["part"] = part
    return encode_block("step", header, frames.frames)


def check_record(record: StepRecord) -> None:
    """Raise ``StoreError`` for a record whose parts do not fit together."""
    rows, samples = len(record.tensors), len(record.samples)
    found = {
        "shapes": (len(record.shapes),),
        "strides": (len(record.strides),),
        "neurons": (len(record.neurons),),
        "histograms": record.histograms.shape,
        "statistics": record.statistics.shape,
        "aggregates": record.aggregates.shape,
        "per_sample": record.per_sample.shape,
    }
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(("shapes", "strides", "neurons"), (rows,))
    expected["histograms"] = (rows, HISTOGRAM_BINS)
    expected["statistics"] = (rows, len(STATISTICS))
    expected["aggregates"] = (rows, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))
    expected["per_sample"] = (rows, samples, len(SAMPLE_STATISTICS))
    for name, shape in found.items():
        if shape != expected[name]:
            raise StoreError(
                f"step {record.number} with {rows} tensors and {samples} samples has {name} of shape {shape}; "
                f"expected {expected[name]}"
            )
    for tensor, neurons in zip(record.tensors, record.neurons, strict=True):
        if neurons is not None:
            _check_neurons(neurons, f"the neurons of {tensor.node!r} in step {record.number}")


def _check_neurons(neurons: Neurons, what: str) -> None:
    samples, statistics = neurons.samples, neurons.statistics
    if samples.ndim != 2:
        raise StoreError(f"{what} have samples of shape {samples.shape}; expected (samples, kept neurons)")
    expected = (len(NEURON_STATISTICS), samples.shape[1])
    if statistics is not None and statistics.shape != expected:
        raise StoreError(f"{what} have statistics of shape {statistics.shape}; expected {expected}")


def _packed_facts(record: StepRecord) -> bytes:
    try:
        return codec.pack(dict(record.facts))
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"the facts of step {record.number} cannot be written: {error}") from error


def _flat(lists: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    return np.array([number for numbers in lists for number in numbers], np.int64)
