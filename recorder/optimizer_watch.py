"""What the optimizers do in a recorded step: gradients as they are used, updates, state, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from stepscope.recorder.elements import elements
from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.memory import Rank
from stepscope.recorder.named import Named
from stepscope.recorder.optimizer_state import states_of
from stepscope.store.records import OPTIMIZER_STEP

if TYPE_CHECKING:
    from stepscope.recorder.session import StepSession


class OptimizerWatch:
    """Looks at the watched optimizers and parameters during one step.

    The gradient of a parameter is taken when its optimizer is about to use it, after clipping and unscaling; of
    parameters whose optimizer did not run, at the end of the step.
    """

    def __init__(self, session: StepSession, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._matrices: list[tuple[Named, torch.Tensor]] = []
        self._session = session
        self._optimizers = optimizers
        self._handles: list[Any] = []
        self._named: Mapping[int, Named] = {}
        self._before: dict[int, tuple[Named, torch.Tensor, torch.Tensor]] = {}
        self._have_gradient: set[int] = set()
        self._stepped: dict[int, torch.optim.Optimizer] = {}

    @property
    def faults(self) -> Faults:
        return self._session.faults

    def keep_before(self, named: Named, tensor: torch.Tensor, before: torch.Tensor) -> bool:
        """Keep a parameter's value from before the update; whether beyond the step, too, for its spectral norm."""
        if named.type != "parameter":
            return False
        if self._session.options.updates:
            self._before[id(tensor)] = (named, tensor, before)
        matrix = elements(before)
        is_matrix = matrix.dim() >= 2 and matrix.is_floating_point() and matrix.layout == torch.strided
        if not is_matrix or not matrix.numel() or not self._session.held.take(matrix.nbytes, Rank.TENSORS):
            return False
        self._matrices.append((named, matrix.reshape(matrix.shape[0], -1)))
        return True

    def take_matrices(self) -> list[tuple[Named, torch.Tensor]]:
        """The values of the matrices from before the update, whose memory is taken; they are kept no longer here."""
        matrices, self._matrices = self._matrices, []
        return matrices

    def start(self, named: Mapping[int, Named], *, hooks: bool) -> None:
        """Begin to look; without ``hooks``, somebody else calls ``before_step`` and ``after_step``."""
        self._named = named
        for optimizer in self._optimizers.values() if hooks else ():
            self._handles.append(optimizer.register_step_pre_hook(self.before_step))
            self._handles.append(optimizer.register_step_post_hook(self.after_step))

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @guarded("recording gradients before an optimizer's step")
    def before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        has_closure = any(callable(argument) for argument in (*args[1:], *kwargs.values()))
        if has_closure:
            return
        self._session.pause_tracing(True)
        self._session.calls.note(OPTIMIZER_STEP)
        self._take_gradients(_parameters(optimizer))

    @guarded("recording an optimizer's step")
    def after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._session.pause_tracing(False)
        self._stepped[id(optimizer)] = optimizer
        # Those that a closure computed during the step; they are still what the optimizer used.
        self._take_gradients(_parameters(optimizer))

    def finish(self) -> None:
        """Take what is known only after the step: updates, states, settings, remaining gradients."""
        session = self._session
        if session.backward_calls:
            self._take_gradients((tensor for _, tensor in session.watched_leaves()), used=False)
        self._take_settings()
        if self._stepped or not self._optimizers:
            self._take_updates()
        if session.options.optimizer_state:
            for optimizer in self._stepped.values():
                self._take_state(optimizer)
        self._before = {}

    def _take_gradients(self, parameters: Any, *, used: bool = True) -> None:
        if not self._session.options.gradients:
            return
        for parameter in parameters:
            named = self._named.get(id(parameter))
            if named is None or parameter.grad is None or id(parameter) in self._have_gradient:
                continue
            self._have_gradient.add(id(parameter))
            # At once: the optimizer, or zero_grad, may write to it before the step ends. What an optimizer uses is
            # recorded as it is, even if nobody took the loss scale out.
            self._session.leaves.before_use(parameter, named)
            gradient = parameter.grad.detach()
            if not used:
                gradient = self._session.gradients.scale.unscaled_leaf(gradient)
            self._session.measure_later(gradient, named, "gradient", at_once=used)

    def _take_updates(self) -> None:
        for named, parameter, before in self._before.values():
            if parameter.requires_grad or self._is_optimized(parameter):
                self._session.measure_later(parameter.detach() - before, named, "update", owned=True, at_once=True)

    def _is_optimized(self, parameter: torch.Tensor) -> bool:
        return any(
            parameter is candidate
            for optimizer in self._optimizers.values()
            for group in optimizer.param_groups
            for candidate in group["params"]
        )

    def _take_state(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter, name, state in states_of(optimizer):
            named = self._named.get(id(parameter))
            if named is not None:
                self._session.measure_later(state, named, name)

    def _take_settings(self) -> None:
        settings: dict[str, list[dict[str, Any]]] = {}
        for name, optimizer in self._optimizers.items():
            settings[name] = [
                {key: plain(value) for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ]
        if settings:
            self._session.facts["optimizers"] = settings


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def plain(value: Any) -> Any:
    """A setting as a plain value: numbers stay numbers, everything else becomes text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)
