"""What was read of a trial's files so far; asked again, it reads on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.catalog import Catalog
from stepscope.store.columns import Chunk
from stepscope.store.detail_parts import DetailParts
from stepscope.store.errors import DamagedError, NotARecordingError
from stepscope.store.files import FILE_NAMES, file_path
from stepscope.store.health import find_problems
from stepscope.store.journal import Journal
from stepscope.store.layout import Layout
from stepscope.store.step import Step
from stepscope.store.step_block import StepHeader, parse_step
from stepscope.store.step_index import StepIndex


class Contents:
    """The headers of all blocks of a trial, in the form in which they are asked for.

    Attributes:
        files: the trial's files by name.
        details: the files that hold details, ``files["detail"]`` being the first.
        was_thinned: whether the last ``refresh`` found that details were thinned out since the one before.
        journal, catalog, index, chunks: what the blocks of the files said.
    """

    def __init__(self, folder: Path, open_file: Callable[[Path], BlockFile] = BlockFile) -> None:
        self.files = {name: open_file(file_path(folder, name)) for name in FILE_NAMES}
        self.details = DetailParts(folder, self.files["detail"])
        self.journal = Journal(folder.name)
        self.catalog = Catalog(self.files["catalog"])
        self.index = StepIndex()
        self.chunks: list[Chunk] = []
        self.was_thinned = False
        self._problems: dict[str, None] = {}

    def was_replaced(self) -> bool:
        """Whether another trial is now where this one was, or a repair has put other files into their place."""
        return any(file.was_replaced() for file in self.files.values())

    def refresh(self) -> bool:
        """Read what was written since the last look. Returns whether there was anything new.

        Raises:
            NotARecordingError: the journal is of another program, or in a newer format.
        """
        self.was_thinned = self.details.refresh()
        # The journal first: once it says that the trial ended, everything else is there to be read. The catalog last:
        # a writer beside this reader may add a layout and its step between any two of these.
        new = {
            "journal": self._read_new("journal", lambda place, header: self.journal.take(place.kind, header)),
            "columns": self._read_new("columns", self._take_columns),
            "steps": self._read_new("steps", self.index.take),
            "catalog": self._read_new("catalog", self.catalog.take),
        }
        journal = self.files["journal"]
        if journal.is_foreign and not self.journal.has_info:
            raise NotARecordingError(f"{journal.path} is not a file of a Stepscope recording")
        if new["steps"]:
            self.index.settle()
        return any(new.values()) or self.was_thinned

    def problems(self, *, is_running: bool) -> tuple[str, ...]:
        """What is damaged or missing, in sentences."""
        found = find_problems(self.files, self.index, is_running=is_running)
        lost = () if is_running else self._lost_layouts()
        return tuple(dict.fromkeys((*found, *lost, *self._problems, *self.catalog.problems)))

    def step(self, number: int) -> Step:
        """A step that the index has.

        Raises:
            DamagedError: it cannot be read.
        """
        place, parsed = self.header_of(number)
        detail, layout = self.details.part(parsed.part), self.catalog.layout(parsed.layout)
        return Step(parsed, place, self.files["steps"], detail, layout, self.catalog.graph)

    def header_of(self, number: int) -> tuple[BlockPlace, StepHeader]:
        """The block and the header of a step that the index has.

        Raises:
            DamagedError: it cannot be read.
        """
        place, header = self.files["steps"].block(self.index[number].place.offset, "step")
        return place, parse_step(header, place)

    def layouts_of(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Layout | None]]:
        """The layouts of steps that the index has: of each step the place among these; None if it cannot be read."""
        places = self.index.layout_places[np.searchsorted(self.index.numbers, numbers)]
        return places, [self._readable_layout(digest) for digest in self.index.layouts]

    def counting_steps(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Which steps of a chunk are those that the index has; of superseded numbers only if the chunk says where."""
        numbers = chunk.numbers.tolist()
        is_only_one = np.array([number not in self.index.repeated for number in numbers], bool)
        offsets = [self.index.offset_of(number) if number in self.index else -1 for number in numbers]
        return is_only_one | chunk.is_of(np.arange(len(numbers)), np.array(offsets, np.int64))

    def _lost_layouts(self) -> Iterator[str]:
        """Whether the catalog says of every step which rows it has."""
        lost = [place for place, digest in enumerate(self.index.layouts) if digest not in self.catalog.digests]
        if amount := int(np.isin(self.index.layout_places, lost).sum()):
            name = self.files["catalog"].name
            yield f"{name}: what {amount} of {len(self.index.numbers)} steps consist of is missing; they cannot be read"

    def _readable_layout(self, digest: bytes) -> Layout | None:
        try:
            return self.catalog.layout(digest)
        except DamagedError:
            return None

    def _read_new(self, name: str, take: Callable[[BlockPlace, dict[str, Any]], None]) -> bool:
        found = False
        try:
            for place, header in self.files[name].new_blocks():
                found = True
                try:
                    take(place, header)
                except DamagedError as error:
                    self._problems[f"{self.files[name].name}: byte {place.offset}: {error}"] = None
        except NotARecordingError as error:
            if name == "journal":
                raise
            self._problems[str(error)] = None
        except (OSError, DamagedError) as error:
            self._problems[f"{self.files[name].name} cannot be read ({error})"] = None
        return found

    def _take_columns(self, place: BlockPlace, header: dict[str, Any]) -> None:
        self.chunks.append(Chunk(self.files["columns"], place, header))
