"""Whether the gradients of a model's modules are those of what they compute: asked of each, by finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from stepscope.recorder.outputs import tensors_with_roles
from stepscope.recorder.probe_inputs import Arguments

_STEPS = (1e-5, 1e-6)
_LEAST = 1e-9


class Slopes(NamedTuple):
    """A derivative along one direction of a module's inputs: as its backward says, and as its outputs change."""

    path: str
    backward: float
    forward: float

    @property
    def apart(self) -> float:
        """By how much they differ, as a part of the larger one."""
        return abs(self.backward - self.forward) / max(abs(self.backward), abs(self.forward), _LEAST)


def slopes_of_modules(model: nn.Module, given: Arguments) -> Iterator[Slopes]:
    """Those of each call of a module, inner ones first; those at a kink, where there is no slope, are left out.

    Args:
        model: a copy in float64, which may be called often.
        given: what it is called with.
    """
    for path, module, arguments in _calls(model, given):
        slopes = _slopes(path, module, arguments)
        if slopes is not None:
            yield slopes


def in_double(given: Arguments) -> Arguments:
    """The same with floating tensors in float64."""
    args, kwargs = given
    return tuple(_double(value) for value in args), {name: _double(value) for name, value in kwargs.items()}


def _calls(model: nn.Module, given: Arguments) -> list[tuple[str, nn.Module, Arguments]]:
    """What each module is called with, in the order in which the calls end."""
    open_calls: list[Arguments] = []
    found: list[tuple[str, nn.Module, Arguments]] = []
    hooks: list[Any] = []
    for path, module in model.named_modules():

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            open_calls.append((tuple(map(_kept, args)), {name: _kept(value) for name, value in kwargs.items()}))

        def after(called: nn.Module, *_: Any, path: str = path) -> None:
            found.append((path, called, open_calls.pop()))

        hooks += [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
    try:
        with torch.no_grad():
            _total(model, given)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _slopes(path: str, module: nn.Module, given: Arguments) -> Slopes | None:
    args, kwargs = given
    places = [index for index, value in enumerate(args) if _is_floating(value)]
    if not places:
        return None
    generator = torch.Generator().manual_seed(1)
    ways = {i: torch.randn(args[i].shape, generator=generator, dtype=torch.float64).to(args[i].device) for i in places}

    def moved(step: float) -> Arguments:
        return tuple(
            value + step * ways[i] if i in ways else value for i, value in enumerate(args)
        ), kwargs  # new tensors, so that what works in place may

    with torch.no_grad():
        numeric = [float(_total(module, moved(h)) - _total(module, moved(-h))) / (2 * h) for h in _STEPS]
    if abs(numeric[0] - numeric[1]) > 1e-2 * max(map(abs, numeric)) + 1e-6:
        return None
    leaves = {i: args[i].clone().requires_grad_() for i in places}
    with torch.enable_grad():
        inputs = tuple(leaves[i].clone() if i in leaves else value for i, value in enumerate(args))
        total = _total(module, (inputs, kwargs))
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True) if total.requires_grad else ()
    pairs = zip(leaves, found, strict=False)
    backward = sum(float((gradient * ways[i]).sum()) for i, gradient in pairs if gradient is not None)
    return Slopes(path, backward, numeric[1])


def _total(module: nn.Module, given: Arguments) -> torch.Tensor:
    """A weighed sum of everything that a module gives, with the same random numbers each time."""
    args, kwargs = given
    torch.manual_seed(0)
    output = module(*args, **kwargs)
    generator = torch.Generator().manual_seed(2)
    total = torch.zeros((), dtype=torch.float64)
    for _, tensor in tensors_with_roles(output, "output"):
        if tensor.is_floating_point():
            weight = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            total = total + (tensor * weight).sum().cpu()
    return total


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _double(value: Any) -> Any:
    return value.double() if _is_floating(value) else value


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
