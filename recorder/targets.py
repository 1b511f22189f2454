"""Finds what a loss compares: the targets, and the prediction where it is no output of a module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, Protocol

import torch

from stepscope.recorder.loss_functions import LOSS_FUNCTIONS
from stepscope.recorder.named import Named
from stepscope.recorder.register import Register
from stepscope.recorder.trace import tensors_in

_RESHAPES = frozenset(
    ["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "contiguous", "__get__",
     "__getitem__", "getitem", "select", "narrow", "to", "float", "detach", "clone", "t"]
)  # fmt: skip
"""What moves numbers but does not change them: no other tensor than the one that has a name already."""
_ACTIVATIONS = frozenset(
    ["relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "log_softmax", "logsigmoid", "tanh", "softplus", "exp",
     "leaky_relu", "elu", "silu", "gelu"]
)  # fmt: skip
"""What makes a prediction of what a model returns, where the loss is code of the user's own."""
_FAR = 8
_WEIGHTS = {
    "cross_entropy": ("weight", "class weight"),
    "nll_loss": ("weight", "class weight"),
    "binary_cross_entropy_with_logits": ("pos_weight", "positive weight"),
}
"""The arguments of loss functions that weigh classes, and what they are called."""


class Running(Protocol):
    """Where the computation is: in some module, in a watched one."""

    @property
    def inside(self) -> bool: ...

    @property
    def inside_watched(self) -> bool: ...


class LossTerms:
    """Names what loss functions return: parts of the loss, until one of them turns out to be the loss itself."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._terms: list[Named] = []

    def take(self, name: str, result: torch.Tensor) -> None:
        """A loss function of this name returned this; one loss a sample if it was not reduced."""
        if self._register.find(result) is not None:
            return
        single = result.dim() == 0
        call = self._register.next_call(name)
        self._register.add(
            result, name, "tensor", "loss" if single else "calculated", automatic=True, call=call, batched=not single
        )
        self._terms += [named for named in [self._register.find(result)] if named is not None and single]

    def become_loss(self, named: Named, role: str) -> bool:
        """Call a part of the loss the loss, if that is what it is."""
        if not named.automatic or not any(term is named for term in self._terms):
            return False
        self._terms = [term for term in self._terms if term is not named]
        named.node, named.role, named.call = "loss", role, self._register.next_call("loss")
        return True

    def settle(self) -> None:
        """In a step without ``backward``, the last single number that a loss function returned is the loss."""
        if self._terms and "loss" not in [named.node for named in self._register.named]:
            self.become_loss(self._terms[-1], "tensor")


class TargetFinder:
    """Names data that meets the computation outside the model, after the model was called.

    Two signs are taken: the ``target`` of a loss function, and data of the batch's size that the user's own loss
    code combines with something else. What a loss function compares with the target is named ``prediction`` if it has
    no name yet: a softmax, say, that was applied to the model's output on the way.

    Args:
        register: takes the names.
        taken: names of watched models, which no other node may have: a target network is often called ``target``.
    """

    def __init__(self, register: Register, taken: Collection[str] = ()) -> None:
        self._register = register
        self._taken = taken
        self._found: Counter[int] = Counter()  # iteration -> targets
        self._predictions: Counter[int] = Counter()  # iteration -> predictions
        self._model_called = False

    def model_was_called(self) -> None:
        self._model_called = True

    def look(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], modules: Running) -> None:
        """Look at the arguments of one torch call."""
        if name in LOSS_FUNCTIONS:
            target = kwargs.get("target", args[1] if len(args) > 1 else None)
            if isinstance(target, torch.Tensor) and self._may_be_target(target):
                self._take(target)
            prediction = kwargs.get("input", args[0] if args else None)
            if isinstance(prediction, torch.Tensor) and not modules.inside_watched:
                self._take_nameless(prediction)
            self._take_weights(name, kwargs)
        elif self._model_called and not modules.inside:
            self._look_at_own_code(args)

    def _may_be_target(self, tensor: torch.Tensor) -> bool:
        # Its size says nothing: language models flatten batch and time into one dimension.
        return tensor.dim() > 0 and not isinstance(tensor, torch.nn.Parameter) and self._register.trace.is_data(tensor)

    def _take_nameless(self, tensor: torch.Tensor, makers: Collection[str] | None = None) -> None:
        """Name what a loss is computed from, if neither it nor what was reshaped to it has a name.

        Behind reshapes it is known by the function that made its numbers: ``softmax``, not ``transpose``.
        """
        trace = self._register.trace
        node = trace.known(tensor)
        if node is None or tensor.dim() == 0 or isinstance(tensor, torch.nn.Parameter) or trace.is_data(tensor):
            return
        for _ in range(_FAR):
            if node in trace.named or trace.operations[node] not in _RESHAPES or not trace.parents[node]:
                break
            node = trace.parents[node][0]
        operation = trace.operations[node]
        if node in trace.named or operation in _RESHAPES or (makers is not None and operation not in makers):
            return
        place = trace.places[node]
        self._take_prediction(tensor)
        named = self._register.find(tensor)
        if named is not None:
            trace.operations[named.trace_node], trace.places[named.trace_node] = operation, place

    def _take_prediction(self, tensor: torch.Tensor) -> None:
        iteration = self._register.iteration
        number = self._predictions[iteration]
        node = self._free("prediction", number)
        self._register.add(tensor, node, "tensor", "calculated", automatic=True)
        self._predictions[iteration] += 1

    def _take_weights(self, name: str, kwargs: dict[str, Any]) -> None:
        """Name what weighs the classes of a loss, once an iteration."""
        key, node = _WEIGHTS.get(name, ("", ""))
        weight = kwargs.get(key)
        if not isinstance(weight, torch.Tensor) or weight.dim() > 1 or not self._register.trace.is_data(weight):
            return
        if self._register.find(weight) is None and not self._register.calls(node):
            self._register.add(
                weight, node, "tensor", "buffer", automatic=True, batched=False, call=self._register.next_call(node)
            )

    def _look_at_own_code(self, args: tuple[Any, ...]) -> None:
        tensors = list(tensors_in(args))
        if len(tensors) < 2:
            return
        data = [tensor for tensor in tensors if self._register.is_data(tensor)]
        if data and not all(map(self._register.trace.is_data, tensors)):  # ``y[chosen]`` is data all through
            for tensor in data:
                self._take(tensor)
            for tensor in tensors:
                self._take_nameless(tensor, _ACTIVATIONS)

    def _take(self, tensor: torch.Tensor) -> None:
        iteration = self._register.iteration
        number = self._found[iteration]
        node = self._free("target", number)
        self._register.add(tensor, node, "tensor", "target", automatic=True)
        self._found[iteration] += 1

    def _free(self, name: str, number: int) -> str:
        if name in self._taken:
            name = f"{name} of the loss"
        return name if number == 0 else f"{name} {number + 1}"
