"""What waits for the writer has a limit: training waits a little, then a step loses its detail, then itself."""

from __future__ import annotations

import ctypes
import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stepscope.recorder import Every, Recorder, RecorderError, RecorderWarning
from stepscope.recorder.memory import Holding, Memory, Rank
from stepscope.recorder.sizes import as_bytes, as_text
from stepscope.store import open_trial, verify
from support.slow_disk import SlowDisk, slow_disk

MIB = 1 << 20


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    with slow_disk() as disk:
        yield disk


def recorder_with(folder: Path, memory: int, *, patience: float = 0.001, trial: str = "trial") -> Recorder:
    recorder = Recorder(folder, trial=trial, schedule=Every(1), max_memory=memory)
    recorder._memory.patience = patience
    return recorder


def train(recorder: Recorder, steps: int, *, width: int = 64) -> None:
    """Each step holds some 35 kB for width 64, and computes the same whatever is recorded."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder.watch(model, optimizer)
    for _ in range(steps):
        with recorder.step():
            loss = model(torch.randn(8, width)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_spectral_norms_have_room_before_what_can_be_measured_at_once(tmp_path: Path) -> None:
    """The weights take 0.3 of 1 MiB, all tensors of the step 4 MiB."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 16))
    with recorder_with(tmp_path, MIB) as recorder:
        recorder.watch(model, torch.optim.Adam(model.parameters()))
        for _ in range(3):
            with recorder.step():
                model(torch.randn(512, 256)).square().mean().backward()
            recorder.flush()
    trial = open_trial(tmp_path / "trial")
    for name, layer in (("0", model[0]), ("2", model[2])):
        expected = torch.linalg.matrix_norm(layer.weight.detach(), 2).item()
        assert trial.series(f"model.{name}.weight", statistic="spectral_norm").values == pytest.approx([expected] * 3)


def test_what_is_measured_at_once_is_what_an_optimizer_used(tmp_path: Path) -> None:
    """A gradient too large to be copied for others, and one that finds room, are the same numbers."""
    found = []
    for memory in (MIB, 256 * MIB):
        torch.manual_seed(0)
        model = nn.Linear(1024, 600)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with recorder_with(tmp_path, memory, trial=str(memory)) as recorder:
            recorder.watch(model, optimizer)
            with recorder.step():
                model(torch.randn(4, 1024)).square().mean().backward()
                gradient = model.weight.grad
                optimizer.step()
                gradient.zero_()
        step = open_trial(tmp_path / str(memory)).step(0)
        tensors = (step.tensor("model.weight", quantity=quantity) for quantity in ("gradient", "update"))
        found.append([tensor.statistics[name] for tensor in tensors for name in ("mean", "std", "norm")])
    assert found[0] == found[1] and found[0][2] > 0
    assert found[0][5] == pytest.approx(0.1 * found[0][2])


@pytest.mark.supports("It is cheap, and says what it costs", "what waits for the writer is bounded: `max_memory`")
@pytest.mark.filterwarnings("ignore::stepscope.recorder.RecorderWarning")
def test_a_disk_that_does_not_move(disk: SlowDisk, tmp_path: Path) -> None:
    recorder = recorder_with(tmp_path, MIB)
    train(recorder, 1)
    recorder.flush()
    disk.moves.clear()
    train(recorder, 60)
    memory = recorder._memory
    assert 0.9 * MIB < memory.held <= memory.peak <= MIB
    assert 0 < memory.waited < 60 * 0.05
    disk.moves.set()
    recorder.flush()
    train(recorder, 1)
    recorder.close()
    assert memory.held == 0

    assert recorder.path is not None and verify(recorder.path) == []
    trial = open_trial(recorder.path)
    states = [trial.step(number).detail_state for number in trial.steps.tolist()]
    changes = [state for state, before in zip(states, ["", *states], strict=False) if state != before]
    assert changes == ["full", "dropped", "full"]  # first detail gave way, at last whole steps
    skipped = 62 - len(states)
    assert skipped > 10
    last = int(trial.steps[-2])
    told = [text for _, text in trial.messages]
    assert any(f"{skipped} steps from {last + 1} to 60 were not recorded: the writer was behind" in t for t in told)


@pytest.mark.filterwarnings("ignore::stepscope.recorder.RecorderWarning")
def test_statistics_of_a_step_without_detail_are_those_of_its_twin(disk: SlowDisk, tmp_path: Path) -> None:
    recorder, twin = recorder_with(tmp_path, MIB), recorder_with(tmp_path, 256 * MIB, trial="twin")
    train(twin, 40)
    disk.moves.clear()
    train(recorder, 40)
    disk.moves.set()
    recorder.close()
    twin.close()
    found = open_trial(tmp_path / "trial")
    dropped = [number for number in found.steps.tolist() if found.step(number).detail_state == "dropped"]
    step, own = found.step(dropped[-1]), open_trial(tmp_path / "twin").step(dropped[-1])
    spectral = -1  # is left out if the matrix has no room
    assert np.array_equal(step.statistics()[:, :spectral], own.statistics()[:, :spectral], equal_nan=True)
    assert np.array_equal(step.aggregates(), own.aggregates(), equal_nan=True)
    tensor, whole = step.tensor("model.0"), own.tensor("model.0")
    assert np.array_equal(tensor.histogram.counts, whole.histogram.counts)
    assert tensor.neurons is None and whole.neurons is not None
    assert np.isnan(tensor.per_sample).all()
    assert "neurons and samples of" in tensor.left_out and tensor.left_out == step.left_out
    assert whole.left_out == "" == own.left_out


