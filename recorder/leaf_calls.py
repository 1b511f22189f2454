"""A short way through the modules that a net is mostly made of: no hooks, and no watching of torch calls inside them.

While a step is recorded, ``nn.Module._call_impl``, which every call of a module passes, is ours. It runs a known
module's ``forward`` with the tracer off and writes down what came of it, in one go; every other call goes on to torch,
and so to the hooks of ``module_watch``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn.modules import module as torch_modules

from stepscope.recorder.frames import user_place
from stepscope.recorder.guard import Faults
from stepscope.recorder.known_modules import is_as_known, operation_of
from stepscope.recorder.register import Register
from stepscope.recorder.tracer import Tracer
from stepscope.recorder.watched import Names

_TORCH: Any = nn.Module._call_impl
_IS_TORCHS = getattr(_TORCH, "__module__", "") == torch_modules.__name__
_len_of_modes, _mode_at = torch._C._len_torch_function_stack, torch._C._get_function_stack_at
_pop, _push = torch._C._pop_torch_function_stack, torch._C._push_on_torch_function_stack
_active: list[LeafCalls] = []


class Leaf(NamedTuple):
    """A module that was called in this step; ``operation`` is empty if it has to take the long way."""

    module: nn.Module  # kept alive, so that its id is its own
    known: type[nn.Module]
    parameters: int
    operation: str = ""
    path: str = ""
    class_name: str = ""
    is_left_out: bool = False


class LeafCalls:
    """The short way during one step.

    Args:
        names: of the watched models.
        running: the ids of the modules that are running, the innermost last; those on the short way are not in it.
        sharded: paths of modules whose weights are whole only while they run.
    """

    def __init__(
        self,
        names: Names,
        running: list[int],
        sharded: Collection[str],
        register: Register,
        tracer: Tracer,
        faults: Faults,
    ) -> None:
        self.faults = faults
        self._names = names
        self._running = running
        self._sharded = sharded
        self._register = register
        self._trace = register.trace
        self.tracer = tracer
        self._leaves: dict[int, Leaf] = {}

    def start(self) -> None:
        """Put it in. With another recorder's beside it, or somebody else's, neither is used."""
        _active.append(self)
        if _IS_TORCHS and nn.Module._call_impl is _TORCH:
            nn.Module._call_impl = _call_impl  # type: ignore[method-assign]

    def stop(self) -> None:
        """Take it out; safe to call twice."""
        if self in _active:
            _active.remove(self)
        if not _active and cast(Any, nn.Module._call_impl) is _call_impl:
            nn.Module._call_impl = _TORCH  # type: ignore[method-assign]
        self._leaves = {}

    def leaf(self, module: nn.Module, given: Any) -> Leaf | None:
        """The module, if this call of it with a single argument may go the short way."""
        leaf = self._leaves.get(id(module))
        if leaf is None:
            leaf = self._meet(module)
        return leaf if leaf.operation and self._is_usual(leaf, given) else None

    def note(self, leaf: Leaf, given: torch.Tensor, output: torch.Tensor) -> None:
        """Write down what a module made of its argument."""
        trace = self._trace
        weights = leaf.module._parameters.values()
        parents = trace.nodes([given, *[weight for weight in weights if weight is not None]])
        place = user_place(2) or next((trace.places[parent] for parent in parents if trace.places[parent]), None)
        node = trace.add(parents, output.requires_grad, leaf.operation, place, output)
        if not leaf.is_left_out:
            self._register.add_output(output, node, leaf.path, leaf.class_name)

    def _meet(self, module: nn.Module) -> Leaf:
        key, names = id(module), self._names
        leaf = Leaf(module, module.__class__, len(module._parameters))
        if key in names.paths and key not in names.roots and names.paths[key] not in self._sharded:
            path = names.paths[key]
            leaf = leaf._replace(
                operation=operation_of(module), path=path, class_name=names.classes[key],
                is_left_out=key in names.left_out,
            )  # fmt: skip
        self._leaves[key] = leaf
        return leaf

    def _is_usual(self, leaf: Leaf, given: Any) -> bool:
        """Whether there is nothing to this call but what is known."""
        module = leaf.module
        if given.__class__ is not torch.Tensor or not self._running or self._running[-1] not in self._names.paths:
            return False
        return (
            module.__class__ is leaf.known
            and len(module._parameters) == leaf.parameters
            and is_as_known(module)
            and len(torch_modules._global_forward_hooks) == 1  # ours
            and len(torch_modules._global_forward_pre_hooks) == 1
            and not torch_modules._global_backward_hooks
            and not torch_modules._global_backward_pre_hooks
            and torch._C._current_graph_task_id() == -1  # else it is a checkpoint's recomputation
            and not torch._C._get_tracing_state()
            and (depth := _len_of_modes()) > 0
            and _mode_at(depth - 1) is self.tracer  # nobody else's mode is above it
            and not self.tracer.paused
            and not self.tracer.broken
            and self._trace.has_met(module._parameters.values())
        )


def _call_impl(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if kwargs or len(args) != 1 or len(_active) != 1:
        return _TORCH(self, *args, **kwargs)
    calls = _active[0]
    try:
        leaf = calls.leaf(self, args[0])
    except Exception as error:
        calls.faults.report(error, "recording a module")
        leaf = None
    if leaf is None:
        return _TORCH(self, *args)
    _pop()
    try:
        output = self.forward(args[0])
        try:
            calls.note(leaf, args[0], output)
        except Exception as error:
            calls.faults.report(error, "recording a module's output")
        return output
    finally:
        _push(calls.tracer)
