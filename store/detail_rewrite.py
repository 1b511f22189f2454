"""Rewrites a file of details with less in it: beside the old one, which it replaces in a single move."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace, encode_block
from stepscope.store.detail_parts import new_part_path, part_path
from stepscope.store.errors import DamagedError
from stepscope.store.files import file_header
from stepscope.store.kept_details import detail_at
from stepscope.store.left_out import Thinning
from stepscope.store.thinning import Plan


def rewrite_part(trial: Path, part: int, plan: Plan) -> int:
    """Thin the steps of a part as planned; returns the bytes that it has less.

    A process that is killed in the middle leaves the old file as it was, and a new one that nobody reads.

    Raises:
        DamagedError: the part is damaged; it is left alone.
        OSError: the new file could not be written; the old one is as it was.
    """
    path, new = part_path(trial, part), new_part_path(trial, part)
    try:
        with open(new, "wb") as file:
            _write(BlockFile(path), part, plan, file)
            file.flush()
            os.fsync(file.fileno())
        freed = path.stat().st_size - new.stat().st_size
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    return freed


def _write(old: BlockFile, part: int, plan: Plan, new: IO[bytes]) -> None:
    new.write(file_header())
    for place, header in old.new_blocks():
        for piece in _rewritten(old, place, header, part, plan):
            new.write(piece)
    if old.problems or old.unread():
        raise DamagedError(f"{old.name} is damaged, and is not thinned out")


def _rewritten(old: BlockFile, place: BlockPlace, header: dict[str, Any], part: int, plan: Plan) -> Iterator[bytes]:
    was = int(header.get("was", place.offset))
    thinning = plan.get((part, was), Thinning.NOTHING)
    if thinning > header.get("thinned", Thinning.NOTHING):
        packed = detail_at(old, place, header).packed()
        yield replace(packed.thinned(thinning), more={"was": was}).encode()
    else:
        payload = old.read(place.payload_offset, place.payload_length)
        yield encode_block("detail", {**header, "was": was}, [payload])
