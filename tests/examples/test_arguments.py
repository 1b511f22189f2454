"""The command line and the progress line that the examples share."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from stepscope.examples.arguments import parse
from stepscope.examples.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_defaults() -> None:
    options = parse([], "x", out="runs/x", steps=7)
    assert (options.out, options.steps) == (Path("runs/x"), 7)


def test_given() -> None:
    options = parse(["--out", "elsewhere", "--steps", "3"], "x", out="runs/x", steps=7)
    assert (options.out, options.steps) == (Path("elsewhere"), 3)


@pytest.mark.parametrize("steps", ["0", "-1", "many", "1.5"])
def test_steps_that_make_no_sense(steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([f"--steps={steps}"], "x", out="runs/x", steps=7)
    assert f"'{steps}': expected a whole number of steps, 1 or more" in capsys.readouterr().err


def test_progress_into_a_file_is_one_line() -> None:
    stream = io.StringIO()
    assert list(progress(3, "train", stream)) == [0, 1, 2]
    assert stream.getvalue() == "train [####################] 3/3, 0 s\n"


def test_progress_on_a_terminal_redraws_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    stream = Terminal()
    list(progress(2, "train", stream))
    assert stream.getvalue() == "\rtrain [##########          ] 1/2, 1 s\rtrain [####################] 2/2, 2 s\n"
