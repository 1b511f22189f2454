"""Calls that are looked at while they run, because a recording does not show afterwards what is odd about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stepscope.recorder.reshapes import mixes_samples, scrambles

Shape = Sequence[int]


def _of_reshape(args: tuple[Any, ...], kwargs: dict[str, Any], made: torch.Tensor) -> str:
    before, after = args[0].shape, made.shape
    if mixes_samples(before, after):
        return "mix"
    return "scramble" if scrambles(before, after) else ""


def _of_recurrence(args: tuple[Any, ...], kwargs: dict[str, Any], made: torch.Tensor) -> str:
    """A layer that reads the first dimension as time; what it is given is not packed, and no single sample."""
    return "time first" if args[-1] is False and args[0].dim() == 3 else ""


def _of_dropout(args: tuple[Any, ...], kwargs: dict[str, Any], made: torch.Tensor) -> str:
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    return "dropout" if training and kwargs.get("p", args[1] if len(args) > 1 else 0.5) else ""


def _of_arithmetic(args: tuple[Any, ...], kwargs: dict[str, Any], made: torch.Tensor) -> str:
    """A row and a column of the same length, which become a square."""
    if (
        made.dim() != 2
        or len(args) < 2
        or not isinstance(args[0], torch.Tensor)
        or not isinstance(args[1], torch.Tensor)
    ):
        return ""
    samples = made.shape[0]
    shapes = {tuple(args[0].shape), tuple(args[1].shape)}
    return "square" if samples > 1 and shapes == {(samples,), (samples, 1)} else ""


def _of_draw(args: tuple[Any, ...], kwargs: dict[str, Any], made: torch.Tensor) -> str:
    return "draw" if args and isinstance(args[0], torch.Tensor) and not made.requires_grad else ""


_LOOKS: dict[str, Callable[[tuple[Any, ...], dict[str, Any], torch.Tensor], str]] = {
    **dict.fromkeys(["view", "reshape"], _of_reshape),
    **dict.fromkeys(["gru", "lstm", "rnn_tanh", "rnn_relu"], _of_recurrence),
    **dict.fromkeys(["dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d"], _of_dropout),
    **dict.fromkeys(["sub", "rsub", "add", "radd", "mul", "rmul"], _of_arithmetic),
    **dict.fromkeys(["normal", "bernoulli", "multinomial", "poisson"], _of_draw),
}
MARKED = frozenset(_LOOKS)
"""The torch functions that may be odd."""


def mark_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: torch.Tensor) -> str:
    """What is odd about a call of one of ``MARKED``, as a kind of ``Call``; empty if nothing is."""
    return _LOOKS[name](args, kwargs, made) if args else ""
