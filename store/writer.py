"""The writer of one trial. Used by the recorder's thread, and by whoever makes recordings by hand."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from stepscope.store import codec, lock
from stepscope.store.append_file import AppendFile
from stepscope.store.blocks import encode_block
from stepscope.store.claim import IfExists, claim
from stepscope.store.columns import ColumnWriter
from stepscope.store.detail_block import pack_detail
from stepscope.store.detail_writer import DetailWriter
from stepscope.store.errors import TrialInUseError
from stepscope.store.files import FILE_NAMES, file_path
from stepscope.store.frames import compress
from stepscope.store.heartbeat import Heartbeat
from stepscope.store.names import checked_trial_name
from stepscope.store.records import (
    Graph,
    ModuleInfo,
    Note,
    Precision,
    Scalar,
    StepRecord,
    TensorInfo,
    TrialEnd,
    TrialInfo,
)
from stepscope.store.resume import Earlier, resumption_messages, resumption_of
from stepscope.store.resume import resume as resume_trial
from stepscope.store.resumption import resumption_to_plain
from stepscope.store.room import Limits
from stepscope.store.step_block import check_record, encode_step, most_bytes

_REMEMBERED = 256
"""How many layouts and graphs are recognised without packing them."""


class TrialWriter:
    """Writes one trial; a step is readable as soon as ``write_step`` returns.

    >>> with TrialWriter("runs/sums", info) as writer:          # doctest: +SKIP
    ...     writer.write_step(record)

    Args:
        folder: the group's folder; made if it is missing.
        info: what is known at the start; ``info.trial`` is the wanted name.
        if_exists: ``"number"`` writes to ``name-2``, ``name-3``, ...; ``"fail"`` raises; ``"overwrite"`` deletes the
            old trial first.
        resume: go on with the trial of exactly this name, if there is one, whatever ``if_exists`` says. Its steps
            stay; ``rewind`` says which of them are superseded.
        limits: of bytes; they are kept by leaving out neurons, of old steps first.
        precision: of raw values of neurons, as they are stored.

    Attributes:
        path, name: the trial's folder, and its name.
        troubles: what went wrong beside the writing itself; for whoever writes to tell of.

    Raises:
        TrialInUseError: a process that may be alive writes to the trial of this name.
        TrialExistsError: the trial exists, with ``if_exists="fail"``.
        NotARecordingError: with ``resume=True``, the folder is none of a trial, or in a newer format.
        StoreError: the name cannot be a folder's name.
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path | str,
        info: TrialInfo,
        *,
        if_exists: IfExists = "number",
        resume: bool = False,
        limits: Limits | None = None,
        precision: Precision = "float32",
    ) -> None:
        group, name = Path(folder), checked_trial_name(info.trial)
        first = encode_block("trial", codec.trial_to_plain(info))
        group.mkdir(parents=True, exist_ok=True)
        self.path = group / name if resume else claim(group, name, if_exists)
        self.earlier = resume_trial(self.path) if resume else None
        self.name = self.path.name
        self._known: set[bytes] = set()
        self._layouts: dict[tuple[TensorInfo, ...], bytes] = {}
        self._graphs: dict[Graph, bytes] = {}
        self._closed = False
        self._process = os.getpid()
        self._heartbeat = Heartbeat(self.path)
        self._opened: list[AppendFile] = []
        self.troubles: deque[Exception] = deque(maxlen=64)
        try:
            self._journal, self._catalog, self._steps, self._detail, self._columns = map(self._open, FILE_NAMES)
            self._precision = precision
            self._details = DetailWriter(self.path, self._detail, limits or Limits(), self._bytes_besides_parts)
            if self.earlier is not None:
                self._details.go_on()
            if self.earlier is None or self.earlier.config is None:
                self._journal.append(first)
            if self.earlier is not None:
                self._write_resumption(self.earlier, info)
        except BaseException:
            self.close(None)
            raise
        self._column_writer = ColumnWriter(self._append_columns)

    def _write_resumption(self, earlier: Earlier, info: TrialInfo) -> None:
        self._known |= earlier.digests
        self._append_journal("resumed", resumption_to_plain(resumption_of(earlier, info)))
        for text in resumption_messages(earlier, info):
            self.write_message(text, earlier.next_step)

    @property
    def next_step(self) -> int:
        """The number after the last step that was recorded when the trial was resumed; 0 for a new one."""
        return 0 if self.earlier is None else self.earlier.next_step

    def rewind(self, step: int) -> int:
        """Training goes on from an earlier step: those from this number on are superseded, and kept on the disk."""
        before = self._bytes()
        self._check_place()
        at = self._steps.append(encode_block("restart", {"step": step}))
        self._append_journal("restart", {"step": step, "at": at})
        return self._bytes() - before

    def write_step(self, record: StepRecord) -> int:
        """Append a step; returns the bytes that were written. The step's own block comes last: it completes it."""
        check_record(record)
        self._check_place()
        before = self._bytes()
        layout = self._intern_layout(record.tensors)
        graphs = self._intern_graphs(record.graphs)
        most = most_bytes(record, len(graphs))
        detail = self._details.append(pack_detail(record, self._precision), record.kind, most)
        try:
            place = self._steps.append(encode_step(record, layout, graphs, detail.offset, detail.part))
        except Exception:
            with contextlib.suppress(OSError):
                self._details.cut(detail)
            raise
        # The step is kept now; its columns are derived, and a reader does without them.
        with contextlib.suppress(OSError):
            self._column_writer.add(record, layout, place)
        return self._bytes() - before

    def write_scalars(self, scalars: Sequence[Scalar]) -> int:
        """Append points of curves."""
        return self._append_journal("scalars", {"scalars": codec.scalars_to_plain(scalars)}) if scalars else 0

    def write_note(self, note: Note) -> int:
        """Append a note."""
        self._details.noted.add(note.step)
        return self._append_journal("note", {"text": note.text, "step": note.step, "time": note.time})

    def write_network(self, modules: Sequence[ModuleInfo]) -> int:
        """Append the module tree; the last one counts."""
        return self._append_journal("network", {"modules": codec.network_to_plain(modules)})

    def write_message(self, text: str, step: int) -> int:
        """Append what the recorder left out, or failed at."""
        return self._append_journal("message", {"text": text, "step": step})

    def close(self, end: TrialEnd | None) -> None:
        """Finish the trial; with None, it is left as if the process had died. Safe to call twice.

        In a process that was forked from the one that writes, or whose trial was taken over, only this process's files
        are closed.
        """
        if self._closed:
            return
        self._closed = True
        is_owner = os.getpid() == self._process and not self._heartbeat.is_lost
        self._heartbeat.stop()
        try:
            if end is not None and is_owner:
                with contextlib.suppress(OSError):
                    self._column_writer.flush()
                header = {"state": end.state, "time": end.time, "exception": end.exception, "traceback": end.traceback}
                self._append_journal("end", header)
        finally:
            for file in self._opened:
                file.close()
            if hasattr(self, "_details"):  # opening may have failed
                self._details.close()
            if is_owner:
                lock.release(self.path)

    def __enter__(self) -> TrialWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close(TrialEnd("finished", time.time()))
        else:
            self.close(TrialEnd("failed", time.time(), f"{type(error).__name__}: {error}"))

    def _open(self, name: str) -> AppendFile:
        self._opened.append(AppendFile(file_path(self.path, name)))
        return self._opened[-1]

    def steps_left(self) -> float | None:
        """For how many more steps the trial's limit has room, if they have no neurons; None if there is no limit."""
        return self._details.steps_left()

    def _bytes(self) -> int:
        return self._bytes_besides_parts() + self._details.size

    def _bytes_besides_parts(self) -> int:
        return sum(file.size for file in self._opened)

    def _append_columns(self, block: bytes) -> None:
        if self._details.make_room(len(block)):
            self._columns.append(block)

    def _check_place(self) -> None:
        """Raise an error where writing would be in vain, or would harm what another process writes."""
        if os.getpid() != self._process:
            raise TrialInUseError(f"{self.path} is written to by process {self._process}; this one was forked from it")
        self._journal.check_place()
        self._heartbeat.check()
        self._heartbeat.start()

    def _append_journal(self, kind: str, header: dict[str, Any]) -> int:
        self._check_place()
        before = self._journal.size
        self._journal.append(encode_block(kind, header))
        return self._journal.size - before

    def _intern_layout(self, tensors: tuple[TensorInfo, ...]) -> bytes:
        name = self._layouts.get(tensors)
        if name is None:
            name = self._intern("layout", codec.pack(codec.layout_to_plain(tensors)))
            _remember(self._layouts, tensors, name)
        return name

    def _intern_graphs(self, graphs: Sequence[Graph]) -> list[bytes]:
        # Iterations mostly share one graph, and hashing a graph takes a while.
        names = {id(graph): self._intern_graph(graph) for graph in {id(graph): graph for graph in graphs}.values()}
        return [names[id(graph)] for graph in graphs]

    def _intern_graph(self, graph: Graph) -> bytes:
        name = self._graphs.get(graph)
        if name is None:
            name = self._intern("graph", codec.pack(codec.graph_to_plain(graph)))
            _remember(self._graphs, graph, name)
        return name

    def _intern(self, kind: str, packed: bytes) -> bytes:
        name = codec.digest(packed)
        if name not in self._known:
            self._catalog.append(encode_block(kind, {"digest": name}, [compress(packed)]))
            self._known.add(name)
        return name


def _remember(known: dict[Any, bytes], what: object, name: bytes) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[what] = name
