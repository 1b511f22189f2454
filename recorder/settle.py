"""Settles, once a step is over, what could not be known while it ran: iterations and roles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from stepscope.recorder.named import PRELUDE, Named
from stepscope.store.records import WHOLE_STEP


def settle(named: Sequence[Named], iterations: int) -> None:
    """Give every named tensor its final iteration and role, in place.

    Without iterations, everything but parameters and buffers is in iteration 0. A name that was used several times
    in an iteration gets the roles ``call 0``, ``call 1``, ...
    """
    calls: dict[tuple[str, int], int] = defaultdict(int)
    for tensor in named:
        if tensor.iteration == PRELUDE:
            whole = iterations > 0 or tensor.type in ("parameter", "buffer")
            tensor.iteration = WHOLE_STEP if whole else 0
        key = (tensor.node, tensor.iteration)
        calls[key] = max(calls[key], tensor.call)
    taken: set[tuple[str, str, int]] = set()
    for tensor in named:
        if calls[tensor.node, tensor.iteration]:
            _, dot, part = tensor.role.partition(".")
            tensor.role = f"call {tensor.call}{dot}{part}"
        tensor.role = _free_role(tensor, taken)
        taken.add((tensor.node, tensor.role, tensor.iteration))


def _free_role(tensor: Named, taken: set[tuple[str, str, int]]) -> str:
    role, number = tensor.role, 2
    while (tensor.node, role, tensor.iteration) in taken:
        role = f"{tensor.role} ({number})"
        number += 1
    return role
