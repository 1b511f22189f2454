"""Ending a recorder with the program, early enough for an upload."""

from __future__ import annotations

import concurrent.futures.thread  # its own hook must be registered before those here: the last one is called first
import threading
import weakref
from collections.abc import Callable
from types import MethodType
from typing import cast

assert concurrent.futures.thread


def call_while_threads_run(method: Callable[[], None]) -> None:
    """Call a method when the program ends, but before thread pools close: network clients need them to the last.

    ``atexit`` comes after that. The threading module's own hook is not public; where it is missing, ``atexit`` has to
    do, and the end of a recording may stay in its spool.
    """
    weak = weakref.WeakMethod(cast(MethodType, method))  # this hook cannot be taken back: it must keep nothing alive

    def call() -> None:
        alive = weak()
        if alive is not None:
            alive()

    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(call)
