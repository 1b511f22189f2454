"""All blocks of a file, and whether there is anything else in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace, sized
from stepscope.store.files import FILE_HEADER_SIZE, check_file_header, file_header, file_path

Block = tuple[BlockPlace, dict[str, Any]]


class Scan:
    """A file's whole blocks, those of unknown kinds too.

    Args:
        folder, name: the file.
        anchors: blocks that are read at their offset, whatever lies before them. Each is among the blocks: one that
            says that it reaches into the next anchor ends there, and any other that says so is none.

    Attributes:
        path: where the file is.
        blocks: each with its header, in order.
        is_whole: whether the file has nothing but these.
    """

    def __init__(self, folder: Path, name: str, anchors: Iterable[Block] = ()) -> None:
        self.path = file_path(folder, name)
        self.file = BlockFile(self.path)
        self.blocks: list[Block] = list(self.file.new_blocks(unknown=True))
        self._cut: set[int] = set()
        apart = _apart(anchors)
        tangled = {place for place, _ in apart} - {place for place, _ in self.blocks}
        if tangled:
            self.blocks = list(self._around(apart))
        whole_size = self.blocks[-1][0].end if self.blocks else FILE_HEADER_SIZE
        self.is_whole = not tangled and not self.file.problems and self.file.size() == whole_size

    def raw(self, place: BlockPlace) -> bytes:
        """All bytes of a block."""
        data = self.file.read(place.offset, place.end - place.offset)
        return sized(data, len(data)) if place.offset in self._cut else data

    def _around(self, anchors: Sequence[Block]) -> Iterator[Block]:
        """The anchors, and the blocks between them."""
        start = FILE_HEADER_SIZE
        for (place, header), limit in zip(anchors, _limits(anchors, self.file.size()), strict=True):
            yield from self.file.blocks_within(start, place.offset)
            if place.end > limit:
                self._cut.add(place.offset)
                place = replace(place, payload_length=limit - place.payload_offset)
            yield place, header
            start = place.end
        yield from self.file.blocks_within(start, self.file.size())

    def damaged_ranges(self) -> Iterator[tuple[int, int]]:
        """Where the bytes lie that are in no block, from the file's first to its last."""
        at = FILE_HEADER_SIZE
        for place, _ in self.blocks:
            if at < place.offset:
                yield at, place.offset
            at = place.end
        if at < self.file.size():
            yield at, self.file.size()


def _apart(anchors: Iterable[Block]) -> list[Block]:
    """In order, without those that start inside the header of another one."""
    found: list[Block] = []
    for place, header in sorted(anchors, key=lambda block: block[0].offset):
        if not found or place.offset >= found[-1][0].payload_offset:
            found.append((place, header))
    return found


def _limits(anchors: Sequence[Block], size: int) -> Iterator[int]:
    """Where each anchor must end: at the next one, the last at the file's end."""
    yield from (place.offset for place, _ in anchors[1:])
    if anchors:
        yield size


def rewrite(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file anew; the old one is replaced, never written to (it may have another name, too).

    A file of an earlier format stays one: what is put into it is in that format, too.
    """
    beside = path.with_suffix(".new")
    with open(beside, "wb") as target:
        target.write(_header_of(path))
        target.writelines(blocks)
    beside.replace(path)


def _header_of(path: Path) -> bytes:
    """A file's first bytes; those of a new file, if they are damaged."""
    try:
        with open(path, "rb") as file:
            header = file.read(FILE_HEADER_SIZE)
        return header if check_file_header(path, header) == "fine" else file_header()
    except FileNotFoundError:
        return file_header()
