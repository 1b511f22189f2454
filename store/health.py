"""What is wrong with a trial's files, as far as that shows without reading every byte."""

from __future__ import annotations

from collections.abc import Mapping

from stepscope.store.block_file import BlockFile
from stepscope.store.errors import StoreError
from stepscope.store.files import FILE_HEADER_SIZE
from stepscope.store.step_index import StepIndex

_DERIVED = "columns"


def find_problems(files: Mapping[str, BlockFile], index: StepIndex, *, is_running: bool) -> list[str]:
    """Damaged, missing and torn parts, in sentences. What a running trial is about to write is no problem."""
    problems = [text for file in files.values() for text in file.problems]
    if is_running:
        return problems
    for name, file in files.items():
        if not file.size() and name != _DERIVED:
            problems.append(f"{file.name}: is missing or empty")
        elif file.size() < FILE_HEADER_SIZE and name != _DERIVED:
            problems.append(f"{file.name}: has only {file.size()} bytes, less than the beginning of a recording")
        elif file.unread():
            problems.append(f"{file.name}: its last {file.unread()} bytes are no whole block")
    return problems + _missing_details(files["detail"], index)


def _missing_details(file: BlockFile, index: StepIndex) -> list[str]:
    """Whether the detail file reaches as far as the steps refer to."""
    if index.last_detail is None or _has_detail(file, index[index.last_detail].detail):
        return []
    size = file.size()
    missing = [number for number in index.numbers.tolist() if index[number].detail >= size]
    reached = [number for number in index.numbers.tolist() if index[number].detail < size]
    last = max(reached, key=lambda number: index[number].detail, default=None)
    if last is not None and not _has_detail(file, index[last].detail):
        missing.append(last)
    which = f"step {min(missing)}" if len(missing) == 1 else f"{len(missing)} steps from step {min(missing)} on"
    return [f"{file.name}: histograms and neurons of {which} are missing"]


def _has_detail(file: BlockFile, offset: int) -> bool:
    try:
        file.block(offset, "detail")
    except StoreError:
        return False
    return True
