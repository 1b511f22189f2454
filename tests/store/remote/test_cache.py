"""What is fetched of a remote trial, and when; and that no byte is fetched twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepscope.store import TrialWriter, open_group, open_trial, upload, verify
from stepscope.store.records import TrialEnd
from stepscope.store.remote import lazy_file
from stepscope.store.remote.claim import claim
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.manifest import read_manifest
from stepscope.store.remote.places import bytes_in, spool_folder
from stepscope.store.remote.uploader import Uploader
from support.remote import RECORDS, SYNTHETIC, check, new_writer, uploaded, write_remote


class Fetched:
    """Counts the bytes of each file that are fetched."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}

    def of(self, name: str) -> int:
        return self.bytes.get(f"{name}.stepscope", 0)

    def total(self) -> int:
        return sum(count for name, count in self.bytes.items() if name != "manifest.json")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetched]:
    seen, read = Fetched(), RemoteFolder.read

    def counted(self: RemoteFolder, path: str, start: int = 0, end: int | None = None) -> bytes:
        data = read(self, path, start, end)
        name = path.split("/")[1]
        seen.bytes[name] = seen.bytes.get(name, 0) + len(data)
        return data

    monkeypatch.setattr(RemoteFolder, "read", counted)
    yield seen


def test_details_are_fetched_when_they_are_asked_for(
    memory: str, fetched: Fetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_file, "PAGE", 4096)
    trial = open_trial(write_remote(memory, 10))
    sizes = {name: file.size() for name, file in trial._contents.files.items()}
    assert trial.series("model").values.size == 10 and trial.step(30).statistics().size
    assert trial.problems == () and fetched.of("steps") == sizes["steps"]
    assert fetched.of("detail") <= 2 * 4096  # whether the last one is there
    before = fetched.of("detail")
    trial.step(30).tensor("model").neurons  # noqa: B018
    after = fetched.of("detail")
    assert before < after < before + sizes["detail"] // 4
    open_trial(f"{memory}/synthetic").step(30).tensor("model").neurons  # noqa: B018
    assert fetched.of("detail") == after  # from the cache
    check(trial, 10)
    assert fetched.of("detail") <= sizes["detail"] + 3 * 4096


def test_only_new_bytes_are_fetched(memory: str, fetched: Fetched) -> None:
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    trial = uploaded(f"{memory}/synthetic", 1)
    for index in range(1, 6):
        writer.write_step(RECORDS[index])
        uploaded(f"{memory}/synthetic", index + 1)
        trial.refresh()
    writer.close(TrialEnd("finished", 1.0))
    trial.refresh()
    open_group(memory)["synthetic"].refresh()
    whole = sum(file.size() for name, file in trial._contents.files.items() if name != "detail")
    assert fetched.total() == whole  # parts were merged meanwhile, and their bytes are known by their place


def test_deleting_the_cache_costs_nothing_but_time(memory: str, tmp_path: Path) -> None:
    import shutil

    address = write_remote(memory, 3)
    check(open_trial(address), 3)
    assert bytes_in(tmp_path / "cache") > 10_000
    shutil.rmtree(tmp_path / "cache")
    check(open_trial(address), 3)


@pytest.mark.parametrize("name", ["steps.stepscope", "fetched.json", "journal.stepscope"])
def test_a_damaged_cache_is_damage_that_deleting_it_repairs(memory: str, tmp_path: Path, name: str) -> None:
    import shutil

    address = write_remote(memory, 3)
    open_trial(address)
    (file,) = (tmp_path / "cache").rglob(name)
    file.write_bytes(b"nonsense" * (file.stat().st_size // 8 + 1))
    trial = open_trial(address)  # what is longer than it may be, or not known, is fetched again
    check(trial, 3)
    (file,) = (tmp_path / "cache").rglob("steps.stepscope")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    assert verify(memory)
    shutil.rmtree(tmp_path / "cache")
    assert verify(memory) == []


def test_a_part_of_a_file_in_the_cache_is_completed(memory: str, tmp_path: Path) -> None:
    """The reader was killed in the middle of fetching."""
    address = write_remote(memory, 3)
    open_trial(address)
    (file,) = (tmp_path / "cache").rglob("steps.stepscope")
    file.write_bytes(file.read_bytes()[:1000])
    check(open_trial(address), 3)


def test_two_readers_share_a_cache(memory: str) -> None:
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    one = uploaded(f"{memory}/synthetic", 1)
    two = open_trial(f"{memory}/synthetic")
    writer.write_step(RECORDS[1])
    writer.close(TrialEnd("finished", 1.0))
    assert one.refresh() and two.refresh()
    check(one, 2)
    check(two, 2)


def test_a_cached_file_that_is_a_link_is_not_followed(memory: str, tmp_path: Path) -> None:
    """Somebody else's link in the cache must not make us write elsewhere."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    with TrialWriter(tmp_path / "runs", SYNTHETIC.info()) as writer:
        writer.write_step(RECORDS[0])
    (address,) = upload(tmp_path / "runs", memory)
    open_trial(address)
    (file,) = (tmp_path / "cache").rglob("steps.stepscope")
    file.unlink()
    file.symlink_to(precious)
    check(open_trial(address), 1)
    assert precious.read_text() == "precious"


class Requests:
    """Counts what is asked of the file system."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._count = 0
        for name in ("sizes", "read", "write", "create", "remove"):
            patch.setattr(RemoteFolder, name, self._counted(getattr(RemoteFolder, name)))

    def _counted(self, function: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object) -> object:
            self._count += len(args[1]) if function.__name__ == "remove" else 1  # type: ignore[arg-type]
            return function(*args)

        return counted

    def since(self) -> int:
        """How many since the last call."""
        count, self._count = self._count, 0
        return count


def test_requests_are_few(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of docs/remote.md."""
    with TrialWriter(spool_folder(memory), SYNTHETIC.info()) as local:
        local.write_step(RECORDS[0])
    remote = RemoteFolder(memory)
    uploader = Uploader(local.path, remote, *claim(remote, local.path))
    uploader.upload()
    requests = Requests(monkeypatch)
    uploader.upload()
    assert requests.since() == 0
    writer = TrialWriter(spool_folder(memory), SYNTHETIC.info(), resume=True)
    most = 0
    for record in RECORDS[1:]:
        writer.write_step(record)
        uploader.upload()
        most = max(most, requests.since())
    assert most <= 20
    trial = open_trial(f"{memory}/synthetic")
    files = read_manifest(remote, "synthetic")
    assert files is not None
    parts = sum(len(file.ends) for name, file in files.files.items() if name != "detail.stepscope")
    assert requests.since() == 1 + parts + 1  # and the manifest just now
    trial.refresh()
    assert requests.since() == 1
    writer.close(None)
