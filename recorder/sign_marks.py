"""Losses that are nothing but log-probabilities, and their sign: with a plus, descent makes them ever less likely."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from stepscope.recorder.loss_functions import LOSS_FUNCTIONS
from stepscope.recorder.trace import Trace

_KEEPS = frozenset(
    ["", "mean", "sum", "getitem", "gather", "squeeze", "unsqueeze", "view", "reshape", "flatten", "select", "to",
     "float", "clone", "contiguous", "transpose", "permute", "take_along_dim", "masked_select", "index_select", "div",
     "truediv", "exp", "min", "minimum", "clamp", "cat", "stack"]
)  # fmt: skip
"""What grows with the one of its arguments that learns."""
_PRODUCTS = frozenset(["mul", "rmul", "imul"])
_LOGARITHMS = frozenset(["log_softmax", "logsigmoid"])
_SHARES = frozenset(["softmax", "sigmoid"])
_TURNS = frozenset(["neg", "rsub"])
_SUMS = frozenset(["sub", "add", "radd"])
_DIVISIONS = frozenset(["div", "truediv"])
_EITHER = frozenset(["neg", "sub", "rsub"])
"""What makes a score of which the logarithm of its sigmoid may rightly become small: of a difference nobody knows."""
_FIRST_COUNTS = frozenset(["sub", "min", "minimum", "div", "truediv"])
"""Where several arguments learn: a density and its normalisation, a ratio and its clipped copy."""
_SIZES = frozenset(["pow", "square", "abs", "norm", "vector_norm", "linalg_norm", "linalg_vector_norm"])
_FAR = 30


class _Sign(NamedTuple):
    """With which sign, and whether multiplied with data; or of a difference of two scores."""

    value: int
    weighted: bool
    paired: bool = False

    @property
    def how(self) -> str:
        return "pair" if self.paired else "weighted" if self.weighted else "alone"


def note_factor(made: torch.Tensor, args: tuple[Any, ...], trace: Trace) -> None:
    """Remember a product with a negative number."""
    if any(isinstance(arg, (int, float)) and arg < 0 for arg in args[:2]):
        trace.turned.add(trace.node(made))


def mark_of_sum(made: torch.Tensor, trace: Trace) -> str:
    """Whether a single number is made of one logarithm of probabilities, and with which sign."""
    if made.dim() or not made.requires_grad:
        return ""
    sign = _sign_of_logarithm(trace, trace.node(made))
    if sign is None:
        return ""
    return f"{'plus' if sign.value > 0 else 'minus'} log: {sign.how}"


def _sign_of_logarithm(trace: Trace, node: int) -> _Sign | None:
    value, weighted = 1, False
    passed: list[str] = []
    for _ in range(_FAR):
        operation, parents = trace.operations[node], trace.parents[node]
        learning = [parent for parent in parents if trace.carries_grad[parent]]
        if operation in _SUMS and len(learning) > 1:
            learning = [parent for parent in learning if not _is_penalty(trace, parent)]
        if not learning:
            return None
        if operation == "logsigmoid" and _is_of_pair(trace, learning[0]):
            return _Sign(value, weighted, paired=True)
        if ending := _ending(trace, node, learning, passed[-2:]):
            return _Sign(value * ending, weighted)
        if not _is_monotone(operation, len(learning), is_first=learning[0] == parents[0]):
            return None
        if operation in _TURNS or (operation == "sub" and learning[0] != parents[0]) or node in trace.turned:
            value = -value
        elif operation in _PRODUCTS and len(parents) > 1:
            weighted = True
            value *= _sign_of_weight(trace, next(parent for parent in parents if parent not in learning))
        passed.append(operation)
        node = learning[0]
    return None


def _is_monotone(operation: str, learning: int, *, is_first: bool) -> bool:
    """Whether a result grows, or shrinks, with the first of its arguments that learns; others hardly matter."""
    if operation not in _KEEPS | _PRODUCTS | _TURNS | _SUMS:
        return False
    return (learning == 1 and (is_first or operation not in _DIVISIONS)) or (is_first and operation in _FIRST_COUNTS)


def _ending(trace: Trace, node: int, learning: list[int], passed: list[str]) -> int:
    """1 where a logarithm of probabilities is made, -1 where its negative is; 0 elsewhere."""
    operation, before = trace.operations[node], trace.operations[learning[0]]
    if operation in _LOGARITHMS or (operation == "log" and _is_share(trace, learning[0])):
        is_turned = before in _EITHER or learning[0] in trace.turned
        return 0 if operation == "logsigmoid" and is_turned else 1
    if operation == "sub" and trace.operations[learning[-1]] == "logsumexp":
        return 1
    if operation in LOSS_FUNCTIONS:
        return -1
    is_density = len(passed) == 2 and passed[0] in _DIVISIONS and passed[1] == "neg"  # of a normal distribution
    return -1 if operation == "pow" and is_density and before in ("sub", "rsub") else 0


def _is_of_pair(trace: Trace, node: int) -> bool:
    """Whether a score is the difference of two that both learn: which one is to be the larger, nobody knows."""
    if trace.operations[node] != "sub" or not all(trace.carries_grad[parent] for parent in trace.parents[node]):
        return False
    behind = {trace.parents[parent] for parent in trace.parents[node]}
    return len(behind) > 1  # and not two columns of one output, as a GAN may have


def _is_penalty(trace: Trace, node: int) -> bool:
    """Whether a term is the size of some weights: it is made of no data."""
    waiting = [node]
    for _ in range(_FAR):
        if not waiting:
            return True
        node = waiting.pop()
        learning = [parent for parent in trace.parents[node] if trace.carries_grad[parent]]
        if trace.operations[node] in _SIZES:
            if any(trace.parents[parent] for parent in learning):
                return False
        elif trace.operations[node] in _KEEPS | _PRODUCTS | _SUMS and learning:
            waiting += learning
        else:
            return False
    return False


def _is_share(trace: Trace, node: int) -> bool:
    """Whether probabilities were made here, or chosen from."""
    while trace.operations[node] in _KEEPS and trace.parents[node] and trace.operations[node] != "exp":
        node = trace.parents[node][0]
    return trace.operations[node] in _SHARES


def _sign_of_weight(trace: Trace, node: int) -> int:
    """Whether data was negated before it became a weight."""
    for _ in range(_FAR):
        if trace.operations[node] == "neg" or node in trace.turned:
            return -1
        if trace.operations[node] not in _KEEPS or len(trace.parents[node]) != 1:
            break
        node = trace.parents[node][0]
    return 1
