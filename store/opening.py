"""From a place to a writer: a folder, or an address."""

from __future__ import annotations

from pathlib import Path

from stepscope.store.address import is_address
from stepscope.store.claim import IfExists
from stepscope.store.records import Precision, TrialInfo
from stepscope.store.room import Limits
from stepscope.store.writer import TrialWriter


def open_writer(
    place: Path | str,
    info: TrialInfo,
    *,
    if_exists: IfExists = "number",
    resume: bool = False,
    limits: Limits | None = None,
    precision: Precision = "float32",
) -> TrialWriter:
    """The writer of a trial in a group's folder, or at its address (``s3://bucket/runs``).

    Args:
        place: the group's folder or address; made if it is missing.
        info, if_exists, resume, limits, precision: as for ``TrialWriter``.

    Raises:
        StoreError: as ``TrialWriter``; also if something has to be installed for the address.
        OSError: the folder cannot be written to, or the address does not answer.
    """
    if is_address(place):
        from stepscope.store.remote.writer import RemoteTrialWriter

        return RemoteTrialWriter(place, info, if_exists=if_exists, resume=resume, limits=limits, precision=precision)
    return TrialWriter(place, info, if_exists=if_exists, resume=resume, limits=limits, precision=precision)
