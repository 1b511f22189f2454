"""What changes the scale of a loss or of its scores: an exponential of a whole loss, and a temperature of scores."""

from __future__ import annotations

from typing import Any

import torch

from stepscope.recorder.loss_functions import LOSS_FUNCTIONS
from stepscope.recorder.trace import Trace

EXPONENTIAL = "exponential"
HEATED = "heated"
_SCALES = frozenset(["div", "truediv", "mul", "rmul", "neg", "mean", "add", "radd", "sub", "to", "float", ""])
"""What may lie between a loss and its exponential."""
_KEEPS = frozenset(["log_softmax", "softmax", "log", "to", "float", "contiguous", "view", "flatten", "reshape", ""])
_DIVISIONS = frozenset(["div", "truediv", "itruediv"])
_FAR = 6


def mark_of_exponential(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """Whether one number is the exponential of a loss that learns."""
    if made.dim() or not made.requires_grad or not isinstance(args[0], torch.Tensor):
        return ""
    node = trace.known(args[0])
    for _ in range(_FAR):
        if node is None or trace.operations[node] in LOSS_FUNCTIONS:
            break
        parents = [parent for parent in trace.parents[node] if trace.carries_grad[parent]]
        node = parents[0] if len(parents) == 1 and trace.operations[node] in _SCALES else None
    return "" if node is None else EXPONENTIAL


def note_scale(name: str, made: torch.Tensor, args: tuple[Any, ...], trace: Trace) -> None:
    """Remember a table that was divided by, or multiplied with, a number: by how much it was divided."""
    if made.dim() and len(args) > 1 and isinstance(args[1], (int, float)) and args[1] > 0:
        trace.divided[trace.node(made)] = float(args[1]) if name in _DIVISIONS else 1 / float(args[1])


def mark_of_heat(name: str, prediction: torch.Tensor, target: torch.Tensor, trace: Trace) -> str:
    """The temperature of a divergence whose two sides are softmaxes of scores that were divided by one number."""
    if name != "kl_div" or not trace.divided:
        return ""
    heat, other = (_heat_of(trace, trace.known(side)) for side in (prediction, target))
    return f"{HEATED}: T={heat:g}" if heat > 1 and heat == other else ""


def _heat_of(trace: Trace, node: int | None) -> float:
    """By what the scores behind a softmax were divided; 1 if by nothing."""
    for _ in range(_FAR):
        if node is None or node in trace.divided:
            break
        parents = trace.parents[node]
        node = parents[0] if parents and trace.operations[node] in _KEEPS else None
    return 1.0 if node is None else trace.divided.get(node, 1.0)
