"""A file of a remote trial that is fetched page by page, when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.errors import DamagedError, UnreachableError
from stepscope.store.remote.manifest import RemoteFile
from stepscope.store.remote.trial_copy import TrialCopy, pages_folder

PAGE = 512 << 10


class LazyFile(BlockFile):
    """Keeps each page that was fetched, in a folder beside the trial's other files."""

    def __init__(self, path: Path, copy: TrialCopy) -> None:
        super().__init__(path)
        self._copy = copy
        self._trial = copy.manifest.trial
        self._file = copy.manifest.files.get(self.name)

    def size(self) -> int:
        file = self._known()
        return 0 if file is None else file.size

    def _known(self) -> RemoteFile | None:
        """The file as it is now; once it is replaced, as it was before: what asks then has read that one."""
        manifest = self._copy.manifest
        now = manifest.files.get(self.name) if manifest.trial == self._trial else None
        if now is not None and (self._file is None or self._file.generation == now.generation):
            self._file = now
        return self._file

    def block(self, offset: int, kind: str) -> tuple[BlockPlace, dict[str, Any]]:
        try:
            return super().block(offset, kind)
        except DamagedError:  # another reader of this copy may have fetched more steps than this one knows of
            if not self._copy.catch_up():
                raise
            return super().block(offset, kind)

    def was_replaced(self) -> bool:
        return False  # the copy knows, and so does who made this file

    def read(self, offset: int, length: int) -> bytes:
        end = offset + length
        if offset < 0 or length < 0 or end > self.size():
            raise DamagedError(f"{self.name} has no {length} bytes at byte {offset}")
        pages = range(offset // PAGE, -(-end // PAGE))
        data = b"".join(self._page(number, min(end - number * PAGE, PAGE)) for number in pages)
        start = offset - pages.start * PAGE
        return data[start : start + length]

    def _page(self, number: int, length: int) -> bytes:
        """At least so many bytes of a page; the last page of a file that grows is fetched again when it has to be."""
        path = self._folder() / f"{number:08}"
        data = path.read_bytes() if path.is_file() else b""
        if len(data) < length:
            data = self._fetch(number * PAGE)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = path.with_suffix(".part")
            beside.write_bytes(data)
            beside.replace(path)
        return data

    def _fetch(self, start: int) -> bytes:
        try:
            if self._known() != self._copy.manifest.files.get(self.name):
                raise DamagedError(f"{self.name} was replaced meanwhile; refresh the trial")
            return self._copy.read(self.name, start, min(start + PAGE, self.size()))
        except UnreachableError as error:
            raise DamagedError(f"{self.name} cannot be fetched: {error}") from error

    def _folder(self) -> Path:
        return pages_folder(self.path) / f"{self._file.generation if self._file is not None else 0:04}"
