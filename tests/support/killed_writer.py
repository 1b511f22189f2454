"""Run as a script: forks a process for each line ``folder bytes`` on its standard input, which writes a trial there.

The child prints the number of each step once it is written. It kills itself in the middle of a write, when that many
bytes have been written (0: never). The script prints the child's number first, and ``done`` when it is gone.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from stepscope.store import TrialWriter, append_file
from stepscope.store.records import StepRecord
from support.synthetic import Synthetic

SYNTHETIC = Synthetic(blocks=1, width=6, iterations=2)
STEPS = 150
_DIFFERENT = [SYNTHETIC.record(index) for index in range(5)]


def record(number: int) -> StepRecord:
    """What is written as this step."""
    return replace(_DIFFERENT[number % len(_DIFFERENT)], number=number)


class _Torn:
    """A file that ends the process between two bytes."""

    left = 0

    def __init__(self, path: Path, mode: str, buffering: int) -> None:
        self._file: Any = builtins.open(path, mode, buffering=buffering)  # noqa: SIM115 - lives until the kill

    def write(self, data: memoryview) -> int:
        if len(data) >= _Torn.left:
            self._file.write(data[: _Torn.left])
            os.kill(os.getpid(), signal.SIGKILL)
        _Torn.left -= len(data)
        written: int = self._file.write(data)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _write(folder: str, die_after: int) -> None:
    if die_after:
        _Torn.left = die_after
        append_file.open = _Torn  # type: ignore[attr-defined]
    writer = TrialWriter(folder, SYNTHETIC.info())
    for number in range(STEPS):
        writer.write_step(record(number))
        os.write(1, b"%d\n" % number)


def main() -> None:
    for line in sys.stdin:
        folder, die_after = line.split()
        child = os.fork()
        if child == 0:
            _write(folder, int(die_after))
            os._exit(0)
        os.write(1, b"child %d\n" % child)
        os.waitpid(child, 0)
        os.write(1, b"done\n")


if __name__ == "__main__":
    main()
