"""Activations behind moves of numbers: what made a named tensor whose own operation is but a reshape, or a choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stepscope.recorder.job import StepJob

_MOVES = frozenset(
    ["", "squeeze", "unsqueeze", "view", "reshape", "flatten", "unflatten", "getitem", "select", "transpose", "permute",
     "t", "T", "mT", "contiguous", "clone", "to", "float", "narrow", "view_as", "reshape_as", "ravel"]
)  # fmt: skip
_CHOICES = frozenset(["gather", "take_along_dim", "index_select", "masked_select", "amax", "max"])
"""What takes some of the numbers: the value of the action that was taken, say. Those that have a name differ then."""
_ACTIVATIONS = frozenset(
    ["sigmoid", "softmax", "log_softmax", "tanh", "relu", "relu6", "hardsigmoid", "softplus", "exp", "logsigmoid",
     "softsign", "elu", "selu", "gelu", "silu", "mish", "leaky_relu", "abs", "square"]
)  # fmt: skip


class Maker(NamedTuple):
    """The trace's node of an activation, and the place of the named tensor that holds its numbers."""

    node: int
    place: int


def find_makers(job: StepJob) -> Iterator[Maker]:
    """For each named tensor that only moves, or chooses, what an activation gave, that activation."""
    for index, named in enumerate(job.named):
        node, is_choice = _made_by(job, named.trace_node)
        is_news = node != named.trace_node and (is_choice or node not in job.named_nodes)
        if named.type == "calculated" and is_news and job.operations[node] in _ACTIVATIONS:
            yield Maker(node, index)


def _made_by(job: StepJob, node: int) -> tuple[int, bool]:
    """The first node behind moves and choices, or the first with a name; and whether numbers were chosen."""
    is_choice = False
    while job.parents[node] and (job.operations[node] in _CHOICES or _is_move(job, node)):
        is_choice = is_choice or job.operations[node] in _CHOICES
        node = job.parents[node][0]
        if node in job.named_nodes:
            break
    return node, is_choice


def _is_move(job: StepJob, node: int) -> bool:
    return job.operations[node] in _MOVES and len(job.parents[node]) == 1
