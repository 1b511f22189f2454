"""Parameters that are spread over processes, and stand in their module as whole tensors only while it runs."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from stepscope.recorder.elements import is_spread
from stepscope.recorder.trace import Trace
from stepscope.recorder.watched import Names


class ShardedWeights:
    """Joins the whole tensors that a sharded module holds while it runs to the parameters that they come from."""

    def __init__(self, names: Names, trace: Trace) -> None:
        self._parts: dict[str, list[tuple[str, torch.Tensor]]] = {}
        for known in names.tensors.values():
            if is_spread(known.tensor):
                for name in known.names:
                    path, _, key = name.rpartition(".")
                    self._parts.setdefault(path, []).append((key, known.tensor))
        self._trace = trace

    @property
    def paths(self) -> Collection[str]:
        """The modules that have such parameters."""
        return self._parts

    def join(self, module: nn.Module, path: str) -> None:
        """Call while a module's tensors are whole: when its ``forward`` has just ended."""
        for key, part in self._parts.get(path, ()):
            whole = getattr(module, key, None)
            if isinstance(whole, torch.Tensor) and whole is not part:
                self._trace.derive(whole, part)

    def release(self) -> None:
        self._parts = {}
