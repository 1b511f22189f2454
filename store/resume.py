"""Going on with a trial whose process died, or that was closed. Nothing that can be read is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepscope.store import lock
from stepscope.store.block_file import BlockFile
from stepscope.store.claim import claim_unused, reclaim
from stepscope.store.contents import Contents
from stepscope.store.detail_parts import file_names
from stepscope.store.errors import NotARecordingError
from stepscope.store.files import (
    FILE_HEADER_SIZE,
    FILE_NAMES,
    FORMAT_VERSION,
    check_file_header,
    file_header,
    file_path,
)
from stepscope.store.keepsake import new_keepsake
from stepscope.store.mending.swap import finish
from stepscope.store.records import TrialInfo
from stepscope.store.resumption import Resumption, changes, difference


@dataclass(frozen=True)
class Earlier:
    """What a writer must know of the trial that it goes on with.

    Attributes:
        config, environment: those in force before; None if the start of the journal is lost.
        next_step: the number after the last recorded step.
        digests: the layouts and graphs that the catalog has, and that can be read.
        problems: what of it is damaged, in sentences.
    """

    config: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None
    next_step: int
    digests: frozenset[bytes]
    problems: tuple[str, ...]


OLD_HEADERS = frozenset(file_header(version) for version in range(1, FORMAT_VERSION))


def resume(path: Path) -> Earlier | None:
    """Take the lock of a trial's folder, and make its files ready to be appended to; None if there is no trial yet.

    Raises:
        TrialInUseError: a process that may be alive writes to it.
        NotARecordingError: the folder is not one of a recording, or in a newer format; nothing was touched.
    """
    if not is_started(path):
        claim_unused(path)
        return None
    check_ours(path)
    reclaim(path)
    try:
        finish(path)  # of a repair that was interrupted
        cut_torn_ends(path)
        mark_as_current(path)
        return _earlier(path)
    except BaseException:
        lock.release(path)
        raise


def _earlier(path: Path) -> Earlier:
    contents = Contents(path)
    contents.refresh()
    journal, numbers = contents.journal, contents.index.numbers
    digests = contents.catalog.readable()  # what is damaged is written once more: that heals earlier steps, too
    return Earlier(
        journal.config if journal.has_info else None,
        journal.environment if journal.has_info else None,
        int(numbers[-1]) + 1 if len(numbers) else 0,
        digests,
        contents.problems(is_running=False),
    )


def is_started(path: Path) -> bool:
    """Whether there is anything of a trial in a folder."""
    return any(os.path.lexists(file_path(path, name)) for name in FILE_NAMES)


def check_ours(path: Path) -> None:
    """Raise ``NotARecordingError`` for a trial that cannot be read at all."""
    check_plain_files(path)
    Contents(path).refresh()


def check_plain_files(path: Path) -> None:
    """Raise ``NotARecordingError`` for files that this program must not change."""
    for name in file_names(path):
        file = file_path(path, name)
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise NotARecordingError(f"{file} is a link or no file at all; those of a recording are plain files")
        if file.exists():
            with open(file, "rb") as opened:
                check_file_header(file, opened.read(FILE_HEADER_SIZE))


def mark_as_current(path: Path) -> None:
    """Give files of an earlier format the current version: what is appended is of that version."""
    for name in file_names(path):
        file = file_path(path, name)
        if file.exists() and file.stat().st_size >= FILE_HEADER_SIZE:
            with open(file, "r+b", buffering=0) as opened:
                header = opened.read(FILE_HEADER_SIZE)
                if header in OLD_HEADERS:
                    opened.seek(0)
                    opened.write(file_header())


def cut_torn_ends(path: Path) -> None:
    """Cut what follows the last whole block of each file; it is kept in a folder of its own."""
    keepsake: Path | None = None
    for name in file_names(path):
        file = file_path(path, name)
        size = file.stat().st_size if file.exists() else 0
        end = _end_of_blocks(BlockFile(file)) if size else 0
        if end < size:
            keepsake = keepsake or new_keepsake(path)
            _save_end(file, end, keepsake / f"{name}.end")
            os.truncate(file, end)


def _end_of_blocks(file: BlockFile) -> int:
    """Where the last whole block ends; 0 if not even the file's first bytes are there, or worth to be kept."""
    for _ in file.new_blocks():
        pass
    size = file.size()
    if size < FILE_HEADER_SIZE:
        return 0
    end = size - file.unread()
    return 0 if end == FILE_HEADER_SIZE and file.problems else end


def _save_end(file: Path, start: int, kept: Path) -> None:
    with open(file, "rb") as source, open(kept, "xb") as target:
        source.seek(start)
        while data := source.read(1 << 20):
            target.write(data)
        target.flush()
        os.fsync(target.fileno())


def resumption_of(earlier: Earlier, now: TrialInfo) -> Resumption:
    """How what a process brings along differs from what the trial had before."""
    config = now.config if earlier.config is None else earlier.config
    environment = now.environment if earlier.environment is None else earlier.environment
    return difference(config, environment, now, pid=os.getpid(), step=earlier.next_step)


def resumption_messages(earlier: Earlier, now: TrialInfo) -> Iterator[str]:
    """What whoever reads the recording has to know of this, in sentences."""
    resumption = resumption_of(earlier, now)
    for what in ("config", "environment"):
        before, changed = getattr(earlier, what), getattr(resumption, what)
        if before is not None and changed is not None:
            yield f"resumed with another {what} ({changes(before, changed)})"
    if earlier.problems:
        more = f" and {len(earlier.problems) - 1} more" if len(earlier.problems) > 1 else ""
        yield f"resumed a damaged trial ({earlier.problems[0]}{more}); stepscope repair may help"
