"""Where a recording goes on: what a user may say of it, and what is said of a damaged one."""

from __future__ import annotations

from stepscope.recorder.errors import RecorderError, StepError
from stepscope.recorder.guard import Faults
from stepscope.store import TrialWriter


def check_start(trial: str | None, resume: object, start_step: object) -> None:
    """Raise ``RecorderError`` for arguments of a recorder that do not say where to go on."""
    if not isinstance(resume, bool):
        raise RecorderError(f"resume={resume!r}: expected True or False; start_step=... says from which step on")
    if resume and trial is None:
        raise RecorderError("resume=True: expected the name of the trial to go on with, such as trial='bugged'")
    if start_step is not None and not _is_number(start_step):
        raise RecorderError(f"start_step={start_step!r}: expected the number of a step, 0 or more")


def check_step(call: str, step: object) -> None:
    """Raise ``StepError`` for what is no number of a step."""
    if not _is_number(step):
        raise StepError(f"{call}({step!r}): expected the number of a step, 0 or more")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def warn_of_damage(writer: TrialWriter, faults: Faults) -> None:
    """Warn, if the trial that is gone on with is damaged; the writer has noted it in the recording."""
    if writer.earlier is not None and writer.earlier.problems:
        text = "; ".join(writer.earlier.problems[:3])
        faults.warn(f"the trial {writer.name!r} that is resumed is damaged ({text}); what can be read is kept")
