"""How much work our code does, counted in executed bytecodes: the same on every machine, busy or not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import stepscope.recorder
import stepscope.store

RECORDING = (stepscope.recorder, stepscope.store)


def effort(work: Callable[[], object], packages: tuple[ModuleType, ...] = RECORDING) -> int:
    """The number of bytecodes that a call executes in the packages' files, in all threads."""
    ours = tuple(str(Path(str(package.__file__)).parent) for package in packages)
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(ours):
            return None
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace(), threading.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before[0])
        threading.settrace(before[1])  # type: ignore[arg-type]
    return count
