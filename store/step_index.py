"""Which steps a trial has, and where they are."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepscope.store import codec
from stepscope.store.blocks import BlockPlace
from stepscope.store.errors import damaged_unless

LOST_DETAIL = "detail"
NO_DETAIL = -1
"""The offset of the detail of a step that has lost it, or has it in another file."""


class StepEntry(NamedTuple):
    """A recorded step: where its block is, and what is needed of it without reading it again."""

    place: BlockPlace
    kind: str
    layout: bytes
    graphs: tuple[bytes, ...]
    detail: int


class StepIndex:
    """The recorded steps by number; the last one of equal number counts, and those before a restart do not.

    Attributes:
        numbers: all numbers, in order; kinds: their kinds.
        layouts: the digests of all layouts; layout_places: of each step, the place of its own among them.
        repeated: the numbers that occur more than once in the file, or were superseded.
        last_detail: the step whose detail lies furthest back in its file.
    """

    def __init__(self) -> None:
        self.numbers: NDArray[np.int64] = np.zeros(0, np.int64)
        self.kinds: tuple[str, ...] = ()
        self.layouts: tuple[bytes, ...] = ()
        self.layout_places: NDArray[np.int64] = np.zeros(0, np.int64)
        self.repeated: set[int] = set()
        self.last_detail: int | None = None
        self._entries: dict[int, StepEntry] = {}
        self._layouts: dict[bytes, bytes] = {}
        self._graphs: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def __getitem__(self, number: int) -> StepEntry:
        return self._entries[number]

    def offset_of(self, number: int) -> int:
        """Where the block of a step is."""
        return self._entries[number].place.offset

    def take(self, place: BlockPlace, header: dict[str, Any]) -> None:
        """Take in a block; ``settle`` makes it visible.

        Raises:
            DamagedError: it makes no sense.
        """
        if place.kind == "restart":
            with damaged_unless("a restart"):
                self._supersede(codec.step_from_plain(header["step"]))
        else:
            self._take_step(place, header)

    def _supersede(self, step: int) -> None:
        """Training went back to this step: those from it on are no part of its history any more."""
        gone = {number for number in self._entries if number >= step}
        self.repeated |= gone
        for number in gone:
            del self._entries[number]

    def _take_step(self, place: BlockPlace, header: dict[str, Any]) -> None:
        with damaged_unless("a step"):
            number, layout = codec.step_from_plain(header["number"]), codec.digest_from_plain(header["layout"])
            graphs = self._known_graphs(tuple(header["graphs"]))
            kind, detail = sys.intern(str(header["kind"])), int(header["detail"])
            if LOST_DETAIL in header.get("lost", ()) or header.get("part"):
                detail = NO_DETAIL
        if number in self._entries:
            self.repeated.add(number)
        # One object for equal digests: there are few layouts and many steps.
        layout = self._layouts.setdefault(layout, layout)
        self._entries[number] = StepEntry(place, kind, layout, graphs, detail)

    def _known_graphs(self, plain: tuple[Any, ...]) -> tuple[bytes, ...]:
        """The digests out of a header; only those that are new need to be looked at."""
        if plain not in self._graphs:
            self._graphs[plain] = tuple(map(codec.digest_from_plain, plain))
        return self._graphs[plain]

    def settle(self) -> None:
        """Bring ``numbers``, ``kinds``, ``layouts`` and ``last_detail`` up to date."""
        self.numbers = np.array(sorted(self._entries), np.int64)
        entries = [self._entries[number] for number in self.numbers.tolist()]
        self.kinds = tuple(entry.kind for entry in entries)
        self.layouts = tuple(self._layouts)
        places = {layout: place for place, layout in enumerate(self.layouts)}
        self.layout_places = np.array([places[entry.layout] for entry in entries], np.int64)
        having = [number for number, entry in self._entries.items() if entry.detail != NO_DETAIL]
        self.last_detail = max(having, key=lambda number: self._entries[number].detail, default=None)

    def left_behind(self) -> frozenset[bytes]:
        """The digests of the layouts and graphs that no step has but superseded ones."""
        entries = self._entries.values()
        counting = _digests((entry.layout for entry in entries), {entry.graphs for entry in entries})
        return _digests(self._layouts, self._graphs) - counting

    def of_kind(self, kind: str | None) -> NDArray[np.int64]:
        """The numbers of the steps of a kind, or of all."""
        if kind is None or not len(self.numbers):
            return self.numbers
        return self.numbers[[own == kind for own in self.kinds]]

    def nearest(self, number: int, kind: str | None = None) -> int | None:
        """The recorded step nearest to a number; None if there is none of that kind."""
        numbers = self.of_kind(kind)
        return int(numbers[np.abs(numbers - number).argmin()]) if len(numbers) else None


def _digests(layouts: Iterable[bytes], graphs: Iterable[tuple[bytes, ...]]) -> frozenset[bytes]:
    return frozenset(itertools.chain(layouts, *graphs))
