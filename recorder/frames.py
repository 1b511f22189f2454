"""Where in the user's code we are: the first frame that belongs neither to torch nor to the recorder."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from functools import lru_cache
from types import CodeType, FrameType

import torch

from stepscope.store.records import SourceLine

_ROOM = os.path.dirname(os.path.abspath(__file__))
_LIBRARY_FOLDERS = (
    os.path.dirname(os.path.abspath(torch.__file__)) + os.sep,
    _ROOM + os.sep,
    os.path.join(os.path.dirname(_ROOM), "integrations") + os.sep,
)
_FRAMEWORKS = ("lightning", "pytorch_lightning")
"""Packages that call the user's code: what they compute themselves has no line in it."""
_LIBRARIES = ("lightning_fabric", "lightning_utilities", "torchmetrics", "torchvision")

Place = tuple[CodeType, int]
"""A code object and the offset of an instruction in it: cheap to take, turned into a line only when written."""


_DECORATORS = ("wrapper", "decorate_context", "inner")

_USER, _LIBRARY, _FRAMEWORK = range(3)
_kinds: dict[CodeType, int] = {}


def _decide(code: CodeType) -> int:
    name = code.co_filename
    path = os.path.abspath(name) if not name.startswith("<") else name
    kind = _USER
    if path.startswith(_LIBRARY_FOLDERS) or _in_packages(path, _LIBRARIES) or _in_standard_library(path):
        kind = _LIBRARY
    elif _in_packages(path, _FRAMEWORKS):
        kind = _FRAMEWORK
    _kinds[code] = _LIBRARY if name.startswith("<frozen") else kind
    return _kinds[code]


def _in_packages(path: str, packages: tuple[str, ...]) -> bool:
    marker = f"{os.sep}site-packages{os.sep}"
    _, found, rest = path.partition(marker)
    return bool(found) and rest.split(os.sep, 1)[0] in packages


def _in_standard_library(path: str) -> bool:
    folder = sysconfig.get_paths()["stdlib"] + os.sep
    return path.startswith(folder) and f"{os.sep}site-packages{os.sep}" not in path


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame of the user's code above the caller, or None if there is none."""
    return _frame_above(sys._getframe(depth), through=(_LIBRARY, _FRAMEWORK))


def user_place(depth: int = 1) -> Place | None:
    """The place in the user's code that is running now; None in what a framework does of its own accord."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        kind = _kinds.get(code)
        if kind is None:
            kind = _decide(code)
        if kind != _LIBRARY:
            return (code, frame.f_lasti) if kind == _USER else None
        frame = frame.f_back
    return None


def calling_function(depth: int = 1) -> str:
    """The name of the library's function that the user's code is calling, decorators apart; empty if it calls none."""
    frame: FrameType | None = sys._getframe(depth)
    name = ""
    while frame is not None and _kind(frame.f_code) != _USER:
        called = frame.f_code.co_name
        name = name if called.startswith("_") or called in _DECORATORS else called
        frame = frame.f_back
    return name


def _kind(code: CodeType) -> int:
    kind = _kinds.get(code)
    return _decide(code) if kind is None else kind


def _frame_above(frame: FrameType | None, through: tuple[int, ...]) -> FrameType | None:
    while frame is not None:
        kind = _kinds.get(frame.f_code)
        if kind is None:
            kind = _decide(frame.f_code)
        if kind not in through:
            return frame
        frame = frame.f_back
    return None


@lru_cache(maxsize=16384)
def source_line(place: Place | None) -> SourceLine | None:
    """Turn a place into file, line number and the text of the line."""
    if place is None:
        return None
    code, offset = place
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= offset < end and number is not None:
            line = number
            break
    text = linecache.getline(code.co_filename, line).strip()
    return SourceLine(code.co_filename, line, text, code.co_name)
