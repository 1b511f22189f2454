"""A copy of a model that can be run again and again, on changed inputs, without any trace in the original."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stepscope.recorder.errors import RecorderError
from stepscope.recorder.outputs import tensors_with_roles
from stepscope.recorder.probe_gradient import Slopes, in_double, slopes_of_modules
from stepscope.recorder.probe_inputs import Arguments
from stepscope.recorder.random_state import same_random_numbers
from stepscope.recorder.tracer import UNSEEN

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Seen:
    """What a module, or the whole model, gave in one run: its path and the tensor."""

    path: str
    tensor: torch.Tensor


class ProbeCopy:
    """The copy. Each run starts from the same buffers and the same random numbers.

    Batch normalisations are in evaluation mode: in training they mix samples on purpose.

    Raises:
        RecorderError: the model cannot be copied.
    """

    def __init__(self, model: nn.Module) -> None:
        try:
            self._model = copy.deepcopy(model)
        except Exception as error:
            raise RecorderError(
                f"probe(): this {type(model).__name__} cannot be copied ({error}); probes run on a copy only"
            ) from error
        self.norms_in_training = [
            path for path, module in self._model.named_modules() if isinstance(module, _BATCH_NORMS) and module.training
        ]
        for path in self.norms_in_training:
            self._model.get_submodule(path).eval()
        self._buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Seen]:
        """What every module gave, in the order in which they ended, and at last the model's floating outputs."""
        seen: list[Seen] = []
        hooks = [
            module.register_forward_hook(lambda _, __, output, path=path: seen.extend(_tensors(path, output)))
            for path, module in self._model.named_modules()
            if path
        ]
        with same_random_numbers(), UNSEEN(), torch.no_grad():
            for name, buffer in self._model.named_buffers():
                buffer.copy_(self._buffers[name])
            torch.manual_seed(0)
            try:
                output = self._model(*args, **kwargs)
            finally:
                for hook in hooks:
                    hook.remove()
        return [*seen, *_tensors("", output)]

    def slopes(self, given: Arguments) -> list[Slopes]:
        """The derivatives of every module, in float64."""
        with same_random_numbers(), UNSEEN():
            return list(slopes_of_modules(copy.deepcopy(self._model).double(), in_double(given)))


def _tensors(path: str, output: Any) -> list[Seen]:
    return [
        Seen(path, tensor.detach().clone())
        for _, tensor in tensors_with_roles(output, "output")
        if tensor.is_floating_point()
    ]
