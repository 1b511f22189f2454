"""What a prediction is held against that a net said as well: the target of a value, say; on the writer's thread."""

from __future__ import annotations

from collections.abc import Iterator

from stepscope.recorder.job import StepJob
from stepscope.recorder.loss_functions import LOSS_FUNCTIONS

BOOTSTRAPPED = "bootstrapped"
_COMPARES = LOSS_FUNCTIONS | {"sub", "rsub"}
_MOVES = frozenset(
    ["", "squeeze", "unsqueeze", "view", "reshape", "flatten", "getitem", "transpose", "contiguous", "clone", "to",
     "float", "detach"]
)  # fmt: skip
"""What changes no number: the line before it is the one that made them."""


def find_bootstrapped(job: StepJob) -> Iterator[int]:
    """What has no gradient and no name, was computed, and is compared with something that has a gradient.

    >>> wanted = reward + discount * later          # this one: its line tells what a value is to be
    >>> loss = F.mse_loss(value, wanted)
    """
    for node, parents in enumerate(job.parents):
        if job.operations[node] not in _COMPARES or not any(job.carries_grad[parent] for parent in parents):
            continue
        for parent in parents:
            made = _made(job, parent)
            if job.parents[made] and made not in job.named_nodes and not job.carries_grad[made]:
                yield made


def _made(job: StepJob, node: int) -> int:
    """The node behind those that only move its numbers."""
    while job.operations[node] in _MOVES and len(job.parents[node]) == 1 and node not in job.named_nodes:
        node = job.parents[node][0]
    return node
