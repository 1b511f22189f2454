"""The one guard around everything the recorder does in the user's training loop: it may fail, training may not."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol, TypeVar, cast

from stepscope.recorder.errors import RecorderError, RecorderWarning
from stepscope.recorder.frames import user_frame

F = TypeVar("F", bound=Callable[..., Any])


class Guarded(Protocol):
    """What the guard needs of an object whose methods it protects."""

    @property
    def faults(self) -> Faults: ...


class Faults:
    """Decides what happens to a fault: raised when strict, else one warning a cause, at the user's line.

    The cause of a wrong call is the line that made it; the cause of anything else is the line that failed.
    ``on_fault`` is told of each cause once, so that the recording itself can say what it lacks. Once the recorder
    itself has failed, calls that do not fit are told there only: a step that was not opened cannot be closed.
    """

    def __init__(self, *, strict: bool, on_fault: Callable[[str], None] = lambda text: None) -> None:
        self.strict = strict
        self._on_fault = on_fault
        self._told: set[object] = set()
        self._failed = False

    def report(self, error: Exception, doing: str) -> None:
        """Deal with an error; returns only if it is to be survived."""
        if self.strict:
            raise error
        text = f"{doing}: {type(error).__name__}: {error}"
        if not isinstance(error, RecorderError):
            self._failed = True
            self.warn(text, cause=(type(error), _failing_line(error)))
        elif self._failed:
            self.tell(text)
        else:
            self.warn(text, cause=(type(error), _users_line()))

    def tell(self, text: str) -> None:
        """Say once, in the recording only, what it lacks by nature: nothing is wrong."""
        if self._is_new(text):
            self._note(text)

    def warn(self, text: str, *, cause: object = None) -> None:
        """Warn once a cause, at the line of the user's code that is running."""
        if not self._is_new(cause or text):
            return
        self._note(text)
        frame = _users_frame()
        message = f"stepscope: {text} (training goes on; strict=True raises instead)"
        try:
            if frame is None:
                warnings.warn(message, RecorderWarning, stacklevel=2)
            else:
                warnings.warn_explicit(message, RecorderWarning, frame.f_code.co_filename, frame.f_lineno)
        except RecorderWarning:  # warnings may be turned into errors: that too must not stop a training run
            if self.strict:
                raise

    def _note(self, text: str) -> None:
        with suppress(Exception):  # if the recording cannot be written to, the warning says it all
            self._on_fault(text)

    def _is_new(self, cause: object) -> bool:
        new = cause not in self._told
        self._told.add(cause)
        return new


def _users_frame() -> FrameType | None:
    """The user's frame, even if looking for it is what failed."""
    try:
        return user_frame(2)
    except Exception:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in ("stepscope", "torch"):
            frame = frame.f_back
        return frame


def _users_line() -> tuple[str, int]:
    frame = _users_frame()
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def _failing_line(error: BaseException) -> tuple[str, int]:
    trace = error.__traceback__
    if trace is None:
        return "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno


def guarded(doing: str, default: Any = None, *, raises: tuple[type[Exception], ...] = ()) -> Callable[[F], F]:
    """Let a method of an object with ``faults`` survive its own errors, returning ``default`` instead.

    What it ``raises`` of its own accord passes: wrong calls outside the training loop.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(self: Guarded, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(self, *args, **kwargs)
            except raises:
                raise
            except Exception as error:
                self.faults.report(error, doing)
                return default

        return cast(F, wrapper)

    return decorate
