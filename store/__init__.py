"""The store: how recordings are kept in files, and how they are read. numpy only; see FORMAT.md.

>>> from stepscope.store import open_trial
>>> trial = open_trial("runs/sums/bugged")              # doctest: +SKIP
>>> trial.steps, trial.nodes                            # doctest: +SKIP
"""

from stepscope.store.errors import (
    DamagedError,
    NotARecordingError,
    StoreError,
    TrialExistsError,
    TrialInUseError,
    UnknownNameError,
    UnreachableError,
)
from stepscope.store.group import Group, open_group
from stepscope.store.histogram import Histogram
from stepscope.store.journal import Message
from stepscope.store.nodes import Node
from stepscope.store.opening import open_writer
from stepscope.store.remote.transfer import download, upload
from stepscope.store.repair import Repair, repair
from stepscope.store.resumption import Resumption
from stepscope.store.series import Series
from stepscope.store.step import Step
from stepscope.store.tensor import Row, Tensor
from stepscope.store.trial import Trial, open_trial
from stepscope.store.verify import verify
from stepscope.store.writer import TrialWriter

__all__ = [
    "DamagedError",
    "Group",
    "Histogram",
    "Message",
    "Node",
    "NotARecordingError",
    "Repair",
    "Resumption",
    "Row",
    "Series",
    "Step",
    "StoreError",
    "Tensor",
    "Trial",
    "TrialExistsError",
    "TrialInUseError",
    "TrialWriter",
    "UnknownNameError",
    "UnreachableError",
    "download",
    "open_group",
    "open_trial",
    "open_writer",
    "repair",
    "upload",
    "verify",
]
