"""A training that is recorded to an address: it is looked at there, and it goes on whatever happens to the address."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Recorder, RecorderWarning
from stepscope.store import StoreError, TrialExistsError, UnreachableError, open_group, open_trial
from stepscope.store.remote import mirror
from stepscope.store.remote.folder import RemoteFolder
from stepscope.viewer.cli import main
from support.remote import eventually, uploaded


def train(recorder: Recorder, steps: int = 8) -> list[float]:
    """A network whose output cannot be negative, though the targets are; returns the losses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder.watch(model, optimizer)
    losses = []
    for _ in range(steps):
        batch = torch.randn(16, 4)
        with recorder.step():
            loss = nn.functional.mse_loss(model(batch), -batch.sum(1, keepdim=True).abs() - 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_training_on_s3_and_its_diagnosis(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Recorder(tmp_path / "runs", trial="bugged", schedule=1) as local:
        expected = train(local)
    with Recorder(s3, trial="bugged", schedule=1, strict=True) as recorder:
        assert train(recorder) == expected
    trial = open_trial(f"{s3}/bugged")
    assert trial.state == "finished" and trial.steps.tolist() == list(range(8)) and trial.problems == ()
    found = [(finding.rule, finding.node) for finding in diagnose(trial)]
    assert found == [(finding.rule, finding.node) for finding in diagnose(open_trial(tmp_path / "runs" / "bugged"))]
    assert found
    code = main(["doctor", f"{s3}/bugged"])
    text = capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "runs" / "bugged")]) == code == 1
    assert capsys.readouterr().out == text and text.startswith("bugged: ")


def test_an_outage_is_one_warning(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(mirror, "INTERVAL", 0.01)
    write = MemoryFileSystem.pipe_file
    with Recorder(memory, trial="one", schedule=1) as recorder:
        train(recorder, 2)
        recorder.flush()
        uploaded(f"{memory}/one", 2)

        def refuse(*args: object, **kwargs: object) -> None:
            raise ConnectionError("the network is down")

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
        with pytest.warns(RecorderWarning, match=r"uploading: UnreachableError: .* the network is down") as told:
            for _ in range(4):
                train(recorder, 1)
                eventually(lambda: told or recorder._output._writer.troubles)  # type: ignore[union-attr]
        assert len(told) == 1 and told[0].filename == __file__
        monkeypatch.setattr(MemoryFileSystem, "pipe_file", write)
    trial = open_trial(f"{memory}/one")
    assert len(trial.steps) == 6 and trial.state == "finished"
    assert any("the network is down" in text for _, text in trial.messages)


def test_an_address_that_does_not_answer_at_the_start(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise UnreachableError(f"{memory} cannot be read (ConnectionError: the network is down)")

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "read", refuse)
        with pytest.warns(RecorderWarning, match="the network is down"), Recorder(memory, trial="one") as recorder:
            train(recorder, 1)
            assert recorder.path is not None and recorder.path.is_dir()
            patch.undo()
    assert open_group(memory).names == ("one",)
    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "read", refuse)
        with pytest.warns(RecorderWarning, match="nothing is recorded"):
            assert not Recorder(memory, trial="one", if_exists="fail").enabled


def test_mistakes_are_told_at_once(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Recorder(memory, trial="one").close()
    with pytest.raises(TrialExistsError, match="memory://runs/sums/one exists"):
        Recorder(memory, trial="one", if_exists="fail")
    with pytest.raises(StoreError, match="Protocol not known: foo"):
        Recorder("foo://runs", trial="one")
    with pytest.raises(StoreError, match="give addresses as text"):
        Recorder(Path("s3://bucket/runs"), trial="one")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(StoreError, match=r'pip install "stepscope\[remote\]"'):
        Recorder(memory, trial="two")


def test_a_disabled_recorder_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    recorder = Recorder("s3://bucket/runs", enabled=False)
    train(recorder, 1)
    assert recorder.path is None and recorder.name == ""


_PROGRAM = """
import sys
from test_recording import train
from stepscope.recorder import Recorder
recorder = Recorder(sys.argv[1], trial="one", schedule=1)
train(recorder, 3)
raise ValueError("it went wrong")
"""


@pytest.mark.slow
def test_a_program_that_does_not_close_its_recorder(s3: str) -> None:
    """Its end is uploaded all the same, and how it ended."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    settings["AWS_ENDPOINT_URL"] = settings["AWS_ENDPOINT_URL"].replace("127.0.0.1", "localhost")
    command = [sys.executable, "-W", "error", "-c", _PROGRAM, s3]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)
    assert done.stderr.endswith("ValueError: it went wrong\n") and "Warning" not in done.stderr
    trial = open_trial(f"{s3}/one")
    assert (trial.state, trial.exception, len(trial.steps)) == ("failed", "ValueError: it went wrong", 3)


def test_resuming_at_an_address(memory: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Recorder(memory, trial="one", schedule=1) as recorder:
            train(recorder, 4)
        with Recorder(memory, trial="one", schedule=1, resume=True) as recorder:
            train(recorder, 2)
    trial = open_trial(f"{memory}/one")
    assert trial.steps.tolist() == [0, 1, 2, 3, 4, 5] and trial.problems == ()
