"""A group: a folder of trials that are looked at together."""

from __future__ import annotations

from pathlib import Path

from stepscope.store.address import is_address
from stepscope.store.block_file import BlockFile
from stepscope.store.errors import NotARecordingError, StoreError, unknown
from stepscope.store.files import file_path
from stepscope.store.journal import started
from stepscope.store.trial import Trial


class Group:
    """The trials of a folder; each is opened when it is first asked for.

    >>> group = open_group("runs/sums")                 # doctest: +SKIP
    >>> group["bugged"].steps                           # doctest: +SKIP

    Attributes:
        path: the folder.
        problems: for each trial that cannot be opened, why.
    """

    def __init__(self, path: Path | str) -> None:
        given = Path(path)
        self._only: str | None = None
        if is_trial(given):
            given, self._only = given.resolve().parent, given.resolve().name
        if not given.is_dir():
            raise NotARecordingError(f"{given} is no folder; give the folder that the recorder wrote to")
        self.path = given
        self.problems: dict[str, str] = {}
        self._trials: dict[str, Trial] = {}
        self._names: tuple[str, ...] = ()
        self._starts: dict[str, float] = {}
        self.refresh()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the trials, oldest first."""
        return self._names

    def __getitem__(self, name: str) -> Trial:
        """A trial by its name.

        Raises:
            UnknownNameError: there is none of this name.
            NotARecordingError: its files are of another program, or of a newer version.
        """
        if name not in self._names:
            raise unknown("trial", name, self._names)
        if name not in self._trials:
            self._trials[name] = self._open(name)
        return self._trials[name]

    def _open(self, name: str) -> Trial:
        return Trial(self.path / name)

    @property
    def opened(self) -> tuple[Trial, ...]:
        """The trials that were asked for so far."""
        return tuple(self._trials.values())

    def is_live(self, name: str) -> bool:
        """Whether a trial is being written to; False if it cannot be read."""
        try:
            return self[name].state == "running"
        except (StoreError, OSError):
            return False

    def __len__(self) -> int:
        return len(self._names)

    def refresh(self) -> bool:
        """Look for new trials, and for trials that are gone. Returns whether there are any."""
        wanted = (entry for entry in self.path.iterdir() if self._only is None or entry.name == self._only)
        found = {entry.name: entry for entry in wanted if not entry.is_symlink() and is_trial(entry)}
        for gone in set(self._names) - set(found):
            for kept in (self._trials, self._starts, self.problems):
                kept.pop(gone, None)
        names = tuple(sorted(found, key=lambda name: (self._started(found[name]), name)))
        changed = names != self._names
        self._names = names
        return changed

    def _started(self, entry: Path) -> float:
        if entry.name not in self._starts:
            try:
                start = started(BlockFile(file_path(entry, "journal")))
            except (StoreError, OSError) as error:
                self.problems[entry.name] = str(error)
                start = 0.0
            if not start and entry.name not in self.problems:
                return start  # it is just being made: look again the next time
            self._starts[entry.name] = start
        return self._starts[entry.name]


def is_trial(path: Path | str) -> bool:
    """Whether a folder, or an address, holds a recording of a trial."""
    if is_address(path):
        from stepscope.store.remote.trial import is_remote_trial

        return is_remote_trial(path)
    return file_path(Path(path), "journal").is_file()


def open_group(path: Path | str) -> Group:
    """Open a folder of trials, or the folder of a single one; or the address of either (``s3://bucket/runs``).

    Raises:
        NotARecordingError: there is no such folder.
    """
    if is_address(path):
        from stepscope.store.remote.group import RemoteGroup

        return RemoteGroup(path)
    return Group(path)
