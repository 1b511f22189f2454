"""The manifest of a remote trial: which parts make up its files, and who writes it. It is written last, and is true."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from stepscope.store import lock
from stepscope.store.errors import DamagedError, NotARecordingError, damaged_unless
from stepscope.store.files import FILE_NAMES, SUFFIX
from stepscope.store.remote.folder import RemoteFolder

MANIFEST = "manifest.json"
VERSION = 1
SILENCE = 60.0
"""Seconds after which a writer that was not heard of counts as dead."""

_JOURNAL = f"journal{SUFFIX}"
_FILE_NAME = re.compile(rf"({'|'.join(FILE_NAMES)})(-[0-9]{{1,6}})?{re.escape(SUFFIX)}")


@dataclass(frozen=True)
class Part:
    """One object: the bytes from ``start`` to ``end`` of a file."""

    path: str
    start: int
    end: int


@dataclass(frozen=True)
class RemoteFile:
    """A file of a remote trial.

    Attributes:
        generation: grows when the file's bytes are replaced; 0 is a file that was copied as it is.
        ends: where its parts end, in order.
        checks: the crc32 of each part; empty for generation 0.
    """

    generation: int = 1
    ends: tuple[int, ...] = ()
    checks: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return self.ends[-1] if self.ends else 0

    def parts(self, name: str) -> list[Part]:
        """The objects that hold the bytes of the file of this name, relative to the trial."""
        if self.generation == 0:
            return [Part(name, 0, self.size)]
        return [
            Part(f"{name}/{self.generation:04}-{start:012}-{end:012}", start, end)
            for start, end in pairwise((0, *self.ends))
        ]


@dataclass(frozen=True)
class RemoteWriter:
    """Who writes a remote trial.

    Attributes:
        host, boot, namespace, pid, started: the machine, and the process there, as in a lock.
        token: what tells this writer from any other.
        beat: when it was last heard of, in seconds since the epoch, by its own clock.
    """

    host: str
    boot: str | None
    namespace: str | None
    pid: int
    started: int | None
    token: str
    beat: float

    @property
    def is_heard(self) -> bool:
        """Whether it was heard of lately."""
        return time.time() - self.beat < SILENCE

    @property
    def is_alive(self) -> bool:
        """Whether it may still be running; a process of this machine may be provably dead, however lately it spoke."""
        return self.is_heard and lock.is_alive(asdict(self) | {"beat": None})

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process cannot see it: it is on another machine, or in another container."""
        return lock.is_elsewhere(asdict(self))


@dataclass(frozen=True)
class Manifest:
    """What a remote trial consists of.

    Attributes:
        trial: what tells this trial from any other, also of the same name.
        started: when it started, in seconds since the epoch.
        changed: when the manifest was last written because of new bytes.
        files: its files by name.
        writer: who writes it; None once it is complete.
    """

    trial: str
    started: float
    changed: float = 0.0
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    writer: RemoteWriter | None = None

    @property
    def is_started(self) -> bool:
        """Whether there is anything to be read; before that, the name is only claimed."""
        return _JOURNAL in self.files

    @property
    def is_copied(self) -> bool:
        """Whether a local folder was copied there as it is; nothing can be appended to it."""
        return any(file.generation == 0 for file in self.files.values())

    @property
    def is_live(self) -> bool:
        """Whether somebody who may be alive writes to it."""
        return self.writer is not None and self.writer.is_alive

    def with_writer(self, writer: RemoteWriter | None) -> Manifest:
        return replace(self, writer=writer)

    def to_bytes(self) -> bytes:
        return json.dumps({"stepscope": VERSION, **asdict(self)}).encode()


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest from its bytes; what it says is checked, so that it leads nowhere else.

    Raises:
        DamagedError: it makes no sense.
        NotARecordingError: it is of a newer version.
    """
    with damaged_unless(f"{where}/{MANIFEST}"):
        plain = json.loads(data)
        version = int(plain["stepscope"])
        if version <= VERSION:
            writer = None if plain["writer"] is None else _writer(plain["writer"])
            files = {_file_name(name): _file(value) for name, value in plain["files"].items()}
            return Manifest(str(plain["trial"]), float(plain["started"]), float(plain["changed"]), files, writer)
    raise NotARecordingError(
        f"{where} has version {version} of a manifest, this program reads up to {VERSION}; install a newer stepscope"
    )


def read_manifest(remote: RemoteFolder, name: str) -> Manifest | None:
    """The manifest of a trial of a group; None if there is no trial of this name.

    A trial's folder that was copied there as it is has no manifest of its own: its files are what it consists of.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        data = remote.read(f"{name}/{MANIFEST}")
    except FileNotFoundError:
        return _copied(remote.sizes(name), name)
    # An empty one is being made at this moment, on a file system that makes files before it fills them.
    return parse_manifest(data, f"{remote.address}/{name}") if data else Manifest("", 0.0)


def find_trial(remote: RemoteFolder, name: str) -> Manifest | None:
    """The manifest of a trial that can be read; None if there is none (yet).

    Raises:
        StoreError: it cannot be read.
    """
    manifest = read_manifest(remote, name)
    return manifest if manifest is not None and manifest.is_started else None


def is_uploaded(name: str) -> bool:
    """Whether a file of this name in a trial's folder is a part of the trial, and not one that is just being made."""
    return _FILE_NAME.fullmatch(name) is not None


def _copied(sizes: Mapping[str, int], name: str) -> Manifest | None:
    files = {file: RemoteFile(0, (size,)) for file, size in sizes.items() if is_uploaded(file) and size}
    return Manifest(f"copied {name}", 0.0, 0.0, files) if _JOURNAL in files else None


def _file_name(name: str) -> str:
    if not is_uploaded(name):
        raise DamagedError(f"a manifest names the file {name!r}, which no trial has")
    return name


def _file(plain: Mapping[str, Any]) -> RemoteFile:
    ends, checks = (tuple(int(value) for value in plain[key]) for key in ("ends", "checks"))
    generation = int(plain["generation"])
    if generation < 1 or len(ends) != len(checks) or any(start >= end for start, end in pairwise((0, *ends))):
        raise ValueError(f"parts that end at {list(ends)[:8]} in generation {generation}")
    return RemoteFile(generation, ends, checks)


def _writer(plain: Mapping[str, Any]) -> RemoteWriter:
    boot, namespace = (None if plain[key] is None else str(plain[key]) for key in ("boot", "namespace"))
    started = None if plain["started"] is None else int(plain["started"])
    token, beat = str(plain["token"]), float(plain["beat"])
    return RemoteWriter(str(plain["host"]), boot, namespace, int(plain["pid"]), started, token, beat)
