"""Writes details; with a limit of bytes, decides before each step what has to go, so that the limit is never passed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stepscope.store.append_file import AppendFile
from stepscope.store.contents import Contents
from stepscope.store.detail_block import PackedDetail
from stepscope.store.detail_parts import part_path, parts_of, unfinished_parts
from stepscope.store.detail_rewrite import rewrite_part
from stepscope.store.detail_table import SAMPLES, STATISTICS
from stepscope.store.errors import DamagedError
from stepscope.store.kept_details import kept_details
from stepscope.store.left_out import Thinning
from stepscope.store.room import Limits, Room
from stepscope.store.thinning import Kept, Plan, may_go, thin_out


class DetailPlace(NamedTuple):
    """Where the detail of a step is: in which file, at which offset when it was written."""

    part: int
    offset: int


class DetailWriter:
    """Appends details to one file or, with a limit, to several, which are rewritten when there is too much of them.

    Args:
        trial: the trial's folder.
        first: the file that every trial has; the only one without a limit.
        limits: of bytes.
        others: gives the bytes of all other files of the trial.
    """

    def __init__(self, trial: Path, first: AppendFile, limits: Limits, others: Callable[[], int]) -> None:
        self.noted: set[int] = set()
        self._trial = trial
        self._first = first
        self._limits = limits
        self._room = None if limits.trial is None else Room(limits.trial)
        self._others = others
        self._kept: dict[tuple[int, int], Kept] = {}
        self._sizes = {part: part_path(trial, part).stat().st_size for part in parts_of(trial) if part}
        self._active: AppendFile | None = None
        self._written = 0
        for left in unfinished_parts(trial):
            left.unlink()

    def go_on(self) -> None:
        """Take in what an earlier process wrote; what lies in the first file stays as it is."""
        if self._room is not None:
            contents = Contents(self._trial)
            contents.refresh()
            self._kept = {step.place: step for step in kept_details(self._trial, contents)}
            self.noted |= {note.step for note in contents.journal.notes}

    @property
    def size(self) -> int:
        """The bytes of all files but the first."""
        return sum(self._sizes.values())

    def append(self, packed: PackedDetail, kind: str, step_size: int) -> DetailPlace:
        """Append the detail of a step whose own block has at most that size; the step's limit, and the trial's, hold.

        Raises:
            OSError: it could not be written; nothing has changed.
        """
        packed, block = self._within_step(packed, step_size)
        if self._room is None:
            return DetailPlace(0, self._first.append(block))
        packed, block = self._within_trial(packed, block, step_size)
        file, part = self._file_for(len(block))
        place = DetailPlace(part, file.append(block))
        self._sizes[part] = file.size
        self._kept[place] = Kept(packed.number, kind, *place, packed.bytes_of(SAMPLES), packed.bytes_of(STATISTICS))
        self._written += 1
        return place

    def cut(self, place: DetailPlace) -> None:
        """Take back what was appended last."""
        if place.part == 0:
            self._first.cut(place.offset)
        elif self._active is not None:
            self._kept.pop(place, None)
            self._active.cut(place.offset)
            self._sizes[place.part] = self._active.size

    def make_room(self, needed: int) -> bool:
        """Free what is needed for something that is no step; False if that is not possible."""
        if self._room is None:
            return True
        if self._missing(needed) > 0:
            self._thin(self._missing(needed))
        return self._missing(needed) <= 0

    def steps_left(self) -> float | None:
        """For how many more steps there is room, if they have no neurons; None without a limit, or before the first."""
        if self._room is None or not self._written:
            return None
        thinnable = may_go(self._kept.values(), self.noted)
        all_detail = sum(step.raw + step.neurons for step in self._kept.values())
        each = max(1.0, (self._used() - all_detail) / len(self._kept))
        return max(0.0, (thinnable - self._missing(0)) / each)

    def close(self) -> None:
        """Close the files that this opened."""
        if self._active is not None:
            self._active.close()
            self._active = None

    def _used(self) -> int:
        return self._others() + self.size

    def _missing(self, needed: int) -> int:
        assert self._room is not None
        return self._room.missing(self._used(), needed, max(self._sizes.values(), default=0))

    def _within_step(self, packed: PackedDetail, step_size: int) -> tuple[PackedDetail, bytes]:
        block = packed.encode()
        for thinning in (Thinning.RAW, Thinning.NEURONS):
            if self._limits.step is None or len(block) + step_size <= self._limits.step:
                break
            packed = packed.thinned(thinning)
            block = packed.encode()
        return packed, block

    def _within_trial(self, packed: PackedDetail, block: bytes, step_size: int) -> tuple[PackedDetail, bytes]:
        if (missing := self._missing(len(block) + step_size)) > 0:
            self._thin(missing)
        for thinning in (Thinning.RAW, Thinning.NEURONS):
            if self._missing(len(block) + step_size) <= 0:
                break
            packed = packed.thinned(thinning)
            block = packed.encode()
        return packed, block

    def _file_for(self, size: int) -> tuple[AppendFile, int]:
        """The file that a block goes to: the last one, until it is full."""
        assert self._room is not None
        part = max(self._sizes, default=0)
        if self._active is None or self._active.size + size > self._room.of_a_file:
            self.close()
            part += 1
            self._active = AppendFile(part_path(self._trial, part))
            self._sizes[part] = self._active.size
        return self._active, part

    def _thin(self, missing: int) -> None:
        """Take detail from old steps, if enough can be taken to be worth the writing."""
        assert self._room is not None
        steps = self._kept.values()
        if may_go(steps, self.noted) < max(missing, self._room.worthwhile):
            return
        plan, _ = thin_out(steps, max(missing, self._room.freed_at_once), self.noted)
        self.close()  # the file that is written to may be among them
        for part in sorted({part for part, _ in plan}):
            self._rewrite(part, {place: thinning for place, thinning in plan.items() if place[0] == part})

    def _rewrite(self, part: int, plan: Plan) -> None:
        with contextlib.suppress(DamagedError):  # what is damaged stays as it is, and nothing more is asked of it
            rewrite_part(self._trial, part, plan)
        self._sizes[part] = part_path(self._trial, part).stat().st_size
        for place, thinning in plan.items():
            neurons = 0 if thinning == Thinning.NEURONS else self._kept[place].neurons
            self._kept[place] = replace(self._kept[place], raw=0, neurons=neurons)
