"""All blocks of a file, and whether there is anything else in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.files import FILE_HEADER_SIZE, check_file_header, file_header, file_path


class Scan:
    """A file's whole blocks, those of unknown kinds too.

    Attributes:
        path: where the file is.
        blocks: each with its header, in order.
        is_whole: whether the file has nothing but these.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = file_path(folder, name)
        self.file = BlockFile(self.path)
        self.blocks: list[tuple[BlockPlace, dict[str, Any]]] = list(self.file.new_blocks(unknown=True))
        whole_size = self.blocks[-1][0].end if self.blocks else FILE_HEADER_SIZE
        self.is_whole = not self.file.problems and self.file.size() == whole_size

    def raw(self, place: BlockPlace) -> bytes:
        """All bytes of a block."""
        return self.file.read(place.offset, place.end - place.offset)

    def damaged_ranges(self) -> Iterator[tuple[int, int]]:
        """Where the bytes lie that are in no block, from the file's first to its last."""
        at = FILE_HEADER_SIZE
        for place, _ in self.blocks:
            if at < place.offset:
                yield at, place.offset
            at = place.end
        if at < self.file.size():
            yield at, self.file.size()


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
