"""Inputs to which the step itself adds noise; on the writer's thread."""

from __future__ import annotations

from collections.abc import Iterator

from stepscope.recorder.job import StepJob

NOISED = "noised"
_DRAWS = frozenset(["randn_like", "rand_like", "randn", "rand", "normal", "bernoulli", "dropout", "randint_like"])
_MIXES = _DRAWS | frozenset(
    ["", "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "truediv", "itruediv", "sqrt",
     "clamp", "lerp", "where", "masked_fill", "to", "float", "clone", "detach", "view", "reshape", "unsqueeze",
     "squeeze"]
)  # fmt: skip
"""What mixes data with noise, and makes none."""
_FAR = 12


def find_noised(job: StepJob) -> Iterator[int]:
    """Inputs that were made in the step out of given data and random numbers, by arithmetic alone.

    What is made of random numbers, or looked up in a table besides, are data that the step makes itself.
    """
    for node, index in job.named_nodes.items():
        if job.named[index].type != "input":
            continue
        behind, seen = [node], {node}
        for _ in range(_FAR):
            behind = [p for one in behind for p in job.parents[one] if p not in seen and not job.carries_grad[p]]
            seen.update(behind)
        is_noise = len(seen) < 3 and "dropout" not in (job.operations[one] for one in seen)  # and nothing else
        operations = {job.operations[one] for one in seen}
        is_given = any(not job.parents[one] and job.operations[one] not in _DRAWS for one in seen)
        if operations & _DRAWS and not is_noise and is_given and operations <= _MIXES:
            yield node
