"""The local copy of a remote trial: what is fetched of it, and when."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stepscope.store import lock
from stepscope.store.errors import DamagedError, NotARecordingError
from stepscope.store.files import SUFFIX
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import Manifest, RemoteFile, RemoteWriter, find_trial

LAZY = f"detail{SUFFIX}"
"""Histograms and neurons are most of a trial, and few of them are ever looked at: they are fetched when asked for."""
STATE = "fetched.json"
_AT_ONCE = 16 << 20
_TRIES = 5
_ORDER = ("catalog", "detail", "steps", "columns", "journal")


class TrialCopy:
    """Keeps the files of a remote trial in a local folder; only what is new is fetched.

    Args:
        remote: the group's remote folder.
        name: the trial's name.
        folder: where the copy is kept.

    Attributes:
        manifest: what the remote trial consisted of at the last refresh.
    """

    def __init__(self, remote: RemoteFolder, name: str, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest("", 0.0)
        self._remote = remote
        self._name = name
        self._lock = threading.RLock()

    @property
    def address(self) -> str:
        return f"{self._remote.address}/{self._name}"

    def is_other_than(self, before: Manifest) -> bool:
        """Whether what was read with an earlier manifest is not the start of what is here now."""
        return any(_is_replaced(name, before, self.manifest) for name in self.manifest.files)

    def refresh(self) -> bool:
        """Fetch what is new, but the details; False if the remote trial is gone, and the copy is left as it was.

        Raises:
            StoreError: it cannot be fetched, or makes no sense.
        """
        with self._lock:
            return self._with_manifest(self._fetch)

    def fetch_all(self) -> None:
        """Fetch everything, the details too: the copy is a whole recording then.

        Raises:
            NotARecordingError: there is no such trial.
            StoreError: it cannot be fetched.
        """
        with self._lock:
            if not self._with_manifest(lambda manifest: self._fetch(manifest, everything=True)):
                raise NotARecordingError(f"there is no trial at {self.address}")

    def read(self, file: str, start: int, end: int) -> bytes:
        """Bytes of a file from where it is, past the copy.

        Raises:
            DamagedError: there are no such bytes any more.
            UnreachableError: they cannot be fetched.
        """
        with self._lock:
            before, found = self.manifest, bytearray()

            def fetch(manifest: Manifest) -> None:
                if _is_replaced(file, before, manifest):
                    raise DamagedError(f"{self.address}/{file} was replaced meanwhile; refresh the trial")
                found[:] = b"".join(self._pieces(manifest, file, start, end))

            try:
                fetch(before)
            except FileNotFoundError:  # the part was superseded by a larger one
                if not self._with_manifest(fetch):
                    raise DamagedError(f"{self.address} was removed") from None
            return bytes(found)

    def catch_up(self) -> bool:
        """Know what was uploaded to a live trial since the last refresh, without fetching it; False if nothing was.

        Other readers keep the same copy: what they fetched may refer to details that this one does not know of yet.
        """
        with self._lock:
            before = self.manifest
            now = find_trial(self._remote, self._name) if before.is_live else None
            if now is None or any(_is_replaced(name, before, now) for name in now.files):
                return False
            self.manifest = now
            return now.files != before.files

    # ------------------------------------------------------------------ fetching

    def _with_manifest(self, use: Callable[[Manifest], object]) -> bool:
        """Use the manifest; once more if its parts were superseded meanwhile. False if there is none."""
        for attempt in range(_TRIES):
            manifest = find_trial(self._remote, self._name)
            if manifest is None:
                return False
            try:
                use(manifest)
                return True
            except FileNotFoundError as error:
                if attempt == _TRIES - 1:
                    raise DamagedError(f"{self.address} lacks a part that its manifest names: {error}") from error
        return True

    def _fetch(self, manifest: Manifest, *, everything: bool = False) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with lock.one_at_a_time(self.folder):
            state = self._state()
            if state.get("trial") != manifest.trial:
                state = self._start_over(manifest.trial)
            for name in sorted(manifest.files, key=_order):
                if name != LAZY or everything:
                    self._fetch_file(name, manifest, state)
            self._forget(manifest)
            self._show_writer(manifest.writer if manifest.is_live else None)
        self.manifest = manifest

    def _fetch_file(self, name: str, manifest: Manifest, state: dict[str, Any]) -> None:
        path, file = self.folder / name, manifest.files[name]
        have = path.stat().st_size if path.is_file() else 0
        is_same = state["generations"].get(name) == file.generation and not path.is_symlink()
        if not is_same or have > file.size:
            beside = path.with_suffix(".part")
            beside.unlink(missing_ok=True)
            self._append(beside, name, manifest, file)
            beside.replace(path)
            state["generations"][name] = file.generation
            self._write_state(state)
        elif have < file.size:
            self._append(path, name, manifest, file)

    def _append(self, path: Path, name: str, manifest: Manifest, file: RemoteFile) -> None:
        with open(path, "ab", buffering=0) as target:
            for piece in self._pieces(manifest, name, target.tell(), file.size):
                target.write(piece)

    def _pieces(self, manifest: Manifest, name: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` of a file, some megabytes at a time."""
        file = manifest.files.get(name, RemoteFile())
        if end > file.size:
            raise DamagedError(f"{self.address}/{name} has no bytes {start} to {end}")
        for part in file.parts(name):
            first, last = max(start, part.start), min(end, part.end)
            for at in range(first, last, _AT_ONCE):
                until = min(at + _AT_ONCE, last)
                data = self._remote.read(f"{self._name}/{part.path}", at - part.start, until - part.start)
                if len(data) != until - at:
                    raise DamagedError(f"{self.address}/{part.path} is shorter than its manifest says")
                yield data

    # ------------------------------------------------------------------ the copy

    def _state(self) -> dict[str, Any]:
        """Which trial this is a copy of, and of which generation each file is."""
        try:
            state = json.loads((self.folder / STATE).read_text("utf-8"))
            return {"trial": str(state["trial"]), "generations": dict(state["generations"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _write_state(self, state: dict[str, Any]) -> None:
        beside = self.folder / f"{STATE}.part"
        beside.write_text(json.dumps(state), "utf-8")
        beside.replace(self.folder / STATE)

    def _start_over(self, trial: str) -> dict[str, Any]:
        """Another trial has this name now."""
        for entry in self.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        state: dict[str, Any] = {"trial": trial, "generations": {}}
        self._write_state(state)
        return state

    def _forget(self, manifest: Manifest) -> None:
        """Remove files that the trial has no more, and the pages of what was replaced."""
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.name not in manifest.files:
                path.unlink()
        for pages in pages_folder(self.folder / LAZY).glob("*"):
            if LAZY not in manifest.files or pages.name != f"{manifest.files[LAZY].generation:04}":
                shutil.rmtree(pages, ignore_errors=True)

    def _show_writer(self, writer: RemoteWriter | None) -> None:
        """Readers tell from the lock whether a trial is live; its host is never this one, so its word is taken."""
        path = self.folder / lock.LOCK_NAME
        if writer is None:
            path.unlink(missing_ok=True)
        elif not path.exists():
            path.write_text(json.dumps({"pid": writer.pid, "host": f"{writer.host} (remote)"}), "utf-8")


def pages_folder(file: Path) -> Path:
    """Where the pages of a file are kept, in a folder for each generation."""
    return file.with_suffix(".pages")


def _is_replaced(name: str, before: Manifest, now: Manifest) -> bool:
    """Whether a file has other bytes now than those that were known before."""
    known, new = before.files.get(name), now.files.get(name)
    return before.trial != now.trial or (known is not None and new is not None and known.generation != new.generation)


def _order(name: str) -> int:
    """What others refer to first: who reads the copy meanwhile finds it whole."""
    return _ORDER.index(name.removesuffix(SUFFIX).partition("-")[0])
