"""Stepscope's own contenders: the plain step, the unrecorded one, the recorded one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from timing import Contender
from workloads import Workload

from stepscope.recorder import Every, Recorder, Schedule, Steps


class NoProbe:
    """What a workload tells when nobody listens."""

    def record(self, name: str, tensor: torch.Tensor, *, role: str | None = None, type: Any = "calculated") -> None:
        """Do nothing."""

    def iteration(self) -> AbstractContextManager[None]:
        return nullcontext()


def plain(workload: Workload, folder: Path) -> Contender:
    """Without any recorder."""
    training = workload.make()
    return Contender("plain", lambda: training.step(NoProbe()))


def unrecorded(workload: Workload, folder: Path) -> Contender:
    """With a recorder whose schedule never comes up."""
    return _with_recorder("unrecorded", workload, folder, Steps({-1}))


def checked(workload: Workload, folder: Path) -> Contender:
    """The same with the health check, which looks at each of these steps."""
    return _with_recorder("checked", workload, folder, Steps({-1}), health=True)


def ours(workload: Workload, folder: Path, *, is_due: bool = True) -> Contender:
    """``recorded`` or ``unrecorded``, as peers are made."""
    return (recorded if is_due else unrecorded)(workload, folder)


def recorded(workload: Workload, folder: Path) -> Contender:
    """Every step recorded: all modules, parameters, gradients, updates, optimizer states, 5 samples, 256 neurons."""
    return _with_recorder("recorded", workload, folder, Every(1))


def _with_recorder(
    name: str, workload: Workload, folder: Path, schedule: Schedule, *, health: bool = False
) -> Contender:
    training = workload.make()
    recorder = Recorder(folder, trial=name, schedule=schedule, samples=5, health=health)
    recorder.watch(training.modules, training.optimizer)

    def run() -> None:
        with recorder.step() as step:
            training.step(step)

    path = recorder.path
    assert path is not None
    return Contender(name, run, recorder.flush, lambda: size_of(path), recorder.close)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
