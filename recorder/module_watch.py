"""Names what goes into the watched models and what comes out of each of their modules."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from stepscope.recorder.fast_path import FastPath
from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.leaf_calls import LeafCalls
from stepscope.recorder.outputs import MOST_TENSORS, tensors_with_roles
from stepscope.recorder.register import Register
from stepscope.recorder.sharded import ShardedWeights
from stepscope.recorder.targets import TargetFinder
from stepscope.recorder.tracer import UNSEEN, Tracer
from stepscope.recorder.watched import Names, Watched


class ModuleWatch:
    """Hooks for one step, on all modules together: one on a model would be copied and pickled with it."""

    def __init__(
        self, watched: Watched, names: Names, register: Register, tracer: Tracer, targets: TargetFinder, faults: Faults
    ) -> None:
        self.faults = faults
        self._models = list(watched.models.values())
        self._names = names
        self._register = register
        self._tracer = tracer
        self._targets = targets
        self._fast_path = FastPath(tracer)
        self._sharded = ShardedWeights(names, register.trace)
        self._running: list[int] = []
        self._hooks: list[Any] = []
        self._leaf_calls = LeafCalls(names, self._running, self._sharded.paths, register, tracer, faults)

    def start(self) -> None:
        """Put the hooks on."""
        hook = self._hooks.append
        hook(module_hooks.register_module_forward_pre_hook(self._before_module))
        hook(module_hooks.register_module_forward_hook(self._after_module, with_kwargs=True, always_call=True))
        self._leaf_calls.start()

    def stop(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
            # torch itself leaves this entry of a global hook behind
            module_hooks._global_forward_hooks_with_kwargs.pop(hook.id, None)
        self._hooks.clear()
        self._fast_path.close()
        self._leaf_calls.stop()

    def release(self) -> None:
        self._models = []
        self._names = Names({}, {}, {}, {})
        self._sharded.release()

    @property
    def inside(self) -> bool:
        """Whether a module is running."""
        return bool(self._running)

    @property
    def inside_watched(self) -> bool:
        """Whether a watched module is running: a loss module, say, need not be one."""
        return bool(self.current[0])

    @property
    def current(self) -> tuple[str, str]:
        """Path and class of the innermost watched module that is running."""
        for key in reversed(self._running):
            if key in self._names.paths:
                return self._names.paths[key], self._names.classes[key]
        return "", ""

    # ------------------------------------------------------------------ hooks

    def _before_module(self, module: nn.Module, args: Any) -> None:
        try:
            if self._fast_path.inside or ("forward" in module.__dict__ and _is_redirected(module)):
                return
            key, names = id(module), self._names
            if (key in names.roots or (key in names.paths and self._is_outside())) and not _in_backward():
                self._name_what_enters(module, args, sys._getframe(1))
            self._running.append(key)
            if not module.training:
                self._fast_path.enter(module)
        except Exception as error:
            self._tracer.give_up()  # a fused module may follow, which must not be watched
            self.faults.report(error, "recording a module")

    @guarded("recording a module's output")
    def _after_module(self, module: nn.Module, args: Any, *rest: Any) -> None:
        kwargs, output = rest if len(rest) == 2 else ({}, None)  # torch leaves out kwargs when forward() failed
        opaque = self._fast_path.inside and self._fast_path.leave(module)
        if self._fast_path.inside or id(module) not in self._running:
            return
        while self._running.pop() != id(module):
            pass
        if id(module) not in self._names.paths or len(rest) < 2 or _in_backward():
            return
        with UNSEEN():
            if opaque:
                self._tracer.trace_opaque(type(module).__name__, [args, kwargs, *module.parameters()], output)
            self._sharded.join(module, self._names.paths[id(module)])
            self._name_outputs(module, output)
            if id(module) in self._names.roots or self._is_outside():
                self._targets.model_was_called()

    # ------------------------------------------------------------------ names

    def _name_outputs(self, module: nn.Module, output: Any) -> None:
        if id(module) in self._names.left_out:
            return
        path, class_name = self._names.paths[id(module)], self._names.classes[id(module)]
        call = self._register.next_call(path)
        found = tensors_with_roles(output, "output")
        for role, tensor in found:
            self._register.add(tensor, path, role, "calculated", module=(path, class_name), call=call)
        if len(found) == MOST_TENSORS:
            self.faults.tell(f"of what {path} returns, only the first {MOST_TENSORS} tensors are recorded")

    def _name_inputs(self, module: nn.Module, named_arguments: list[tuple[str, torch.Tensor]]) -> None:
        fresh: dict[int, tuple[str, torch.Tensor]] = {}  # a tensor that is given twice has its first name only
        for role, tensor in named_arguments:
            if self._register.trace.is_data(tensor):
                fresh.setdefault(id(tensor), (role, tensor))
        if not fresh:
            return
        base = self._input_name(module)
        call = self._register.next_call(base)
        for role, tensor in fresh.values():
            node = base if len(named_arguments) == 1 else role
            self._register.add(tensor, node, "tensor", "input", automatic=True, call=call)

    @guarded("recording a module's inputs")
    def _name_what_enters(self, module: nn.Module, args: Any, frame: FrameType) -> None:
        if id(module) in self._names.roots:
            self._enter_model(module, args, _keywords_of_call(frame))
        else:
            self._enter_part(module, args)

    def _enter_model(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        with UNSEEN():
            if len(args) == 1 and not kwargs and args[0].__class__ is torch.Tensor:
                self._register.batch.learn(args)
                if not self._register.trace.is_data(args[0]):  # most often; nothing is named then
                    return
            named_arguments = tensors_with_roles(_bound(module, args, kwargs), self._input_name(module))
            self._register.batch.learn(tensor for _, tensor in named_arguments)
            self._name_inputs(module, named_arguments)

    def _enter_part(self, module: nn.Module, args: Any) -> None:
        """A part of a model is called from outside, not by the model's own ``forward``: data enters there.

        What else is called so, on what the model computed, is a loss or a metric: its data is no input.
        """
        with UNSEEN():
            named_arguments = tensors_with_roles(_bound(module, args, {}), self._input_name(module))
            tensors = [tensor for _, tensor in named_arguments]
            if not all(self._register.trace.is_data(tensor) for tensor in tensors):
                return
            if not self._register.calls(self._input_name(module)):
                self._register.batch.learn(tensors)
            if all(self._register.is_data(tensor) for tensor in tensors):
                self._name_inputs(module, named_arguments)

    def _input_name(self, module: nn.Module) -> str:
        root = self._names.paths[id(module)].partition(".")[0]
        return "input" if len(self._models) == 1 else f"{self._names.roots.get(id(module), root)} input"

    def _is_outside(self) -> bool:
        """Whether no watched module is being called; those that wrap them may be."""
        paths = self._names.paths
        for key in self._running:  # noqa: SIM110 - a plain loop: this is asked at every call of a module
            if key in paths:
                return False
        return True


def _in_backward() -> bool:
    """Whether autograd is running: a module that is called now is a checkpoint's recomputation."""
    return bool(torch._C._current_graph_task_id() != -1)


def _keywords_of_call(frame: FrameType) -> dict[str, Any]:
    """The keyword arguments of the call for which torch runs its hooks; it does not tell global ones of them."""
    found = frame.f_locals.get("kwargs")
    return found if isinstance(found, dict) else {}


def _is_redirected(module: nn.Module) -> bool:
    """Whether this call of ``forward`` stands for one of ``training_step``: so Lightning trains in parallel."""
    forward = module.__dict__.get("forward")
    return forward is not None and getattr(forward, "__qualname__", "").startswith("_ForwardRedirection.")


def _bound(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``module.forward`` by name, as far as names can be told."""
    code = getattr(module.forward, "__code__", None)
    names = code.co_varnames[1 : code.co_argcount] if code is not None else ()
    bound: dict[str, Any] = {}
    for index, value in enumerate(args):
        bound[names[index] if index < len(names) else str(index)] = value
    return {**bound, **kwargs}
