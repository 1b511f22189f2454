"""Mutated recordings: no crash, no hang, no blow-up of memory, and no file is read outside of the folder."""

from __future__ import annotations

import random
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepscope.store import (
    DamagedError,
    NotARecordingError,
    StoreError,
    Trial,
    codec,
    frames,
    open_group,
    open_trial,
    verify,
)
from stepscope.store.blocks import encode_block
from stepscope.store.errors import damaged_unless
from stepscope.store.files import FILE_NAMES, FORMAT_VERSION, file_header, file_path
from stepscope.store.frames import FrameList, decompress
from stepscope.store.layout import Layout
from stepscope.store.nodes import collect_nodes
from stepscope.store.records import TrialInfo
from support import golden, mutate
from support.mini_reader import read_file

GOLDEN = golden.FOLDER / f"v{FORMAT_VERSION}" / "ended"
MOST_SECONDS = 20
MOST_MEMORY = 400  # MB more than before: far less than what the lies promise

_opened: list[str] | None = None


def _watch_opens(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and threading.current_thread() is threading.main_thread():
        _opened.append(str(arguments[0]))


sys.addaudithook(_watch_opens)


@contextmanager
def _only_inside(folder: Path) -> Iterator[None]:
    """No file is opened outside of the folder meanwhile (but Python's own, and the kernel's list of processes).

    Only by this thread: a recorder that another test let fail may still give signs of life from its own.
    """
    global _opened
    _opened = []
    try:
        yield
        allowed = (str(folder), "/proc/", sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
        assert [path for path in _opened if not path.startswith(allowed)] == []
    finally:
        _opened = None


def _read_everything(folder: Path) -> None:
    """Whatever a reader may ask; only the store's own errors may come of it."""
    try:
        trial = open_trial(folder)
    except NotARecordingError:
        return
    trial.refresh()
    assert trial.state in ("finished", "failed") and isinstance(trial.exception, str)
    assert isinstance(trial.info, TrialInfo) and trial.bytes >= 0 and trial.last_change > 0
    assert all(isinstance(text, str) for text in trial.problems)
    for group, name in trial.scalar_names:
        trial.scalars(name, group=group)
    for node in trial.nodes[:: max(len(trial.nodes) // 5, 1)]:
        for quantity in node.quantities:
            _try(trial, "series", node.name, quantity=quantity)
            _try(trial, "series", node.name, quantity=quantity, sample=1, statistic="std")
    _try(trial, "table", quantities=trial.quantities[:1], statistics=["mean"])
    assert all(isinstance(text, str) for text in verify(folder))
    assert len(open_group(folder)) == 1


def _try(trial: Trial, method: str, *arguments: Any, **named: Any) -> None:
    with suppress(StoreError):
        getattr(trial, method)(*arguments, **named)


def _mutate_and_read(group: Path, seed: int) -> None:
    choose = random.Random(seed)
    name = choose.choice(FILE_NAMES)
    # The other one is smaller, but has no columns.
    folder = group / ("ended" if name == "columns" else "died")
    original = file_path(folder, name).read_bytes()
    file_path(folder, name).write_bytes(mutate.mutate(original, choose))
    start = time.monotonic()
    _read_everything(folder)
    assert time.monotonic() - start < MOST_SECONDS
    file_path(folder, name).write_bytes(original)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def group(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN.parent, tmp_path / "group"))


@pytest.fixture
def folder(group: Path) -> Path:
    return group / GOLDEN.name


@pytest.mark.parametrize("start", range(0, 80, 20))
def test_mutations(group: Path, start: int) -> None:
    before = _memory()
    with _only_inside(group):
        for seed in range(start, start + 20):
            _mutate_and_read(group, seed)
    assert _memory() - before < MOST_MEMORY


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", range(1000, 11_000, 500))
def test_ten_thousand_mutations(group: Path, start: int) -> None:
    before = _memory()
    with _only_inside(group):
        for seed in range(start, start + 500):
            _mutate_and_read(group, seed)
    assert _memory() - before < MOST_MEMORY


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(FILE_NAMES), data=st.binary(max_size=200), has_header=st.booleans())
def test_any_bytes_as_a_file(folder: Path, name: str, data: bytes, has_header: bool) -> None:
    original = file_path(GOLDEN, name).read_bytes()
    file_path(folder, name).write_bytes((file_header() if has_header else b"") + data)
    _read_everything(folder)
    file_path(folder, name).write_bytes(original)


@pytest.mark.parametrize(
    ("dtype", "shape", "length"),
    [
        ("<f8", [10 * 2**30 // 8], 10),
        ("<f8", [10 * 2**30 // 8], 10 * 2**30),
        ("<f8", [2**31, 2**31], 10),
        ("<f8", [-1], 10),
        ("<f8", [0, 2**62], 10),
        ("<V1000000000", [8], 10),
        ("|O", [1], 10),
    ],
)
def test_a_header_that_promises_gigabytes(folder: Path, dtype: str, shape: list[int], length: int) -> None:
    header = {
        "number": 5, "kind": "train", "time": 0.0, "seconds": 0.0, "graphs": [], "samples": [], "categories": [],
        "layout": _some_layout(), "detail": 16, "arrays": [["statistics", dtype, shape, 0, length, False]],
    }  # fmt: skip
    ballast = FrameList()
    with open(file_path(folder, "steps"), "ab") as file:
        ballast.add("x", np.zeros(2**24))
        file.write(encode_block("step", header, ballast.frames))
    before = _memory()
    trial = open_trial(folder)
    with pytest.raises(StoreError):
        trial.step(5).statistics()
    assert any("step 5" in text for text in verify(folder))
    assert _memory() - before < MOST_MEMORY


def _some_layout() -> bytes:
    trial = open_trial(GOLDEN)
    return trial.step(int(trial.steps[0])).layout.name


def test_a_block_that_promises_a_terabyte(folder: Path) -> None:
    """Its end is behind the file's: it counts as torn."""
    block = bytearray(encode_block("note", {"text": "x", "step": 1, "time": 1.0}))
    block[12:20] = (2**39).to_bytes(8, "little")
    with open(file_path(folder, "journal"), "ab") as file:
        file.write(block)
    trial = open_trial(folder)
    assert any(text.startswith("journal.stepscope: its last") for text in trial.problems)
    assert len(trial.steps) == 10


def test_an_array_too_large_for_any_reader_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_ARRAY", 1000)
    FrameList().add("x", np.zeros(125))
    with pytest.raises(StoreError, match="an array of 1008 bytes cannot be written; at most 1000 can"):
        FrameList().add("x", np.zeros(126))


@pytest.mark.parametrize("kind", ["layout", "graph"])
def test_a_catalog_that_lies(kind: str) -> None:
    """Contents whose digests fit, but which are not what any writer writes."""
    digests = {block.header["digest"]: block.payload for block in read_file(file_path(GOLDEN, "catalog")).values()}
    packed = [decompress(payload) for payload in digests.values()]
    believed = 0
    for seed in range(600):
        choose = random.Random(seed)
        lie = mutate.with_a_lie(codec.unpack(choose.choice(packed)), choose)
        with suppress(DamagedError):
            with damaged_unless("the catalog"):
                if kind == "layout":
                    layout = Layout(b"", codec.layout_from_plain(lie))
                    found = collect_nodes([], [layout.tensors])
                else:
                    found = collect_nodes([codec.graph_from_plain(lie)], [])
            assert all(isinstance(node.name, str) for node in found)
            believed += 1
    assert 0 < believed < 600
