"""Attentions that words reach without their places: nothing that was done to them depends on where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from stepscope.recorder.job import StepJob
from stepscope.recorder.named import dtype_name

LOST_ORDER = "no order"
_ATTENTIONS = frozenset(["multi_head_attention_forward", "scaled_dot_product_attention"])
_PRODUCTS = frozenset(["matmul", "bmm", "baddbmm", "einsum"])
_LAYERS = frozenset(["linear", "layer_norm", "rms_norm", *_PRODUCTS, *_ATTENTIONS])
"""What is done to each place alike, with weights; and what sums over places alike."""
_TOGETHER = frozenset(
    ["add", "radd", "iadd", "sub", "mul", "rmul", "imul", "div", "truediv", "masked_fill", "where", "dropout", "relu",
     "gelu", "silu", "tanh", "softmax", "layer_norm"]
)  # fmt: skip
_MOVES = frozenset(
    ["", "view", "reshape", "flatten", "unflatten", "transpose", "permute", "t", "T", "mT", "contiguous", "to", "float",
     "squeeze", "unsqueeze", "chunk", "split", "unbind", "getitem", "clone", "expand", "repeat", "detach"]
)  # fmt: skip
_TESTS = frozenset(
    ["eq", "ne", "gt", "lt", "logical_not", "bool", "invert", "all", "any", "zeros_like", "ones_like", "full_like"]
)
"""What masks are made with out of tokens."""
_MOST = 4


class _What(Enum):
    """What is known of a tensor; of what is not known, its order may be seen."""

    WEIGHT = auto()
    TOKENS = auto()
    MASK = auto()
    WORDS = auto()
    SCORES = auto()
    OTHER = auto()


_FREE = frozenset([_What.WORDS, _What.SCORES, _What.MASK])
"""What places take no part in."""


def find_lost_order(job: StepJob) -> Iterator[int]:
    """The first attentions of a step that are like this."""
    operations = job.operations
    if not any(operation in _ATTENTIONS or operation == "softmax" for operation in operations):
        return
    kinds: list[_What] = []
    count = 0
    for node, parents in enumerate(job.parents):
        before = [kinds[parent] for parent in parents]
        kinds.append(_kind(job, node, before))
        if count < _MOST and kinds[-1] in _FREE and _is_attention(operations[node], before):
            count += 1
            yield node


def _is_attention(operation: str, before: list[_What]) -> bool:
    if operation == "softmax":
        return before == [_What.SCORES]
    return operation in _ATTENTIONS and len(before) > 1  # another name of its result has one parent


def _kind(job: StepJob, node: int, before: list[_What]) -> _What:
    operation, known = job.operations[node], set(before)
    if not before:
        return _of_leaf(job, node)
    if operation in _MOVES and len(known) == 1:
        return before[0]
    if operation == "embedding":
        return _What.WORDS if known in ({_What.TOKENS, _What.WEIGHT}, {_What.WORDS}) else _What.OTHER
    if operation in _TESTS and known <= {_What.TOKENS, _What.MASK}:
        return _What.MASK
    if operation in _PRODUCTS and before == [_What.WORDS] * len(before):
        return _What.SCORES
    if operation in _LAYERS and known & _FREE and known <= _FREE | {_What.WEIGHT}:
        return _What.WORDS
    if operation in _TOGETHER and known <= _FREE:
        return next(kind for kind in (_What.SCORES, _What.WORDS, _What.MASK) if kind in known)
    return _What.OTHER


def _of_leaf(job: StepJob, node: int) -> _What:
    index = job.named_nodes.get(node)
    if index is None:
        return _What.OTHER
    named = job.named[index]
    if named.type == "parameter":
        return _What.WEIGHT
    return _What.TOKENS if named.type == "input" and dtype_name(named.dtype).startswith("int") else _What.OTHER
