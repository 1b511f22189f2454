"""Uploads that fail for a while, or until the end: the recording goes on, one trouble is told, nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepscope.store import TrialWriter, UnreachableError, lock, open_group, open_trial, upload
from stepscope.store.records import TrialEnd
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.places import spool_folder
from support.remote import (
    RECORDS,
    S3_SETTINGS,
    SYNTHETIC,
    check,
    environment,
    eventually,
    new_writer,
    s3_server,
    uploaded,
    write_remote,
)


class Outage:
    """The file system in memory, refusing everything while ``on``."""

    def __init__(self) -> None:
        self.on = False
        self.refused = 0

    def guard(self, function: Callable[..., object]) -> Callable[..., object]:
        def guarded(*args: object, **kwargs: object) -> object:
            if self.on:
                self.refused += 1
                raise ConnectionError("the network is down")
            return function(*args, **kwargs)

        return guarded


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    from fsspec.implementations.memory import MemoryFileSystem

    fault = Outage()
    for name in ("pipe_file", "cat_file", "ls", "rm_file", "rm"):
        monkeypatch.setattr(MemoryFileSystem, name, fault.guard(getattr(MemoryFileSystem, name)))
    yield fault
    fault.on = False


def test_an_outage_in_the_middle(memory: str, outage: Outage) -> None:
    writer = new_writer(memory)
    for index, record in enumerate(RECORDS):
        if index == 4:
            uploaded(f"{memory}/synthetic", 4)
            outage.on = True
        writer.write_step(record)
        if index == 8:
            eventually(lambda: outage.refused > 3)
            outage.on = False
    writer.close(TrialEnd("finished", 1.0))
    assert [type(error) for error in writer.troubles] == [UnreachableError]
    assert "the network is down" in str(writer.troubles[0])
    check(open_trial(f"{memory}/synthetic"), len(RECORDS))


def test_an_outage_at_the_start(memory: str, outage: Outage) -> None:
    """The trial is written all the same; it gets its name there when somebody answers."""
    write_remote(memory, 1)
    outage.on = True
    writer = new_writer(memory)
    assert writer.name == "synthetic"
    for record in RECORDS[:2]:
        writer.write_step(record)
    eventually(lambda: outage.refused > 3)
    outage.on = False
    writer.close(TrialEnd("finished", 1.0))
    assert {type(error) for error in writer.troubles} == {UnreachableError}
    check(open_trial(f"{memory}/synthetic"), 1)
    check(open_trial(f"{memory}/synthetic-2"), 2)


@pytest.mark.parametrize("options", [{"if_exists": "fail"}, {"if_exists": "overwrite"}, {"resume": True}])
def test_an_outage_when_it_must_be_known_what_is_there(memory: str, outage: Outage, options: dict[str, object]) -> None:
    outage.on = True
    with pytest.raises(UnreachableError, match="the network is down"):
        new_writer(memory, **options)
    assert [entry.name for entry in spool_folder(memory).iterdir()] == ["address.txt"]


def test_an_outage_that_outlasts_the_trial(memory: str, outage: Outage) -> None:
    """Closing waits no longer than it may; the spool keeps everything; what is missing is uploaded later."""
    writer = new_writer(memory, wait=0.3)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    outage.on = True
    for record in RECORDS[1:4]:
        writer.write_step(record)
    started = time.monotonic()
    writer.close(TrialEnd("finished", 1.0))
    assert time.monotonic() - started < 5
    assert "stepscope upload" in str(writer.troubles[-1]) and str(writer.path) in str(writer.troubles[-1])
    check(open_trial(writer.path), 4)
    with pytest.raises(UnreachableError):
        upload(writer.path, memory)
    with pytest.raises(UnreachableError):
        open_trial(f"{memory}/synthetic")
    outage.on = False
    assert upload(writer.path, memory) == (f"{memory}/synthetic",)
    check(open_trial(f"{memory}/synthetic"), 4)
    assert not writer.path.exists()


def test_a_call_that_hangs_does_not_hang_the_closing(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = new_writer(memory, wait=0.2)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    answer = threading.Event()
    write = RemoteFolder.write
    monkeypatch.setattr(RemoteFolder, "write", lambda *args: answer.wait(30) and write(*args))
    started = time.monotonic()
    writer.close(TrialEnd("finished", 1.0))
    assert time.monotonic() - started < 5
    assert "it is kept here" in str(writer.troubles[-1])
    answer.set()
    eventually(lambda: not writer.path.exists())  # it went on, and got there


def test_the_next_recorder_uploads_what_is_left(memory: str, outage: Outage) -> None:
    writer = new_writer(memory, wait=0.1)
    writer.write_step(RECORDS[0])
    outage.on = True
    writer.close(TrialEnd("finished", 1.0))
    outage.on = False
    assert write_remote(memory, 2).endswith("/synthetic-2")
    check(open_trial(f"{memory}/synthetic"), 1)
    assert [entry.name for entry in spool_folder(memory).iterdir()] == ["address.txt"]


def test_refreshing_during_an_outage(memory: str, outage: Outage) -> None:
    """Who asks is told; what was read stays, and what is new is read later."""
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    group = open_group(memory)
    trial = group["synthetic"]
    trial.refresh()
    outage.on = True
    for refresh in (group.refresh, trial.refresh):
        with pytest.raises(UnreachableError, match="the network is down"):
            refresh()
    assert trial.steps.tolist() == [0] and trial.series("model").values.size == 1
    outage.on = False
    writer.write_step(RECORDS[1])
    writer.close(TrialEnd("finished", 1.0))
    assert trial.refresh()
    check(trial, 2)


def test_details_that_cannot_be_fetched(memory: str, outage: Outage) -> None:
    from stepscope.store import DamagedError

    trial = open_trial(write_remote(memory, 2))
    outage.on = True
    tensor = trial.step(0).tensor("model")
    assert tensor.statistics["mean"] == pytest.approx(tensor.statistics["mean"])
    with pytest.raises(DamagedError, match="cannot be fetched"):
        tensor.histogram  # noqa: B018
    outage.on = False
    check(open_trial(f"{memory}/synthetic"), 2)


def test_a_spool_that_is_removed_meanwhile(memory: str) -> None:
    """Nothing can be done about what was in it; what was uploaded stays, and nothing hangs or crashes."""
    import shutil

    writer = new_writer(memory, wait=1.0)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    shutil.rmtree(writer.path)
    with pytest.raises(OSError, match="moved, removed or replaced"):
        writer.write_step(RECORDS[1])
    with pytest.raises(OSError):
        writer.close(TrialEnd("finished", 1.0))
    assert open_trial(f"{memory}/synthetic").steps.tolist() == [0]


def test_a_cache_that_is_removed_meanwhile(memory: str, tmp_path: Path) -> None:
    import shutil

    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    trial = open_group(memory)["synthetic"]
    shutil.rmtree(tmp_path / "cache")
    writer.write_step(RECORDS[1])
    writer.close(TrialEnd("finished", 1.0))
    assert trial.refresh()
    check(trial, 2)


def test_closing_tries_often_though_the_outage_was_long(memory: str, outage: Outage) -> None:
    """The pauses have grown by then; the network comes back while the closing waits."""
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    outage.on = True
    writer.write_step(RECORDS[1])
    eventually(lambda: outage.refused > 6)
    threading.Timer(0.2, setattr, (outage, "on", False)).start()
    writer.close(TrialEnd("finished", 1.0))
    assert not writer.path.exists()
    check(open_trial(f"{memory}/synthetic"), 2)


def test_a_trial_that_cannot_be_written_to_is_uploaded(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(trial: Path) -> bool:
        raise PermissionError("read-only")

    with TrialWriter(tmp_path / "archive", SYNTHETIC.info()) as writer:
        writer.write_step(RECORDS[0])
    monkeypatch.setattr(lock, "take", refuse)
    assert upload(writer.path, memory) == (f"{memory}/synthetic",)
    check(open_trial(f"{memory}/synthetic"), 1)


@pytest.mark.slow
def test_a_server_that_is_away_for_a_while(places: Path) -> None:
    """A real one: connections are refused, then it is there again."""
    pytest.importorskip("moto.server")
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    with s3_server() as endpoint, environment({**S3_SETTINGS, "AWS_ENDPOINT_URL": endpoint}):
        S3FileSystem().mkdir("away")
        writer = new_writer("s3://away/runs")
        writer.write_step(RECORDS[0])
        uploaded("s3://away/runs/synthetic", 1)
    with environment({**S3_SETTINGS, "AWS_ENDPOINT_URL": endpoint}):
        writer.write_step(RECORDS[1])
        eventually(lambda: writer.troubles, 60)
        with s3_server(int(endpoint.rpartition(":")[2])):
            writer.close(TrialEnd("finished", 1.0))
            assert [type(error) for error in writer.troubles] == [UnreachableError]
            check(open_trial("s3://away/runs/synthetic"), 2)
    S3FileSystem.clear_instance_cache()


def test_without_permission_to_delete(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(self: MemoryFileSystem, path: str) -> None:
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(MemoryFileSystem, "rm_file", refuse)
    writer = new_writer(memory)
    for index, record in enumerate(RECORDS):
        writer.write_step(record)
        if index % 4 == 0:
            uploaded(f"{memory}/synthetic", index + 1)
    writer.close(TrialEnd("finished", 1.0))
    assert not writer.troubles and not writer.path.exists()
    check(open_trial(f"{memory}/synthetic"), len(RECORDS))
