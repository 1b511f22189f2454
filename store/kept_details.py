"""What the files of details of a trial hold, for a writer that goes on with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.contents import Contents
from stepscope.store.detail import Detail
from stepscope.store.detail_parts import part_path, parts_of
from stepscope.store.detail_table import SAMPLES, STATISTICS
from stepscope.store.errors import StoreError, damaged_unless
from stepscope.store.frames import array_entries
from stepscope.store.thinning import Kept


def kept_details(trial: Path, contents: Contents) -> Iterator[Kept]:
    """All details but those of the first file; those that were superseded are a kind of their own."""
    kinds = dict(_kinds(contents))
    for part in parts_of(trial):
        file = BlockFile(part_path(trial, part))
        for place, header in file.new_blocks() if part else ():
            with contextlib.suppress(StoreError):
                detail, was = detail_at(file, place, header), int(header.get("was", place.offset))
                sizes = detail.stored_bytes(SAMPLES), detail.stored_bytes(STATISTICS)
                yield Kept(int(header["number"]), kinds.get((part, was), ""), part, was, *sizes)


def detail_at(file: BlockFile, place: BlockPlace, header: dict[str, Any]) -> Detail:
    """The detail in a block, whatever step it belongs to.

    Raises:
        DamagedError: it makes no sense.
    """
    with damaged_unless("detail"):
        rows = array_entries(header["arrays"], place.payload_length)["table"].shape[0]
    return Detail(file, place.offset, header.get("number", -1), rows)


def _kinds(contents: Contents) -> Iterator[tuple[tuple[int, int], str]]:
    for number in contents.index.numbers.tolist():
        with contextlib.suppress(StoreError):
            _, header = contents.header_of(number)
            yield (header.part, header.detail), header.kind
