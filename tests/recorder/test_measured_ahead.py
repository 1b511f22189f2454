"""Large tensors that nobody else refers to any more are measured while the step goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import nn

from stepscope.recorder import Every, Recorder, measurements
from stepscope.recorder.background import _WAITING_JOBS, Background
from stepscope.recorder.cost import CostMeter
from stepscope.recorder.job import HostCopy
from stepscope.recorder.measurements import Measurements
from stepscope.recorder.memory import Holding, Memory, Rank
from stepscope.recorder.named import Named
from stepscope.recorder.small_tensors import LARGEST
from stepscope.store import Step, open_trial

Works = list[Callable[[], object]]


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be is measured ahead, unless it is so small that it is measured with others."""
    monkeypatch.setattr(measurements, "_AHEAD_BYTES", 1)
    monkeypatch.setattr(measurements, "_WORTH_AHEAD", LARGEST)


def train(folder: Path, trial: str, steps: int = 3) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 640), nn.LayerNorm(640), nn.ReLU(), nn.Linear(640, 64), nn.ReLU(inplace=True))
    head = nn.Linear(64, 4)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=0.01)
    with Recorder(folder, trial=trial, schedule=Every(1), strict=True) as recorder:
        recorder.watch({"body": model, "head": head}, optimizer)
        for _ in range(steps):
            with recorder.step():
                loss = nn.functional.cross_entropy(head(model(torch.randn(64, 64))), torch.randint(4, (64,)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def found_in(path: Path, number: int) -> dict[tuple[object, ...], list[object]]:
    """Everything that a step says of its tensors, by what they are called."""
    step = open_trial(path).step(number)
    found: dict[tuple[object, ...], list[object]] = {}
    for row in step.rows():
        neurons = step.detail.neurons(row.index)
        found[row.info.node, row.info.role, row.info.iteration, row.info.quantity] = [
            *(array[row.index].tolist() for array in (step.statistics(), step.aggregates(), step.per_sample())),
            step.detail.histogram(row.index).tolist(),
            None if neurons is None else neurons.samples.tolist(),
        ]
    return found


def test_the_record_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, "late")
    works = Works()
    ahead = Recorder._work_ahead

    def count(recorder: Recorder, work: Callable[[], object]) -> None:
        works.append(work)
        ahead(recorder, work)

    monkeypatch.setattr(measurements, "_AHEAD_BYTES", 1)
    monkeypatch.setattr(measurements, "_WORTH_AHEAD", LARGEST)
    monkeypatch.setattr(Recorder, "_work_ahead", count)
    train(tmp_path, "early")
    assert len(works) > 20
    for number in range(3):
        late, early = found_in(tmp_path / "late", number), found_in(tmp_path / "early", number)
        assert len(late) > 30 and early.keys() == late.keys()
        for key, expected in late.items():
            assert str(early[key]) == str(expected), key  # as text, since NaN stands for what there is none of


def measurements_of(sizes: int, memory: Memory, works: Works) -> tuple[Measurements, list[torch.Tensor]]:
    """Tensors of 4 MiB that wait to be measured, and the tensors."""
    waiting = Measurements(3, Holding(memory), works.append)
    tensors = [torch.randn(1 << 20) for _ in range(sizes)]
    for place, tensor in enumerate(tensors):
        add(waiting, tensor, f"x{place}")
    return waiting, tensors


def add(waiting: Measurements, tensor: torch.Tensor, name: str) -> None:
    named = Named(name, "tensor", 0, "calculated", torch.float32, torch.device("cpu"), None)
    waiting.add(tensor, named, "value", batch_dim=None, neuron_limit=0)


def test_what_others_refer_to_waits_until_they_let_go() -> None:
    memory, works = Memory(64 << 20), Works()
    waiting, tensors = measurements_of(12, memory, works)
    assert works == [] and memory.held == 0  # all of it is the user's, too
    means = [tensor.double().mean().item() for tensor in tensors]
    tensors.clear()
    add(waiting, torch.zeros(5 << 20), "last")
    assert len(works) == 11 and memory.held > 44 << 20  # the limit leaves room for what was measured
    for work in works:
        work()
    assert memory.held < 1 << 20
    waiting.flush()
    rows = {group.rows[0][0].named.node: group for group in HostCopy(waiting.done).wait()}
    assert [rows[f"x{place}"].results.overall[0, 0].item() for place in range(12)] == pytest.approx(means, abs=1e-7)
    assert rows["last"].results.overall[0, 7] == 1  # zeros only


def test_a_change_that_nobody_saw_is_told_as_ever() -> None:
    memory, works = Memory(64 << 20), Works()
    waiting, tensors = measurements_of(8, memory, works)
    tensors[3].add_(1)
    waiting.measure_before_change(tensors[4])
    tensors[4].add_(1)
    expected = tensors[5].double().mean().item()
    tensors.clear()
    add(waiting, torch.zeros(2 << 20), "last")
    assert [named.node for named, _ in waiting.lost] == ["x3"]
    waiting.flush()
    rows = {group.rows[0][0].named.node: group for group in HostCopy(waiting.done).wait()}
    assert rows.keys() == {"x0", "x1", "x2", "x4", "x5", "x6", "x7", "last"}
    assert rows["x5"].results.overall[0, 0].item() == pytest.approx(expected, abs=1e-7)
    assert rows["x4"].results.overall[0, 0].abs() < 0.01  # as it was before


def test_memory_of_a_step_that_is_dropped_is_given_back_once() -> None:
    memory, works = Memory(64 << 20), Works()
    waiting, tensors = measurements_of(8, memory, works)
    tensors.clear()
    add(waiting, torch.zeros(1 << 20), "last")
    assert works and memory.take(1 << 20, Rank.TENSORS)  # somebody else's
    waiting.held.release()
    for work in works:
        work()
    assert memory.held == 1 << 20


def decided_late(
    folder: Path, model: nn.Module, inputs: torch.Tensor, labels: list[str], *, max_memory: int = 256 << 20
) -> Step:
    """A step of which two samples are kept, and whose kind and labels are known when its work is done."""
    with Recorder(folder, trial="trial", schedule=Every(1), samples=2, max_memory=max_memory) as recorder:
        recorder.watch(model)
        with recorder.step(kind=None) as step:
            model(inputs).square().mean().backward()
            step.decide("train", labels)
    return open_trial(folder / "trial").step(0)


@pytest.mark.usefixtures("early")
def test_samples_are_chosen_before_any_is_measured(tmp_path: Path) -> None:
    """Of a step whose kind is decided late, nothing with a batch is measured ahead."""
    model, inputs = nn.Sequential(nn.LayerNorm(8000), nn.Tanh(), nn.LayerNorm(8000)), torch.randn(6, 8000)
    recorded = decided_late(tmp_path, model, inputs, ["a", "a", "a", "a", "b", "b"])
    assert (recorded.samples, recorded.categories) == ((0, 4), ("a", "b"))
    means = recorded.tensor("model.1").per_sample[:, 0]
    assert means == pytest.approx(model[:2](inputs)[[0, 4]].mean(1).tolist(), abs=1e-6)


def test_samples_that_were_measured_stay(tmp_path: Path) -> None:
    """With so little memory, they are measured before anybody says what they are: the labels are those of the first."""
    model, inputs = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 256)), torch.randn(512, 256)
    recorded = decided_late(tmp_path, model, inputs, ["a"] * 500 + ["b"] * 12, max_memory=1 << 20)
    assert (recorded.samples, recorded.categories) == ((0, 1), ("a", "a"))


