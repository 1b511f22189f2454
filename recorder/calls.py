"""Finds the calls of a step that are worth knowing although what they made has no name; on the writer's thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from stepscope.recorder.advantages import ATTACHED, UNASKED, Advantages
from stepscope.recorder.bootstrapped import BOOTSTRAPPED, find_bootstrapped
from stepscope.recorder.edge_values import AT_THE_EDGE, DIVISIONS, not_finite
from stepscope.recorder.edges import Ancestors
from stepscope.recorder.frames import Place
from stepscope.recorder.job import StepJob
from stepscope.recorder.loss_walk import FACTOR, NO_GRADIENT, odd_terms
from stepscope.recorder.lost_order import LOST_ORDER, find_lost_order
from stepscope.recorder.makers import find_makers
from stepscope.recorder.mixtures import SWAPPED, find_swapped_shares
from stepscope.recorder.noised_inputs import NOISED, find_noised
from stepscope.recorder.overwritten import find_overwritten

_MOST = 64
"""Cuts of a step: a net that runs under ``no_grad`` beside the one that trains has many."""
_READ = "grad"
"""Reading ``.grad`` of a tensor takes nothing of its value."""
_PADDING = frozenset(["cat", "pad"])
"""What comes before a reshape that shifts rows on purpose, as relative positions do."""
_BORN = "not finite"
_OF_TORCH = frozenset(["CheckpointFunctionBackward", "CompiledFunctionBackward", "BackwardHookFunctionBackward"])
_LINEAR = frozenset(["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"])
_MOVES = frozenset(
    ["", "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "contiguous", "to",
     "float", "clone", "batch_norm", "dropout", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d", "mean"]
)  # fmt: skip
"""What makes no more of two linear layers than one: nothing, moves, means, and what is linear in evaluation."""

_CONVOLUTIONS = frozenset(["conv1d", "conv2d", "conv3d"])
_SUMS = frozenset(["add", "iadd", "radd"])

_MODULES_OF = {"dropout": "Dropout", "by the batch": "BatchNorm"}
"""Marks of calls that follow the mode of modules of these classes, and should be so only where something is trained."""


_ALONG_GRADIENTS = ("cut", ATTACHED, UNASKED)
"""Kinds of calls before which only that counts which a gradient reaches, or would."""


class FoundCall(NamedTuple):
    """A call with the named tensors before and after it, by index."""

    kind: str
    operation: str
    place: Place
    before: tuple[int, ...]
    after: tuple[int, ...]


def find_calls(job: StepJob) -> list[FoundCall]:
    """What lies between named tensors, first where something was computed from it; then what else was called."""
    noted = []
    for (operation, node), place in job.calls.items():
        after = tuple(index for index, named in enumerate(job.named) if node and named.node == node)
        if after or not node:
            noted.append(FoundCall("attention" if node else "step", operation, place, (), after[:1]))
    between = sorted(dict.fromkeys(_between(job)), key=lambda call: not call.after)
    return [*between[:_MOST], *_makers(job), *noted]


def _makers(job: StepJob) -> Iterable[FoundCall]:
    for node, index in find_makers(job):
        place = job.places[node]
        if place is not None:
            yield FoundCall("made by", job.operations[node], place, (), (index,))


def _between(job: StepJob) -> Iterable[FoundCall]:
    advantages = Advantages(job)
    kinds = _kinds(job)
    kinds |= dict.fromkeys(advantages.unasked, UNASKED) | dict.fromkeys(advantages.attached, ATTACHED)
    if not kinds:
        return
    ancestors = Ancestors(job.parents, job.named_nodes)
    along_gradient = Ancestors(job.parents, job.named_nodes, job.carries_grad)
    after = _named_after(job, sorted(kinds))
    for node, kind in sorted(kinds.items()):
        origin = advantages.errors.get(node, node)
        before = tuple(sorted((along_gradient if kind in _ALONG_GRADIENTS else ancestors).behind(origin)))
        place = job.places[node] or (_place_of_use(job, node) if kind == "own backward" else None)
        is_logged = kind == "cut" and all(job.named[index].type == "loss" for index in before)  # ``loss.item()``
        is_of_data = kind in ("mix", "scramble", NOISED) and after[node]  # before it got its name as an input
        is_data = kind == BOOTSTRAPPED and all(job.named[index].type != "calculated" for index in before)
        if place is not None and (before or is_of_data) and not is_logged and not is_data:
            kind, _, argument = kind.partition(": ")
            operation = f"{job.operations[node]}({argument})" if argument else job.operations[node]
            yield FoundCall(kind, operation, place, before, tuple(sorted(after[node])))


def _kinds(job: StepJob) -> dict[int, str]:
    """The nodes without a name that are worth knowing.

    There are no cuts in a step that computes nothing with a gradient: there it is ``no_grad`` as a whole.
    """
    carries, named = job.carries_grad, job.named_nodes
    learns = any(carried and parents for carried, parents in zip(carries, job.parents, strict=True))
    found = {node: mark for node, mark in job.marks.items() if _counts(job, node, mark, learns)}
    found |= odd_terms(job)
    found |= dict.fromkeys(islice(find_swapped_shares(job), 1), SWAPPED)
    found |= dict.fromkeys(find_noised(job), NOISED)
    found = dict.fromkeys(find_lost_order(job), LOST_ORDER) | found
    found |= dict(find_overwritten(job))
    found |= dict.fromkeys(not_finite(job.edges) - named.keys(), _BORN)  # worse than whatever else is odd about them
    for node, parents in enumerate(job.parents):
        if learns and _follows_another(job, node):
            found.setdefault(node, "no activation")
        if learns and _follows_a_linear_residual(job, node):
            found.setdefault(node, "linear residual")
        if not parents or node in named or node in found:
            continue
        operation = job.operations[node]
        is_cut = not carries[node] and any(carries[parent] for parent in parents)
        if is_cut and learns and operation != _READ:
            found[node] = "cut"
        elif carries[node] and is_own_function(operation):
            found[node] = "own backward"
        elif operation in AT_THE_EDGE or (operation in DIVISIONS and len(parents) > 1):
            found[node] = "edge"
    for node in find_bootstrapped(job) if learns else ():
        found.setdefault(node, BOOTSTRAPPED)
    return found


def is_own_function(operation: str) -> bool:
    """Whether an operation is the backward of a function that the user wrote; those of torch's own end in numbers."""
    return operation.endswith("Backward") and operation not in _OF_TORCH


