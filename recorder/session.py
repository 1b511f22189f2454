"""What lives during one recorded step: made at its start, dropped at its end. Nothing is ever reset.

The session puts hooks on and takes them off, gives tensors their names, and hands the finished step over as a
``StepJob`` that holds no tensor of the user's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_hooks

from stepscope.recorder.compiled import uncompiled
from stepscope.recorder.errors import BatchDimensionError, DuplicateNameError
from stepscope.recorder.fast_path import FastPath, is_fused_layer
from stepscope.recorder.frames import user_place
from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.job import StepJob, to_host
from stepscope.recorder.loss_scale import LossScale
from stepscope.recorder.measurements import Measurements
from stepscope.recorder.named import PRELUDE, Named
from stepscope.recorder.optimizer_watch import OptimizerWatch
from stepscope.recorder.outputs import tensors_with_roles
from stepscope.recorder.targets import TargetFinder
from stepscope.recorder.trace import Trace
from stepscope.recorder.tracer import Listener, Tracer
from stepscope.recorder.watched import Names, Watched
from stepscope.store.records import TensorType

_UNHOOKED = torch._C.DisableTorchFunction
"""Inside it, our own tensor calls are not seen by the tracer."""


@dataclass(frozen=True)
class Options:
    """What a recorder keeps of each tensor."""

    samples: int = 5
    neurons: int = 256
    parameter_neurons: int = 64
    gradients: bool = True
    updates: bool = True
    optimizer_state: bool = True
    buffers: bool = True


class StepSession(Listener):
    """One recorded step, from its start to the job that describes it."""

    def __init__(
        self,
        watched: Watched,
        options: Options,
        faults: Faults,
        number: int,
        kind: str,
        *,
        optimizer_hooks: bool = True,
    ) -> None:
        self.faults = faults
        self.number = number
        self.kind = kind
        self.options = options
        self._optimizer_hooks = optimizer_hooks
        self.iteration = PRELUDE
        self.iterations = 0
        self.loss_group = ""
        self.categories: tuple[str, ...] = ()
        self.facts: dict[str, Any] = {}
        self.named: list[Named] = []
        self.trace = Trace()
        self.measurements = Measurements(options.samples)
        self.loss_scale = LossScale()
        self.backward_calls = 0
        self._names: Names = watched.names()
        self._watched = watched
        self.optimizers = OptimizerWatch(self, watched.optimizers)
        self._targets = TargetFinder(self)
        self._stack = ExitStack()
        self._modules: list[int] = []
        self._batch_size: int | None = None
        self._hooks: list[Any] = []
        self._group_hooks: list[Any] = []
        self._taken: dict[tuple[str, str, int], int] = defaultdict(int)
        self._parameters: dict[int, Named] = {}
        self._gradients: dict[tuple[Named, str], torch.Tensor] = {}
        self._tracer = Tracer(self.trace, self, lambda error: faults.report(error, "tracing a torch call"))
        self._fast_path = FastPath(self._tracer)
        self._started = time.perf_counter()

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Name the parameters, keep their values before the update, and put the hooks on."""
        self._name_parameters()
        self.optimizers.start(self._parameters, hooks=self._optimizer_hooks)
        register = self._hooks.append
        register(module_hooks.register_module_forward_pre_hook(self._before_module))
        register(module_hooks.register_module_forward_hook(self._after_module, with_kwargs=True, always_call=True))
        for root in self._watched.models.values():
            if not is_fused_layer(root):
                register(root.register_forward_pre_hook(self._before_root, with_kwargs=True, prepend=True))
        self._stack.enter_context(uncompiled())
        self._tracer.install()

    def stop(self) -> None:
        """Take everything off again; safe to call twice."""
        self._fast_path.close()
        self._tracer.remove()
        self._stack.close()
        for hook in self._hooks:
            hook.remove()
            # torch itself leaves this entry of a global hook behind
            module_hooks._global_forward_hooks_with_kwargs.pop(hook.id, None)
        self._hooks.clear()
        self.close_loss_group()
        self.optimizers.stop()

    def finish(self) -> StepJob:
        """Measure what waits and describe the step; no tensor of the user's is kept."""
        self.stop()
        try:
            with torch.no_grad(), _no_autocast():
                self.optimizers.finish()
                while self._gradients:
                    self._measure_gradient(*self._gradients.popitem())
                # Drops the last references to the graph, and with it those to most tensors' memory but our own.
                self.trace.release()
                self.measurements.flush()
            self._tell_lost()
            return StepJob(
                number=self.number,
                kind=self.kind,
                time=time.time(),
                seconds=time.perf_counter() - self._started,
                iterations=self.iterations,
                named=self.named,
                parents=self.trace.parents,
                carries_grad=self.trace.carries_grad,
                operations=self.trace.operations,
                places=self.trace.places,
                named_nodes=self.trace.named,
                measured=to_host(self.measurements.done),
                spectral=self.optimizers.matrices,
                sample_indices=self.measurements.sample_indices,
                categories=self.categories,
                facts=self.facts,
            )
        finally:
            self.release()

    def _measure_gradient(self, key: tuple[Named, str], gradient: torch.Tensor) -> None:
        named, quantity = key
        self.measure_later(gradient, named, quantity)

    def release(self) -> None:
        """Let go of every tensor of the user's."""
        self.trace.release()
        self._gradients.clear()
        self._parameters = {}
        self._names = Names({}, {}, {}, {})

    def _tell_lost(self) -> None:
        for error in self.measurements.faults:
            self.faults.report(error, "measuring a tensor")
        for row in self.measurements.lost:
            text = f"{row.named.node!r} was changed in place, out of sight, before it could be measured"
            if self._tracer.broken:
                self.faults.tell(text)
            else:
                self.faults.warn(text, cause="changed out of sight")

    # ------------------------------------------------------------------ the user's calls

    def record(
        self,
        name: str,
        tensor: torch.Tensor,
        *,
        role: str | None = None,
        type: TensorType = "calculated",
        batch_dim: int | None = None,
        has_batch: bool = True,
    ) -> None:
        """Name a tensor, for ``StepHandle.record``."""
        with _UNHOOKED():
            key = (name, role or "tensor", self.iteration)
            if self._taken[key]:
                where = "this step" if self.iteration == PRELUDE else f"iteration {self.iteration}"
                raise DuplicateNameError(
                    f"{name!r} (role {role or 'tensor'!r}) was already recorded in {where}; "
                    "give the second tensor another name or role=..."
                )
            dimension = self._checked_batch_dim(tensor, batch_dim, type, has_batch)
            self._taken[key] += 1
            known = self._automatic_name_of(tensor)
            if known is not None:
                known.node, known.role, known.type, known.automatic = name, role or "tensor", type, False
                return
            self._name(tensor, name, role or "tensor", type, batch_dim=dimension, batched=has_batch)

    def connect(self, source: torch.Tensor, sink: torch.Tensor) -> None:
        """Add an edge between two tensors that torch calls do not show."""
        with _UNHOOKED():
            self.trace.connect(source, sink)

    def on_gradient(self, named: Named, gradient: torch.Tensor) -> None:
        """Called by autograd with the gradient of a named tensor; several backward calls add up."""
        key = (named, self.gradient_quantity)
        before = self._gradients.get(key)
        gradient = self.loss_scale.unscaled(gradient.detach())
        self._gradients[key] = gradient if before is None else before + gradient

    @property
    def gradient_quantity(self) -> str:
        return f"gradient:{self.loss_group}" if self.loss_group else "gradient"

    def watched_leaves(self) -> Iterable[tuple[Named, torch.Tensor]]:
        """The watched parameters, with their names."""
        for key, named in self._parameters.items():
            watched = self._names.tensors[key]
            if not watched.is_buffer:
                yield named, watched.tensor

    def open_loss_group(self, name: str) -> None:
        """Keep apart what ``backward`` calls give from now on, also to each parameter."""
        self.loss_group = name
        for named, leaf in self.watched_leaves():
            if leaf.requires_grad and self.options.gradients:
                self._group_hooks.append(leaf.register_hook(partial(self._keep_leaf_gradient, named)))

    def close_loss_group(self) -> None:
        self.loss_group = ""
        for hook in self._group_hooks:
            hook.remove()
        self._group_hooks.clear()

    # ------------------------------------------------------------------ what hooks and torch calls tell

    @guarded("recording a module's inputs")
    def _before_root(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if _in_backward() or _is_redirected(module) or self._fast_path.hides(module):
            return
        with _UNHOOKED():
            named_arguments = tensors_with_roles(_bound(module, args, kwargs), self._input_name(module))
            self._learn_batch_size(tensor for _, tensor in named_arguments)
            self._name_inputs(module, named_arguments)

    def _input_name(self, module: nn.Module) -> str:
        root = self._names.paths[id(module)].partition(".")[0]
        return "input" if len(self._watched.models) == 1 else f"{self._names.roots.get(id(module), root)} input"

    def _name_inputs(self, module: nn.Module, named_arguments: list[tuple[str, torch.Tensor]]) -> None:
        fresh = [(role, tensor) for role, tensor in named_arguments if self.trace.is_data(tensor)]
        if not fresh:
            return
        base = self._input_name(module)
        call = self._taken[(base, "", self.iteration)]
        self._taken[(base, "", self.iteration)] += 1
        for role, tensor in fresh:
            node = base if len(named_arguments) == 1 else role
            self._name(tensor, node, "tensor", "input", module="", automatic=True, call=call)

    @guarded("recording a module")
    def _before_module(self, module: nn.Module, args: Any) -> None:
        if self._fast_path.inside or _is_redirected(module):
            return
        key = id(module)
        if key in self._names.paths and key not in self._names.roots and self._is_outside() and not _in_backward():
            self._enter_part(module, args)
        if is_fused_layer(module) and key in self._names.roots:
            self._before_root(module, args, {})
        self._modules.append(key)
        self._fast_path.enter(module)

    def _is_outside(self) -> bool:
        """Whether no watched module is being called; those that wrap them may be."""
        return not any(key in self._names.paths for key in self._modules)

    def _enter_part(self, module: nn.Module, args: Any) -> None:
        """A part of a model is called from outside, not by the model's own ``forward``: data enters there.

        What else is called so, on what the model computed, is a loss or a metric: its data is no input.
        """
        with _UNHOOKED():
            named_arguments = tensors_with_roles(_bound(module, args, {}), self._input_name(module))
            tensors = [tensor for _, tensor in named_arguments]
            if not all(self.trace.is_data(tensor) for tensor in tensors):
                return
            if not self._taken[(self._input_name(module), "", self.iteration)]:
                self._learn_batch_size(tensors)
            if all(self.is_data(tensor) for tensor in tensors):
                self._name_inputs(module, named_arguments)

    @guarded("recording a module's output")
    def _after_module(self, module: nn.Module, args: Any, *rest: Any) -> None:
        kwargs, output = rest if len(rest) == 2 else ({}, None)  # torch leaves out kwargs when forward() failed
        opaque = self._fast_path.leave(module)
        if self._fast_path.inside:
            return
        if id(module) not in self._modules:
            return
        while self._modules.pop() != id(module):
            pass
        path = self._names.paths.get(id(module))
        if path is None or len(rest) < 2 or _in_backward():
            return
        with _UNHOOKED():
            if opaque:
                self._tracer.trace_opaque(type(module).__name__, [args, kwargs, *module.parameters()], output)
            call = self._taken[(path, "", self.iteration)]
            self._taken[(path, "", self.iteration)] += 1
            class_name = self._names.classes[id(module)]
            for role, tensor in tensors_with_roles(output, "output"):
                self._name(tensor, path, role, "calculated", module=path, module_class=class_name, call=call)
            if id(module) in self._names.roots or self._is_outside():
                self._targets.model_was_called()

    def before_change(self, tensor: torch.Tensor) -> None:
        self.measurements.measure_before_change(tensor)

    def before_backward(self, tensors: Iterable[torch.Tensor]) -> None:
        self.backward_calls += 1
        for tensor in tensors:
            if not self.loss_scale.start(tensor):
                self._name_loss(tensor)

    def on_scaled(self, loss: torch.Tensor, scaled: torch.Tensor, scale: torch.Tensor) -> None:
        with _UNHOOKED():
            self._name_loss(loss)
            self.loss_scale.learn(scaled, scale)

    def on_unscaled(self, gradients: Iterable[torch.Tensor]) -> None:
        self.loss_scale.learn_unscaled(gradients)

    def _name_loss(self, tensor: torch.Tensor) -> None:
        known = self._name_of(tensor)
        if known is None:
            call = self._taken[("loss", "", self.iteration)]
            self._taken[("loss", "", self.iteration)] += 1
            role = self.loss_group or "tensor"
            self._name(tensor, "loss", role, "loss", automatic=True, call=call, batched=False)
        elif known.type == "calculated":
            known.type = "loss"

    def on_arguments(self, name: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._targets.look(name, args, kwargs, inside_module=bool(self._modules))

    # ------------------------------------------------------------------ naming

    def name_target(self, tensor: torch.Tensor, number: int) -> None:
        """Name a tensor that the loss compares with, for the ``TargetFinder``."""
        node = "target" if number == 0 else f"target {number + 1}"
        self._name(tensor, node, "tensor", "target", automatic=True)

    def is_data(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor holds data from outside the model, of the batch's size: no constant, no parameter."""
        return (
            self.trace.is_data(tensor)
            and tensor.dim() > 0
            and not isinstance(tensor, nn.Parameter)
            and (self._batch_size is None or self._batch_size in tensor.shape)
        )

    def _name_of(self, tensor: torch.Tensor) -> Named | None:
        node = self.trace.known(tensor)
        index = None if node is None else self.trace.named.get(node)
        return None if index is None else self.named[index]

    def _automatic_name_of(self, tensor: torch.Tensor) -> Named | None:
        known = self._name_of(tensor)
        return known if known is not None and known.automatic and known.iteration == self.iteration else None

    def _name(
        self,
        tensor: torch.Tensor,
        node: str,
        role: str,
        type: TensorType,
        *,
        module: str | None = None,
        module_class: str | None = None,
        batch_dim: int | None = None,
        batched: bool = True,
        automatic: bool = False,
        call: int = 0,
    ) -> None:
        if _is_wrapped(tensor):
            self.faults.tell("tensors inside a function transform (vmap, grad, jvp) were not measured")
            return
        if module is None:
            module, module_class = self._current_module()
        if batch_dim is None and batched and type != "loss":
            batch_dim = self._find_batch_dim(tensor)
        named = Named(
            node, role, self.iteration, type, str(tensor.dtype)[6:], str(tensor.device), batch_dim,
            module, module_class or "", call, automatic, order=len(self.named),
        )  # fmt: skip
        self.named.append(named)
        named.trace_node = self.trace.name(tensor, named.order, user_place())
        self.measure_later(tensor, named, "value")
        if self.options.gradients and tensor.requires_grad and not torch.is_inference_mode_enabled():
            keep = self._keep_leaf_gradient if tensor.is_leaf else self._keep_gradient
            self._hooks.append(tensor.register_hook(partial(keep, named)))

    @guarded("recording a gradient")
    def _keep_gradient(self, named: Named, gradient: torch.Tensor) -> None:
        self.on_gradient(named, gradient)

    @guarded("recording a gradient")
    def _keep_leaf_gradient(self, named: Named, gradient: torch.Tensor) -> None:
        # A copy: autograd makes this very tensor the leaf's .grad, and adds the next gradient to it in place.
        self.on_gradient(named, gradient.clone())

    def measure_later(self, tensor: torch.Tensor, named: Named, quantity: str, *, owned: bool = False) -> None:
        """Let one row of the record wait to be measured; ``owned`` if the recorder made the tensor."""
        limit = self.options.neurons
        if named.type in ("parameter", "buffer"):
            limit = self.options.parameter_neurons if quantity == "value" or "gradient" in quantity else 0
        dimension = named.batch_dim
        if dimension is not None and (tensor.dim() <= dimension or tensor.numel() == 0):
            dimension = None
        self.measurements.add(tensor, named, quantity, batch_dim=dimension, neuron_limit=limit, owned=owned)

    def _name_parameters(self) -> None:
        with _UNHOOKED(), torch.no_grad():
            for key, watched in self._names.tensors.items():
                if watched.is_buffer and not self.options.buffers:
                    continue
                type: TensorType = "buffer" if watched.is_buffer else "parameter"
                tensor = watched.tensor
                named = Named(
                    watched.name, type, PRELUDE, type, str(tensor.dtype)[6:], str(tensor.device), None,
                    watched.module, watched.module_class, order=len(self.named),
                )  # fmt: skip
                self.named.append(named)
                self._parameters[key] = named
                named.trace_node = self.trace.name(tensor, named.order, None)
                # A copy: the value before the update, also if the optimizer writes to it within the step.
                before = tensor.detach().clone()
                self.measure_later(before, named, "value", owned=True)
                self.optimizers.keep_before(named, tensor, before)

    def _current_module(self) -> tuple[str, str]:
        for key in reversed(self._modules):
            if key in self._names.paths:
                return self._names.paths[key], self._names.classes[key]
        return "", ""

    def _learn_batch_size(self, tensors: Iterable[torch.Tensor]) -> None:
        sizes = [tensor.shape[0] for tensor in tensors if tensor.dim() > 0]
        if sizes:
            self._batch_size = sizes[0]

    def _find_batch_dim(self, tensor: torch.Tensor) -> int | None:
        """The dimension as long as the batch: the first if it fits, else any that does."""
        if tensor.dim() == 0:
            return None
        if self._batch_size is None:
            self._batch_size = tensor.shape[0]
        if self._batch_size in tensor.shape:
            return tuple(tensor.shape).index(self._batch_size)
        return None

    def _checked_batch_dim(
        self, tensor: torch.Tensor, batch_dim: int | None, type: TensorType, has_batch: bool
    ) -> int | None:
        if not has_batch or type in ("loss", "parameter"):
            return None
        if batch_dim is None:
            return self._find_batch_dim(tensor)
        _check_batch_dim(tensor, batch_dim)
        if self._batch_size is None:
            self._batch_size = tensor.shape[batch_dim]
        return batch_dim % tensor.dim()

    def pause_tracing(self, paused: bool) -> None:
        """Stop or go on seeing torch calls; an optimizer's own arithmetic is not part of the graph."""
        self._tracer.paused = paused


def _check_batch_dim(tensor: torch.Tensor, batch_dim: object) -> None:
    if isinstance(batch_dim, bool) or not isinstance(batch_dim, int):
        raise BatchDimensionError(f"batch_dim={batch_dim!r}: expected a whole number, or False for no batch")
    if tensor.dim() == 0:
        raise BatchDimensionError(f"batch_dim={batch_dim}: a tensor of shape () has no dimensions; leave it out")
    if not -tensor.dim() <= batch_dim < tensor.dim():
        raise BatchDimensionError(
            f"batch_dim={batch_dim} does not exist in a tensor of shape {tuple(tensor.shape)}; "
            f"give a dimension from 0 to {tensor.dim() - 1}, or batch_dim=False for none"
        )


def _in_backward() -> bool:
    """Whether autograd is running: a module that is called now is a checkpoint's recomputation."""
    return bool(torch._C._current_graph_task_id() != -1)


def _is_wrapped(tensor: torch.Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _is_redirected(module: nn.Module) -> bool:
    """Whether this call of ``forward`` stands for one of ``training_step``: so Lightning trains in parallel."""
    forward = module.__dict__.get("forward")
    return forward is not None and getattr(forward, "__qualname__", "").startswith("_ForwardRedirection.")


def _no_autocast() -> ExitStack:
    stack = ExitStack()
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def _bound(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``module.forward`` by name, as far as names can be told."""
    code = getattr(module.forward, "__code__", None)
    names = code.co_varnames[1 : code.co_argcount] if code is not None else ()
    bound: dict[str, Any] = {}
    for index, value in enumerate(args):
        bound[names[index] if index < len(names) else str(index)] = value
    return {**bound, **kwargs}
