"""The recorder: two lines in a training loop, and every step that matters is on disk.

>>> from stepscope.recorder import Recorder, Every
>>> recorder = Recorder("runs/sums", trial="bugged", schedule=Every(100))   # doctest: +SKIP
>>> recorder.watch(model, optimizer)                                         # doctest: +SKIP
"""

from stepscope.recorder.cost import Cost
from stepscope.recorder.errors import (
    BatchDimensionError,
    DuplicateNameError,
    RecorderClosedError,
    RecorderError,
    RecorderWarning,
    SelectionError,
    StepError,
    UnknownModuleError,
)
from stepscope.recorder.probes import Probed, probe
from stepscope.recorder.recorder import Recorder
from stepscope.recorder.schedule import Backoff, Budget, Every, PerKind, Schedule, Steps, Thinned
from stepscope.recorder.step import Step

__all__ = [
    "Backoff",
    "BatchDimensionError",
    "Budget",
    "Cost",
    "DuplicateNameError",
    "Every",
    "PerKind",
    "Probed",
    "Recorder",
    "RecorderClosedError",
    "RecorderError",
    "RecorderWarning",
    "Schedule",
    "SelectionError",
    "Step",
    "StepError",
    "Steps",
    "Thinned",
    "UnknownModuleError",
    "probe",
]
