"""What a model was called with first, to probe it with that afterwards."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import nn

from stepscope.recorder import Probed, probe
from stepscope.recorder.probes import ProbeName

DEFAULT_PROBES: tuple[ProbeName, ...] = ("batch", "input")


class FirstCall:
    """While it is open, keeps a copy of the arguments of the model's first call; without any probes it does nothing."""

    def __init__(self, model: nn.Module, probes: Sequence[ProbeName]) -> None:
        self._model = model
        self._probes = probes
        self._batch: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> FirstCall:
        if self._probes:
            self._stack.callback(self._model.register_forward_pre_hook(self._keep, with_kwargs=True).remove)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    def probed(self) -> list[Probed]:
        """What the probes say of the model as it is now, given that batch.

        Raises:
            ValueError: the model was never called itself.
        """
        if not self._probes:
            return []
        if self._batch is None:
            raise ValueError(
                "the model was never called itself, so there is no batch to probe it with; leave out probe"
            )
        return probe(self._model, self._batch, probes=self._probes)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._batch is None:
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments if kwargs else args
            self._batch = _copied(given)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return tuple(map(_copied, value)) if isinstance(value, (tuple, list)) else value
