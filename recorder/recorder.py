"""The recorder: what a training script holds."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from stepscope.recorder.arguments import check_config, make_info, make_options
from stepscope.recorder.at_exit import call_while_threads_run
from stepscope.recorder.auto_steps import AutoSteps
from stepscope.recorder.choice import Choice
from stepscope.recorder.cost import Cost, CostMeter
from stepscope.recorder.curves import Curves
from stepscope.recorder.errors import RecorderClosedError, RecorderError, StepError
from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.health import GROUP as HEALTH
from stepscope.recorder.health import HealthCheck, is_wanted
from stepscope.recorder.memory import Memory
from stepscope.recorder.network import OutdatedNamesError, network, omissions
from stepscope.recorder.optimizer_curves import OptimizerCurves
from stepscope.recorder.output import TrialOutput
from stepscope.recorder.passing import Passing
from stepscope.recorder.patterns import Given
from stepscope.recorder.resuming import check_start, check_step, warn_of_damage
from stepscope.recorder.scalars import Point, make_point
from stepscope.recorder.schedule import Every, Schedule, as_schedule
from stepscope.recorder.selection import make_selection
from stepscope.recorder.session import StepSession
from stepscope.recorder.sizes import as_bytes
from stepscope.recorder.step import CheckedStep, Step
from stepscope.recorder.watched import Names, Watched
from stepscope.store import open_writer
from stepscope.store.address import is_address
from stepscope.store.records import Note


class Recorder:
    """Records chosen steps of a training run into a trial's folder.

    >>> recorder = Recorder("runs/sums", trial="bugged", schedule=Every(100), config={"lr": 1e-4})  # doctest: +SKIP
    >>> recorder.watch(model, optimizer)                                                            # doctest: +SKIP
    >>> for batch, target in loader:                                                                # doctest: +SKIP
    ...     with recorder.step():
    ...         loss = criterion(model(batch), target)
    ...         optimizer.zero_grad(); loss.backward(); optimizer.step()
    >>> recorder.close()                                                                            # doctest: +SKIP

    Training is the same with it as without it. Whatever goes wrong inside the recorder becomes one warning, unless
    ``strict``.

    Args:
        folder: the group's folder, or its address (``"s3://bucket/runs"``); made if it is missing.
        trial: the trial's name; the date and time unless given. A trial that exists is never overwritten: see
            ``if_exists`` and ``resume``.
        schedule: which steps are recorded: ``Every(100)``, ``Every("1%")``, ``Backoff(10)``,
            ``Steps({...})``, or a dict of schedules per kind, ``{"train": Every(100), "test": Every(1)}``. By default
            ``Every(100, at_most="2%")``: each hundredth step, or fewer where recording would take more of the time.
        samples: of how many samples of each batch the raw values and statistics are kept.
        neurons: of how many neurons of each tensor the values are kept, evenly spaced if there are more.
        config: the hyper-parameters, as plain values; anything else is kept as text.
        enabled: False turns everything into nothing, without touching the disk.
        strict: raise errors instead of warning.
        if_exists: ``"number"`` (write to ``bugged-2``), ``"fail"`` or ``"overwrite"``.
        resume: go on with this trial after a crash (or its end); if there is none, start it. Numbers of steps go on
            after the last recorded one.
        start_step: the number of the first step, 0 unless given: where your checkpoint is from. Of a resumed trial,
            what was recorded from this step on is superseded (nothing is deleted); see ``next_step`` and ``rewind``.
        gradients, updates, optimizer_state, buffers: what to record besides values.
        max_memory: how much may be held between training and the disk, in bytes or as a text such as ``"1GB"``. When
            that is full, training waits a little (0.2 s a step at most); then a step loses its neurons and samples,
            and at last the step is left out; the recording says so.
        max_bytes: how large the trial may become on the disk; no limit unless given. To keep it, old steps lose raw
            neurons, then the statistics of neurons, never anything else; the older, the more. Where statistics alone
            would pass it, fewer steps are recorded.
        max_step_bytes: how much one step may take on the disk; a larger one is written without raw neurons, or
            without any.
        precision: ``"bf16"`` stores raw neurons in half the bytes, with two to three digits; statistics stay exact.
        health: look at the steps that are not recorded, too: at the norm of the gradients they leave, and at the loss
            if ``step.record`` gave it. Numbers that are not finite, or far above what was usual, are told in the
            recording, and the next 3 steps are recorded (once in 1000 steps). Where
            a step takes a millisecond or two, that is a few percent of it.

    Raises:
        RecorderError: an argument makes no sense.
        stepscope.store.TrialExistsError: the trial exists and ``if_exists="fail"``.
        stepscope.store.TrialInUseError: another live recorder writes to this trial.
        stepscope.store.NotARecordingError: what is to be resumed is no trial, or one in a newer format.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        trial: str | None = None,
        schedule: Schedule | Mapping[str, Schedule] | int | str | None = None,
        samples: int = 5,
        neurons: int = 256,
        config: Mapping[str, Any] | None = None,
        enabled: bool = True,
        strict: bool = False,
        if_exists: Literal["number", "fail", "overwrite"] = "number",
        resume: bool = False,
        start_step: int | None = None,
        gradients: bool = True,
        updates: bool = True,
        optimizer_state: bool = True,
        buffers: bool = True,
        max_memory: int | str = "256MiB",
        max_bytes: int | str | None = None,
        max_step_bytes: int | str | None = None,
        precision: Literal["float32", "bf16"] = "float32",
        health: bool = False,
    ) -> None:
        check_config(config)
        check_start(trial, resume, start_step)
        self._memory = Memory(as_bytes(max_memory, "max_memory", least=1 << 20))
        wanted = as_schedule(Every(100, at_most="2%") if schedule is None else schedule)
        self._options = make_options(
            samples=samples,
            neurons=neurons,
            gradients=gradients,
            updates=updates,
            optimizer_state=optimizer_state,
            buffers=buffers,
            max_bytes=max_bytes,
            max_step_bytes=max_step_bytes,
            precision=precision,
        )
        self._watched = Watched()
        self._number = start_step or 0
        self._is_resumed = False
        self._meter = CostMeter()
        self._passing = Passing()
        self._session: StepSession | None = None
        self._nothing = Step(self, None)
        self._health = HealthCheck(self._point_of_health, self._tell) if is_wanted(health) else None
        self._unrecorded = self._nothing if self._health is None else CheckedStep(self, self._health)
        self._current = self._nothing
        self._curves = Curves(self._write_points)
        self._optimizer_curves = OptimizerCurves()
        self._auto: AutoSteps | None = None
        self._process = os.getpid()
        self._closed = False
        self.enabled = enabled
        self.faults = Faults(strict=strict, on_fault=self._note_fault)
        self._choice = Choice(wanted, self._meter, self.faults, self._options.max_bytes)
        self._output: TrialOutput | None = None
        if enabled:
            self._open(folder, trial, config, if_exists, resume)
            if self._is_resumed and start_step is not None:
                self.rewind(start_step)

    def _open(
        self, folder: str | Path, trial: str | None, config: Mapping[str, Any] | None, if_exists: Any, resume: bool
    ) -> None:
        info = make_info(trial, config, self._options)
        try:
            options = self._options
            writer = open_writer(
                folder, info, if_exists=if_exists, resume=resume, limits=options.limits, precision=options.precision
            )
        except OSError as error:
            self.enabled = False
            self.faults.report(error, f"opening a trial in {os.fspath(folder)!r}; nothing is recorded")
            return
        if writer.earlier is not None:
            self._is_resumed, self._number = True, writer.next_step
            warn_of_damage(writer, self.faults)
        self._output = TrialOutput(writer, self.faults, self._memory, self._meter)
        atexit.register(self._close_at_exit)
        if is_address(folder):
            call_while_threads_run(self._close_at_exit)

    # ------------------------------------------------------------------ facts

    @property
    def path(self) -> Path | None:
        """The trial's folder; None when nothing is recorded."""
        return None if self._output is None else self._output.path

    @property
    def name(self) -> str:
        """The trial's name, as it is on disk; empty when nothing is recorded."""
        return "" if self._output is None else self._output.name

    @property
    def active(self) -> bool:
        """Whether the step that is open now is being recorded."""
        return self._session is not None

    @property
    def next_step(self) -> int:
        """The number that the next step gets: keep it in your checkpoints, and give it as ``start_step``."""
        return self._number

    @property
    def current(self) -> Step:
        """The open step; one that does nothing if no step is being recorded."""
        return self._current

    def __repr__(self) -> str:
        state = "closed" if self._closed else "enabled" if self.enabled else "disabled"
        return f"<Recorder {state} path={str(self.path)!r} step={self._number}>"

    # ------------------------------------------------------------------ what is watched

    @guarded("watch()", raises=(RecorderError,))
    def watch(
        self,
        model: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module] | None = None,
        optimizer: torch.optim.Optimizer
        | Mapping[str, torch.optim.Optimizer]
        | Sequence[torch.optim.Optimizer]
        | None = None,
        *,
        include: Given | Sequence[Given] | None = None,
        exclude: Given | Sequence[Given] | None = None,
        depth: int | None = None,
        types: type[nn.Module] | Sequence[type[nn.Module]] | None = None,
        auto_step: bool = False,
        kind: str = "train",
    ) -> None:
        """Record every module's output and every parameter of a model, with gradients, updates, optimizer state.

        Of large models a part may be enough. What is left out is no node (edges pass through it), but stays in the
        table of modules, and a message in the recording says how much it is.

        >>> recorder.watch({"generator": g, "critic": c}, [optimizer_g, optimizer_c])       # doctest: +SKIP
        >>> recorder.watch(model, optimizer, include=["model.blocks.*", "model.head"], exclude=re.compile("drop"))
        ...                                                                                 # doctest: +SKIP

        Args:
            model: a module, a list of them, or a dict by name; a single one is called ``model``.
            optimizer: one, a list, or a dict by name.
            include, exclude: globs, compiled regular expressions (searched for), or lists of them, for the names of
                modules, parameters and buffers. A module stands for its own parameters too, not for those of the
                modules in it: ``"model.head"`` is that module alone, ``"model.head*"`` is it and all inside. What
                fits both is left out.
            depth: record modules down to this depth, and what they own; 0 is the model itself, 1 its children.
            types: record modules of these classes, and what they own.
            auto_step: without any ``with``: from now on each ``optimizer.step()`` (of the first optimizer) ends a
                step.
            kind: the kind of these steps.

        Raises:
            RecorderError: something given is no module or optimizer; also if the recorder is not strict.
            SelectionError: a pattern or a type fits nothing, or nothing is left to record; also if it is not strict.
        """
        if not self._is_usable():
            return
        self._watched.add_models(model, make_selection(include, exclude, depth, types))
        self._watched.add_optimizers(optimizer)
        if self._output is not None:
            self._output.network(network(self._watched, self._watched.names()))
        if self._health is not None:
            self._health.attach(self._watched.parameters(), scaled=False)
        if auto_step and self._auto is None:
            self._auto = AutoSteps(self, kind)
        if self._auto is not None:
            self._auto.attach(self._watched.optimizers.values())

    @guarded("name_of()", default="")
    def name_of(self, module: nn.Module) -> str:
        """The name under which a module of a watched model is recorded.

        Raises:
            UnknownModuleError: it is in no watched model (strict recorders; else a warning and ``""``).
        """
        return self._watched.name_of(module) if self.enabled else ""

    # ------------------------------------------------------------------ steps

    def step(self, kind: str | None = "train", *, number: int | None = None) -> Step:
        """Open a step; use it with ``with``.

        Args:
            kind: what kind of step; schedules count each kind by itself. None: say so later, with ``decide``.
            number: the number of the step, if you count yourself; must grow, but for the first one of a resumed
                trial: that supersedes what was recorded from there on.
        """
        if not self.enabled:
            return self._nothing
        return self.begin_step(kind, number=number)

    def begin_step(self, kind: str | None = "train", *, number: int | None = None) -> Step:
        """Open a step where ``with`` does not fit; ``end_step`` closes it."""
        passing = self._passing
        if passing.left and kind == passing.kind and number is None:
            passing.left -= 1
            self._number += 1
            return self._nothing
        try:
            return self._begin_step(kind, number)
        except Exception as error:
            self.faults.report(error, "step()")
            return self._nothing

    def _begin_step(self, kind: str | None, number: int | None) -> Step:
        self._settle()
        if not self._is_usable():
            return self._nothing
        if self._session is not None:
            raise StepError(f"step {self._session.number} is still open: steps do not nest, this one is ignored")
        if number is not None and self._is_resumed:
            self._go_back(number)
        self._is_resumed = False
        current = self._number if number is None else number
        if current < self._number:
            raise StepError(
                f"step({number=}): the last one was {self._number - 1}; numbers of steps must grow, "
                "unless rewind(...) says that training was set back"
            )
        self._number = current + 1
        wanted = kind is None or self._wants(current, kind)
        alarmed = self._health is not None and not wanted and self._health.wants(kind or "") and self._has_room(current)
        self._meter.step_begins(kind or "", recorded=wanted or alarmed)
        if not wanted and not alarmed:
            if self._health is not None:
                self._health.begin(current, kind or "")
            if self._meter.has_timed(kind or ""):
                self._passing.grant(kind or "", self._unasked(current, kind or ""))
            return self._unrecorded
        session = StepSession(
            self._watched,
            self._options,
            self.faults,
            current,
            kind or "",
            self._memory,
            self._work_ahead,
            optimizer_hooks=self._auto is None,
        )
        try:
            session.start()
        except Exception:
            session.drop()
            raise
        if alarmed:
            session.facts["because"] = "health check"
        self._session, self._current = session, Step(self, session, undecided=kind is None)
        return self._current

    def _work_ahead(self, work: Callable[[], object]) -> None:
        """Let a part of a step's work be done on the writer's thread, while the step goes on."""
        if self._output is not None:
            self._output.ahead(work)

    def _unasked(self, number: int, kind: str) -> int:
        """How many steps after this one are neither recorded nor looked at."""
        unwanted = self._choice.unwanted(number + 1, kind)
        return unwanted if self._health is None else min(unwanted, self._health.rest(number))

    def _settle(self) -> None:
        """Count the steps that have passed unasked, and let no more pass."""
        if passed := self._passing.settle():
            self._choice.passed(self._passing.kind or "", passed)
            self._meter.steps_passed(passed)

    @guarded("rewind()")
    def rewind(self, step: int) -> None:
        """Say that training was set back, by a checkpoint: the next step has this number.

        What was recorded from there on (steps and curves) is superseded: it stays on the disk, and is shown no more.
        An open step is left out. Notes stay.

        >>> model.load_state_dict(checkpoint["model"]); recorder.rewind(checkpoint["step"])     # doctest: +SKIP

        Args:
            step: the number of the next step, 0 or more.
        """
        if not self._is_usable():
            return
        check_step("rewind", step)
        self._abandon()
        self._go_back(step)
        if self._auto is not None:
            self._auto.begin()

    def _go_back(self, step: int) -> None:
        self._settle()
        self._curves.flush()
        self._is_resumed, self._number = False, step
        if self._output is not None:
            self._output.rewind(step)

    def _wants(self, number: int, kind: str) -> bool:
        return self._choice.wants(number, kind, None if self._output is None else self._output.steps_left)

    def _has_room(self, number: int) -> bool:
        return self._choice.has_room(number, None if self._output is None else self._output.steps_left)

    def decide(self, kind: str) -> bool:
        """Whether the open, undecided step is kept, now that its kind is known; for ``Step.decide``."""
        if self._session is None or self._wants(self._session.number, kind):
            return True
        self._abandon()
        return False

    @guarded("ending a step")
    def end_step(self, error: BaseException | None = None) -> None:
        """Close the open step and hand it to the writer. ``error`` is the exception that ended it, if one did."""
        session, undecided = self._session, self._current.undecided
        self._session, self._current = None, self._nothing
        if session is None:
            if self._health is not None and error is None:
                self._health.end()
            return
        if undecided or self._closed or not self._is_own_process():
            session.drop()
            return
        if error is not None:
            session.facts["exception"] = f"{type(error).__name__}: {error}"
        started = self._meter.clock()
        try:
            self._write(session)
        finally:
            session.stop()
            session.release()
            self._meter.step_finished(session.kind, self._meter.clock() - started)

    def _write(self, session: StepSession) -> None:
        if self._output is not None:
            self._curves.add(self._optimizer_curves.points(self._watched.optimizers, session.number, session.kind))
            if (scale := session.gradients.scale.current) is not None:
                self.scalar("loss scale", scale, group="optimizer", step=session.number, kind=session.kind)
            self._curves.flush()
            session.facts["cost"] = asdict(self.cost())
            names = session.names
            self._output.step(session.finish())
            self._write_network(names)
            if self._health is not None:
                self._health.attach(self._watched.parameters(), scaled=scale is not None)

    def _write_network(self, names: Names) -> None:
        """Write what the models look like now; ``names`` are those of the step's start, which hold most often."""
        if self._output is not None:
            try:
                modules = network(self._watched, names)
            except OutdatedNamesError:  # the models changed within the step
                names = self._watched.names()
                modules = network(self._watched, names)
            self._output.network(modules)
            for text in omissions(self._watched, names):
                self.faults.tell(text)

    def cost(self) -> Cost:
        """What recording has cost so far: training time, its share, bytes, waiting.

        >>> f"{recorder.cost().share:.1%} of the time"                      # doctest: +SKIP
        """
        self._settle()
        output = self._output
        if output is None:
            return self._meter.cost()
        return self._meter.cost(written=output.written, waiting=output.waited)

    @guarded("dropping a step")
    def drop_step(self) -> None:
        """Forget the open step, if there is one: nothing of it is written."""
        self._abandon()

    def _abandon(self) -> None:
        session, self._session, self._current = self._session, None, self._nothing
        if session is not None:
            session.drop()

    @property
    def session(self) -> StepSession | None:
        """What is behind the open step, for the recorder's own parts."""
        return self._session if self._is_own_process() else None

    # ------------------------------------------------------------------ scalars and notes

    @guarded("scalar()")
    def scalar(
        self,
        name: str,
        value: float | torch.Tensor,
        *,
        group: str = "",
        step: int | None = None,
        kind: str = "",
    ) -> None:
        """Log one point of a curve; every call is kept, also between recorded steps.

        Args:
            name: the curve.
            value: a number, or a tensor of one element (read later, without waiting for the device).
            group: curves of a group are drawn together.
            step: the number of the step; the current one unless given.
            kind: the kind of step it belongs to.
        """
        if not self._is_usable():
            return
        number = step if step is not None else max(0, self._number - 1)
        self._curves.log(make_point(name, value, group=group, step=number, kind=kind))

    @guarded("note()")
    def note(self, text: str) -> None:
        """Leave a text at the current step; the viewer shows it on the Notes page."""
        if self._is_usable() and self._output is not None:
            self._output.note(Note(str(text), max(0, self._number - 1), time.time()))

    # ------------------------------------------------------------------ writing

    def _write_points(self, points: Sequence[Point]) -> None:
        if self._output is not None:
            self._output.scalars(points)

    def _point_of_health(self, name: str, value: float, step: int, kind: str) -> None:
        self._curves.add([make_point(name, value, group=HEALTH, step=step, kind=kind)])

    def _tell(self, text: str, step: int) -> None:
        if self._output is not None:
            self._output.message(text, step)

    def _note_fault(self, text: str) -> None:
        if self._output is not None and not self._closed:
            self._output.message(text, max(0, self._number - 1))

    @guarded("flush()")
    def flush(self) -> None:
        """Wait until everything recorded so far is on disk."""
        if self._is_own_process() and self._output is not None and not self._closed:
            self._curves.flush()
            self._output.flush()

    # ------------------------------------------------------------------ the end

    def _is_own_process(self) -> bool:
        return os.getpid() == self._process

    def _is_usable(self) -> bool:
        """Whether calls do anything; a closed recorder complains, a disabled or forked one keeps silent."""
        if not self.enabled or not self._is_own_process():
            return False
        if self._output is not None:
            self._output.complain()
        if self._closed:
            raise RecorderClosedError("this recorder was closed; make a new one to record more")
        return True

    @guarded("close()")
    def close(self, error: BaseException | None = None) -> None:
        """Finish: write what waits and mark the trial as finished, or as failed with ``error``. Safe to call twice."""
        if self._closed or not self._is_own_process():
            return
        self._settle()
        try:
            if self._auto is not None:
                self._auto.stop()
                self._abandon()
            self.end_step(error)
            if self._health is not None:
                self._health.close()
            self.flush()  # before the end, so that what failed in writing is told in the recording, too
        finally:
            self._closed = True
            atexit.unregister(self._close_at_exit)
            try:
                if self._output is not None:
                    self._output.close(error)
            finally:
                self._watched = Watched()  # lets go of the models

    def _close_at_exit(self) -> None:
        # The interpreter keeps the exception that nobody caught, if one ends the program.
        self.close(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close(error)
        return False
