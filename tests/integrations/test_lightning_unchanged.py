"""Lightning trains bit for bit the same with the callback as without it, also when the recorder has trouble."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pytorch_lightning", reason="needs the extra 'lightning'")

import pytorch_lightning as pl

from stepscope.integrations.lightning import StepscopeCallback
from stepscope.recorder import RecorderWarning
from stepscope.store import TrialWriter, open_trial
from support.lightning_models import Classifier, ManualAccumulation, TwoOptimizers, make_batches, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning")

CASES: dict[str, tuple[Callable[[], pl.LightningModule], dict[str, Any]]] = {
    "automatic": (Classifier, {}),
    "accumulated, clipped": (Classifier, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5}),
    "mixed precision": (Classifier, {"precision": "bf16-mixed"}),
    "manual": (ManualAccumulation, {}),
    "two optimizers": (TwoOptimizers, {}),
}


def train(model: pl.LightningModule, *callbacks: pl.Callback, **options: Any) -> dict[str, Any]:
    """Train for two epochs with validation; returns everything that training leaves behind."""
    trainer = make_trainer(*callbacks, max_epochs=2, **options)
    trainer.fit(model, make_batches(7), make_batches(2) if isinstance(model, Classifier) else None)
    return {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "random": torch.get_rng_state(),
        "gradients": [parameter.grad for parameter in model.parameters()],
        "losses": getattr(model, "losses", None),
        "logged": dict(trainer.logged_metrics),
    }


def assert_equal(one: Any, other: Any) -> None:
    """Bitwise equality of nested containers of tensors and plain values."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


@contextmanager
def told(text: str) -> Iterator[None]:
    """Expect exactly one warning of the recorder; what Lightning warns of is not looked at."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    [warning] = [str(warning.message) for warning in caught if warning.category is RecorderWarning]
    assert text in warning


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.supports("Lightning", "training is not changed, bit for bit")
def test_bitwise_equal(name: str, interval: int, tmp_path: Path) -> None:
    make, options = CASES[name]
    torch.manual_seed(0)
    plain = train(make(), **options)
    torch.manual_seed(0)
    callback = StepscopeCallback(tmp_path, trial="t", schedule=interval, strict=True)
    recorded = train(make(), callback, **options)
    assert_equal(plain, recorded)
    assert len(open_trial(tmp_path / "t").steps) > 1


def test_no_hook_is_left_behind(tmp_path: Path) -> None:
    model = Classifier()
    trainer = make_trainer(StepscopeCallback(tmp_path, trial="t", schedule=1))
    trainer.fit(model, make_batches(2))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(parameter._backward_hooks for parameter in model.parameters())
    [optimizer] = trainer.optimizers
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_recorder_that_cannot_write_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError("no space left on device")

    torch.manual_seed(0)
    plain = train(Classifier())
    torch.manual_seed(0)
    monkeypatch.setattr(TrialWriter, "write_step", full)
    with told("no space left on device"):
        recorded = train(Classifier(), StepscopeCallback(tmp_path, trial="t", schedule=1))
    assert_equal(plain, recorded)


def test_a_folder_that_cannot_be_made_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with told("nothing is recorded"):
        state = train(Classifier(), StepscopeCallback(tmp_path / "file", trial="t"))
    assert len(state["losses"]) == 14
