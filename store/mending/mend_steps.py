"""Mending the steps: their numbers are looked for in the columns, their detail by its number; the rest is given up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepscope.store.blocks import UNKNOWN_KIND, BlockPlace, encode_block
from stepscope.store.contents import Contents
from stepscope.store.detail_parts import file_names
from stepscope.store.errors import StoreError
from stepscope.store.mending.findings import Findings
from stepscope.store.mending.redundancy import Redundancy
from stepscope.store.mending.scan import Scan, rewrite
from stepscope.store.step_index import StepIndex
from stepscope.store.step_parts import damaged_parts

_KEPT = frozenset((UNKNOWN_KIND, "step", "restart"))


def mend_steps(folder: Path, findings: Findings) -> bool:
    """Returns whether there was anything to do."""
    scan = Scan(folder, "steps")
    contents = Contents(folder)
    contents.refresh()
    restarts = _lost_restarts(scan, contents)
    mended: dict[int, bytes] = {}
    for place, header in scan.blocks:
        if not _makes_sense(place, header):
            mended[place.offset] = b""
            findings.add_lost(
                f"a block of the steps' file makes no sense: {place.kind} {header.get('number', '')!r:.40}"
            )
    for number in contents.index.numbers.tolist():
        block = _mended_step(contents, number, findings)
        if block is not None:
            mended[contents.index[number].place.offset] = block
    if scan.is_whole and not mended:
        return False
    if not scan.is_whole:
        _tell_lost_steps(scan, contents, findings)
    rewrite(scan.path, _blocks(scan, mended, restarts))
    return True


def _makes_sense(place: BlockPlace, header: dict[str, Any]) -> bool:
    if place.kind == UNKNOWN_KIND:
        return True
    try:
        StepIndex().take(place, header)
    except StoreError:
        return False
    return place.kind in _KEPT


def _mended_step(contents: Contents, number: int, findings: Findings) -> bytes | None:
    """The block of a step in which something is damaged; empty if it cannot be read at all, None if all is well."""
    try:
        step = contents.step(number)
    except StoreError as error:
        findings.add_lost(f"step {number}: {error}")
        return b""
    damaged = list(damaged_parts(step))
    if not damaged:
        return None
    place, header = contents.files["steps"].block(contents.index[number].place.offset, "step")
    redundancy = Redundancy(
        contents, step, header, contents.files["steps"].read(place.payload_offset, place.payload_length)
    )
    for part in damaged:
        if redundancy.rebuild(part.name):
            findings.add_rebuilt(f"{part.sentence}; it was found elsewhere in the recording")
        else:
            findings.add_lost(part.sentence)
            redundancy.give_up(part.name)
    return encode_block("step", redundancy.header, [redundancy.payload])


def _tell_lost_steps(scan: Scan, contents: Contents, findings: Findings) -> None:
    """Whose block is damaged: the other files still have their numbers."""
    known = set(contents.index.numbers.tolist()) | contents.index.repeated
    elsewhere = {number for chunk in contents.chunks for number in chunk.numbers.tolist()}
    elsewhere |= {
        header["number"]
        for name in file_names(scan.path.parent)
        if name.startswith("detail")
        for place, header in Scan(scan.path.parent, name).blocks
        if place.kind == "detail" and isinstance(header.get("number"), int)
    }
    lost = sorted(elsewhere - known)
    for number in lost:
        findings.add_lost(f"step {number}: its block in the steps' file is damaged")
    size = sum(end - start for start, end in scan.damaged_ranges())
    if size and not lost:
        findings.add_lost(f"{size} damaged bytes of the steps' file; no other file knows of a step that was there")


def _lost_restarts(scan: Scan, contents: Contents) -> dict[int, bytes]:
    """Where damage took the word that training had gone back, which the journal has as well: what to put there."""
    there = [header.get("step") for place, header in scan.blocks if place.kind == "restart"]
    return {
        start: encode_block("restart", {"step": restart.step})
        for start, end in scan.damaged_ranges()
        for restart in contents.journal.restarts
        if start <= restart.at < end and restart.step not in there
    }


def _blocks(scan: Scan, mended: dict[int, bytes], restarts: dict[int, bytes]) -> Iterator[bytes]:
    at = {end: restarts[start] for start, end in scan.damaged_ranges() if start in restarts}
    for place, _ in scan.blocks:
        yield at.pop(place.offset, b"")
        yield mended[place.offset] if place.offset in mended else scan.raw(place)
    yield from at.values()
