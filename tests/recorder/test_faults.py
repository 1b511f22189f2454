"""A fault at any border inside the recorder: training stays bitwise the same, and one warning names the user's line."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder, RecorderWarning, Step
from stepscope.store import open_trial
from support.training import Fingerprint, Training, fingerprint, seed_everything

STEPS = 2
MADE_BEFORE = torch.ones(6, 4)
BORDERS = [
    "assemble.build_graphs",
    "assemble.settle",
    "fast_path.FastPath.leave",
    "job.HostCopy.wait",
    "measurements.Measurements.add",
    "measurements.Measurements.flush",
    "measurements.Measurements.measure_before_change",
    "row_groups.measure",
    "row_groups.stack_of",
    "optimizer_watch.OptimizerWatch._take_gradients",
    "optimizer_watch.OptimizerWatch._take_settings",
    "optimizer_watch.OptimizerWatch._take_state",
    "optimizer_watch.OptimizerWatch._take_updates",
    "optimizer_watch.OptimizerWatch.finish",
    "optimizer_watch.OptimizerWatch.keep_before",
    "optimizer_watch.OptimizerWatch.start",
    "optimizer_watch.states_of",
    "output.TrialOutput.network",
    "output.TrialOutput.step",
    "output.TrialWriter.write_network",
    "output.TrialWriter.write_scalars",
    "output.TrialWriter.write_step",
    "output.assemble",
    "recorder.StepSession.__init__",
    "recorder.StepSession.finish",
    "recorder.StepSession.start",
    "recorder.OptimizerCurves.points",
    "recorder.make_point",
    "recorder.network",
    "recorder.omissions",
    "recorder.network",
    "schedule.Every.wants",
    "batch.BatchSize.find",
    "register.Register.add",
    "session.StepSession.before_backward",
    "session.StepSession.before_change",
    "session.StepSession.measure_later",
    "session.StepSession.on_arguments",
    "gradient_watch.GradientWatch._add",
    "session.StepSession.open_loss_group",
    "session.StepSession.record",
    "module_watch.tensors_with_roles",
    "session.to_host",
    "register.user_place",
    "statistics.count_bins",
    "targets.TargetFinder.look",
    "trace.Trace.add",
    "trace.Trace.change",
    "trace.Trace.name",
    "trace.Trace.node",
    "trace.Trace.put",
    "tracer.tensors_in",
    "tracer.user_place",
    "watched.Watched.names",
]


CONSTANT = torch.ones(6, 2)


class Injected(RuntimeError):
    """The fault that the tests inject."""


def make() -> Training:
    """Something of everything: dropout, in-place work, fused evaluation, iterations, loss groups, a hooked module."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 2), nn.BatchNorm1d(2))
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return Training({"model": model, "encoder": encoder}, {"optimizer": optimizer}, lambda number: [])


def train_once(training: Training, step: Step, recorder: Recorder | None) -> list[torch.Tensor]:
    model, optimizer = training.models["model"], training.optimizers["optimizer"]
    optimizer.zero_grad()
    losses = []
    for _ in range(2):
        with step.iteration():
            x = torch.randn(6, 4)
            with torch.no_grad():
                x = x + training.models["encoder"](x[None])[0]
            out = model(x)
            step.record("out", out)
            step.record("constant", CONSTANT)
            step.record("made before", MADE_BEFORE)
            losses.append(F.cross_entropy(out, torch.randint(2, (6,))))
            with step.loss_group("fit"):
                losses[-1].backward()
    if recorder is not None:
        recorder.scalar("loss", losses[-1])
    optimizer.step()
    return losses


@functools.lru_cache(maxsize=1)
def without_recorder(folder: Path) -> list[Fingerprint]:
    with Recorder(folder, enabled=False) as recorder:
        return train(recorder, watch=False)


def train(recorder: Recorder, *, watch: bool = True) -> list[Fingerprint]:
    seed_everything()
    training = make()
    if watch:
        recorder.watch(training.models, training.optimizers)
    found = []
    for _ in range(STEPS):
        with recorder.step() as step:
            losses = train_once(training, step, recorder)
        found.append(fingerprint(training, losses))
    return found


def inject(monkeypatch: pytest.MonkeyPatch, border: str) -> list[int]:
    """Let a function of the recorder fail whenever it is called; the list counts the calls."""
    calls: list[int] = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise Injected("injected")

    monkeypatch.setattr(f"stepscope.recorder.{border}", fail)
    return calls


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.supports("Training is not stopped", "a fault anywhere inside the recorder: one warning, at your line")
def test_a_fault_at_a_border(border: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = without_recorder(tmp_path)
    calls = inject(monkeypatch, border)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder:
            assert train(recorder) == expected
    assert calls
    assert [(warning.category, Path(warning.filename)) for warning in found] == [(RecorderWarning, Path(__file__))]
    assert "Injected: injected" in str(found[0].message)
    trial = open_trial(tmp_path / "trial")
    assert trial.state == "finished"
    assert sum("Injected" in text for _, text in trial.messages) == 1
    assert trial.problems == ()


@pytest.mark.parametrize("border", BORDERS)
def test_strict_recorders_raise_it(border: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, border)
    with (
        pytest.raises(Injected),
        Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder,
    ):
        train(recorder)


def test_a_fault_of_one_tensor_costs_that_tensor_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stepscope.recorder import row_groups

    healthy = row_groups.stack_of

    def fails_for_one_shape(tensors: list[torch.Tensor], batch_dim: int | None) -> torch.Tensor:
        if tensors[0].shape == (6, 3):
            raise Injected("injected")
        return healthy(tensors, batch_dim)

    monkeypatch.setattr(row_groups, "stack_of", fails_for_one_shape)
    with (
        pytest.warns(RecorderWarning, match="Injected"),
        Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder,
        recorder.step() as step,
    ):
        step.record("strange", torch.ones(6, 3))
        step.record("plain", torch.ones(6, 4))
    rows = open_trial(tmp_path / "trial").step(0).rows()
    assert [row.info.node for row in rows] == ["plain"]


@pytest.mark.supports("Training is not stopped", "warnings that are turned into errors")
def test_warnings_that_are_errors_do_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, "session.StepSession.record")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Recorder(tmp_path, trial="trial", schedule=Every(1)) as recorder, recorder.step() as step:
            step.record("x", torch.ones(2))
    assert "Injected" in open_trial(tmp_path / "trial").messages[0][1]
