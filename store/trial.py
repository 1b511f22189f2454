"""One trial as a reader sees it. Opening reads headers only; a trial that is still being written can be followed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store import codec, lock
from stepscope.store.blocks import BlockPlace, decompress
from stepscope.store.columns import Chunk
from stepscope.store.errors import DamagedError, NotARecordingError, unknown
from stepscope.store.files import FILE_NAMES, BlockFile, file_path
from stepscope.store.layout import Layout
from stepscope.store.nodes import Node, collect_nodes
from stepscope.store.records import ModuleInfo, Note, Scalar, TrialEnd, TrialInfo
from stepscope.store.series import Series, SeriesQuestion, gather
from stepscope.store.step import Step

_CACHED_STEPS = 64
_DIED = "the process ended without closing the recording"

Digest = bytes
State = Literal["running", "finished", "failed"]


class Message(NamedTuple):
    """What the recorder left out, or failed at, and at which step."""

    step: int
    text: str


@dataclass(frozen=True)
class _StepEntry:
    place: BlockPlace
    header: Mapping[str, Any]


class Trial:
    """A recorded training run.

    >>> trial = open_trial("runs/sums/bugged")                                              # doctest: +SKIP
    >>> steps, values = trial.series("model.out", statistic="std", quantity="value")        # doctest: +SKIP

    All methods may be called from several threads.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.name
        if not file_path(self.path, "journal").is_file():
            raise NotARecordingError(
                f"{self.path} is no recording of a trial: it has no {file_path(self.path, 'journal').name}"
            )
        self.info = TrialInfo(self.name, 0.0, {}, {}, 0, 0)
        self.end: TrialEnd | None = None
        self.network: tuple[ModuleInfo, ...] = ()
        self.notes: tuple[Note, ...] = ()
        self.messages: tuple[Message, ...] = ()
        self.version = 0
        self._problems: list[str] = []
        self._files = {name: BlockFile(file_path(self.path, name)) for name in FILE_NAMES}
        self._entries: dict[int, _StepEntry] = {}
        self._layout_places: dict[bytes, BlockPlace] = {}
        self._graph_places: dict[bytes, BlockPlace] = {}
        self._layouts: dict[bytes, Layout] = {}
        self._graphs: dict[bytes, Any] = {}
        self._scalars: dict[tuple[str, str], list[Scalar]] = {}
        self._chunks: list[Chunk] = []
        self._cache: OrderedDict[int, Step] = OrderedDict()
        self._lock = threading.RLock()
        self._steps: NDArray[np.int64] = np.zeros(0, np.int64)
        self._nodes: tuple[Node, ...] | None = None
        self.refresh()

    # ------------------------------------------------------------------ facts

    @property
    def config(self) -> Mapping[str, Any]:
        return self.info.config

    @property
    def environment(self) -> Mapping[str, Any]:
        return self.info.environment

    @property
    def state(self) -> State:
        """``"running"``, ``"finished"`` or ``"failed"``; a trial whose process died has failed."""
        if self.end is not None:
            return self.end.state
        owner = lock.owner_of(self.path)
        return "running" if owner is not None and lock.is_alive(owner) else "failed"

    @property
    def exception(self) -> str:
        """What ended a failed trial; empty for others."""
        if self.end is not None:
            return self.end.exception
        return _DIED if self.state == "failed" else ""

    @property
    def last_change(self) -> float:
        """When something was last written, in seconds since the epoch."""
        times = [file.path.stat().st_mtime for file in self._files.values() if file.path.exists()]
        return max(times, default=0.0)

    @property
    def bytes(self) -> int:
        """The size of all files of the trial."""
        return sum(file.size() for file in self._files.values())

    @property
    def problems(self) -> tuple[str, ...]:
        """What is damaged, in sentences; the rest can be read."""
        return (*self._problems, *(text for file in self._files.values() for text in file.problems))

    @property
    def steps(self) -> NDArray[np.int64]:
        """The numbers of the recorded steps, in order."""
        return self._steps

    @property
    def step_kinds(self) -> tuple[str, ...]:
        """The kind of each recorded step, aligned with ``steps``."""
        return tuple(self._entries[number].header["kind"] for number in self._steps.tolist())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of steps that were recorded, in the order of their first step."""
        return tuple(dict.fromkeys(self.step_kinds))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in data-flow order."""
        with self._lock:
            if self._nodes is None:
                graphs = [self._graph(name) for name in self._graph_places]
                layouts = [self._layout(name).tensors for name in self._layout_places]
                self._nodes = collect_nodes(graphs, layouts)
            return self._nodes

    def node(self, name: str) -> Node:
        """One node by its name.

        Raises:
            UnknownNameError: there is none; the message names similar ones.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise unknown(f"node in trial {self.name!r}:", name, (node.name for node in self.nodes))

    @property
    def quantities(self) -> tuple[str, ...]:
        """All quantities that were measured of any node."""
        return tuple(dict.fromkeys(quantity for node in self.nodes for quantity in node.quantities))

    # ------------------------------------------------------------------ scalars

    @property
    def scalar_names(self) -> tuple[tuple[str, str], ...]:
        """``(group, name)`` of each curve that was logged."""
        return tuple(self._scalars)

    def scalars(self, name: str, *, group: str = "", kind: str | None = None) -> Series:
        """A curve that was logged with ``recorder.scalar``.

        Raises:
            UnknownNameError: no such curve.
        """
        points = self._scalars.get((group, name))
        if points is None:
            raise unknown("scalar", f"{group}/{name}", (f"{group}/{name}" for group, name in self._scalars))
        kept = [point for point in points if kind is None or point.kind == kind]
        return Series(
            np.array([point.step for point in kept], np.int64), np.array([point.value for point in kept], np.float64)
        )

    # ------------------------------------------------------------------ tensors

    def series(
        self,
        node: str,
        *,
        statistic: str = "mean",
        quantity: str = "value",
        role: str | None = None,
        iteration: int | None = None,
        kind: str | None = None,
        aggregate: str | None = None,
        sample: int | None = None,
    ) -> Series:
        """One statistic of one node over all recorded steps.

        >>> steps, values = trial.series("model.out", statistic="norm", quantity="gradient")    # doctest: +SKIP

        Args:
            node: the node's name.
            statistic: one of ``STATISTICS``; ``"ratio"`` for updates (norm of the update over norm of the value).
            quantity: ``"value"``, ``"gradient"``, ``"update"``, ...
            role: which tensor of the node; its last one unless given.
            iteration: the last of each step unless given.
            kind: only steps of this kind.
            aggregate: one of ``BATCH_AGGREGATES``: over the batch, of the per-sample statistic.
            sample: of the kept sample with this position (from 0) instead.

        Returns:
            Steps ``(n,)`` int64 and values ``(n,)`` float64, of those steps in which it was recorded.

        Raises:
            UnknownNameError: there is no such node, role, quantity, statistic or aggregate.
        """
        question = SeriesQuestion(node, statistic, quantity, role, iteration, aggregate, sample)
        question.check(self.node(node))
        with self._lock:
            wanted = self._steps_of_kind(kind)
            return gather(question, wanted, self._layout_of_step, self._chunks, self.step)

    def step(self, number: int) -> Step:
        """One recorded step.

        Raises:
            UnknownNameError: this step was not recorded; the message names the nearest.
            DamagedError: it was, but cannot be read.
        """
        with self._lock:
            step = self._cache.get(number)
            if step is None:
                step = self._cache[number] = self._read_step(number)
                while len(self._cache) > _CACHED_STEPS:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(number)
            return step

    def nearest_step(self, number: int, *, kind: str | None = None) -> int | None:
        """The recorded step nearest to a number; None if there is none of that kind."""
        steps = self._steps_of_kind(kind)
        return int(steps[np.abs(steps - number).argmin()]) if len(steps) else None

    def _steps_of_kind(self, kind: str | None) -> NDArray[np.int64]:
        if kind is None:
            return self._steps
        return self._steps[[own == kind for own in self.step_kinds]] if len(self._steps) else self._steps

    def _read_step(self, number: int) -> Step:
        entry = self._entries.get(number)
        if entry is None:
            nearest = self.nearest_step(number)
            near = "no step was" if nearest is None else f"the nearest recorded one is {nearest}"
            raise unknown(f"recorded step {number} in trial {self.name!r} ({near}):", number, ())
        layout = self._layout(entry.header["layout"])
        return Step(entry.header, entry.place, self._files["steps"], self._files["detail"], layout, self._graph)

    def _layout_of_step(self, number: int) -> Layout | None:
        try:
            return self._layout(self._entries[number].header["layout"])
        except DamagedError:
            return None

    def _layout(self, name: Digest) -> Layout:
        if name not in self._layouts:
            plain = self._read_catalog(self._layout_places.get(name), "layout")
            self._layouts[name] = Layout(name, codec.layout_from_plain(plain))
        return self._layouts[name]

    def _graph(self, name: Digest) -> Any:
        if name not in self._graphs:
            plain = self._read_catalog(self._graph_places.get(name), "graph")
            self._graphs[name] = codec.graph_from_plain(plain)
        return self._graphs[name]

    def _read_catalog(self, place: BlockPlace | None, kind: str) -> Any:
        if place is None:
            raise DamagedError(f"a {kind} that steps refer to is missing from the catalog")
        return codec.unpack(decompress(self._files["catalog"].read(place.payload_offset, place.payload_length)))

    # ------------------------------------------------------------------ following

    def refresh(self) -> bool:
        """Read what was written since the last look. Returns whether there was anything new."""
        with self._lock:
            # The journal first: once it says that the trial ended, everything else is there to be read.
            new = [self._read_journal(), self._read_new_catalog(), self._read_columns(), self._read_steps()]
            if any(new):
                self.version += 1
            return any(new)

    def _read_journal(self) -> bool:
        found = False
        for place, header in self._files["journal"].new_blocks():
            found = True
            try:
                self._take_journal(place.kind, header)
            except (KeyError, TypeError, ValueError) as error:
                self._problems.append(f"journal: a {place.kind} block makes no sense ({error})")
        return found

    def _take_journal(self, kind: str, header: Mapping[str, Any]) -> None:
        if kind == "trial":
            self.info = codec.trial_from_plain(header)
        elif kind == "network":
            self.network = codec.network_from_plain(header["modules"])
        elif kind == "note":
            self.notes = (*self.notes, codec.note_from_plain(header))
        elif kind == "message":
            self.messages = (*self.messages, Message(int(header["step"]), str(header["text"])))
        elif kind == "end":
            self.end = codec.end_from_plain(header)
        elif kind == "scalars":
            for point in codec.scalars_from_plain(header["scalars"]):
                self._scalars.setdefault((point.group, point.name), []).append(point)

    def _read_new_catalog(self) -> bool:
        found = False
        for place, header in self._files["catalog"].new_blocks():
            found = True
            places = self._layout_places if place.kind == "layout" else self._graph_places
            places[header["digest"]] = place
            self._nodes = None
        return found

    def _read_columns(self) -> bool:
        found = False
        for place, header in self._files["columns"].new_blocks():
            found = True
            try:
                self._chunks.append(Chunk(self._files["columns"], place, header))
            except (DamagedError, KeyError, TypeError, ValueError) as error:
                self._problems.append(f"columns: a block cannot be read ({error}); its steps are read one by one")
        return found

    def _read_steps(self) -> bool:
        added = False
        detail_size = self._files["detail"].size()
        for place, header in self._files["steps"].new_blocks():
            if header["detail"] >= detail_size:
                detail_size = self._files["detail"].size()
            self._entries[header["number"]] = _StepEntry(place, header)
            added = True
        if added:
            self._steps = np.array(sorted(self._entries), np.int64)
        return added

    def layouts(self) -> Sequence[Layout]:
        """All layouts of the trial."""
        with self._lock:
            return [self._layout(name) for name in self._layout_places]

    def __repr__(self) -> str:
        return f"<Trial {self.name!r} {self.state}, {len(self._steps)} steps>"


def open_trial(path: Path | str) -> Trial:
    """Open a trial's folder.

    Raises:
        NotARecordingError: it holds no recording, or one of a newer format.
    """
    return Trial(path)
