"""Brings a remote trial to the state of a local one; asked again, it goes on from there."""

from __future__ import annotations

import contextlib
import time
import zlib
from dataclasses import replace
from pathlib import Path

from stepscope.store.errors import StoreError, TrialInUseError, UnreachableError
from stepscope.store.files import SUFFIX
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.local_file import LocalFile
from stepscope.store.remote.manifest import MANIFEST, Manifest, RemoteFile, RemoteWriter, is_uploaded, read_manifest
from stepscope.store.remote.parts import new_ends

_BEAT = 15.0
"""Seconds after which a writer tells that it is alive, though nothing is new."""
_TRIES = 5
_ORDER = ("journal", "columns", "steps", "catalog", "detail")
"""What refers to others before those: it was written after them."""


class Uploader:
    """Uploads the trial in a local folder to the place that ``claim`` got for it.

    Args:
        trial: the local folder.
        remote: the group's remote folder.
        name: the trial's name there.
        manifest: as it is there, with this uploader as its writer.
    """

    def __init__(self, trial: Path, remote: RemoteFolder, name: str, manifest: Manifest) -> None:
        self.name = name
        self._trial = trial
        self._remote = remote
        self._manifest = manifest
        self._files: dict[str, LocalFile] = {}
        self._superseded: list[str] = []

    def upload(self, *, last: bool = False) -> None:
        """Upload what is new. With ``last``, the trial is complete then, and what is needless there is removed.

        Raises:
            TrialInUseError: somebody else has taken over the remote trial.
            UnreachableError: it did not work; try again.
        """
        sizes = self._snapshot()
        files = {name: self._upload(name, size) for name, size in sizes.items()}
        writer = None if last else self._writer()
        is_new = files != self._manifest.files
        if is_new or last or self._is_beat_due():
            changed = time.time() if is_new else self._manifest.changed
            self._publish(replace(self._manifest, files=files, changed=changed, writer=writer))
        if last:
            self._remove_needless()

    # ------------------------------------------------------------------ what is here

    def _snapshot(self) -> dict[str, int]:
        """The whole blocks of each file, at one moment: no file refers to what another one does not have yet."""
        for _ in range(_TRIES):
            for path in filter(lambda path: is_uploaded(path.name), self._trial.glob(f"*{SUFFIX}")):
                self._files.setdefault(path.name, LocalFile(path))
            sizes = {name: self._files[name].look() for name in sorted(self._files, key=_order)}
            if not any(file.was_replaced() for file in self._files.values()):
                return {name: size for name, size in sizes.items() if size}
        raise StoreError(f"{self._trial} changes faster than it can be read")

    def _upload(self, name: str, size: int) -> RemoteFile:
        local = self._files[name]
        known = self._manifest.files.get(name, RemoteFile())
        if not local.continues(known):
            known = RemoteFile(known.generation + 1)
        if size == known.size:
            return known
        kept, added = new_ends(known.ends, size)
        ends = (*known.ends[:kept], *added)
        checks = list(known.checks[:kept])
        for part in RemoteFile(known.generation, ends).parts(name)[kept:]:
            data = local.read(part.start, part.end)
            self._remote.write(f"{self.name}/{part.path}", data)
            checks.append(zlib.crc32(data))
            if self._is_beat_due():  # much to upload, or slowly: that is no reason to count as dead
                self._publish(self._manifest.with_writer(self._writer()))
        local.remember(size)
        return RemoteFile(known.generation, ends, tuple(checks))

    # ------------------------------------------------------------------ what is there

    def _writer(self) -> RemoteWriter:
        assert self._manifest.writer is not None
        return replace(self._manifest.writer, beat=time.time())

    def _is_beat_due(self) -> bool:
        return self._manifest.writer is None or time.time() - self._manifest.writer.beat > _BEAT

    def _publish(self, manifest: Manifest) -> None:
        self._check_owner()
        self._remote.write(f"{self.name}/{MANIFEST}", manifest.to_bytes())
        before, self._manifest = self._manifest, manifest
        # Who read the manifest before this one may still be reading its parts: they stay until the next one.
        self._remove(self._superseded)
        self._superseded = sorted(_paths(before, self.name) - _paths(manifest, self.name))

    def _check_owner(self) -> None:
        there, mine = read_manifest(self._remote, self.name), self._manifest.writer
        place = f"{self._remote.address}/{self.name}"
        if there is None or there.trial != self._manifest.trial:
            raise TrialInUseError(f"{place} was {'replaced' if there else 'removed'}; nothing more is uploaded")
        if there.writer is not None and (mine is None or there.writer.token != mine.token):
            by = f"process {there.writer.pid} on {there.writer.host}"
            raise TrialInUseError(f"{place} was taken over by {by}; nothing more is uploaded")

    def _remove_needless(self) -> None:
        """Remove the parts that no manifest names: superseded ones, and those of an upload that was interrupted."""
        needed = _paths(self._manifest, self.name)
        for file in self._remote.names(self.name):
            if file.endswith(SUFFIX):
                there = [f"{self.name}/{file}/{part}" for part in self._remote.names(f"{self.name}/{file}")]
                self._remove([path for path in there if path not in needed])

    def _remove(self, paths: list[str]) -> None:
        """What cannot be removed, for want of a permission perhaps, hurts nobody."""
        with contextlib.suppress(UnreachableError):
            self._remote.remove(paths)


def _paths(manifest: Manifest, trial: str) -> set[str]:
    return {f"{trial}/{part.path}" for name, file in manifest.files.items() for part in file.parts(name)}


def _order(name: str) -> tuple[int, str]:
    kind = name.removesuffix(SUFFIX).partition("-")[0]
    return _ORDER.index(kind), name
