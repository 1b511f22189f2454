"""The gradients of named tensors: hooks during a step, sums over its ``backward`` calls, loss groups."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch

from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.loss_scale import LossScale
from stepscope.recorder.named import Named


class _Hooked(NamedTuple):
    """A tensor, in the state in which it was hooked, and the names that share the hook."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    names: list[Named]


class GradientWatch:
    """Collects gradients until ``take``. ``loss_group`` is the open one, or empty.

    What ``torch.autograd.grad`` computes, while ``probing``, is no gradient of the loss: a gradient penalty, the inner
    step of meta-learning. It only counts in a step without any ``backward``.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.loss_group = ""
        self.scale = LossScale()
        self._hooks: list[Any] = []
        self._group_hooks: list[Any] = []
        self.probing = False
        self._found: dict[tuple[int, str], tuple[list[Named], torch.Tensor]] = {}
        self._probed: dict[tuple[int, str], tuple[list[Named], torch.Tensor]] = {}
        self._last: _Hooked | None = None

    def watch(self, tensor: torch.Tensor, named: Named) -> None:
        """Hook a tensor that has just been named, if it takes gradients.

        What a module returns is often what its last part returned: such a tensor has one hook for both its names.
        """
        if not tensor.requires_grad or torch.is_inference_mode_enabled():
            return
        version = tensor._version
        last = self._last
        if last is not None and last.tensor() is tensor and last.version == version:
            last.names.append(named)
            return
        names = [named]
        self._last = _Hooked(weakref.ref(tensor), version, names)
        self._hooks.append(self._hook(tensor, names))

    def open_group(self, name: str, leaves: Iterable[tuple[Named, torch.Tensor]]) -> None:
        """Keep apart what ``backward`` calls give from now on, also to each of the leaves."""
        self.loss_group = name
        self._group_hooks += [self._hook(leaf, [named]) for named, leaf in leaves if leaf.requires_grad]

    def close_group(self) -> None:
        self.loss_group = ""
        _remove(self._group_hooks)

    def stop(self) -> None:
        """Take all hooks off."""
        self.close_group()
        _remove(self._hooks)

    def take(self, measure: Callable[[torch.Tensor, Named, str], None]) -> None:
        """Hand every gradient over, and keep none."""
        found = self._found or self._probed
        while found:
            (_, quantity), (names, gradient) = found.popitem()
            for named in names:
                measure(gradient, named, quantity)

    def release(self) -> None:
        self._found.clear()
        self._probed.clear()

    def _hook(self, tensor: torch.Tensor, names: list[Named]) -> Any:
        return tensor.register_hook(partial(self._keep_of_leaf if tensor.is_leaf else self._keep, names))

    @guarded("recording a gradient")
    def _keep(self, names: list[Named], gradient: torch.Tensor) -> None:
        self._add(names, gradient.detach())

    @guarded("recording a gradient")
    def _keep_of_leaf(self, names: list[Named], gradient: torch.Tensor) -> None:
        # A copy: autograd makes this very tensor the leaf's .grad, and adds the next gradient to it in place.
        self._add(names, gradient.detach().clone())

    def _add(self, names: list[Named], gradient: torch.Tensor) -> None:
        key = (id(names), f"gradient:{self.loss_group}" if self.loss_group else "gradient")
        found = self._probed if self.probing else self._found
        before = found.get(key)
        gradient = self.scale.unscaled(gradient)
        found[key] = names, gradient if before is None else before[1] + gradient


def _remove(hooks: list[Any]) -> None:
    for hook in hooks:
        hook.remove()
    hooks.clear()