def test_there_is_a_label_for_each_kept_sample(tmp_path: Path) -> None:
    """Also where the user gave fewer labels than samples, when it was too late to choose."""
    model, inputs = nn.Sequential(nn.Linear(256, 512), nn.Tanh(), nn.Linear(512, 256)), torch.randn(600, 256)
    recorded = decided_late(tmp_path, model, inputs, ["a"], max_memory=1 << 20)
    assert (recorded.samples, recorded.categories) == ((0, 1), ("a", ""))


def test_training_does_not_wait_for_parts() -> None:
    """Only whole steps count when training waits for the writer."""
    faults: list[Exception] = []
    background, gate = Background(faults.append), Event()
    background.submit(gate.wait)
    for _ in range(2 * _WAITING_JOBS):
        background.submit(lambda: None, part=True)
    assert background.wait_for_others(5) < 1
    for _ in range(_WAITING_JOBS):
        background.submit(lambda: None)
    assert background.wait_for_others(0.01) >= 0.01
    gate.set()
    background.close()
    assert faults == []


@pytest.mark.usefixtures("early")
def test_what_it_takes_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``cost()`` counts what the writer's thread does ahead of a step's end."""
    monkeypatch.setattr(Recorder, "_work_ahead", lambda recorder, work: recorder._output.ahead(lambda: _slow(work)))  # type: ignore[union-attr]
    written: list[float] = []
    monkeypatch.setattr(CostMeter, "step_written", lambda meter, kind, seconds: written.append(seconds))
    train(tmp_path, "early", steps=1)
    assert len(written) == 1 and written[0] > 0.08


def _slow(work: Callable[[], object]) -> None:
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass
    work()
