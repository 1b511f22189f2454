"""Losses that were computed before the one that ``backward`` is called on, at the same line; on the writer's thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepscope.recorder.frames import Place
from stepscope.recorder.job import StepJob

OVERWRITTEN = "overwritten"
_LOOKS = frozenset(["", "item", "tolist", "numpy", "detach", "data"])
"""What a number is looked at by, and not used."""
_Call = tuple[str, Place | None]


def find_overwritten(job: StepJob) -> Iterator[tuple[int, str]]:
    """The first loss that a line computed and nothing uses, with what to call it: ``overwritten: 15 unseen``.

    Only what came before the loss that counts, which is the last of its line: the best of several may be any of them.
    Whether it was looked at, by ``item()``, tells how sure it is that it was meant to be used.
    """
    losses = {node for node, index in job.named_nodes.items() if job.named[index].node == "loss"}
    ends = {(job.operations[end], job.places[end]): end for end in sorted(losses) if job.carries_grad[end]}
    for call, same in _of_calls(job, ends).items():
        end = ends[call]
        left = [node for node in same if node not in losses and _is_other(job, node, end)]
        uses = _uses(job, left) if left and same[-1] <= end else {"used"}
        if uses <= _LOOKS:
            yield left[0], f"{OVERWRITTEN}: {len(left)} {'seen' if uses else 'unseen'}"


def _of_calls(job: StepJob, ends: dict[_Call, int]) -> dict[_Call, list[int]]:
    """What was computed with a gradient by the same operations, at the same lines, as the losses."""
    found: dict[_Call, list[int]] = {call: [] for call in ends if call[1] is not None}
    operations = {operation for operation, _ in found}
    for node, operation in enumerate(job.operations):
        if operation in operations and job.carries_grad[node] and (operation, job.places[node]) in found:
            found[operation, job.places[node]].append(node)
    return found


def _is_other(job: StepJob, node: int, end: int) -> bool:
    """Whether two nodes are no results of the same call, nor names of the same tensor."""
    return job.parents[node] != job.parents[end] and node not in job.parents[end]


def _uses(job: StepJob, nodes: Sequence[int]) -> set[str]:
    """The operations of what was computed from some nodes."""
    wanted = frozenset(nodes)
    pairs = zip(job.operations, job.parents, strict=True)
    return {operation for operation, parents in pairs if not wanted.isdisjoint(parents)}
