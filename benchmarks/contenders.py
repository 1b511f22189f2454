"""Everything that is timed, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ours import checked, plain, recorded, unrecorded
from timing import Contender
from workloads import Workload

CONTENDERS: dict[str, Callable[[Workload, Path], Contender]] = {
    "plain": plain,
    "unrecorded": unrecorded,
    "checked": checked,
    "recorded": recorded,
}
