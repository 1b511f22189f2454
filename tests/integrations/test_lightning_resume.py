"""A ``fit`` that goes on from a checkpoint goes on in the same trial, at the checkpoint's step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning", reason="needs the extra 'lightning'")

import pytorch_lightning as pl

from stepscope.integrations.lightning import StepscopeCallback
from stepscope.recorder import Every
from stepscope.store import open_group, open_trial, verify
from support.lightning_models import Classifier, Crash, Crashing, make_batches, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning")


def _fit(folder: Path, model: pl.LightningModule, *, checkpoint: Path | None = None, **options: Any) -> None:
    torch.manual_seed(0)
    callback = StepscopeCallback(folder / "runs", schedule=Every(1), trial="t", strict=True, resume=True)
    trainer = make_trainer(callback, **options)
    trainer.fit(model, make_batches(4), ckpt_path=None if checkpoint is None else str(checkpoint))
    trainer.save_checkpoint(folder / f"after {trainer.global_step}.ckpt")


def test_it_goes_on_at_the_step_of_the_checkpoint(tmp_path: Path) -> None:
    _fit(tmp_path, Classifier(), max_steps=2, max_epochs=-1)
    _fit(tmp_path, Classifier(), max_steps=7, max_epochs=-1, checkpoint=tmp_path / "after 2.ckpt")
    trial = open_trial(tmp_path / "runs" / "t")
    assert trial.steps.tolist() == list(range(7)) and [r.step for r in trial.resumptions] == [2]
    _fit(tmp_path, Classifier(), max_steps=4, max_epochs=-1, checkpoint=tmp_path / "after 2.ckpt")
    trial.refresh()
    assert trial.steps.tolist() == [0, 1, 2, 3] and trial.state == "finished"
    assert verify(trial.path) == [] and open_group(tmp_path / "runs").names == ("t",)


def test_without_a_checkpoint_numbers_go_on(tmp_path: Path) -> None:
    for _ in range(2):
        _fit(tmp_path, Classifier(), max_steps=2, max_epochs=-1)
    assert open_trial(tmp_path / "runs" / "t").steps.tolist() == [0, 1, 2, 3]


def test_after_a_crash(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        _fit(tmp_path, Crashing())
    assert open_trial(tmp_path / "runs" / "t").state == "failed"
    _fit(tmp_path, Classifier(), max_steps=3, max_epochs=-1)
    assert open_trial(tmp_path / "runs" / "t").state == "finished"


def test_a_checkpoint_that_is_read_after_the_fit_began(tmp_path: Path) -> None:
    """As some strategies do."""
    callback = StepscopeCallback(tmp_path, schedule=Every(1), trial="t", strict=True, resume=True)

    class Late(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            callback.load_state_dict({"next_step": 40})

    make_trainer(callback, Late(), max_steps=2, max_epochs=-1).fit(Classifier(), make_batches(4))
    assert open_trial(tmp_path / "t").steps.tolist() == [40, 41]
