"""One recorded step, and one tensor of it, as a reader sees them; everything large is read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store import codec
from stepscope.store.blocks import PREFIX_SIZE, BlockPlace, decompress, read_header, read_prefix, unpack_array
from stepscope.store.errors import DamagedError, unknown
from stepscope.store.files import BlockFile
from stepscope.store.layout import Layout
from stepscope.store.records import (
    BATCH_AGGREGATES,
    HISTOGRAM_BINS,
    HISTOGRAM_HALF_BINS,
    HISTOGRAM_MIN_EXPONENT,
    SAMPLE_STATISTICS,
    STATISTICS,
    WHOLE_STEP,
    Graph,
    Neurons,
    TensorInfo,
)


@dataclass(frozen=True)
class Row:
    """One measured tensor of a step, without its numbers; ``index`` is its row in the step's arrays."""

    index: int
    info: TensorInfo
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Histogram:
    """Counts of elements by sign and magnitude: see ``HISTOGRAM_BINS`` for their order.

    ``counts`` is ``(HISTOGRAM_BINS,)``.
    """

    counts: NDArray[np.int64]

    @property
    def negative(self) -> NDArray[np.int64]:
        """Counts of negative elements, the smallest magnitude first."""
        return self.counts[HISTOGRAM_HALF_BINS:0:-1]

    @property
    def positive(self) -> NDArray[np.int64]:
        """Counts of positive elements, the smallest magnitude first."""
        return self.counts[HISTOGRAM_HALF_BINS + 2 : -2]

    @property
    def zeros(self) -> int:
        return int(self.counts[HISTOGRAM_HALF_BINS + 1])

    @property
    def infinities(self) -> tuple[int, int]:
        """How many elements are minus and plus infinity."""
        return int(self.counts[0]), int(self.counts[-2])

    @property
    def nans(self) -> int:
        return int(self.counts[-1])

    @staticmethod
    def edges() -> NDArray[np.float64]:
        """Lower edges of the magnitudes of the ``HISTOGRAM_HALF_BINS`` bins, and the upper edge of the last."""
        octaves = np.arange(HISTOGRAM_HALF_BINS // 2)
        low = np.exp2(octaves + HISTOGRAM_MIN_EXPONENT)
        edges = np.column_stack([low, 1.5 * low]).reshape(-1)
        return np.append(edges, 2 * low[-1])


@dataclass(frozen=True)
class _Detail:
    """The index of a step's detail block: frame entries a row."""

    offset: int
    entries: list[list[Any]]
    starts: list[int]
    totals: list[int]


class Step:
    """One recorded step.

    Attributes:
        number, kind, time, seconds: as in ``StepRecord``.
        samples: the indices of the kept samples in the batch; ``categories`` their labels, or empty.
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        place: BlockPlace,
        steps: BlockFile,
        detail: BlockFile,
        layout: Layout,
        graph_of: Callable[[bytes], Graph],
    ) -> None:
        self.number: int = header["number"]
        self.kind: str = header["kind"]
        self.time: float = header["time"]
        self.seconds: float = header["seconds"]
        self.samples: tuple[int, ...] = tuple(header["samples"])
        self.categories: tuple[str, ...] = tuple(header["categories"])
        self.layout = layout
        self._graphs: list[bytes] = header["graphs"]
        self._graph_of = graph_of
        self._detail_offset: int = header["detail"]
        self._arrays = {entry[0]: entry for entry in header["arrays"]}
        self._place = place
        self._steps = steps
        self._detail_file = detail

    @property
    def iterations(self) -> tuple[int, ...]:
        """The iterations of the step, without ``WHOLE_STEP``."""
        return tuple(range(len(self._graphs)))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Whatever else is true of the step, such as the optimizers' settings."""
        facts = codec.unpack(self._array("facts").tobytes())
        return facts if isinstance(facts, dict) else {}

    def graph(self, iteration: int = 0) -> Graph:
        """The graph of an iteration."""
        return self._graph_of(self.graph_digest(iteration))

    def graph_digest(self, iteration: int = 0) -> bytes:
        """The stable digest of the graph of an iteration; equal for equal graphs of any two trials."""
        if not 0 <= iteration < len(self._graphs):
            raise unknown(f"iteration in step {self.number}", iteration, self.iterations)
        return self._graphs[iteration]

    def statistics(self) -> NDArray[np.float64]:
        """``(R, len(STATISTICS))`` of all rows."""
        return self._statistics

    def aggregates(self) -> NDArray[np.float32]:
        """``(R, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))`` of all rows."""
        return self._aggregates

    def per_sample(self) -> NDArray[np.float32]:
        """``(R, S, len(SAMPLE_STATISTICS))`` of all rows."""
        return self._per_sample

    def rows(self, iteration: int | None = None, quantity: str | None = None) -> tuple[Row, ...]:
        """What was measured: of one iteration (and the whole step) and one quantity, or of all."""
        return tuple(
            row
            for row in self._rows
            if (iteration is None or row.info.iteration in (iteration, WHOLE_STEP))
            and (quantity is None or row.info.quantity == quantity)
        )

    def find(self, node: str, *, role: str | None = None, iteration: int | None = None, quantity: str = "value") -> Row:
        """The row of a tensor, without reading any numbers.

        Raises:
            UnknownNameError: there is no such row in this step.
        """
        index = self.layout.row(node, quantity, role, iteration)
        if index is None:
            raise self._unknown_row(node, role, iteration, quantity)
        return self._rows[index]

    def tensor(
        self, node: str, *, role: str | None = None, iteration: int | None = None, quantity: str = "value"
    ) -> Tensor:
        """One tensor of the step with all that was kept of it.

        >>> step.tensor("model.out", quantity="gradient").statistics["norm"]        # doctest: +SKIP

        Args:
            node: the node's name.
            role: which tensor of the node; its last one unless given.
            iteration: the last in which it exists unless given.
            quantity: ``"value"``, ``"gradient"``, ...

        Raises:
            UnknownNameError: there is no such tensor in this step.
        """
        return Tensor(self, self.find(node, role=role, iteration=iteration, quantity=quantity))

    def _unknown_row(self, node: str, role: str | None, iteration: int | None, quantity: str) -> Exception:
        tensors = self.layout.tensors
        of_node = [tensor for tensor in tensors if tensor.node == node]
        if not of_node:
            return unknown(f"node in step {self.number}", node, dict.fromkeys(t.node for t in tensors))
        quantities = dict.fromkeys(t.quantity for t in of_node)
        if quantity not in quantities:
            return unknown(f"quantity of {node!r} in step {self.number}", quantity, quantities)
        there = dict.fromkeys(f"{t.role}, iteration {t.iteration}" for t in of_node if t.quantity == quantity)
        asked = f"{role or 'any role'}, iteration {'any' if iteration is None else iteration}"
        return unknown(f"{quantity} of {node!r} in step {self.number} for", asked, there)

    # ------------------------------------------------------------------ arrays

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        shapes = _split(self._array("ranks"), self._array("shapes"))
        strides = _split(self._array("stride_ranks"), self._array("strides"))
        return tuple(
            Row(index, info, shape, stride)
            for index, (info, shape, stride) in enumerate(zip(self.layout.tensors, shapes, strides, strict=True))
        )

    @cached_property
    def _statistics(self) -> NDArray[np.float64]:
        return self._array("statistics")

    @cached_property
    def _aggregates(self) -> NDArray[np.float32]:
        return self._array("aggregates")

    @cached_property
    def _per_sample(self) -> NDArray[np.float32]:
        return self._array("per_sample")

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            raise DamagedError(f"step {self.number} lacks its {name}")
        _, dtype, shape, offset, length, shuffled = self._arrays[name]
        frame = self._steps.read(self._place.payload_offset + offset, length)
        return unpack_array(frame, dtype, shape, shuffled)

    @cached_property
    def _detail(self) -> _Detail:
        prefix = self._detail_file.read(self._detail_offset, PREFIX_SIZE)
        place = read_prefix(prefix, self._detail_offset)
        if place is None or place.kind != "detail":
            raise DamagedError(f"the detail of step {self.number} is damaged")
        header = read_header(self._detail_file.read(place.offset, PREFIX_SIZE + place.header_length))
        if header is None or header.get("number") != self.number:
            raise DamagedError(f"the detail of step {self.number} is damaged")
        index = codec.unpack(decompress(self._detail_file.read(place.payload_offset, header["index"])))
        starts = [0, *np.cumsum(index["rows"]).tolist()]
        return _Detail(place.payload_offset + header["index"], index["entries"], starts, index["totals"])

    def detail(self, row: int) -> tuple[dict[str, NDArray[Any]], int]:
        """The detail arrays of a row by name, and its number of neurons (-1 if none were kept); for ``Tensor``."""
        detail = self._detail
        arrays = {}
        for name, dtype, shape, offset, length, shuffled in detail.entries[detail.starts[row] : detail.starts[row + 1]]:
            arrays[name] = unpack_array(self._detail_file.read(detail.offset + offset, length), dtype, shape, shuffled)
        return arrays, detail.totals[row]


class Tensor:
    """One tensor of one step: what it is, its statistics, and, read on demand, its histogram and neurons."""

    def __init__(self, step: Step, row: Row) -> None:
        self.step = step
        self.row = row
        self.info = row.info
        self.shape = row.shape
        self.strides = row.strides

    @cached_property
    def statistics(self) -> dict[str, float]:
        """The statistics over all elements, by name."""
        return dict(zip(STATISTICS, self.step.statistics()[self.row.index].tolist(), strict=True))

    @cached_property
    def aggregates(self) -> dict[str, dict[str, float]]:
        """Over the batch, of each per-sample statistic: ``aggregates["std"]["batch_mean"]``; empty without a batch."""
        if self.info.batch_dim is None:
            return {}
        values = self.step.aggregates()[self.row.index]
        return {
            statistic: dict(zip(BATCH_AGGREGATES, map(float, values[i]), strict=True))
            for i, statistic in enumerate(SAMPLE_STATISTICS)
        }

    @property
    def per_sample(self) -> NDArray[np.float32]:
        """``(S, len(SAMPLE_STATISTICS))`` of the kept samples; NaN without a batch."""
        values: NDArray[np.float32] = self.step.per_sample()[self.row.index]
        return values

    @cached_property
    def histogram(self) -> Histogram:
        arrays, _ = self._detail
        counts = np.zeros(HISTOGRAM_BINS, np.int64)
        trimmed = arrays["histogram"].astype(np.int64)
        first, end = int(trimmed[0]), int(trimmed[1])
        counts[first:end] = trimmed[2:]
        return Histogram(counts)

    @cached_property
    def neurons(self) -> Neurons | None:
        """The kept neurons, or None."""
        arrays, total = self._detail
        if "neuron_samples" not in arrays:
            return None
        return Neurons(total, arrays.get("neuron_statistics"), arrays["neuron_samples"])

    @cached_property
    def _detail(self) -> tuple[dict[str, NDArray[Any]], int]:
        return self.step.detail(self.row.index)


def _split(ranks: NDArray[Any], flat: NDArray[Any]) -> list[tuple[int, ...]]:
    ends = np.cumsum(ranks, dtype=np.int64)
    numbers = flat.tolist()
    return [tuple(numbers[end - rank : end]) for end, rank in zip(ends.tolist(), ranks.tolist(), strict=True)]
