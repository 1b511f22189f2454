"""Mending the journal: what makes no sense is taken out, and a lost beginning is made up for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepscope.store import codec
from stepscope.store.blocks import BlockPlace, encode_block
from stepscope.store.errors import StoreError
from stepscope.store.journal import Journal
from stepscope.store.mending.findings import Findings
from stepscope.store.mending.scan import Scan, rewrite
from stepscope.store.records import TrialInfo

_MOST_MESSAGES = 50


def mend_journal(folder: Path, name: str, findings: Findings) -> bool:
    """Returns whether there was anything to do."""
    scan = Scan(folder, "journal")
    kept = [(place, header) for place, header in scan.blocks if _makes_sense(place, header)]
    begins = any(place.kind == "trial" for place, _ in kept)
    if scan.is_whole and begins and len(kept) == len(scan.blocks):
        return False
    for start, end in scan.damaged_ranges():
        findings.add_lost(f"the journal's bytes {start} to {end}: points of curves, notes or messages")
    blocks = [scan.raw(place) for place, _ in kept]
    if not begins:
        findings.add_lost("the beginning of the journal: config and environment")
        blocks.insert(0, _beginning(folder, name))
    rewrite(scan.path, blocks)
    return True


def _makes_sense(place: BlockPlace, header: dict[str, Any]) -> bool:
    try:
        Journal("").take(place.kind, header)
    except StoreError:
        return False
    return True


def _beginning(folder: Path, name: str) -> bytes:
    """As much of a trial's first block as the steps tell."""
    headers = [header for place, header in Scan(folder, "steps").blocks if place.kind == "step"]
    times = [header["time"] for header in headers if isinstance(header.get("time"), float)]
    samples = max((len(header.get("samples", ())) for header in headers), default=0)
    return encode_block("trial", codec.trial_to_plain(TrialInfo(name, min(times, default=0.0), {}, {}, samples, 0)))


def add_messages(folder: Path, texts: Sequence[str], step: int) -> None:
    """Note in the journal what was lost, before the block that ends it."""
    scan = Scan(folder, "journal")
    told = list(texts[:_MOST_MESSAGES])
    if len(texts) > _MOST_MESSAGES:
        told.append(f"{len(texts) - _MOST_MESSAGES} more things")
    messages = [
        encode_block("message", {"text": f"lost when the recording was damaged: {t}", "step": step}) for t in told
    ]
    blocks = [scan.raw(place) for place, _ in scan.blocks]
    is_closed = bool(scan.blocks) and scan.blocks[-1][0].kind == "end"
    at = len(blocks) - is_closed
    rewrite(scan.path, (*blocks[:at], *messages, *blocks[at:]))
