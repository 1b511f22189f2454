"""The step that the user's code holds: the same face whether it is recorded or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch

from stepscope.recorder.errors import RecorderError, StepError
from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.health import HealthCheck
from stepscope.recorder.named import PRELUDE
from stepscope.recorder.session import StepSession
from stepscope.store.records import TensorType

if TYPE_CHECKING:
    from stepscope.recorder.recorder import Recorder

_TYPES = ("input", "parameter", "buffer", "calculated", "target", "loss")


_NOTHING = nullcontext()
"""What an unrecorded step gives for a ``with``; it keeps nothing, so one is enough."""


class Step:
    """One training step. On a step that is not recorded, everything here does nothing, at next to no cost.

    ``with recorder.step() as step:`` gives one; ``recorder.current`` is the one that is open.
    """

    def __init__(self, recorder: Recorder, session: StepSession | None, *, undecided: bool = False) -> None:
        self._recorder = recorder
        self._session = session
        self._undecided = undecided

    @property
    def active(self) -> bool:
        """Whether this step is being recorded: a guard for expensive code of your own."""
        return self._session is not None

    @property
    def faults(self) -> Faults:
        return self._recorder.faults

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self._session is not None:
            self._recorder.end_step(error)
        return False

    def record(
        self,
        name: str,
        tensor: Any,
        *,
        node: str | None = None,
        role: str | None = None,
        type: TensorType = "calculated",
        batch_dim: int | Literal[False] | None = None,
    ) -> None:
        """Record a tensor under a name of your own.

        >>> step.record("memory", memory, role="initial")       # doctest: +SKIP

        Args:
            name: the node's name; dots nest it into modules. With ``node`` given, the role within that node.
            tensor: a tensor of any shape, dtype and device; it is only read.
            node: the node, if ``name`` is meant as the role.
            role: which tensor of the node this is; ``"tensor"`` unless given.
            type: what it is: ``"input"``, ``"target"``, ``"loss"``, or ``"calculated"``.
            batch_dim: which dimension counts samples. By default the first one that is as long as the batch of the
                model's input; False for a tensor without a batch.

        Raises:
            DuplicateNameError: the name and role were recorded before in this iteration (strict recorders only;
                otherwise a warning, as for all errors inside a step).
            BatchDimensionError: there is no such dimension.
        """
        if self._session is not None:  # asked here: most steps pay for each call that follows, see ``passing``
            self._record(self._session, name, tensor, node=node, role=role, type=type, batch_dim=batch_dim)

    @guarded("record()")
    def _record(
        self,
        session: StepSession,
        name: str,
        tensor: Any,
        *,
        node: str | None,
        role: str | None,
        type: TensorType,
        batch_dim: int | Literal[False] | None,
    ) -> None:
        if not isinstance(tensor, torch.Tensor):
            raise RecorderError(f"record({name!r}): expected a tensor, got {tensor.__class__.__name__}")
        if not str(name):
            raise RecorderError("record(''): give the tensor a name of at least one letter")
        if type not in _TYPES:
            raise RecorderError(f"record({name!r}, type={type!r}): expected one of {', '.join(_TYPES)}")
        if node is not None:
            name, role = node, role or name
        session.record(
            str(name),
            tensor,
            role=role or "tensor",
            type=type,
            batch_dim=None if batch_dim is False else batch_dim,
            has_batch=batch_dim is not False,
        )

    @guarded("connect()")
    def connect(self, source: torch.Tensor, sink: torch.Tensor) -> None:
        """Draw an edge from one tensor to another that torch did not see: through numpy, or another process."""
        if self._session is None:
            return
        if not isinstance(source, torch.Tensor) or not isinstance(sink, torch.Tensor):
            given = f"{source.__class__.__name__} and {sink.__class__.__name__}"
            raise RecorderError(f"connect(): expected two tensors, got {given}")
        self._session.connect(source, sink)

    def iteration(self) -> AbstractContextManager[None]:
        """One of several passes inside the step: a time step of a recurrent net, a micro-batch, a rollout step.

        >>> for x in sequence:                                   # doctest: +SKIP
        ...     with step.iteration():
        ...         memory = model(x, memory)
        """
        return _NOTHING if self._session is None else self._iteration()

    @contextmanager
    def _iteration(self) -> Iterator[None]:
        opened = self.begin_iteration()
        try:
            yield
        finally:
            if opened:
                self.end_iteration()

    @guarded("iteration()", default=False)
    def begin_iteration(self) -> bool:
        """Open an iteration where ``with step.iteration()`` does not fit. Returns whether one was opened."""
        session = self._session
        if session is None:
            return False
        if session.register.iteration != PRELUDE:
            raise StepError(f"iteration {session.register.iteration} is still open: iterations do not nest")
        session.register.open_iteration()
        return True

    @guarded("end_iteration()")
    def end_iteration(self) -> None:
        """Close the open iteration."""
        if self._session is not None:
            self._session.register.close_iteration()

    @contextmanager
    def loss_group(self, name: str) -> Iterator[None]:
        """Keep the gradients of the ``backward`` inside apart, as the quantity ``gradient:<name>``.

        >>> with step.loss_group("adversarial"):                 # doctest: +SKIP
        ...     adversarial_loss.backward(retain_graph=True)
        """
        opened = self._open_loss_group(name)
        try:
            yield
        finally:
            if opened:
                self._close_loss_group()

    @guarded("loss_group()")
    def _close_loss_group(self) -> None:
        if self._session is not None:
            self._session.gradients.close_group()

    @guarded("loss_group()", default=False)
    def _open_loss_group(self, name: str) -> bool:
        if self._session is None:
            return False
        if group := self._session.gradients.loss_group:
            raise StepError(f"loss group {group!r} is still open: loss groups do not nest")
        self._session.open_loss_group(str(name))
        return True

    @guarded("decide()")
    def decide(self, kind: str, categories: Sequence[object] | None = None) -> None:
        """Decide afterwards what kind of step this was; only for steps opened with ``kind=None``.

        Until then everything is recorded; if the schedule does not want this kind now, it is dropped.

        Args:
            kind: the kind of step it turned out to be.
            categories: one label a sample; the kept samples are then spread evenly over the labels.
        """
        session = self._session
        if session is None:
            return
        if not self._undecided:
            raise StepError("decide() is for steps opened with recorder.step(kind=None)")
        self._undecided = False
        if not self._recorder.decide(kind):
            self._session = None
            return
        session.kind = kind
        if categories is not None:
            session.choose_samples([str(category) for category in categories])

    @property
    def undecided(self) -> bool:
        """Whether ``decide`` has still to be called."""
        return self._undecided


class CheckedStep(Step):
    """A step that is not recorded, but looked at when it ends; all that it takes from the user is the loss."""

    def __init__(self, recorder: Recorder, health: HealthCheck) -> None:
        super().__init__(recorder, None)
        self._health = health

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._recorder.end_step(error)
        return False

    @guarded("record()")
    def record(self, name: str, tensor: Any, *, type: TensorType = "calculated", **others: Any) -> None:
        """Look at a loss when the step ends; everything else is for recorded steps."""
        if type == "loss" and isinstance(tensor, torch.Tensor):
            self._health.see_loss(tensor)
