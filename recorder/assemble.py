"""Turns a finished step into the record that the store keeps; runs on the writer's thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.recorder.graphs import build_graphs
from stepscope.recorder.job import StepJob
from stepscope.recorder.loss_walk import factors
from stepscope.recorder.named import device_name
from stepscope.recorder.row_groups import MeasuredRows, RowKey
from stepscope.recorder.settle import settle
from stepscope.recorder.spectral import SpectralNorms
from stepscope.recorder.statistics import Measured
from stepscope.recorder.unclipped import BEFORE_CLIPPING
from stepscope.store.records import (
    BATCH_AGGREGATES,
    HISTOGRAM_BINS,
    SAMPLE_STATISTICS,
    STATISTICS,
    Neurons,
    StepRecord,
    TensorInfo,
)

_MOST_FACTORS = 16
_QUANTITY_ORDER = ("value", "gradient", BEFORE_CLIPPING, "update")


@dataclass(frozen=True)
class _Placed:
    """Where a row's results lie: a group, and the position in it."""

    key: RowKey
    group: MeasuredRows
    position: int


def assemble(job: StepJob, norms: SpectralNorms | None = None) -> StepRecord:
    """Make the record of a step; ``norms`` remembers the spectral norms of the steps before."""
    norms = norms or SpectralNorms()
    settle(job.named, job.iterations)
    placed = _sorted_rows(job.measured.wait())
    columns = _Columns(len(placed), len(job.sample_indices))
    for group, rows, positions in _by_group(placed):
        columns.fill(group, rows, positions)
    found = norms.of_all([(named.node, matrix) for named, matrix in job.spectral])
    spectral = {id(named): value for (named, _), value in zip(job.spectral, found, strict=True)}
    for row, place in enumerate(placed):
        if place.key.quantity == "value" and id(place.key.named) in spectral:
            columns.statistics[row, STATISTICS.index("spectral_norm")] = spectral[id(place.key.named)]
    return StepRecord(
        number=job.number,
        kind=job.kind,
        time=job.time,
        seconds=job.seconds,
        tensors=tuple(_tensor_info(place.key, place.group) for place in placed),
        shapes=tuple(place.key.shape for place in placed),
        strides=tuple(place.key.strides for place in placed),
        statistics=columns.statistics,
        aggregates=columns.aggregates,
        per_sample=columns.per_sample,
        histograms=columns.histograms,
        neurons=tuple(_neurons(place) for place in placed),
        graphs=build_graphs(job),
        samples=job.sample_indices,
        categories=job.categories,
        facts=_facts(job),
        dropped=tuple(row for row, place in enumerate(placed) if not place.group.is_complete),
    )


def _facts(job: StepJob) -> dict[str, Any]:
    """What was noted of the step, with the numbers that weigh the terms of its losses, if there are any."""
    found = factors(job)
    return {**job.facts, "loss_factors": found[:_MOST_FACTORS]} if found else job.facts


def _sorted_rows(groups: list[MeasuredRows]) -> list[_Placed]:
    placed = [
        _Placed(key, group, position) for group in groups for position, keys in enumerate(group.rows) for key in keys
    ]
    placed.sort(key=lambda place: (place.key.named.order, _rank(place.key.quantity), place.key.quantity))
    return placed


def _by_group(placed: list[_Placed]) -> Iterator[tuple[MeasuredRows, list[int], list[int]]]:
    """Each group with its rows and where in the group their results lie."""
    found: dict[int, tuple[MeasuredRows, list[int], list[int]]] = {}
    for row, place in enumerate(placed):
        _, rows, positions = found.setdefault(id(place.group), (place.group, [], []))
        rows.append(row)
        positions.append(place.position)
    return iter(found.values())


def _rank(quantity: str) -> int:
    base = quantity.partition(":")[0]
    return _QUANTITY_ORDER.index(base) if base in _QUANTITY_ORDER else len(_QUANTITY_ORDER)


def _tensor_info(key: RowKey, group: MeasuredRows) -> TensorInfo:
    named = key.named
    return TensorInfo(
        node=named.node,
        role=named.role,
        iteration=named.iteration,
        quantity=key.quantity,
        type=named.type,
        dtype=key.dtype,
        device=device_name(named.device),
        batch_dim=named.batch_dim if group.batched else None,
    )


class _Columns:
    """The arrays of a record while they are being filled."""

    def __init__(self, rows: int, samples: int) -> None:
        self.statistics = np.full((rows, len(STATISTICS)), np.nan)
        self.aggregates = np.full((rows, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES)), np.nan, np.float32)
        self.per_sample = np.full((rows, samples, len(SAMPLE_STATISTICS)), np.nan, np.float32)
        self.histograms = np.zeros((rows, HISTOGRAM_BINS), np.uint32)

    def fill(self, group: MeasuredRows, rows: list[int], positions: list[int]) -> None:
        """Put the results of a group, which lie at ``positions`` in it, into ``rows``."""
        results = group.results
        overall = results.overall.numpy()[positions]
        self.statistics[rows, : overall.shape[1]] = overall
        counts = results.histograms.numpy()[positions]
        self.histograms[rows] = np.minimum(counts, np.iinfo(np.uint32).max)
        self.statistics[rows, STATISTICS.index("nan_count")] = counts[:, -1]
        self.statistics[rows, STATISTICS.index("inf_count")] = counts[:, 0] + counts[:, -2]
        with np.errstate(over="ignore"):
            if results.aggregates is not None:
                self.aggregates[rows] = results.aggregates.numpy()[positions]
            if results.per_sample is not None:
                kept = results.per_sample.numpy()[positions]
                self.per_sample[rows, : kept.shape[1]] = kept


def _neurons(place: _Placed) -> Neurons | None:
    results: Measured = place.group.results
    if results.neuron_samples is None:
        return None
    samples: NDArray[np.float32] | NDArray[np.float64] = results.neuron_samples[place.position].numpy()
    statistics = results.neuron_statistics
    return Neurons(
        total=results.neurons_total,
        statistics=None if statistics is None else statistics[place.position].numpy(),
        samples=samples,
    )