def _place_of_use(job: StepJob, node: int) -> Place | None:
    """Where something is first computed from a node."""
    uses = (place for place, parents in zip(job.places, job.parents, strict=True) if node in parents and place)
    return next(uses, None)


def _follows_another(job: StepJob, node: int) -> bool:
    """Whether a linear layer gets what another one gave, with nothing but moves and a batch normalisation between."""
    operations, parents = job.operations, job.parents
    if operations[node] not in _LINEAR or len(parents[node]) < 2:  # another name of a layer's output has one parent
        return False
    before = _through_moves(job, parents[node][0])
    return operations[before] in _LINEAR and job.carries_grad[before]


def _follows_a_linear_residual(job: StepJob, node: int) -> bool:
    """Whether a convolution gets the sum of what another one was given and gave."""
    operations, parents = job.operations, job.parents
    if operations[node] not in _CONVOLUTIONS or len(parents[node]) < 2:
        return False
    total = _through_moves(job, parents[node][0])
    if operations[total] not in _SUMS or len(parents[total]) != 2:
        return False
    one, two = (_through_moves(job, parent) for parent in parents[total])
    return _convolves(job, one, two) or _convolves(job, two, one)


def _convolves(job: StepJob, node: int, given: int) -> bool:
    """Whether a node is what a convolution made of another node."""
    return job.operations[node] in _CONVOLUTIONS and _through_moves(job, job.parents[node][0]) == given


def _through_moves(job: StepJob, node: int) -> int:
    """The node behind those that move numbers only."""
    while (job.operations[node] in _MOVES or job.operations[node] == "pad") and job.parents[node]:
        node = job.parents[node][0]
    return node


def _counts(job: StepJob, node: int, mark: str, learns: bool) -> bool:
    """Whether a mark is odd where it stands."""
    if mark == NO_GRADIENT or mark.startswith(FACTOR):
        return False  # of what a loss consists of: looked at there
    if mark in _MODULES_OF:  # of a module it is its mode; in training it is as it should be
        index = job.named_nodes.get(node)
        return not learns and (index is None or _MODULES_OF[mark] not in job.named[index].module_class)
    padded = any(job.operations[parent] in _PADDING for parent in job.parents[node])
    return mark not in ("mix", "scramble") or not padded


def _named_after(job: StepJob, cuts: list[int]) -> dict[int, set[int]]:
    """For each of these nodes the first named ones that were computed from it."""
    found: dict[int, set[int]] = defaultdict(set)
    behind: dict[int, frozenset[int]] = {}
    own = set(cuts)
    for node in range(cuts[0], len(job.parents)):
        here = frozenset().union(*(behind[parent] for parent in job.parents[node] if parent in behind))
        if node in own:
            here |= {node}
        if here and node in job.named_nodes:
            for cut in here:
                found[cut].add(job.named_nodes[node])
        elif here:
            behind[node] = here
    return found
