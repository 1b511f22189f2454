"""The writer of one trial. Used by the recorder's thread, and by whoever makes recordings by hand."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepscope.store import codec, lock
from stepscope.store.blocks import FrameList, compress, encode_block
from stepscope.store.columns import ColumnWriter
from stepscope.store.errors import StoreError, TrialExistsError, TrialInUseError
from stepscope.store.files import AppendFile, file_path
from stepscope.store.names import checked_trial_name
from stepscope.store.records import (
    Graph,
    ModuleInfo,
    Neurons,
    Note,
    Scalar,
    StepRecord,
    TensorInfo,
    TrialEnd,
    TrialInfo,
)

IfExists = Literal["number", "fail", "overwrite"]


class TrialWriter:
    """Writes one trial; a step is readable as soon as ``write_step`` returns.

    >>> with TrialWriter("runs/sums", info) as writer:          # doctest: +SKIP
    ...     writer.write_step(record)

    Args:
        folder: the group's folder; made if it is missing.
        info: what is known at the start; ``info.trial`` is the wanted name.
        if_exists: ``"number"`` writes to ``name-2``, ``name-3``, ...; ``"fail"`` raises; ``"overwrite"`` deletes the
            old trial first.

    Raises:
        TrialInUseError: a process that may be alive writes to the trial of this name.
        TrialExistsError: the trial exists, with ``if_exists="fail"``.
        StoreError: the name cannot be a folder's name.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path | str, info: TrialInfo, *, if_exists: IfExists = "number") -> None:
        if if_exists not in ("number", "fail", "overwrite"):
            raise StoreError(f"if_exists={if_exists!r}: expected 'number', 'fail' or 'overwrite'")
        group = Path(folder)
        group.mkdir(parents=True, exist_ok=True)
        self.path = _claim(group, checked_trial_name(info.trial), if_exists)
        self.name = self.path.name
        self._closed = False
        self._journal = AppendFile(file_path(self.path, "journal"))
        self._catalog = AppendFile(file_path(self.path, "catalog"))
        self._detail = AppendFile(file_path(self.path, "detail"))
        self._steps = AppendFile(file_path(self.path, "steps"))
        self._columns = AppendFile(file_path(self.path, "columns"))
        self._column_writer = ColumnWriter(self._columns.append)
        self._known: set[bytes] = set()
        self._layouts: dict[tuple[TensorInfo, ...], bytes] = {}
        self._graphs: dict[Graph, bytes] = {}
        self._append_journal("trial", codec.trial_to_plain(info))

    def write_step(self, record: StepRecord) -> int:
        """Append a step; returns the bytes that were written. The step's own block comes last: it completes it."""
        _check(record)
        before = self._bytes()
        layout = self._intern_layout(record.tensors)
        graphs = [self._intern_graph(graph) for graph in record.graphs]
        detail = self._detail.append(_detail_block(record))
        self._steps.append(_step_block(record, layout, graphs, detail))
        self._column_writer.add(record, layout)
        return self._bytes() - before

    def write_scalars(self, scalars: Sequence[Scalar]) -> int:
        """Append points of curves."""
        return self._append_journal("scalars", {"scalars": codec.scalars_to_plain(scalars)}) if scalars else 0

    def write_note(self, note: Note) -> int:
        """Append a note."""
        return self._append_journal("note", {"text": note.text, "step": note.step, "time": note.time})

    def write_network(self, modules: Sequence[ModuleInfo]) -> int:
        """Append the module tree; the last one counts."""
        return self._append_journal("network", {"modules": codec.network_to_plain(modules)})

    def write_message(self, text: str, step: int) -> int:
        """Append what the recorder left out, or failed at."""
        return self._append_journal("message", {"text": text, "step": step})

    def close(self, end: TrialEnd | None) -> None:
        """Finish the trial; with None, it is left as if the process had died. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if end is not None:
                self._column_writer.flush()
                header = {"state": end.state, "time": end.time, "exception": end.exception, "traceback": end.traceback}
                self._append_journal("end", header)
        finally:
            for file in self._files():
                file.close()
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

    def _files(self) -> tuple[AppendFile, ...]:
        return self._journal, self._catalog, self._detail, self._steps, self._columns

    def _bytes(self) -> int:
        return sum(file.size for file in self._files())

    def _append_journal(self, kind: str, header: dict[str, Any]) -> int:
        before = self._journal.size
        self._journal.append(encode_block(kind, header))
        return self._journal.size - before

    def _intern_layout(self, tensors: tuple[TensorInfo, ...]) -> bytes:
        name = self._layouts.get(tensors)
        if name is None:
            name = self._layouts[tensors] = self._intern("layout", codec.pack(codec.layout_to_plain(tensors)))
        return name

    def _intern_graph(self, graph: Graph) -> bytes:
        name = self._graphs.get(graph)
        if name is None:
            name = self._graphs[graph] = self._intern("graph", codec.pack(codec.graph_to_plain(graph)))
        return name

    def _intern(self, kind: str, packed: bytes) -> bytes:
        name = codec.digest(packed)
        if name not in self._known:
            self._catalog.append(encode_block(kind, {"digest": name}, [compress(packed)]))
            self._known.add(name)
        return name


def _claim(group: Path, name: str, if_exists: IfExists) -> Path:
    """Make (or empty) the trial's folder and take its lock."""
    path = group / name
    owner = lock.owner_of(path)
    if owner is not None and lock.is_alive(owner):
        raise TrialInUseError(
            f"{path} is being written to by process {owner.get('pid')} on {owner.get('host')}; "
            "close that recorder first, or give this one another trial name"
        )
    if path.exists():
        if if_exists == "fail":
            raise TrialExistsError(f"{path} exists; give another trial name, or if_exists='number' or 'overwrite'")
        if if_exists == "overwrite":
            _remove_trial(path)
        else:
            path = _next_free(path)
    path.mkdir(parents=True, exist_ok=True)
    if not lock.take(path):
        raise TrialInUseError(f"{path} was just taken by another process; give another trial name")
    return path


