"""A broken run is told of in its own terminal while it trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stepscope.integrations.live import LiveDoctor
from stepscope.recorder import Recorder

SCRIPT = """
import sys, time, torch
from stepscope.integrations.live import LiveDoctor
from stepscope.recorder import Every, Recorder

recorder = Recorder(sys.argv[1], trial="sick", schedule=Every(1))
doctor = LiveDoctor(recorder)
model = torch.nn.Linear(4, 1)
recorder.watch(model)
for number in range(12):
    with recorder.step():
        x = torch.ones(3, 4) if number < 4 else torch.full((3, 4), float("nan"))
        model(x).mean().backward()
    time.sleep(0.2)
recorder.close()
doctor.close(wait=20)
"""


def test_findings_appear_in_the_terminal(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "stepscope: ERROR non-finite, since step 4" in done.stderr
    assert done.stderr.count("ERROR non-finite") == 1  # told once


def test_nothing_is_started_for_a_disabled_recorder(tmp_path: Path) -> None:
    doctor = LiveDoctor(Recorder(tmp_path, enabled=False))
    assert not doctor.running
    doctor.close()


def test_it_ends_with_the_trial(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, trial="short")
    doctor = LiveDoctor(recorder)
    assert doctor.running
    recorder.close()
    doctor.close(wait=30)
    assert not doctor.running


def test_a_healthy_trial_is_followed_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stepscope.viewer.cli import main
    from support.synthetic import write_trial

    path = write_trial(tmp_path, trial="quiet", steps=5)
    code = main(["doctor", "--follow", str(path)])
    text = capsys.readouterr().out
    assert code == int("WARNING" in text or "ERROR" in text)
