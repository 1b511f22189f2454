"""Calls of torch's loss functions whose two sides do not fit together."""

from __future__ import annotations

import math
from typing import Any

import torch

from stepscope.recorder.exponent_marks import mark_of_heat
from stepscope.recorder.target_marks import HARDLY, mark_of_targets
from stepscope.recorder.total_marks import LOG_OF_SUM, is_total
from stepscope.recorder.trace import Trace

ELEMENTWISE = frozenset(
    ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "poisson_nll_loss", "kl_div"]
)
"""Losses that compare element by element, and broadcast without asking."""
_BY_ELEMENTS = ELEMENTWISE | {"binary_cross_entropy", "binary_cross_entropy_with_logits"}
_ZEROS = frozenset(["zeros", "zeros_like", "new_zeros"])
_SAME_ROWS = frozenset(
    ["to", "float", "long", "contiguous", "clone", "log_softmax", "softmax", "sigmoid", "tanh", "relu", "squeeze"]
)
"""What leaves the rows of a table as they are: the dimensions that were joined in front are still those."""
_MOVES = frozenset(
    ["", "flatten", "view", "reshape", "transpose", "permute", "unsqueeze", "getitem", "masked_fill", "masked_fill_"]
)
"""What may lie between a slice of time and a loss."""
_SAME_SHAPE = frozenset(["log", "add", "clamp", "clamp_min", "mul", "neg"])
"""What a logarithm of probabilities may be made with, element by element: no dimension becomes another one."""


def mark_of_loss(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """What is odd about a call of a loss function, as a kind of ``Call``; empty if nothing is."""
    prediction = kwargs.get("input", args[0] if args else None)
    target = kwargs.get("target", args[1] if len(args) > 1 else None)
    if not isinstance(prediction, torch.Tensor) or not isinstance(target, torch.Tensor):
        return ""
    for side in (prediction, target) if trace.starts else ():
        _mark_start(trace, side)
    if mark := _of_sides(name, prediction, target, trace):
        return mark
    if mark := mark_of_heat(name, prediction, target, trace) or _without_exponential(name, args, kwargs):
        return mark
    mark = mark_of_targets(name, args, kwargs)
    if mark and not mark.startswith(HARDLY):
        return mark
    ignored = kwargs.get("ignore_index", -100)
    if isinstance(ignored, int) and ignored >= 0 and prediction.dim() == 2 and target.dim() == 1:
        return f"ignores: ignore_index={ignored}"
    if name == "nll_loss" and _is_over_another(prediction, trace):
        return "over another"
    if _is_reversed(prediction, target, trace):
        return "other order"
    if kwargs.get("reduction") == "sum":
        return "summed"
    return mark or _against_zeros(name, prediction, target, trace)


def _without_exponential(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Whether a loss of counts takes the prediction as it is."""
    is_plain = name == "poisson_nll_loss" and kwargs.get("log_input", args[2] if len(args) > 2 else True) is False
    return "no exponential" if is_plain else ""


def _of_sides(name: str, prediction: torch.Tensor, target: torch.Tensor, trace: Trace) -> str:
    """What shapes tell, and what the prediction is made of."""
    if name in ELEMENTWISE and _grows(prediction.shape, target.shape):
        return "broadcast"
    return LOG_OF_SUM if name == "binary_cross_entropy_with_logits" and is_total(prediction, trace) else ""


def _against_zeros(name: str, prediction: torch.Tensor, target: torch.Tensor, trace: Trace) -> str:
    """Whether several numbers of each sample are compared with zeros that the step has made."""
    node = trace.known(target)
    is_wide = prediction.dim() > 1 and prediction.shape == target.shape and prediction.shape[0] < prediction.numel()
    is_made = node is not None and trace.operations[node] in _ZEROS
    return "against zeros" if name in _BY_ELEMENTS and is_wide and is_made else ""


def _mark_start(trace: Trace, tensor: torch.Tensor) -> None:
    """Mark the slice, if there is one, by which a side of a loss begins later than what it was cut from."""
    node = trace.known(tensor)
    while node is not None and node not in trace.starts:
        parents, operation = trace.parents[node], trace.operations[node]
        node = parents[0] if parents and operation in (_SAME_ROWS | _MOVES) else None
    if node is not None:
        trace.marks.setdefault(node, f"starts: {trace.starts[node]}")


def _is_over_another(prediction: torch.Tensor, trace: Trace) -> bool:
    """Whether a softmax was taken over another dimension than that which counts the classes: the second one."""
    node = trace.known(prediction)
    classes = -1 if prediction.dim() < 2 else 1 - prediction.dim()
    while node is not None and node not in trace.summed:
        parents, operation = trace.parents[node], trace.operations[node]
        if operation not in (_SAME_ROWS | _SAME_SHAPE) and node not in trace.joined:
            return False
        node = parents[0] if parents else None
    return node is not None and "softmax" in trace.operations[node] and trace.summed[node] != classes


def _grows(one: torch.Size, two: torch.Size) -> bool:
    """Whether two shapes broadcast to something larger than both; what was given the same dimensions is meant so."""
    if len(one) == len(two):
        return False
    try:
        whole = torch.broadcast_shapes(one, two)
    except RuntimeError:
        return False
    return bool(math.prod(whole) > max(math.prod(one), math.prod(two)))


def _is_reversed(prediction: torch.Tensor, target: torch.Tensor, trace: Trace) -> bool:
    """Whether ``(a, b)`` was flattened on one side and ``(b, a)`` on the other."""
    one, two = (_joined(trace, tensor) for tensor in (prediction, target))
    return one is not None and two is not None and one == two[::-1] and one[0] != one[1]


def _joined(trace: Trace, tensor: torch.Tensor) -> tuple[int, int] | None:
    """Which two dimensions were joined to make a tensor's first, perhaps before a change of its dtype or a softmax."""
    node = trace.known(tensor)
    while node is not None and node not in trace.joined:
        parents = trace.parents[node]
        node = parents[0] if len(parents) == 1 and trace.operations[node] in _SAME_ROWS else None
    return None if node is None else trace.joined[node]
