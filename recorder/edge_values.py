"""Whether operations that can make infinite numbers out of finite ones did: the line at which the first NaN was born.

Each of them costs a sum, which is looked at on the writer's thread: it is not finite where one of its numbers is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from stepscope.recorder.elements import is_plain

AT_THE_EDGE = frozenset(["sqrt", "rsqrt", "log", "log2", "log10", "reciprocal", "exp", "std", "acos", "asin", "atanh"])
DIVISIONS = frozenset(["div", "truediv", "rtruediv", "itruediv"])
_OTHERS = frozenset(["pow", "var", "norm", "logsumexp", "softmax", "log_softmax", "expm1", "log1p", "normalize"])
_IN_HALF = frozenset(["mul", "rmul", "imul", "square", "sum", "matmul", "bmm", "einsum"])
"""What overflows a dtype of 16 bits."""
WATCHED = AT_THE_EDGE | DIVISIONS | _OTHERS | _IN_HALF
_LARGEST = 1 << 18
_MOST = 128


class EdgeSums:
    """The sums of what such operations of one step gave, by the nodes of the trace.

    >>> sums = EdgeSums()
    >>> sums.note(7, "log", (), torch.tensor([1.0, 0.0]).log())
    >>> not_finite(sums.take())
    {7}
    """

    def __init__(self) -> None:
        self._sums: dict[int, torch.Tensor] = {}

    def note(self, node: int, name: str, args: tuple[Any, ...], made: torch.Tensor) -> None:
        """Sum up what an operation of ``WATCHED`` gave, unless that is too large, or no plain tensor."""
        if len(self._sums) < _MOST and _is_worth_it(name, args, made):
            self._sums[node] = made.detach().sum(dtype=torch.float32 if made.element_size() < 4 else None)

    def take(self) -> Mapping[int, torch.Tensor]:
        """The sums, which are forgotten here."""
        found, self._sums = self._sums, {}
        return found


def not_finite(sums: Mapping[int, torch.Tensor]) -> set[int]:
    """The nodes whose sums are not finite; waits for what a device still computes."""
    found: set[int] = set()
    for device in {value.device for value in sums.values()}:
        here = {node: value for node, value in sums.items() if value.device == device}
        wide = torch.float32 if device.type == "mps" else torch.float64  # which Apple's GPUs do not have
        values = torch.stack([value.to(wide) for value in here.values()]).tolist()
        found |= {node for node, value in zip(here, values, strict=True) if not math.isfinite(value)}
    return found


def _is_worth_it(name: str, args: tuple[Any, ...], made: torch.Tensor) -> bool:
    if name in DIVISIONS and not (len(args) > 1 and isinstance(args[1], torch.Tensor)):
        return False
    if name in _IN_HALF and made.element_size() > 2:
        return False
    return made.is_floating_point() and is_plain(made) and 0 < made.numel() <= _LARGEST
