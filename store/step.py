"""One recorded step, as a reader sees it; everything large is read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store import codec
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.detail import Detail
from stepscope.store.detail_parts import DetailPart
from stepscope.store.errors import DamagedError, UnknownNameError, damaged_unless, unknown
from stepscope.store.frames import unpack_array
from stepscope.store.layout import Layout
from stepscope.store.left_out import DetailState
from stepscope.store.records import WHOLE_STEP, Graph
from stepscope.store.step_block import StepHeader
from stepscope.store.step_index import LOST_DETAIL
from stepscope.store.tensor import Row, Tensor


class Step:
    """One recorded step.

    Attributes:
        number, kind, time, seconds: as in ``StepRecord``.
        samples: the indices of the kept samples in the batch; ``categories`` their labels, or empty.
        lost: the parts that were lost when the recording was damaged, if it was repaired since: ``"statistics"``,
            ``"detail"``, ``"graph 0"``, ...; reading one raises ``DamagedError``.
    """

    def __init__(
        self,
        header: StepHeader,
        place: BlockPlace,
        steps: BlockFile,
        detail: DetailPart,
        layout: Layout,
        graph_of: Callable[[bytes], Graph],
    ) -> None:
        self.number = header.number
        self.kind = header.kind
        self.time = header.time
        self.seconds = header.seconds
        self.samples = header.samples
        self.categories = header.categories
        self.layout = layout
        self.lost = header.lost
        self._header = header
        self._graph_of = graph_of
        self._place = place
        self._steps = steps
        self._detail_part = detail

    @property
    def iterations(self) -> tuple[int, ...]:
        """The iterations of the step, without ``WHOLE_STEP``."""
        return tuple(range(len(self._header.graphs)))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Whatever else is true of the step, such as the optimizers' settings."""
        with damaged_unless(f"the facts of step {self.number}"):
            facts = codec.unpack(self._array("facts").tobytes())
        return facts if isinstance(facts, dict) else {}

    def graph(self, iteration: int = 0) -> Graph:
        """The graph of an iteration."""
        return self._graph_of(self.graph_digest(iteration))

    def graph_digest(self, iteration: int = 0) -> bytes:
        """The stable digest of the graph of an iteration; equal for equal graphs of any two trials."""
        if not 0 <= iteration < len(self._header.graphs):
            raise unknown(f"iteration in step {self.number}:", iteration, self.iterations)
        return self._header.graphs[iteration]

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
        return self._row(index)

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

    def _unknown_row(self, node: str, role: str | None, iteration: int | None, quantity: str) -> UnknownNameError:
        where = f"of {node!r} in step {self.number}:"
        tensors = [tensor for tensor in self.layout.tensors if tensor.node == node]
        if not tensors:
            return unknown(f"node in step {self.number}:", node, dict.fromkeys(t.node for t in self.layout.tensors))
        quantities = dict.fromkeys(t.quantity for t in tensors)
        if quantity not in quantities:
            return unknown(f"quantity {where}", quantity, quantities)
        tensors = [tensor for tensor in tensors if tensor.quantity == quantity]
        roles = dict.fromkeys(t.role for t in tensors)
        if role is not None and role not in roles:
            return unknown(f"role {where}", role, roles)
        there = dict.fromkeys(t.iteration for t in tensors if role is None or t.role == role)
        return unknown(f"iteration {where}", iteration, there)

    # ------------------------------------------------------------------ arrays

    def statistics(self) -> NDArray[np.float64]:
        """``(R, len(STATISTICS))`` of all rows."""
        return self._statistics

    def aggregates(self) -> NDArray[np.float32]:
        """``(R, len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))`` of all rows."""
        return self._aggregates

    def per_sample(self) -> NDArray[np.float32]:
        """``(R, S, len(SAMPLE_STATISTICS))`` of all rows."""
        return self._per_sample

    @cached_property
    def detail(self) -> Detail:
        """Where histograms and neurons are; for ``Tensor``."""
        if LOST_DETAIL in self.lost:
            raise DamagedError(f"the histograms and neurons of step {self.number} were lost when its file was damaged")
        file, offset = self._detail_part.place_of(self._header.detail, self.number)
        return Detail(file, offset, self.number, len(self.layout.tensors))

    @property
    def left_out(self) -> str:
        """What is missing of its detail and why, in words; empty if nothing is.

        Neurons may be missing because the recording is kept within a limit of bytes ("thinned"), or because the writer
        was behind ("dropped"); statistics and histograms never are.
        """
        return self.detail.left_out.sentence

    @property
    def detail_state(self) -> DetailState:
        """Whether the detail is ``"full"``, or was ``"thinned"`` or ``"dropped"``; ``left_out`` says more."""
        return self.detail.left_out.state

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return tuple(map(self._row, range(len(self.layout.tensors))))

    def _row(self, index: int) -> Row:
        shape, strides = _slice(*self._shapes, index), _slice(*self._strides, index)
        return Row(index, self.layout.tensors[index], shape, strides)

    @cached_property
    def _shapes(self) -> tuple[list[int], list[int]]:
        return self._lists("ranks", "shapes")

    @cached_property
    def _strides(self) -> tuple[list[int], list[int]]:
        return self._lists("stride_ranks", "strides")

    @cached_property
    def _statistics(self) -> NDArray[np.float64]:
        return self._row_array("statistics")

    @cached_property
    def _aggregates(self) -> NDArray[np.float32]:
        return self._row_array("aggregates")

    @cached_property
    def _per_sample(self) -> NDArray[np.float32]:
        return self._row_array("per_sample")

    def _row_array(self, name: str) -> NDArray[Any]:
        values = self._array(name)
        if values.shape[:1] != (len(self.layout.tensors),):
            raise DamagedError(f"the {name} of step {self.number} do not fit its layout")
        return values

    def _lists(self, ranks: str, flat: str) -> tuple[list[int], list[int]]:
        """Where each row's numbers end, and all numbers."""
        ends, numbers = np.cumsum(self._array(ranks), dtype=np.int64).tolist(), self._array(flat).tolist()
        if len(ends) != len(self.layout.tensors) or (ends[-1] if ends else 0) != len(numbers):
            raise DamagedError(f"the {flat} of step {self.number} do not fit its layout")
        return [0, *ends], numbers

    def _array(self, name: str) -> NDArray[Any]:
        entry = self._header.arrays.get(name)
        if entry is None:
            raise DamagedError(f"step {self.number} lacks its {name}")
        frame = self._steps.read(self._place.payload_offset + entry.offset, entry.length)
        with damaged_unless(f"the {name} of step {self.number}"):
            return unpack_array(frame, entry.dtype, entry.shape, entry.shuffled)


def _slice(ends: list[int], numbers: list[int], index: int) -> tuple[int, ...]:
    return tuple(numbers[ends[index] : ends[index + 1]])
