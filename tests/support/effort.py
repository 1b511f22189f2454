"""How much work the recorder does, counted in executed bytecodes: the same on every machine, busy or not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import stepscope.recorder
import stepscope.store

_OURS = tuple(str(Path(str(room.__file__)).parent) for room in (stepscope.recorder, stepscope.store))


def effort(work: Callable[[], object]) -> int:
    """The number of bytecodes that a call executes in the recorder's and the store's files, in all threads."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(_OURS):
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
