"""What is written twice: the statistics of a step are in the columns, too, and its detail says whose it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store.columns import N_AGGREGATES, Chunk
from stepscope.store.contents import Contents
from stepscope.store.detail import Detail
from stepscope.store.errors import StoreError
from stepscope.store.frames import pack_array
from stepscope.store.records import BATCH_AGGREGATES, SAMPLE_STATISTICS
from stepscope.store.step import Step


class Redundancy:
    """A damaged step, while it is rebuilt from what else the recording says.

    Attributes:
        header, payload: of its block, as far as it is rebuilt.
    """

    def __init__(self, contents: Contents, step: Step, header: dict[str, Any], payload: bytes) -> None:
        self.header = dict(header)
        self.payload = payload
        self._contents = contents
        self._step = step

    def rebuild(self, part: str) -> bool:
        """Whether a part could be rebuilt."""
        if part == "detail":
            return self._find_detail()
        if part not in ("statistics", "aggregates", "per_sample"):
            return False
        values = self._from_columns(part)
        if values is not None:
            self._put(part, values)
        return values is not None

    def give_up(self, part: str) -> None:
        """Note in the header that a part is lost."""
        self.header["lost"] = [*self.header.get("lost", ()), part]

    def _put(self, name: str, values: NDArray[Any]) -> None:
        frame, shuffled = pack_array(values)
        entry = [name, values.dtype.str, list(values.shape), len(self.payload), len(frame), shuffled]
        self.header["arrays"] = [*(e for e in self.header["arrays"] if e[0] != name), entry]
        self.payload += frame

    def _from_columns(self, part: str) -> NDArray[Any] | None:
        if self._step.number in self._contents.index.repeated:
            return None
        for chunk in self._contents.chunks:
            found = np.flatnonzero(chunk.numbers == self._step.number)
            if chunk.layout == self._step.layout.name and len(found):
                try:
                    return self._of_chunk(chunk, int(found[0]), part)
                except StoreError:
                    continue
        return None

    def _of_chunk(self, chunk: Chunk, at: int, part: str) -> NDArray[Any]:
        rows = range(chunk.rows)
        if part == "statistics":
            return np.stack([chunk.statistics(row)[:, at] for row in rows])
        batch = np.stack([chunk.batch(row)[:, at] for row in rows])
        if part == "aggregates":
            return batch[:, :N_AGGREGATES].reshape(len(rows), len(SAMPLE_STATISTICS), len(BATCH_AGGREGATES))
        return batch[:, N_AGGREGATES:].reshape(len(rows), -1, len(SAMPLE_STATISTICS))

    def _find_detail(self) -> bool:
        """Whether the step's detail is somewhere else in its file, where bytes were lost or inserted before it.

        The last one of its number: one that a dying process left, of a step that it did not finish, lies before it.
        """
        number = self._step.number
        file = self._contents.details.part(self.header.get("part", 0)).file
        if number in self._contents.index.repeated:
            return False
        for place, header in reversed(list(type(file)(file.path).new_blocks())):
            if place.kind == "detail" and header.get("number") == number:
                try:
                    Detail(file, place.offset, number, len(self._step.layout.tensors)).histogram(0)
                except (StoreError, IndexError):
                    continue
                self.header["detail"] = header.get("was", place.offset)
                return True
        return False
