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
_LIBRARY_PACKAGES = ("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision")

Place = tuple[CodeType, int]
"""A code object and the offset of an instruction in it: cheap to take, turned into a line only when written."""


_is_library: dict[CodeType, bool] = {}


def _decide(code: CodeType) -> bool:
    name = code.co_filename
    path = os.path.abspath(name) if not name.startswith("<") else name
    library = path.startswith(_LIBRARY_FOLDERS) or _in_packages(path) or _in_standard_library(path)
    _is_library[code] = library or name.startswith("<frozen")
    return _is_library[code]


def _in_packages(path: str) -> bool:
    marker = f"{os.sep}site-packages{os.sep}"
    _, found, rest = path.partition(marker)
    return bool(found) and rest.split(os.sep, 1)[0] in _LIBRARY_PACKAGES


def _in_standard_library(path: str) -> bool:
    folder = sysconfig.get_paths()["stdlib"] + os.sep
    return path.startswith(folder) and f"{os.sep}site-packages{os.sep}" not in path


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame of the user's code above the caller, or None if there is none."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        library = _is_library.get(code)
        if library is None:
            library = _decide(code)
        if not library:
            return frame
        frame = frame.f_back
    return None


def user_place(depth: int = 1) -> Place | None:
    """The place in the user's code that is running now."""
    frame = user_frame(depth + 1)
    return None if frame is None else (frame.f_code, frame.f_lasti)


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
