"""Looks at the attention of a recorded step: how sharp it is, how large its scores are, what its masks do.

Attention is no tensor that a module returns, and fused calls never make its weights. A sample of them is computed
here from what the call was given, and measured as further quantities of the module in which it was called.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from stepscope.recorder.attention_scores import CALLS, Scores, ahead, of_softmax
from stepscope.recorder.call_places import CallPlaces
from stepscope.recorder.elements import is_plain
from stepscope.recorder.guard import Faults
from stepscope.recorder.measurements import Measurements
from stepscope.recorder.named import Named
from stepscope.recorder.register import Register
from stepscope.recorder.tracer import UNSEEN

ATTENTION = frozenset([*CALLS, "softmax"])
"""The torch functions that may be one."""

_MASKED = -5e3
"""Scores of at most this are masked: besides -inf, additive masks of -1e4, -1e9 or the dtype's smallest are in use."""
_PRODUCTS = frozenset(["matmul", "rmatmul", "bmm", "baddbmm", "einsum"])
_ON_THE_WAY = frozenset(
    ["div", "truediv", "itruediv", "mul", "rmul", "imul", "add", "radd", "iadd", "sub", "isub", "masked_fill", "where",
     "float", "to", "type_as", "tanh", "clamp", "view", "reshape", "contiguous", "getitem", "setitem", "unsqueeze"]
)  # fmt: skip
"""What is done to scores between the product of queries and keys and the softmax."""
_FAR = 12
_LIKE_SOFTMAX = "Softmax"

_Key = tuple[str, int, int]


class AttentionWatch:
    """Collects what is measured of each attention, until its module has a name in this step."""

    def __init__(self, register: Register, faults: Faults, calls: CallPlaces) -> None:
        self._calls = calls
        self._register = register
        self._faults = faults
        self._found: dict[_Key, list[dict[str, torch.Tensor]]] = defaultdict(list)

    def look(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], module: tuple[str, str]) -> None:
        """Look at one call of a function of ``ATTENTION``, made inside a module (path and class)."""
        path = module[0].rpartition(".")[0] if module[1] == _LIKE_SOFTMAX else module[0]
        if not path or torch._C._current_graph_task_id() != -1:  # in backward: a checkpoint's recomputation
            return
        try:
            if not all(is_plain(value) for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)):
                return
            with UNSEEN(), torch.no_grad(), _without_autocast(args, kwargs):
                scores = self._scores(name, args, kwargs)
                if scores is not None and scores.values.numel():
                    key = (path, self._register.iteration, self._register.calls(path))
                    self._found[key].append(measure(scores))
                    self._calls.note(name, path)
        except Exception as error:
            self._faults.report(error, "looking at an attention")

    def take(self, measurements: Measurements) -> None:
        """Let everything be measured, as quantities of the modules' outputs."""
        for named in self._register.named if self._found else ():
            for quantity, values in _joined(self._found.pop(_key(named), [])).items():
                measurements.add(values, named, quantity, batch_dim=None, neuron_limit=0, owned=True)
        self.release()

    def release(self) -> None:
        """Forget what was found."""
        self._found.clear()

    def _scores(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scores | None:
        if name in CALLS:
            return CALLS[name](*args, **kwargs)
        given = args[0] if args else kwargs["input"]
        dimension = kwargs.get("dim", args[1] if len(args) > 1 else None)
        is_last = given.dim() >= 3 and dimension in (-1, given.dim() - 1)
        return of_softmax(given) if is_last and self._are_products(given) else None

    def _are_products(self, scores: torch.Tensor) -> bool:
        """Whether a tensor is a product of two others that were computed: no layer, whose weight is a parameter."""
        trace, known = self._register.trace, self._register.trace.known(scores)
        waiting, left = [] if known is None else [known], _FAR
        while waiting and left:
            node, left = waiting.pop(), left - 1
            if trace.operations[node] in _PRODUCTS:
                parents = trace.parents[node]
                return not any(self._is_weight(parent) for parent in parents)
            if trace.operations[node] in _ON_THE_WAY:
                waiting += reversed(trace.parents[node])
        return False

    def _is_weight(self, node: int) -> bool:
        """Whether it is a parameter, or a transposed one: a layer's product, as over a vocabulary, is no attention."""
        trace = self._register.trace
        while node not in trace.named and len(trace.parents[node]) == 1:
            (node,) = trace.parents[node]
        index = trace.named.get(node)
        return index is not None and self._register.named[index].type in ("parameter", "buffer")


def measure(scores: Scores) -> dict[str, torch.Tensor]:
    """What is measured of each query, one number each; all are finite if the scores are, or are masked.

    ``attention_entropy``: of its weights, as a part of the entropy of equal weights for the keys that it may look at,
    from 0 to 1; queries with one key or none have the mean of the others. ``attention_logit``: its largest score; 0
    without any key. ``attention_masked``: 1 if it may look at no key at all. ``attention_future``: the weight on keys
    that come after it, where there are as many keys as queries.
    """
    values = scores.values.clamp(min=2 * _MASKED)  # finite, and still without any weight
    top = values.amax(-1, keepdim=True)
    weights = values.softmax(-1)
    allowed = values.shape[-1] - (values <= _MASKED).sum(-1)
    masked, compared = allowed == 0, allowed > 1
    entropy = (-weights.amax(-1).log() - (weights * (values - top)).sum(-1)) / allowed.clamp(min=2).log()
    usual = entropy.masked_fill(~compared, 0.0).sum() / compared.sum().clamp(min=1)
    found = {
        "attention_entropy": torch.where(compared, entropy, usual + (~compared.any()).float()),
        "attention_logit": top.squeeze(-1).masked_fill(masked, 0.0),
        "attention_masked": masked.float(),
    }
    if scores.queries == values.shape[-1] > 1:
        found["attention_future"] = (weights * ahead(values, scores.every)).sum(-1).masked_fill(masked, 0.0)
    return {quantity: rows.flatten() for quantity, rows in found.items()}


def _joined(found: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The rows of several attentions of one call of a module together."""
    if len(found) < 2:
        return found[0] if found else {}
    names = set(found[0]).intersection(*found[1:])
    return {name: torch.cat([each[name] for each in found]) for name in found[0] if name in names}


def _key(named: Named) -> _Key:
    return named.node, named.iteration, named.call


def _without_autocast(args: tuple[Any, ...], kwargs: dict[str, Any]) -> AbstractContextManager[Any]:
    """Full precision, whatever the user's code runs in."""
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
    device = next(tensors).device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
