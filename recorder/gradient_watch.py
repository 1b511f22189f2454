"""The gradients of named tensors: hooks during a step, sums over its ``backward`` calls, loss groups."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.loss_scale import LossScale
from stepscope.recorder.named import Named
from stepscope.recorder.tracer import UNSEEN


class GradientWatch:
    """Collects gradients until ``take``. ``loss_group`` is the open one, or empty.

    The hook of a tensor is the ``append`` of a list: no Python code runs in ``backward``. What arrived is looked at
    before the loss group, the scale or the kind of pass changes, and at the end.

    What ``torch.autograd.grad`` computes, while ``probing``, is no gradient of the loss: a gradient penalty, the inner
    step of meta-learning. It only counts in a step without any ``backward``.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.loss_group = ""
        self.scale = LossScale()
        self.probing = False
        self._key = object()
        self._hooked: list[OrderedDict[object, Any]] = []
        self._hooks: list[Any] = []
        self._group_hooks: list[Any] = []
        self._arriving: list[tuple[list[Named], list[torch.Tensor | None]]] = []  # None: a custom function gave none
        self._found: dict[tuple[int, str], tuple[list[Named], torch.Tensor]] = {}
        self._probed: dict[tuple[int, str], tuple[list[Named], torch.Tensor]] = {}
        self._last: tuple[weakref.ref[torch.Tensor], int, list[Named]] | None = None

    def watch(self, tensor: torch.Tensor, named: Named) -> None:
        """Hook a tensor that has just been named, if it takes gradients.

        What a module returns is often what its last part returned: such a tensor has one hook for both its names.
        """
        if not tensor.requires_grad or torch.is_inference_mode_enabled():
            return
        version = tensor._version
        last = self._last
        if last is not None and last[0]() is tensor and last[1] == version:
            last[2].append(named)
            return
        names = [named]
        self._last = weakref.ref(tensor), version, names
        if tensor.is_leaf:
            self._hooks.append(self._hook_leaf(tensor, names))
        else:
            self._hook(tensor, names)

    def look(self) -> None:
        """Take in what arrived so far; call it before anything changes that says what a gradient is."""
        with UNSEEN():
            for names, gradients in self._arriving:
                try:
                    while gradients:
                        gradient = gradients.pop(0)
                        if gradient is not None:
                            self._add(names, gradient.detach() if gradient.requires_grad else gradient)
                except Exception as error:  # one is missing, the others are not
                    self.faults.report(error, "recording a gradient")

    def open_group(self, name: str, leaves: Iterable[tuple[Named, torch.Tensor]]) -> None:
        """Keep apart what ``backward`` calls give from now on, also to each of the leaves."""
        self.look()
        self.loss_group = name
        self._group_hooks += [self._hook_leaf(leaf, [named]) for named, leaf in leaves if leaf.requires_grad]

    def close_group(self) -> None:
        _remove(self._group_hooks)
        self.look()
        self.loss_group = ""

    def stop(self) -> None:
        """Take all hooks off."""
        for hooks in self._hooked:
            hooks.pop(self._key, None)
        self._hooked.clear()
        _remove(self._group_hooks)
        _remove(self._hooks)

    def take(self, measure: Callable[[torch.Tensor, Named, str], None]) -> None:
        """Hand every gradient over, and keep none."""
        self.look()
        self._arriving.clear()
        found = self._found or self._probed
        while found:
            (_, quantity), (names, gradient) = found.popitem()
            for named in names:
                measure(gradient, named, quantity)

    def release(self) -> None:
        self._arriving.clear()
        self._found.clear()
        self._probed.clear()

    def _hook(self, tensor: torch.Tensor, names: list[Named]) -> None:
        arriving: list[torch.Tensor | None] = []
        self._arriving.append((names, arriving))
        if tensor._backward_hooks is not None:
            self._hooks.append(tensor.register_hook(arriving.append))
            return
        # What ``register_hook`` does, without the handle: each takes longer to make than all the rest.
        hooks: OrderedDict[Any, Any] = OrderedDict([(self._key, arriving.append)])
        tensor._backward_hooks = hooks
        function: Any = tensor.grad_fn
        function._register_hook_dict(tensor)
        self._hooked.append(hooks)

    def _hook_leaf(self, leaf: torch.Tensor, names: list[Named]) -> Any:
        return leaf.register_hook(partial(self._keep_of_leaf, names))

    @guarded("recording a gradient")
    def _keep_of_leaf(self, names: list[Named], gradient: torch.Tensor | None) -> None:
        # A copy: autograd makes this very tensor the leaf's .grad, and adds the next gradient to it in place.
        if gradient is not None:
            self._add(names, gradient.detach().clone())

    def _add(self, names: list[Named], gradient: torch.Tensor) -> None:
        key = (id(names), f"gradient:{self.loss_group}" if self.loss_group else "gradient")
        found = self._probed if self.probing else self._found
        before = found.get(key)
        if self.scale.current is not None:
            gradient = self.scale.unscaled(gradient)
        found[key] = names, gradient if before is None else before[1] + gradient


def _remove(hooks: list[Any]) -> None:
    for hook in hooks:
        hook.remove()
    hooks.clear()
