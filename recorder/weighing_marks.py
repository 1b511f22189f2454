"""Weights that add up to one along another dimension than that which the product behind them sums over."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from stepscope.recorder.reshapes import spans
from stepscope.recorder.trace import Trace

_KEEPS = frozenset(["dropout", "to", "float", "type_as", "half", "bfloat16", "nan_to_num", "contiguous"])
"""What leaves the dimensions of an attention's weights as they are."""
_FAR = 4
_AWARE = frozenset(["sub", "view", "reshape", "flatten", "contiguous"])
"""What may lie between a weighted sum and the normalisation that makes its size no matter."""
_QUERIES = "over queries"

Dimensions = frozenset[int]
"""Some dimensions of a tensor, counted from the end."""


class _Weights(NamedTuple):
    softmax: int
    summed: Dimensions


def follow_reshape(made: torch.Tensor, before: torch.Tensor, trace: Trace) -> None:
    """Remember which dimensions of reshaped weights are those that a softmax was taken over."""
    old = _weights(trace, before) if trace.summed else None
    if old is None or not before.is_contiguous():
        return
    own = list(spans(before.shape))
    within = [own[-1 - dimension] for dimension in old.summed]
    now = frozenset(
        -1 - place
        for place, (inner, outer) in enumerate(spans(made.shape))
        if inner < outer and any(first <= inner and outer <= last for first, last in within)
    )
    trace.spread[trace.node(made)] = (old.softmax, now)


def note_reshape(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """The same as a look at a call, in which nothing is odd."""
    follow_reshape(made, args[0], trace)
    return ""


def note_product(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """The product of two matrices, one of which holds weights: odd is the softmax that made these.

    It sums over the last dimension of its first factor, and over the last but one of its second: there only a square
    tells a mistake from groups that features are gathered in, each of which gets a share of every feature.
    """
    if trace.summed and all(isinstance(arg, torch.Tensor) and arg.dim() > 1 for arg in args[:2]):
        first, second = (_weights(trace, arg) for arg in args[:2])
        if first is not None and second is None:
            _mark(made, first, _of_first(first.summed, args[0].dim()), trace)
        elif second is not None and first is None:
            is_square = args[1].shape[-1] == args[1].shape[-2]
            is_odd = -1 in second.summed and -2 not in second.summed and is_square
            _mark(made, second, _QUERIES if is_odd else "", trace)
    return ""  # nothing is wrong with the product itself


def note_einsum(made: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> str:
    """The same, written as a sum over letters."""
    if trace.summed and len(args) == 3 and isinstance(args[0], str):
        one, two = (_weights(trace, arg) if isinstance(arg, torch.Tensor) else None for arg in args[1:])
        sides, _, result = args[0].replace(" ", "").replace("...", ".").partition("->")
        letters = sides.split(",")
        if one is not None and two is None:
            _mark(made, one, _of_letters(one.summed, letters[0], letters[1], result), trace)
        elif two is not None and one is None:
            _mark(made, two, _of_letters(two.summed, letters[1], letters[0], result), trace)
    return ""


def forgive(trace: Trace, tensor: torch.Tensor) -> None:
    """Take the mark off weights whose sum does not matter, since what they are multiplied with is normalised after."""
    node = trace.known(tensor) if trace.weighed else None
    for _ in range(_FAR):
        if node is None or node in trace.weighed:
            break
        parents = trace.parents[node]
        node = parents[0] if parents and trace.operations[node] in _AWARE else None
    if node is not None:
        trace.marks.pop(trace.weighed[node], None)


def _of_first(summed: Dimensions, dimensions: int) -> str:
    if max(summed, default=0) < -2 and dimensions > 3:
        return "over heads"
    return _QUERIES if -2 in summed and -1 not in summed else ""


def _of_letters(summed: Dimensions, own: str, other: str, result: str) -> str:
    """What both factors have is no query: a sample, a head, or a group that shares are given to."""
    of_softmax = {own[dimension] for dimension in summed if -dimension <= len(own)}
    gone = {letter for letter in own if letter in other and letter not in result}
    if not result or not gone or not of_softmax or of_softmax & {*gone, *other}:
        return ""
    return _QUERIES if min(map(own.index, gone)) > max(map(own.index, of_softmax)) else ""


def _mark(made: torch.Tensor, weights: _Weights, mark: str, trace: Trace) -> None:
    if mark:
        trace.marks[weights.softmax] = mark
        trace.weighed[trace.node(made)] = weights.softmax


def _weights(trace: Trace, tensor: torch.Tensor) -> _Weights | None:
    """The softmax that made weights, and the dimensions along which they add up to one; None if none did."""
    node = trace.known(tensor)
    for _ in range(_FAR):
        if node is None or node in trace.summed or node in trace.spread:
            break
        parents = trace.parents[node]
        node = parents[0] if trace.operations[node] in _KEEPS and parents else None
    if node is None:
        return None
    if node in trace.spread:
        return _Weights(*trace.spread[node])
    return _Weights(node, frozenset([trace.summed[node]])) if trace.operations[node] == "softmax" else None
