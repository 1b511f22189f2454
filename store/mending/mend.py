"""Mending a folder that is nobody else's: a copy of a trial, or one that is to take its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepscope.store.contents import Contents
from stepscope.store.mending.findings import Findings
from stepscope.store.mending.mend_catalog import mend_catalog
from stepscope.store.mending.mend_columns import mend_columns
from stepscope.store.mending.mend_detail import mend_details
from stepscope.store.mending.mend_journal import add_messages, mend_journal
from stepscope.store.mending.mend_steps import mend_steps
from stepscope.store.verify import verify_trial

_MOST_ROUNDS = 8


def mend(folder: Path, name: str, siblings: Sequence[Path]) -> Findings:
    """Mend the files of a trial, until nothing is left to be done; none is written to, each is replaced.

    Args:
        folder: where the files are.
        name: the trial's name.
        siblings: other trials of the group, which may have what is missing.
    """
    findings = Findings()
    mend_journal(folder, name, findings)  # first: without one, nothing else is read
    # What is taken out may bring to light an earlier block, which may be damaged as well.
    moved = False
    for _ in range(_MOST_ROUNDS):
        changed = [mend_catalog(folder, siblings, findings), mend_details(folder), mend_steps(folder, findings)]
        moved = moved or changed[-1]
        if not any(changed):
            break
    if moved or verify_trial(folder):  # columns say where steps are
        mend_columns(folder)
    if findings.lost:
        add_messages(folder, findings.lost, _last_step(folder))
    return findings


def _last_step(folder: Path) -> int:
    contents = Contents(folder)
    contents.refresh()
    numbers = contents.index.numbers
    return int(numbers[-1]) if len(numbers) else 0
