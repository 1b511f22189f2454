"""What each of several ``backward`` calls of a step gave to each parameter: micro-batches, or several losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch

from stepscope.recorder.elements import is_spread
from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.loss_scale import LossScale
from stepscope.recorder.named import Named

Measure = Callable[[torch.Tensor, Named, str], None]

MOST_CALLS = 8
"""Of so many ``backward`` calls of a step, the shares are recorded apart."""


class _Share(NamedTuple):
    named: Named
    call: int
    values: torch.Tensor


class BackwardShares:
    """Collects the share of each ``backward`` call, as the quantities ``gradient:backward 0``, ``gradient:backward 1``.

    A step with one call costs nothing: hooks are put on when the second begins, and what the first one gave is then
    still to be seen in ``.grad``. Only gradients that are there before the first call (zeros, or what an earlier step
    left) are hooked from the start. A parameter that only one call reached has no shares: its gradient says it all.

    Args:
        faults: of the recorder.
        scale: takes out what a scaler multiplied the loss by.
        so_far: copies the gradient of a parameter as ``backward`` left it, also if it was clipped since.
        measure: takes what is to be recorded.

    Attributes:
        probing: whether ``torch.autograd.grad`` runs, which gives nothing to any parameter.
    """

    def __init__(
        self, faults: Faults, scale: LossScale, so_far: Callable[[torch.Tensor], torch.Tensor], measure: Measure
    ) -> None:
        self.faults = faults
        self.probing = False
        self._scale = scale
        self._so_far = so_far
        self._measure = measure
        self._call = -1
        self._hooks: dict[int, Any] = {}
        self._late: set[int] = set()  # hooked only after the first call
        self._zeroed: set[int] = set()
        self._first: dict[int, _Share] = {}  # to be measured when a second one comes
        self._open: dict[int, _Share] = {}  # of the call that runs: a checkpoint adds to it in several parts
        self._several: set[int] = set()
        self._done: set[int] = set()

    def before_backward(self, leaves: Iterable[tuple[Named, torch.Tensor]]) -> None:
        """A ``backward`` begins."""
        self._call += 1
        self._close_open()
        if self._call == MOST_CALLS:
            self.stop()
            self.faults.tell(f"of more than {MOST_CALLS} backward calls in a step, the first are recorded apart")
        if self._call < MOST_CALLS:
            for named, leaf in leaves:
                if leaf.requires_grad and (self._call or leaf.grad is not None):
                    self._hook(named, leaf)

    def forget(self, leaf: torch.Tensor) -> None:
        """The gradient of a parameter was set to zero, or to nothing: what it was is no share of what comes."""
        if self._call == -1:
            return
        self._late.discard(id(leaf))
        self._zeroed.add(id(leaf))
        self._first.pop(id(leaf), None)
        self._open.pop(id(leaf), None)

    def finish(self, leaf: torch.Tensor) -> None:
        """The gradient of a parameter is about to be used; what comes later is another one."""
        key = id(leaf)
        self._done.add(key)
        if share := self._open.pop(key, None):
            self._close(key, share)
        self._first.pop(key, None)
        if hook := self._hooks.pop(key, None):
            hook.remove()

    def end(self) -> None:
        """Record no more shares in this step."""
        self._call = MOST_CALLS
        self.stop()
        self._close_open()
        self._first.clear()

    def stop(self) -> None:
        """Take all hooks off."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def release(self) -> None:
        self._first.clear()
        self._open.clear()

    def _hook(self, named: Named, leaf: torch.Tensor) -> None:
        key = id(leaf)
        if key in self._hooks or key in self._done:
            return
        if is_spread(leaf):
            self.faults.tell("of parameters that are spread over processes, backward calls are not recorded apart")
            return
        if self._call and key not in self._zeroed:
            self._late.add(key)
        self._hooks[key] = leaf.register_hook(partial(self._keep, named, leaf))

    @guarded("recording what one of several backward calls gave")
    def _keep(self, named: Named, leaf: torch.Tensor, gradient: torch.Tensor) -> None:
        if self.probing:
            return
        key = id(leaf)
        with torch.no_grad(), torch._C.DisableTorchFunction():
            share = self._scale.unscaled(gradient.detach())
            if key in self._open:
                self._open[key] = self._open[key]._replace(values=self._open[key].values + share)
                return
            if key in self._late and leaf.grad is not None:
                self._first[key] = _Share(named, 0, self._so_far(leaf))
            self._late.discard(key)
            self._open[key] = _Share(named, self._call, share.clone())

    def _close_open(self) -> None:
        for key, share in self._open.items():
            self._close(key, share)
        self._open.clear()

    def _close(self, key: int, share: _Share) -> None:
        first = self._first.pop(key, None)
        if first is None and key not in self._several:
            self._first[key] = share
            return
        self._several.add(key)
        for part in (first, share):
            if part is not None:
                self._measure(part.values, part.named, f"gradient:backward {part.call}")
