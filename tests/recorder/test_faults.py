"""A fault at any border inside the recorder: training stays bitwise the same, and one warning names the user's line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from stepscope.recorder import Every, Recorder, RecorderWarning
from stepscope.store import open_trial
from support.faulty_training import USERS_FILE, Injected, train, without_recorder

BORDERS = [
    "assemble.build_graphs",
    "assemble.settle",
    "fast_path.FastPath.leave",
    "job.HostCopy.wait",
    "measurements.Measurements.add",
    "measurements.Measurements.flush",
    "measurements.Measurements.measure_before_change",
    "row_groups.survey",
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
    "backward_shares.BackwardShares._close",
    "backward_shares.BackwardShares.before_backward",
    "gradient_places.GradientPlaces.pop",
    "leaf_gradients.LeafGradients.before_change",
    "unclipped.UnclippedGradients.keep",
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
    assert [warning.category for warning in found] == [RecorderWarning]
    assert Path(found[0].filename) in (USERS_FILE, Path(__file__)), "what fails while writing is told later"
    assert "Injected: injected" in str(found[0].message)
    trial = open_trial(tmp_path / "trial")
    assert trial.state == "finished"
    assert sum("Injected" in text for _, text in trial.messages) == 1
    assert trial.problems == ()


@pytest.mark.filterwarnings("ignore:.*always_call.*silenced:UserWarning")  # torch, of modules inside each other
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
