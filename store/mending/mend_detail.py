"""Mending the files of details: blocks keep their offsets, because steps refer to them; damaged bytes become a gap.

A step finds its detail by the offset, a scan of the file by the lengths of the blocks before it. Where these disagree,
because a block says that it is longer than it is, the step is right: what can be read stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stepscope.store.blocks import gap_block, lengthened
from stepscope.store.contents import Contents
from stepscope.store.detail_parts import file_names
from stepscope.store.errors import StoreError
from stepscope.store.files import file_path
from stepscope.store.mending.scan import Block, Scan, rewrite


def mend_details(folder: Path) -> bool:
    """Mend all files that hold details. Returns whether there was anything to do."""
    anchors = _anchors(folder)
    names = [name for name in file_names(folder) if name.startswith("detail")]
    return any([_mend(Scan(folder, name, anchors.get(file_path(folder, name), ()))) for name in names])


def _anchors(folder: Path) -> dict[Path, list[Block]]:
    """The details that steps have now, by file."""
    contents = Contents(folder)
    contents.refresh()
    found: dict[Path, list[Block]] = {}
    for number in contents.index.numbers.tolist():
        with suppress(StoreError):
            _, step = contents.header_of(number)
            file, offset = contents.details.part(step.part).place_of(step.detail, number)
            place, header = file.block(offset, "detail")
            if header.get("number") == number:
                found.setdefault(file.path, []).append((place, header))
    return found


def _mend(scan: Scan) -> bool:
    if scan.is_whole:
        return False
    rewrite(scan.path, _blocks(scan))
    return True


def _blocks(scan: Scan) -> Iterator[bytes]:
    """The blocks, with gaps between them.

    A gap that is too small for a block becomes the end of the block before it; at the file's start there is none, so
    that the first block goes to the end, and a gap takes its place.
    """
    gaps = {end: end - start for start, end in scan.damaged_ranges()}
    before: bytes | None = None
    moved: bytes | None = None
    for place, _ in scan.blocks:
        block, gap = scan.raw(place), gaps.get(place.offset, 0)
        filler = gap_block(gap)
        if gap and filler is None and before is None:
            moved, block = block, _gap(gap + len(block))
        elif gap and filler is None and before is not None:
            before = lengthened(before, gap)
        if before is not None:
            yield before
        if filler is not None:
            yield filler
        before = block
    yield from (block for block in (before, moved) if block is not None)


def _gap(size: int) -> bytes:
    gap = gap_block(size)
    assert gap is not None
    return gap
