"""Records what Lightning trains, with one callback.

>>> from stepscope.integrations.lightning import StepscopeCallback                      # doctest: +SKIP
>>> trainer = Trainer(callbacks=[StepscopeCallback("runs/x", schedule=Every(50))])      # doctest: +SKIP
>>> trainer.fit(model)                                                                  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stepscope.integrations.lightning_base import callback_base
from stepscope.integrations.lightning_recording import FitRecording
from stepscope.recorder import Every, Recorder, RecorderError, Schedule
from stepscope.recorder.guard import Faults, guarded
from stepscope.recorder.patterns import Given
from stepscope.recorder.schedule import as_schedule

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from torch.nn import Module
else:
    Callback = callback_base()


class StepscopeCallback(Callback):
    """Records the steps of ``Trainer.fit`` into a trial; works for ``lightning`` and ``pytorch_lightning``.

    >>> schedule = {"train": Every(50), "validation": Every(10)}
    >>> trainer = Trainer(callbacks=[StepscopeCallback("runs/x", schedule=schedule)])   # doctest: +SKIP

    A step of kind ``train`` is what leads to an optimizer's step: one batch or, with gradient accumulation, several,
    which are its iterations; all optimizers that step within a batch belong to the same step. A step that validation
    interrupts is left out. A batch of validation is a step of kind ``validation``; from the second validation loader
    on, ``validation 1``, .... What the model logs with ``self.log`` becomes scalars, its hyper-parameters (and those
    of the data module) become the trial's config. The recorded loss is the one that Lightning calls ``backward`` on:
    divided by the number of accumulated batches.

    Training is the same with it as without it, and trouble in the recorder becomes one warning. In distributed
    training, the process of rank 0 records. Each ``fit`` makes a trial of its own, unless ``resume`` is given.

    >>> callback = StepscopeCallback("runs/x", trial="large", resume=True)              # doctest: +SKIP
    >>> Trainer(callbacks=[callback]).fit(model, ckpt_path="last")                      # doctest: +SKIP

    Args:
        folder: the group's folder.
        schedule: which steps are recorded; each kind is counted by itself.
        trial: the trial's name; the date and time unless given.
        config: joins the hyper-parameters.
        enabled: False turns the callback into nothing.
        strict: let errors of the recorder end the training instead of warning.
        resume: go on with the trial of this name, if there is one. With ``ckpt_path``, it goes on at the step at which
            the checkpoint was saved: what was recorded from there on is superseded, and stays on the disk.
        include, exclude, depth, types: record a part of the model, as for ``Recorder.watch``; the LightningModule is
            called ``model``.
        if_exists, samples, neurons, gradients, updates, optimizer_state, buffers, max_memory, max_bytes,
            max_step_bytes, precision, health: as for ``Recorder``.

    Raises:
        RecorderError: the schedule makes no sense; when fitting begins, if another option makes none.
        SelectionError: when fitting begins, if a pattern or a type fits nothing in the model.
        stepscope.store.TrialExistsError: when fitting begins, if the trial exists and ``if_exists="fail"``.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        schedule: Schedule | Mapping[str, Schedule] | int | str | None = None,
        trial: str | None = None,
        config: Mapping[str, Any] | None = None,
        enabled: bool = True,
        strict: bool = False,
        include: Given | Sequence[Given] | None = None,
        exclude: Given | Sequence[Given] | None = None,
        depth: int | None = None,
        types: type[Module] | Sequence[type[Module]] | None = None,
        if_exists: Literal["number", "fail", "overwrite"] = "number",
        resume: bool = False,
        samples: int = 5,
        neurons: int = 256,
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
        self._open: Callable[..., Recorder] = partial(
            Recorder, folder, schedule=as_schedule(Every(50) if schedule is None else schedule), trial=trial,
            strict=strict, if_exists=if_exists, resume=resume, samples=samples, neurons=neurons, gradients=gradients,
            updates=updates, optimizer_state=optimizer_state, buffers=buffers, max_memory=max_memory,
            max_bytes=max_bytes, max_step_bytes=max_step_bytes, precision=precision, health=health,
        )  # fmt: skip
        self._selection = {"include": include, "exclude": exclude, "depth": depth, "types": types}
        self._config = dict(config or {})
        self._enabled = enabled
        self._resume = resume
        self._start_step: int | None = None
        self._fit: FitRecording | None = None
        self.faults = Faults(strict=strict)
        self.recorder: Recorder | None = None
        """The recorder of the current ``fit``, or of the last one; None before the first."""

    # ------------------------------------------------------------------ start and end

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled and trainer.is_global_zero:
            config = {**self._hyper_parameters(trainer, pl_module), **self._config}
            self.recorder = self._open(config=config, start_step=self._start_step)
            self._start_step = None
            try:
                self._fit = FitRecording(self.recorder, trainer, pl_module, self._selection)
            except RecorderError as error:
                self.recorder.close(error)
                raise

    @guarded("reading hyper-parameters", default={})
    def _hyper_parameters(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        data = getattr(trainer, "datamodule", None)
        return {**dict(module.hparams), **({} if data is None else dict(data.hparams))}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the recording: the number of the next step."""
        return {} if self.recorder is None else {"next_step": self.recorder.next_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Training goes on from a checkpoint; with some strategies, it is read after the ``fit`` has begun."""
        if self._resume and self._fit is not None:
            self._fit.recorder.rewind(state_dict["next_step"])
        elif self._resume:
            self._start_step = state_dict["next_step"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fit is not None:
            self._fit.drop_open_step()
            self._fit.take_metrics(trainer, "train")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end(exception)

    def _end(self, error: BaseException | None) -> None:
        if self._fit is not None:
            self._fit.close(error)
            self._fit = None

    # ------------------------------------------------------------------ training

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fit is not None:
            self._fit.take_metrics(trainer, "train")  # Lightning completes those of an epoch after its last hook

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._fit is not None:
            self._fit.begin_batch(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._fit is not None:
            self._fit.end_batch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fit is not None:
            self._fit.drop_open_step()

    # ------------------------------------------------------------------ validation

    def _validating(self, trainer: Trainer) -> FitRecording | None:
        """The running ``fit``, except in Lightning's try-out of the validation before the training."""
        return None if trainer.sanity_checking else self._fit

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if fit := self._validating(trainer):
            fit.drop_open_step()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if fit := self._validating(trainer):
            fit.begin_validation_batch(dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if fit := self._validating(trainer):
            fit.end_validation_batch(outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if fit := self._validating(trainer):
            fit.take_metrics(trainer, "validation")