def _next_free(path: Path) -> Path:
    number = 2
    while (candidate := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return candidate


def _remove_trial(path: Path) -> None:
    """Delete an old trial; a folder that is none is left alone."""
    if path.is_symlink() or not path.is_dir():
        raise StoreError(f"{path} is no folder of a trial; it is not overwritten")
    foreign = [entry.name for entry in path.iterdir() if not _is_ours(entry)]
    if foreign:
        raise StoreError(f"{path} holds {foreign[0]!r}, which no trial has; it is not overwritten")
    shutil.rmtree(path)


def _is_ours(entry: Path) -> bool:
    return entry.suffix == ".stepscope" or entry.name == lock.LOCK_NAME


def _check(record: StepRecord) -> None:
    rows = len(record.tensors)
    lengths = {
        "shapes": len(record.shapes),
        "strides": len(record.strides),
        "statistics": len(record.statistics),
        "aggregates": len(record.aggregates),
        "per_sample": len(record.per_sample),
        "histograms": len(record.histograms),
        "neurons": len(record.neurons),
    }
    wrong = {name: length for name, length in lengths.items() if length != rows}
    if wrong:
        raise StoreError(f"a step record with {rows} tensors has {wrong} entries; expected {rows} of each")


def _step_block(record: StepRecord, layout: bytes, graphs: Sequence[bytes], detail: int) -> bytes:
    frames = FrameList()
    frames.add("ranks", np.array([len(shape) for shape in record.shapes], np.uint8))
    frames.add("shapes", _flat(record.shapes))
    frames.add("stride_ranks", np.array([len(strides) for strides in record.strides], np.uint8))
    frames.add("strides", _flat(record.strides))
    frames.add("statistics", np.asarray(record.statistics, np.float64))
    frames.add("aggregates", np.asarray(record.aggregates, np.float32))
    frames.add("per_sample", np.asarray(record.per_sample, np.float32))
    frames.add("facts", np.frombuffer(codec.pack(dict(record.facts)), np.uint8))
    header = {
        "number": record.number,
        "kind": record.kind,
        "time": record.time,
        "seconds": record.seconds,
        "layout": layout,
        "graphs": list(graphs),
        "samples": list(record.samples),
        "categories": list(record.categories),
        "detail": detail,
        "arrays": frames.entries,
    }
    return encode_block("step", header, frames.frames)


def _flat(lists: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    return np.array([number for numbers in lists for number in numbers], np.int64)


def _detail_block(record: StepRecord) -> bytes:
    """For each row the frames ``histogram``, ``neuron_statistics`` and ``neuron_samples``, as far as it has them."""
    frames = FrameList()
    totals = np.full(len(record.neurons), -1, np.int64)
    rows = []
    for row, neurons in enumerate(record.neurons):
        first = len(frames.entries)
        frames.add("histogram", _trimmed(record.histograms[row]))
        if neurons is not None:
            totals[row] = neurons.total
            _add_neurons(frames, neurons)
        rows.append(len(frames.entries) - first)
    index = {"number": record.number, "entries": frames.entries, "rows": rows, "totals": totals.tolist()}
    packed = compress(codec.pack(index))
    # The index of a large step is large itself: it is a frame in front of the others.
    return encode_block("detail", {"number": record.number, "index": len(packed)}, [packed, *frames.frames])


def _trimmed(histogram: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """First and last used bin, then the counts between them: most of a histogram is empty."""
    used = np.flatnonzero(histogram)
    if len(used) == 0:
        return np.zeros(2, np.uint32)
    first, end = int(used[0]), int(used[-1]) + 1
    return np.concatenate([np.array([first, end], np.uint32), histogram[first:end].astype(np.uint32)])


def _add_neurons(frames: FrameList, neurons: Neurons) -> None:
    if neurons.statistics is not None:
        frames.add("neuron_statistics", np.asarray(neurons.statistics, np.float32))
    samples = neurons.samples
    if samples.dtype not in (np.float32, np.float64):
        samples = samples.astype(np.float64)
    frames.add("neuron_samples", samples)
