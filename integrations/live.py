"""Findings in the training's own terminal, while the run is still young."""

from __future__ import annotations

import atexit
import subprocess
import sys
from pathlib import Path

from stepscope.recorder import Recorder


class LiveDoctor:
    """Watches a recorder's trial from a process of its own, and prints what it finds to the terminal.

    >>> recorder = Recorder("runs/mine")                            # doctest: +SKIP
    >>> doctor = LiveDoctor(recorder)                               # doctest: +SKIP

    Training is not touched: the other process reads the files that the recorder writes, at the lowest priority, and
    ends with the trial. Does nothing for a recorder that records nothing.

    Args:
        recorder: an open recorder.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if recorder.path is not None:
            self._process = _start(recorder.path)
            atexit.register(self.close)

    @property
    def running(self) -> bool:
        """Whether the other process is at work."""
        return self._process is not None and self._process.poll() is None

    def close(self, *, wait: float = 5.0) -> None:
        """Let it finish its last look, at most ``wait`` seconds; close the recorder before."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait(timeout=wait)
        atexit.unregister(self.close)


_CODE = """
import os, sys
if hasattr(os, "nice"):
    os.nice(10)
from stepscope.viewer.cli import main
raise SystemExit(main(["doctor", "--follow", sys.argv[1]]))
"""


def _start(path: Path) -> subprocess.Popen[bytes]:
    # Its own session: a Ctrl+C in the terminal is the training's, and the doctor still sees how it ended.
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, str(path)], stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )
