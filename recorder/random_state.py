"""Where torch's random numbers are: a short number that is the same only if what is drawn next is the same."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

DRAWS = frozenset(["randn_like", "rand_like", "randn", "rand", "randperm", "randint", "uniform", "exponential"])
"""Functions that draw random numbers, and nothing else."""


def random_state() -> int:
    """Of the default generators of the CPU and, if it is in use, of the current GPU; no value is waited for.

    >>> torch.manual_seed(0) and random_state() == (torch.manual_seed(0) and random_state())
    True
    """
    with torch._C.DisableTorchFunction():
        state = zlib.crc32(torch.get_rng_state().numpy().tobytes())
        if torch.cuda.is_available() and torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            state = zlib.crc32(f"{generator.initial_seed()} {generator.get_offset()}".encode(), state)
    return state


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Whatever is drawn inside, the random streams of Python, numpy and torch go on as if it had not been."""
    python, numbers = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # a GPU is not started for this
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


def is_drawn(made: torch.Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether a draw was made from one of these generators, not from one of the user's own."""
    if kwargs.get("generator") is not None:
        return False
    device = made.device
    return device.type == "cpu" or (device.type == "cuda" and device.index == torch.cuda.current_device())
