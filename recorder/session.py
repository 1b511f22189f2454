"""What lives during one recorded step: made at its start, dropped at its end. Nothing is ever reset.

The session puts the step's parts together, starts and stops them, and hands the finished step over as a ``StepJob``
that holds no tensor of the user's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from stepscope.recorder.attention import ATTENTION, AttentionWatch
from stepscope.recorder.call_places import CallPlaces
from stepscope.recorder.categories import balanced_samples
from stepscope.recorder.compiled import uncompiled
from stepscope.recorder.gradient_watch import GradientWatch
from stepscope.recorder.guard import Faults
from stepscope.recorder.job import StepJob, to_host
from stepscope.recorder.leaf_gradients import LeafGradients
from stepscope.recorder.loose_weights import LooseWeights
from stepscope.recorder.measurements import Measurements
from stepscope.recorder.memory import Holding, Memory
from stepscope.recorder.module_watch import ModuleWatch
from stepscope.recorder.named import Named
from stepscope.recorder.optimizer_watch import OptimizerWatch
from stepscope.recorder.options import Options
from stepscope.recorder.random_state import random_state
from stepscope.recorder.register import Register
from stepscope.recorder.targets import LossTerms, TargetFinder
from stepscope.recorder.trace import Trace
from stepscope.recorder.tracer import UNSEEN, Listener, Tracer
from stepscope.recorder.watched import Names, Watched, WatchedTensor
from stepscope.store.records import BACKWARD, EARLY_CLIPPING, HELD_GRADIENTS, TensorType


class StepSession(Listener):
    """One recorded step, from its start to the job that describes it."""

    def __init__(
        self,
        watched: Watched,
        options: Options,
        faults: Faults,
        number: int,
        kind: str,
        memory: Memory,
        ahead: Callable[[Callable[[], object]], None],
        *,
        optimizer_hooks: bool = True,
    ) -> None:
        self.faults = faults
        self.number = number
        self.kind = kind
        self.options = options
        self.categories: tuple[str, ...] = ()
        self.facts: dict[str, Any] = {}
        self.backward_calls = 0
        self.trace = Trace()
        self.register = Register(self.trace, faults, self._on_named)
        self.held = Holding(memory)
        self.measurements = Measurements(options.samples, self.held, ahead, knows_samples=bool(kind))
        self.gradients = GradientWatch(faults)
        self.calls = CallPlaces()
        self.leaves = LeafGradients(faults, self.gradients.scale, partial(self.measure_later, owned=True), self.calls)
        self.optimizers = OptimizerWatch(self, watched.optimizers)
        self._optimizer_hooks = optimizer_hooks
        self._tracer = Tracer(self.trace, self, lambda error: faults.report(error, "tracing a torch call"))
        self._targets = TargetFinder(self.register, watched.models)
        self._terms = LossTerms(self.register)
        self._attention = AttentionWatch(self.register, faults, self.calls)
        self.names = names = watched.names()
        self._loose = LooseWeights(names.tensors, watched.optimizers, self.register, watched.models)
        self._modules = ModuleWatch(watched, names, self.register, self._tracer, self._targets, faults)
        self._weights: dict[int, tuple[Named, WatchedTensor]] = {}
        self._stack = ExitStack()
        self._started = time.perf_counter()
        self._to_name = names.tensors
        self._left_out = names.left_out
        self._random = 0

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Name the parameters, keep their values before the update, and put the hooks on."""
        for take_off in (self.optimizers.stop, self.leaves.stop, self.gradients.stop, self._tracer.remove):
            self._stack.callback(take_off)
        self._stack.callback(self._modules.stop)
        with UNSEEN(), torch.no_grad():
            for key, weight in self._to_name.items():
                if key in self._left_out or (weight.is_buffer and not self.options.buffers):
                    self.trace.root(weight.tensor)
                else:
                    self._keep_weight(key, weight)
        named = {key: named for key, (named, _) in self._weights.items()}
        self.optimizers.start(named, hooks=self._optimizer_hooks)
        if self.options.gradients:
            self.leaves.start({id(leaf): (named, leaf) for named, leaf in self.watched_leaves()})
        self._modules.start()
        self._random = random_state()
        self._stack.enter_context(uncompiled())
        self._tracer.install()

    def stop(self) -> None:
        """Take everything off again, also if a part of it fails; safe to call twice."""
        self._stack.close()

    def finish(self) -> StepJob:
        """Measure what waits and describe the step; no tensor of the user's is kept."""
        self.stop()
        try:
            with torch.no_grad(), _no_autocast():
                self.optimizers.finish()
                self.gradients.take(self.measure_later)
                self._attention.take(self.measurements)
                # Drops the last references to the graph, and with it those to most tensors' memory but our own.
                self.trace.release()
                self.measurements.flush()
            self._terms.settle()
            self.facts["random"] = [self._random, random_state(), self.trace.draws]
            self._tell_loose()
            self._tell_lost()
            return self._job()
        except BaseException:
            self.held.release()
            raise
        finally:
            self.release()

    def drop(self) -> None:
        """End the step without a trace of it."""
        self.stop()
        self.release()
        self.held.release()

    def release(self) -> None:
        """Let go of every tensor of the user's."""
        self.trace.release()
        self.gradients.release()
        self.leaves.release()
        self._attention.release()
        self._modules.release()
        self.names = Names({}, {}, {}, {})
        self._weights = {}
        self._to_name = {}

    def _job(self) -> StepJob:
        return StepJob(
            number=self.number,
            kind=self.kind,
            time=time.time(),
            seconds=time.perf_counter() - self._started,
            iterations=self.register.iterations,
            named=self.register.named,
            parents=self.trace.parents,
            carries_grad=self.trace.carries_grad,
            operations=self.trace.operations,
            places=self.trace.places,
            named_nodes=self.trace.named,
            measured=to_host(self.measurements.done),
            spectral=self.optimizers.take_matrices(),
            sample_indices=self.measurements.sample_indices,
            categories=self.categories,
            facts=self.facts,
            held=self.held,
            calls=self.calls.found,
            marks=self.trace.marks,
            edges=self.trace.edges.take(),
        )

    def _tell_loose(self) -> None:
        if found := self._loose.facts():
            self.facts["loose_parameters"] = found

    def _tell_lost(self) -> None:
        for error in self.measurements.faults:
            self.faults.report(error, "measuring a tensor")
        for named, _ in self.measurements.lost:
            text = f"{named.node!r} was changed in place, out of sight, before it could be measured"
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
        role: str,
        type: TensorType,
        batch_dim: int | None,
        has_batch: bool,
    ) -> None:
        """Name a tensor, for ``Step.record``."""
        with UNSEEN():
            has_batch = has_batch and type not in ("loss", "parameter")
            if has_batch and batch_dim is not None:
                batch_dim = self.register.batch.check(tensor, batch_dim)
            self.register.claim(name, role)
            known = self.register.find_automatic(tensor)
            if known is not None:
                known.node, known.role, known.type, known.automatic = name, role, type, False
                return
            module = self._modules.current
            dimension = batch_dim if has_batch else None
            self.register.add(tensor, name, role, type, module=module, batch_dim=dimension, batched=has_batch)

    def connect(self, source: torch.Tensor, sink: torch.Tensor) -> None:
        """Add an edge between two tensors that torch calls do not show."""
        with UNSEEN():
            self.trace.connect(source, sink)

    def open_loss_group(self, name: str) -> None:
        """Keep apart the gradients of the ``backward`` calls from now on."""
        self.gradients.open_group(name, self.watched_leaves() if self.options.gradients else ())

    def choose_samples(self, labels: Sequence[str]) -> None:
        """Keep samples that are spread evenly over the labels; the first ones if some had to be measured already."""
        self.measurements.choose_samples(balanced_samples(labels, self.options.samples))
        kept = self.measurements.sample_indices
        self.categories = tuple(labels[index] if index < len(labels) else "" for index in kept)

    # ------------------------------------------------------------------ what the tracer tells

    def before_change(self, tensor: torch.Tensor, operation: str) -> None:
        self.measurements.measure_before_change(tensor)
        self.leaves.before_change(tensor, operation)

    def before_replaced_gradient(self, tensor: torch.Tensor, gradient: object) -> None:
        self.leaves.before_replaced(tensor, gradient)

    def before_gradient_read(self, tensor: torch.Tensor) -> None:
        with UNSEEN():
            if not self.backward_calls and tensor.grad is None:  # there is nothing yet that could be clipped
                self.calls.note(EARLY_CLIPPING)
                self.facts["clipped_early"] = True

    def before_backward(self, tensors: Iterable[torch.Tensor]) -> None:
        self.backward_calls += 1
        self.calls.note(BACKWARD)
        with UNSEEN():
            if self.backward_calls == 1 and self.leaves.hold_gradients():
                self.calls.note(HELD_GRADIENTS)
        self.gradients.look()
        self.gradients.probing = False
        self.leaves.before_backward(grouped=bool(self.gradients.loss_group))
        for tensor in tensors:
            if not self.gradients.scale.start(tensor):
                self._name_loss(tensor)

    def on_grad(self, begins: bool) -> None:
        self.gradients.look()
        self.gradients.probing = begins
        self.leaves.on_grad(begins)

    def on_scaled(self, loss: torch.Tensor, scaled: torch.Tensor, scale: torch.Tensor) -> None:
        with UNSEEN():
            self._name_loss(loss)
            self.gradients.scale.learn(scaled, scale)

    def on_unscaled(self, gradients: Iterable[torch.Tensor]) -> None:
        self.gradients.scale.learn_unscaled(gradients)

    def on_arguments(self, name: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._targets.look(name, args, kwargs, self._modules)
        self._loose.look(name, args, self._modules)
        if name in ATTENTION:
            self._attention.look(name, args, kwargs, self._modules.current)

    def on_loss_function(self, name: str, result: torch.Tensor) -> None:
        if not self._modules.inside_watched:  # there it is the output of a module, and has its name
            self._terms.take(name, result)

    def _name_loss(self, tensor: torch.Tensor) -> None:
        known = self.register.find(tensor)
        role = self.gradients.loss_group or "tensor"
        if known is None:
            call = self.register.next_call("loss")
            module = self._modules.current
            self.register.add(tensor, "loss", role, "loss", module=module, automatic=True, call=call, batched=False)
        elif not self._terms.become_loss(known, role) and known.type == "calculated":
            known.type = "loss"

    # ------------------------------------------------------------------ measuring

    def measure_later(
        self,
        tensor: torch.Tensor,
        named: Named,
        quantity: str,
        *,
        owned: bool = False,
        held: bool = False,
        at_once: bool = False,
    ) -> None:
        """Let one row of the record wait to be measured; the rest is as in ``Measurements.add``."""
        limit = self.options.neurons
        if named.type in ("parameter", "buffer"):
            limit = self.options.parameter_neurons if quantity == "value" or "gradient" in quantity else 0
        self.measurements.add(
            tensor, named, quantity,
            batch_dim=named.batch_dim, neuron_limit=limit, owned=owned, held=held, at_once=at_once,
        )  # fmt: skip

    def _on_named(self, tensor: torch.Tensor, named: Named) -> None:
        if tensor.is_meta:
            self.faults.tell(f"{named.node!r} is on the meta device: there is nothing to measure")
            return
        self.measure_later(tensor, named, "value")
        if self.options.gradients:
            self.gradients.watch(tensor, named)

    def _keep_weight(self, key: int, weight: WatchedTensor) -> None:
        named = self.register.add_weight(weight)
        self._weights[key] = named, weight
        # A copy: the value before the update, also if the optimizer writes to it within the step.
        before = weight.tensor.detach().clone()
        is_matrix = self.optimizers.keep_before(named, weight.tensor, before)
        self.measure_later(before, named, "value", owned=True, held=is_matrix)

    def watched_leaves(self) -> Iterable[tuple[Named, torch.Tensor]]:
        """The watched parameters, with their names."""
        return ((named, weight.tensor) for named, weight in self._weights.values() if not weight.is_buffer)

    def pause_tracing(self, paused: bool) -> None:
        """Stop or go on seeing torch calls; an optimizer's own arithmetic is not part of the graph."""
        self._tracer.pause(paused)


def _no_autocast() -> ExitStack:
    stack = ExitStack()
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack
