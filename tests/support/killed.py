"""Runs something in a process of its own that is killed at one of its steps: before any change to a file, or halfway
through a write."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

_CHANGES = {"os.rename", "os.link", "os.truncate", "os.mkdir", "os.remove", "os.rmdir"}
_real_open = builtins.open


class _Ticker:
    """Counts what a process does to files; kills it at one of these."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0

    def tick(self) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in _CHANGES:
            self.tick()


class _HalfwayFile:
    """A file that is written in two halves, with a step between them."""

    def __init__(self, file: Any, ticker: _Ticker) -> None:
        self._file, self._ticker = file, ticker

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view[: len(view) // 2])
        self._ticker.tick()
        self._file.write(view[len(view) // 2 :])
        return len(view)

    def writelines(self, blocks: Iterable[bytes]) -> None:
        for block in blocks:
            self.write(block)

    def __enter__(self) -> _HalfwayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def run_killed(action: Callable[[], object], at: int) -> int:
    """Run something in a process that is killed at its step number ``at``, from 1 on.

    Returns 0 if it was killed, else how many steps it took; then it is done.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; the child needs none of them
        child = os.fork()
    if child == 0:
        _run(action, at, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"it failed with {code}"
    return int(text) if code == 0 else 0


def _run(action: Callable[[], object], at: int, report: int) -> None:
    ticker = _Ticker(at)

    def halfway_open(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if "b" not in mode or mode == "rb":
            return _real_open(path, mode, *rest, **named)
        return _HalfwayFile(_real_open(path, mode, buffering=0), ticker)

    try:
        builtins.open = halfway_open
        sys.addaudithook(ticker.audit)
        action()
        os.write(report, str(ticker.count).encode())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)
