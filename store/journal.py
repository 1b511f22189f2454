"""The journal of a trial as a reader sees it: what it is, how it ended, its scalars, notes and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stepscope.store import codec
from stepscope.store.block_file import BlockFile
from stepscope.store.errors import NotARecordingError, damaged_unless
from stepscope.store.records import ModuleInfo, Note, Scalar, TrialEnd, TrialInfo
from stepscope.store.resumption import Resumption, resumption_from_plain


class Message(NamedTuple):
    """What the recorder left out, or failed at, and at which step."""

    step: int
    text: str


class Restart(NamedTuple):
    """That training went back to a step, and where the steps' file says so (-1 if the journal does not know)."""

    step: int
    at: int


def started(file: BlockFile) -> float:
    """When a trial started, in seconds since the epoch; reads the start of its journal only.

    Raises:
        StoreError, OSError: this cannot be read.
    """
    for place, header in file.new_blocks():
        if place.kind == "trial":
            with damaged_unless("the journal: a trial"):
                return codec.trial_from_plain(header).started
    if file.is_foreign:
        raise NotARecordingError(f"{file.path} is not a file of a Stepscope recording")
    return 0.0


class Journal:
    """What the journal's blocks said so far."""

    def __init__(self, name: str) -> None:
        self.info = TrialInfo(name, 0.0, {}, {}, 0, 0)
        self.has_info = False
        self.end: TrialEnd | None = None
        self.resumptions: tuple[Resumption, ...] = ()
        self.restarts: tuple[Restart, ...] = ()
        self.network: tuple[ModuleInfo, ...] = ()
        self.notes: tuple[Note, ...] = ()
        self.messages: tuple[Message, ...] = ()
        self.scalars: dict[tuple[str, str], list[Scalar]] = {}

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the last resumption that changed it, or that of the start."""
        return next((r.config for r in reversed(self.resumptions) if r.config is not None), self.info.config)

    @property
    def environment(self) -> Mapping[str, Any]:
        """The environment of the last resumption that changed it, or that of the start."""
        known = (r.environment for r in reversed(self.resumptions) if r.environment is not None)
        return next(known, self.info.environment)

    def take(self, kind: str, header: Mapping[str, Any]) -> None:
        """Take in a block.

        Raises:
            DamagedError: it makes no sense.
        """
        with damaged_unless(f"the journal: a {kind}"):
            self._take(kind, header)

    def _take(self, kind: str, header: Mapping[str, Any]) -> None:
        if kind == "trial":
            self.info, self.has_info = codec.trial_from_plain(header), True
        elif kind == "network":
            self.network = codec.network_from_plain(header["modules"])
        elif kind == "note":
            self.notes = (*self.notes, codec.note_from_plain(header))
        elif kind == "message":
            self.messages = (*self.messages, Message(codec.step_from_plain(header["step"]), str(header["text"])))
        elif kind == "end":
            self.end = codec.end_from_plain(header)
        elif kind == "resumed":
            self.resumptions, self.end = (*self.resumptions, resumption_from_plain(header)), None
        elif kind == "restart":
            self._restart(Restart(codec.step_from_plain(header["step"]), int(header.get("at", -1))))
        elif kind == "scalars":
            for point in codec.scalars_from_plain(header["scalars"]):
                self.scalars.setdefault((point.group, point.name), []).append(point)

    def _restart(self, restart: Restart) -> None:
        """Points from this step on belong to what was superseded; notes and messages are kept as they are."""
        self.restarts = (*self.restarts, restart)
        for name, points in self.scalars.items():
            self.scalars[name] = [point for point in points if point.step < restart.step]
