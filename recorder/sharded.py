"""Parameters that are spread over processes, and stand in their module as whole tensors only while it runs."""

from __future__ import annotations

from torch import nn

from stepscope.recorder.elements import is_distributed
from stepscope.recorder.module_tree import own_tensors
from stepscope.recorder.trace import Trace
from stepscope.recorder.watched import Names


class ShardedWeights:
    """Joins the whole tensors that ``fully_shard`` puts into a running module to the parameters that they come from."""

    def __init__(self, names: Names, trace: Trace) -> None:
        self._parts = {known.name: known.tensor for known in names.tensors.values() if is_distributed(known.tensor)}
        self._trace = trace

    def join(self, module: nn.Module, path: str) -> None:
        """Call while a module's tensors are whole: when its ``forward`` has just ended."""
        for key, tensor, _ in own_tensors(module) if self._parts else ():
            part = self._parts.get(f"{path}.{key}")
            if part is not None and part is not tensor:
                self._trace.derive(tensor, part)

    def release(self) -> None:
        self._parts = {}