def test_one_warning_for_each_cause(disk: SlowDisk, tmp_path: Path) -> None:
    recorder = recorder_with(tmp_path, MIB)
    disk.moves.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recorder, 80)
        for number in range(3000):
            recorder.scalar("loss", number)
            recorder.note("a long note" * 100)
    texts = [str(warning.message) for warning in caught if issubclass(warning.category, RecorderWarning)]
    assert [text.partition("): ")[2].partition(" ")[0] for text in texts] == ["from", "step", "points"]
    assert "1 MiB of memory (max_memory)" in texts[0]
    disk.moves.set()
    recorder.close()


def test_a_slow_disk_slows_training_down_a_little(disk: SlowDisk, tmp_path: Path) -> None:
    recorder = recorder_with(tmp_path, 256 * MIB, patience=0.02)
    disk.seconds = 0.01
    train(recorder, 30)
    assert 0 < recorder.cost().waiting < 30 * 0.05
    disk.seconds = 0
    recorder.close()
    trial = open_trial(tmp_path / "trial")
    assert len(trial.steps) == 30  # all of it had room
    assert {trial.step(number).detail_state for number in range(30)} == {"full"}


def test_a_step_larger_than_the_memory_keeps_its_detail(tmp_path: Path) -> None:
    with recorder_with(tmp_path, MIB) as recorder, recorder.step() as step:
        step.record("huge", torch.ones(500, 2000))  # 4 MB
        step.record("small", torch.ones(4, 3))
    assert recorder._memory.peak <= MIB and recorder._memory.waited < 0.05
    found = open_trial(tmp_path / "trial").step(0)
    assert found.detail_state == "full" and found.tensor("huge").statistics["mean"] == pytest.approx(1)
    neurons = found.tensor("huge").neurons
    assert neurons is not None and neurons.samples.shape == (5, 256)


def test_a_fault_in_the_middle_of_a_step_gives_the_memory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = recorder_with(tmp_path, MIB)

    def fail(*_: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch, pytest.warns(RecorderWarning, match="a bug"):
        patch.setattr("stepscope.recorder.session.to_host", fail)
        train(recorder, 1)
    recorder.flush()
    assert recorder._memory.held == 0
    with monkeypatch.context() as patch:
        patch.setattr("stepscope.recorder.output.assemble", fail)
        train(recorder, 1)
        recorder.flush()
    assert recorder._memory.held == 0
    recorder.close()
    assert open_trial(tmp_path / "trial").steps.tolist() == []


@pytest.mark.exhaustive
def test_ten_thousand_steps_leave_the_process_flat(tmp_path: Path) -> None:
    recorder = recorder_with(tmp_path, 8 * MIB, patience=0.2)
    sizes = []
    for _ in range(10):
        train(recorder, 1000)
        recorder.flush()
        sizes.append(resident())
    recorder.close()
    assert len(open_trial(tmp_path / "trial").steps) == 10_000
    assert recorder._memory.peak <= 8 * MIB
    assert sizes[-1] - sizes[1] < 24 * MIB, sizes


@pytest.mark.filterwarnings("ignore::stepscope.recorder.RecorderWarning")
def test_the_process_stays_small_beside_a_disk_that_does_not_move(disk: SlowDisk, tmp_path: Path) -> None:
    recorder = recorder_with(tmp_path, 8 * MIB)
    train(recorder, 3, width=1024)  # some 30 MB a step
    recorder.flush()
    disk.moves.clear()
    before = resident()
    train(recorder, 20, width=1024)
    assert recorder._memory.peak <= 8 * MIB
    assert resident() - before < 64 * MIB  # of 600 MB
    disk.moves.set()
    recorder.close()


def resident() -> int:
    """Bytes of memory that the process has now, without those that malloc keeps to use them again."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------------- the parts


def test_ranks_leave_room_for_one_another() -> None:
    memory = Memory(100)
    assert memory.take(75, Rank.TENSORS) and not memory.take(1, Rank.TENSORS)
    assert memory.take(15, Rank.DETAIL) and not memory.take(1, Rank.DETAIL)
    assert memory.take(10, Rank.STATISTICS) and not memory.take(1, Rank.STATISTICS)
    assert (memory.held, memory.peak) == (100, 100)
    memory.give_back(100)
    assert (memory.held, memory.peak) == (0, 100)


def test_waiting_only_for_what_others_hold() -> None:
    memory = Memory(100, patience=0.01)
    own = Holding(memory)
    assert own.take(70, Rank.TENSORS) and not own.take(70, Rank.TENSORS)
    assert memory.waited == 0  # waiting for itself would be in vain
    other = Holding(memory)
    assert not other.take(70, Rank.TENSORS)
    assert memory.waited >= 0.01 and other.patience <= 0
    own.release()
    assert other.take(70, Rank.TENSORS)
    del other
    assert memory.held == 0


@pytest.mark.parametrize(
    ("given", "size"),
    [(2**21, 2**21), ("2MiB", 2**21), ("1.5 GB", 1_500_000_000), (" 3000 kb ", 3_000_000), ("1048576", MIB)],
)
def test_sizes(given: int | str, size: int) -> None:
    assert as_bytes(given, "max_memory", least=MIB) == size


@pytest.mark.parametrize("given", ["much", "12 parsecs", "-5MB", "", True, 1.5, None])
def test_sizes_that_make_no_sense(given: object, tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=r"max_memory=.*expected a number of bytes, such as .* '256MiB' or '2GB'"):
        Recorder(tmp_path, max_memory=given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0, -1, "1kB", 2**20 - 1])
def test_sizes_that_are_too_small(given: int | str, tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=r"expected at least 1 MiB"):
        Recorder(tmp_path, max_memory=given)


@pytest.mark.parametrize(
    ("size", "text"), [(2**28, "256 MiB"), (2 * 10**9, "2 GB"), (1234, "1,234 bytes"), (0, "0 bytes")]
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert as_text(size) == text
