"""Steps aside where torch would compute differently because it is watched.

In evaluation, torch's own transformer layers and attention take a fused path, which gives other last bits, and they
leave it as soon as any torch-function mode is active. Inside them the tracer is therefore taken off: such a module
is one opaque step from its arguments and weights to its output.
"""

from __future__ import annotations

import torch
from torch import nn

from stepscope.recorder.tracer import Tracer, top_mode

_FUSED = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)


class FastPath:
    """Takes the tracer off while a fused module runs, and puts it back afterwards."""

    def __init__(self, tracer: Tracer) -> None:
        self.inside = False
        """Whether a fused module is running; what it calls is not recorded."""
        self._tracer = tracer
        self._module: nn.Module | None = None

    def enter(self, module: nn.Module) -> None:
        """Call before a module runs that does not train: no other is fused."""
        if self._module is None and _may_be_fused(module) and top_mode() is self._tracer:
            torch._C._pop_torch_function_stack()
            self._module, self.inside = module, True

    def leave(self, module: nn.Module) -> bool:
        """Call after a module ran, also if it failed; says whether it was the one that hid the tracer."""
        if self._module is not module:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Put the tracer back, if it is off."""
        if self._module is not None:
            self._module, self.inside = None, False
            if self._tracer.installed:
                torch._C._push_on_torch_function_stack(self._tracer)


def _may_be_fused(module: nn.Module) -> bool:
    if module.training or not isinstance(module, _FUSED):
        return False
    return not (torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters()))
