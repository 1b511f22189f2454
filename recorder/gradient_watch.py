"""The gradients of named tensors: hooks during a step, sums over its ``backward`` calls, loss groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.loss_scale import LossScale
from stepscope.recorder.named import Named


class GradientWatch:
    """Collects gradients until ``take``. ``loss_group`` is the open one, or empty."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.loss_group = ""
        self.scale = LossScale()
        self._hooks: list[Any] = []
        self._group_hooks: list[Any] = []
        self._found: dict[tuple[Named, str], torch.Tensor] = {}

    def watch(self, tensor: torch.Tensor, named: Named) -> None:
        """Hook a tensor that has just been named, if it takes gradients."""
        if tensor.requires_grad and not torch.is_inference_mode_enabled():
            self._hooks.append(self._hook(tensor, named))

    def open_group(self, name: str, leaves: Iterable[tuple[Named, torch.Tensor]]) -> None:
        """Keep apart what ``backward`` calls give from now on, also to each of the leaves."""
        self.loss_group = name
        self._group_hooks += [self._hook(leaf, named) for named, leaf in leaves if leaf.requires_grad]

    def close_group(self) -> None:
        self.loss_group = ""
        _remove(self._group_hooks)

    def stop(self) -> None:
        """Take all hooks off."""
        self.close_group()
        _remove(self._hooks)

    def take(self, measure: Callable[[torch.Tensor, Named, str], None]) -> None:
        """Hand every gradient over, and keep none."""
        while self._found:
            (named, quantity), gradient = self._found.popitem()
            measure(gradient, named, quantity)

    def release(self) -> None:
        self._found.clear()

    def _hook(self, tensor: torch.Tensor, named: Named) -> Any:
        return tensor.register_hook(partial(self._keep_of_leaf if tensor.is_leaf else self._keep, named))

    @guarded("recording a gradient")
    def _keep(self, named: Named, gradient: torch.Tensor) -> None:
        self._add(named, gradient.detach())

    @guarded("recording a gradient")
    def _keep_of_leaf(self, named: Named, gradient: torch.Tensor) -> None:
        # A copy: autograd makes this very tensor the leaf's .grad, and adds the next gradient to it in place.
        self._add(named, gradient.detach().clone())

    def _add(self, named: Named, gradient: torch.Tensor) -> None:
        key = (named, f"gradient:{self.loss_group}" if self.loss_group else "gradient")
        before = self._found.get(key)
        gradient = self.scale.unscaled(gradient)
        self._found[key] = gradient if before is None else before + gradient


def _remove(hooks: list[Any]) -> None:
    for hook in hooks:
        hook.remove()
    hooks.clear()
