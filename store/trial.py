"""One trial as a reader sees it. Opening reads headers only; a trial that is still being written can be followed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepscope.store import lock
from stepscope.store.address import is_address
from stepscope.store.block_file import BlockFile
from stepscope.store.columns import Chunk
from stepscope.store.contents import Contents
from stepscope.store.errors import NotARecordingError, UnknownNameError, unknown
from stepscope.store.files import file_path
from stepscope.store.journal import Message
from stepscope.store.known_nodes import KnownNodes
from stepscope.store.layout import Layout
from stepscope.store.nodes import Node
from stepscope.store.records import STATISTICS, ModuleInfo, Note, TrialEnd, TrialInfo
from stepscope.store.resumption import Resumption
from stepscope.store.series import Series, SeriesQuestion, Source, gather
from stepscope.store.step import Step
from stepscope.store.table import Library, Table, TableQuestion, converted, tables

_CACHED_STEPS = 64
_DIED = "the process ended without closing the recording"

State = Literal["running", "finished", "failed"]


class Trial:
    """A recorded training run.

    >>> trial = open_trial("runs/sums/bugged")                                              # doctest: +SKIP
    >>> steps, values = trial.series("model.out", statistic="std", quantity="value")        # doctest: +SKIP

    All methods may be called from several threads.

    Attributes:
        path, name: the trial's folder, and its name.
        version: grows whenever ``refresh`` finds something new.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.version = 0
        self._lock = threading.RLock()
        _check_folder(self.path)
        self._start_over()
        self.refresh()

    def _start_over(self) -> None:
        self._contents = Contents(self.path, self._open_file)
        self._cache: OrderedDict[int, Step] = OrderedDict()
        self._known = KnownNodes(self._contents)

    def _open_file(self, path: Path) -> BlockFile:
        return BlockFile(path)

    # ------------------------------------------------------------------ facts

    @property
    def info(self) -> TrialInfo:
        """What was known when the trial started."""
        return self._contents.journal.info

    @property
    def config(self) -> Mapping[str, Any]:
        """The hyper-parameters that the user gave; those of the last resumption, if it changed them."""
        return self._contents.journal.config

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions, device, source revision, command; those of the last resumption, if it changed them."""
        return self._contents.journal.environment

    @property
    def resumptions(self) -> tuple[Resumption, ...]:
        """When the trial was gone on with, from which step on, and with what other config or environment."""
        return self._contents.journal.resumptions

    @property
    def network(self) -> tuple[ModuleInfo, ...]:
        """The modules of the watched models."""
        return self._contents.journal.network

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the user left with ``recorder.note``."""
        return self._contents.journal.notes

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the recorder left out, or failed at: ``(step, text)``."""
        return self._contents.journal.messages

    @property
    def restarts(self) -> int:
        """How often training went back to an earlier step; what was recorded from there on was superseded."""
        return len(self._contents.journal.restarts)

    @property
    def end(self) -> TrialEnd | None:
        """How the trial ended; None if it was not closed."""
        return self._contents.journal.end

    @property
    def state(self) -> State:
        """``"running"``, ``"finished"`` or ``"failed"``; a trial whose process died has failed."""
        if self.end is not None:
            return self.end.state
        return "running" if lock.is_held(self.path) else "failed"

    @property
    def exception(self) -> str:
        """What ended a failed trial; empty for others."""
        if self.end is not None:
            return self.end.exception
        return _DIED if self.state == "failed" else ""

    @property
    def last_change(self) -> float:
        """When something was last written, in seconds since the epoch."""
        return max((file.last_change() for file in self._contents.files.values()), default=0.0)

    @property
    def bytes(self) -> int:
        """The size of all files of the trial."""
        return sum(file.size() for file in self._contents.files.values()) + self._contents.details.size()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is damaged or missing, in sentences; the rest can be read. ``verify`` looks at every byte."""
        with self._lock:
            return self._contents.problems(is_running=self.state == "running")

    @property
    def steps(self) -> NDArray[np.int64]:
        """The numbers of the recorded steps, in order."""
        return self._contents.index.numbers

    @property
    def step_kinds(self) -> tuple[str, ...]:
        """The kind of each recorded step, aligned with ``steps``."""
        return self._contents.index.kinds

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of steps that were recorded, in the order of their first step."""
        return tuple(dict.fromkeys(self.step_kinds))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in data-flow order; none that only superseded steps had."""
        with self._lock:
            self._known.bring_up_to(self.version)
            return self._known.nodes

    def node(self, name: str) -> Node:
        """One node by its name.

        Raises:
            UnknownNameError: there is none; the message names similar ones.
        """
        with self._lock:
            nodes = self.nodes
            if name not in self._known.by_name:
                raise unknown(f"node in trial {self.name!r}:", name, (node.name for node in nodes))
            return self._known.by_name[name]

    @property
    def quantities(self) -> tuple[str, ...]:
        """All quantities that were measured of any node."""
        return tuple(dict.fromkeys(quantity for node in self.nodes for quantity in node.quantities))

    # ------------------------------------------------------------------ scalars

    @property
    def scalar_names(self) -> tuple[tuple[str, str], ...]:
        """``(group, name)`` of each curve that was logged."""
        return tuple(self._contents.journal.scalars)

    def scalars(self, name: str, *, group: str = "", kind: str | None = None) -> Series:
        """A curve that was logged with ``recorder.scalar``.

        Raises:
            UnknownNameError: no such curve.
        """
        curves = self._contents.journal.scalars
        points = curves.get((group, name))
        if points is None:
            raise unknown("scalar", f"{group}/{name}", (f"{group}/{name}" for group, name in curves))
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
            contents, index = self._contents, self._contents.index
            source = Source(contents.layouts_of, contents.chunks, self.step, index.repeated, index.offset_of)
            return gather(question, index.of_kind(kind), source)

    def table(
        self,
        *,
        nodes: Collection[str] | None = None,
        quantities: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        steps: Collection[int] | None = None,
        statistics: Sequence[str] = STATISTICS,
        library: Library = "numpy",
    ) -> Any:
        """The statistics as one tidy table: a row for each measured tensor of each step.

        >>> trial.table(quantities=["gradient"], statistics=["norm"], library="pandas")        # doctest: +SKIP

        Args:
            nodes, quantities, kinds, steps: only these nodes, quantities, kinds of steps, steps; all unless given.
            statistics: those that become columns.
            library: ``"numpy"``: a dict of columns; ``"pandas"``, ``"polars"``: a ``DataFrame``; ``"pyarrow"``: a
                ``Table``.

        Returns:
            The columns ``step``, ``kind``, ``node``, ``role``, ``iteration`` (-1: the whole step), ``quantity``,
            ``type``, and one float64 column a statistic. ``tables`` gives the same in parts that fit into memory.

        Raises:
            UnknownNameError: there is no such node, quantity, kind, step or statistic.
            StoreError: the library is not installed.
            DamagedError: a step cannot be read.
        """
        parts = list(self.tables(nodes=nodes, quantities=quantities, kinds=kinds, steps=steps, statistics=statistics))
        return converted({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, library)

    def tables(
        self,
        *,
        nodes: Collection[str] | None = None,
        quantities: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        steps: Collection[int] | None = None,
        statistics: Sequence[str] = STATISTICS,
    ) -> Iterator[Table]:
        """``table`` in parts of some 100,000 rows, as dicts of columns: to stream a recording somewhere else."""
        question = TableQuestion(nodes, quantities, kinds, steps, statistics)
        question.check(self)
        return tables(self, question)

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
        return self._contents.index.nearest(number, kind)

    def layouts(self) -> Sequence[Layout]:
        """All layouts of the trial that can be read."""
        with self._lock:
            return self._contents.catalog.layouts()

    def chunks(self) -> Sequence[Chunk]:
        """The column chunks that were found; for ``verify``."""
        return tuple(self._contents.chunks)

    def counting_steps(self, chunk: Chunk) -> NDArray[np.bool_]:
        """Which steps of a column chunk are those of the trial: not those that were superseded."""
        return self._contents.counting_steps(chunk)

    @property
    def repeated_steps(self) -> Set[int]:
        """The numbers of steps that were written more than once, or superseded; the last one counts."""
        return self._contents.index.repeated

    def _read_step(self, number: int) -> Step:
        if number not in self._contents.index:
            nearest = self.nearest_step(number)
            near = "no step was" if nearest is None else f"the nearest recorded one is {nearest}"
            raise UnknownNameError(f"step {number} was not recorded in trial {self.name!r}; {near}")
        return self._contents.step(number)

    # ------------------------------------------------------------------ following

    def refresh(self) -> bool:
        """Read what was written since the last look. Returns whether there was anything new."""
        with self._lock:
            if self._contents.was_replaced():
                self._start_over()
            new = self._contents.refresh()
            if self._contents.was_thinned:
                self._cache.clear()
            for number in self.repeated_steps:
                self._cache.pop(number, None)
            self.version += new
            return new

    def __repr__(self) -> str:
        return f"<Trial {self.name!r} {self.state}, {len(self.steps)} steps>"


def open_trial(path: Path | str) -> Trial:
    """Open a trial's folder, or its address (``s3://bucket/runs/bugged``).

    Raises:
        NotARecordingError: it holds no recording, or one of a newer format.
    """
    if is_address(path):
        from stepscope.store.remote.trial import open_remote_trial

        return open_remote_trial(path)
    return Trial(path)


def _check_folder(path: Path) -> None:
    """Raise ``NotARecordingError`` unless a folder holds a trial."""
    journal = file_path(path, "journal").name
    if (path / journal).is_file():
        return
    inside = sorted(entry.parent.name for entry in path.glob(f"*/{journal}"))
    hint = f"; it holds the trial {inside[0]!r}; give one of these, or open_group(...)" if inside else ""
    raise NotARecordingError(f"{path} is no recording of a trial: it has no {journal}{hint}")
