"""Steps without any ``with``: the first optimizer's own step ends one and begins the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from stepscope.recorder.recorder import Recorder


class AutoSteps:
    """Hooks that stay on the optimizers until ``stop``.

    Those of a recorded step cannot be used here: they would be changed while torch goes through them.
    """

    def __init__(self, recorder: Recorder, kind: str) -> None:
        self._recorder = recorder
        self._kind = kind
        self._handles: dict[int, list[Any]] = {}

    def attach(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Hook the optimizers that are not hooked yet; the first one there ever was ends the steps."""
        for optimizer in optimizers:
            if id(optimizer) in self._handles:
                continue
            handles = [optimizer.register_step_pre_hook(self._before), optimizer.register_step_post_hook(self._after)]
            if not self._handles:
                handles.append(optimizer.register_step_post_hook(self._next))
                self.begin()
            self._handles[id(optimizer)] = handles

    def begin(self) -> None:
        """Begin the next step."""
        self._recorder.begin_step(self._kind)

    def stop(self) -> None:
        """Take the hooks off."""
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles.clear()

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._recorder.session is not None:
            self._recorder.session.optimizers.before_step(optimizer, args, kwargs)

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._recorder.session is not None:
            self._recorder.session.optimizers.after_step(optimizer, args, kwargs)

    def _next(self, *_: Any) -> None:
        self._recorder.end_step()
        self.begin()
