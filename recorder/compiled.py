"""Lets compiled models run uncompiled during a recorded step, so that there is something to see."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch

_HOOKS = r"Using `torch\.compile\(module\)` when there are global hooks"


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what ``torch.compile`` made as plain Python; the compiled code stays, and goes on afterwards.

    The compiler warns of global hooks, which are ours and gone after the step: that warning is kept back.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    warnings.filterwarnings("ignore", message=_HOOKS)
    added = warnings.filters[0]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        with suppress(ValueError):
            cast("list[Any]", warnings.filters).remove(added)
