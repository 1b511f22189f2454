"""What a Trainer's hooks mean for a recorder, from the start of a ``fit`` to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from stepscope.integrations.lightning_metrics import LoggedMetrics, group_and_name
from stepscope.recorder import Recorder, SelectionError
from stepscope.recorder.guard import Faults, guarded

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class FitRecording:
    """One ``fit`` on its way into a trial: made when it starts, dropped when it ends.

    A training step is open from its first batch until an optimizer steps; each batch is an iteration of it.
    ``selection`` is what ``Recorder.watch`` is given besides models and optimizers.
    """

    def __init__(
        self, recorder: Recorder, trainer: Trainer, module: LightningModule, selection: Mapping[str, Any]
    ) -> None:
        self.recorder = recorder
        self._metrics = LoggedMetrics()
        self._in_step = False
        self._stepped = False
        self._steps_before = 0
        self._epoch = -1
        self._handles: list[Any] = []
        self._watch(trainer, module, selection)

    @property
    def faults(self) -> Faults:
        return self.recorder.faults

    @guarded("watching a LightningModule", raises=(SelectionError,))
    def _watch(self, trainer: Trainer, module: LightningModule, selection: Mapping[str, Any]) -> None:
        # Some strategies put objects of their own in the place of optimizers.
        optimizers = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, torch.optim.Optimizer)]
        self.recorder.watch(module, optimizers, **selection)
        self._handles = [optimizer.register_step_post_hook(self._note_step) for optimizer in optimizers]

    def _note_step(self, *_: Any) -> None:
        self._stepped = True

    # ------------------------------------------------------------------ training

    @guarded("beginning a batch")
    def begin_batch(self, trainer: Trainer) -> None:
        """A training batch begins, and with it perhaps a step."""
        if not self._in_step:
            self._in_step, self._stepped, self._steps_before = True, False, trainer.global_step
            self.recorder.begin_step("train")
            self._tell_epoch(trainer.current_epoch)
        self.recorder.current.begin_iteration()

    def _tell_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch = epoch
            self.recorder.scalar("epoch", epoch, kind="train")

    @guarded("ending a batch")
    def end_batch(self, trainer: Trainer) -> None:
        """A training batch ends, and with it the step, if an optimizer has stepped."""
        self.recorder.current.end_iteration()
        # Lightning does not count steps that a module makes around it; a loss scaler skips some that it counts.
        if self._stepped or trainer.global_step != self._steps_before:
            self._in_step = False
            self.recorder.end_step()
        # Like Lightning's own loggers: of accumulated batches, the metrics of the last one are kept.
        self.take_metrics(trainer, "train", keep=not self._in_step)

    def drop_open_step(self) -> None:
        """Leave out a step whose optimizer has not stepped: what comes now does not belong to it.

        What is still missing of it when training goes on is not recorded either.
        """
        if self._in_step:
            self.recorder.drop_step()

    # ------------------------------------------------------------------ validation

    def begin_validation_batch(self, loader: int) -> None:
        self.recorder.begin_step(f"validation {loader}" if loader else "validation")

    def end_validation_batch(self, outputs: Any) -> None:
        """``outputs`` is what ``validation_step`` returned: the loss, or a dict that may hold it, or nothing."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor):
            self.recorder.current.record("loss", loss, type="loss")
        self.recorder.end_step()

    # ------------------------------------------------------------------ scalars, and the end

    @guarded("reading logged metrics")
    def take_metrics(self, trainer: Trainer, kind: str, *, keep: bool = True) -> None:
        """Log what the model has logged since the last time; ``train/loss`` is ``loss`` of the group ``train``."""
        for name, value in self._metrics.new(trainer.logged_metrics):
            if keep:
                group, short = group_and_name(name)
                self.recorder.scalar(short, value, group=group, kind=kind)

    @guarded("closing the recorder")
    def close(self, error: BaseException | None) -> None:
        """The ``fit`` is over: finished, or ended by an exception."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.recorder.close(error)
