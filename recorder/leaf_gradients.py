"""What happens to the gradients of the watched parameters between ``backward`` and the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

import torch

from stepscope.recorder.backward_shares import BackwardShares
from stepscope.recorder.call_places import CallPlaces
from stepscope.recorder.elements import elements, is_plain
from stepscope.recorder.gradient_places import GradientPlaces
from stepscope.recorder.guard import Faults
from stepscope.recorder.loss_scale import LossScale
from stepscope.recorder.named import Named
from stepscope.recorder.unclipped import BEFORE_CLIPPING, UnclippedGradients

Measure = Callable[[torch.Tensor, Named, str], None]

_ZEROING = frozenset(["zero_", "_foreach_zero_"])
_LOOKED_AT, _SMALL = 4, 1 << 16
"""Gradients that are looked at for what an earlier step has left, and their elements: a few small ones are enough."""


class LeafGradients:
    """Sees gradients being added to, written to, replaced, and used. Whose they are is asked only when it matters.

    Args:
        faults: of the recorder.
        scale: takes out what a scaler multiplied the loss by.
        measure: takes what is to be recorded; what it is given belongs to the recorder alone.
        calls: is told where gradients are set to zero or written to.
    """

    def __init__(self, faults: Faults, scale: LossScale, measure: Measure, calls: CallPlaces) -> None:
        self._calls = calls
        self._scale = scale
        self._measure = measure
        self._unclipped = UnclippedGradients(scale)
        self._shares = BackwardShares(faults, scale, self._as_left, measure)
        self._leaves: dict[int, tuple[Named, torch.Tensor]] = {}
        self._places: GradientPlaces | None = None

    def start(self, leaves: Mapping[int, tuple[Named, torch.Tensor]]) -> None:
        """The parameters by their ``id``."""
        self._leaves = dict(leaves)

    def stop(self) -> None:
        self._shares.stop()

    def release(self) -> None:
        self._leaves, self._places = {}, None
        self._unclipped.release()
        self._shares.release()

    # ------------------------------------------------------------------ what is seen

    def before_backward(self, *, grouped: bool) -> None:
        """A ``backward`` begins; ``grouped`` if a loss group is open: then its gradients are kept apart by that."""
        self._places = None
        self._unclipped.before_backward({key: leaf for key, (_, leaf) in self._leaves.items()})
        if grouped:
            self._shares.end()
        else:
            self._shares.probing = False
            self._shares.before_backward(self._leaves.values())

    def hold_gradients(self) -> bool:
        """Whether gradients other than zero are there already, by a look at some that need not be waited for."""
        present = (leaf.grad for _, leaf in self._leaves.values() if leaf.grad is not None)
        small = (gradient for gradient in present if gradient.device.type == "cpu" and gradient.numel() <= _SMALL)
        plain = (gradient for gradient in small if is_plain(gradient))
        return any(bool(gradient.any()) for gradient in islice(plain, _LOOKED_AT))

    def on_grad(self, begins: bool) -> None:
        """``torch.autograd.grad`` begins, or has ended."""
        self._shares.probing = begins

    def before_change(self, tensor: torch.Tensor, operation: str) -> None:
        """An in-place operation is about to change a tensor: perhaps a gradient, or a part of one, or several."""
        if not self._leaves or torch._C._current_graph_task_id() != -1:
            return
        if self._places is None:
            self._places = GradientPlaces(leaf for _, leaf in self._leaves.values())
        for leaf in self._places.pop(tensor):
            if operation in _ZEROING and leaf.grad is not None and tensor.numel() >= leaf.grad.numel():
                self._forget(leaf)
            else:
                self._keep(leaf, operation)

    def before_replaced(self, leaf: torch.Tensor, gradient: object) -> None:
        """``leaf.grad = gradient`` is about to happen."""
        if id(leaf) in self._leaves and leaf.grad is not None and leaf.grad is not gradient:
            if gradient is None:
                self._forget(leaf)
            else:
                self._keep(leaf, "grad")

    def before_use(self, leaf: torch.Tensor, named: Named) -> None:
        """An optimizer is about to use the gradient, or the step ends: record how it came to be what it is."""
        self._shares.finish(leaf)
        before = self._unclipped.pop(leaf)
        if before is not None:
            self._measure(before, named, BEFORE_CLIPPING)

    def _keep(self, leaf: torch.Tensor, operation: str) -> None:
        self._calls.written(operation)
        self._unclipped.keep(leaf)

    def _forget(self, leaf: torch.Tensor) -> None:
        self._calls.zeroed()
        self._unclipped.forget(leaf)
        self._shares.forget(leaf)

    def _as_left(self, leaf: torch.Tensor) -> torch.Tensor:
        values = self._unclipped.current(leaf)
        if values is None:
            assert leaf.grad is not None
            values = self._scale.unscaled_leaf(elements(leaf.grad.detach()))
        return values
