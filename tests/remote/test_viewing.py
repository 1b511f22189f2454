"""The commands and the dashboard on addresses."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepscope.store import TrialWriter, open_trial, upload
from stepscope.store.remote.folder import RemoteFolder
from stepscope.store.remote.places import cache_folder
from stepscope.viewer import source as source_of_viewer
from stepscope.viewer.answers import Answers
from stepscope.viewer.app import make_app
from stepscope.viewer.cli import main
from stepscope.viewer.source import Source
from support.remote import RECORDS, new_writer, uploaded
from support.synthetic import write_trial


@pytest.fixture
def runs(s3: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Two trials, at an address and in a folder."""
    local = tmp_path / "local"
    write_trial(local, trial="healthy", steps=8, blocks=1)
    write_trial(local, trial="sick", steps=8, blocks=1, nan_from=30, started=1_760_001_000.0)
    upload(local, s3)
    yield s3, local


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_of_viewer, "_REMOTE_PAUSE", 0.0)


@pytest.mark.parametrize("command", ["doctor", "info", "verify"])
def test_commands_say_the_same_as_of_a_folder(
    runs: tuple[str, Path], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address, local = runs
    said = []
    for place in (address, str(local)):
        code = main([command, place])
        lines = capsys.readouterr().out.replace(place, "PLACE").splitlines()
        said.append((code, [line for line in lines if not line.startswith(("  address", "  cached"))]))
    assert said[0] == said[1] and said[0][1]


def test_diff(runs: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    address, local = runs
    assert main(["diff", f"{address}/healthy", f"{address}/sick"]) == 0
    remote = capsys.readouterr().out
    assert main(["diff", str(local / "healthy"), f"{address}/sick"]) == 0
    assert capsys.readouterr().out == remote and "they part    at step 30" in remote


def test_export(runs: tuple[str, Path], tmp_path: Path) -> None:
    address, local = runs
    tables = []
    for name, place in (("a.csv", address), ("b.csv", str(local))):
        assert main(["export", place, "--out", str(tmp_path / name)]) == 0
        tables.append(list(csv.reader((tmp_path / name).read_text("utf-8").splitlines())))
    assert tables[0] == tables[1] and len(tables[0]) > 1000


def test_info_says_where_the_cache_is(runs: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    address, _ = runs
    assert main(["info", f"{address}/sick"]) == 0
    text = capsys.readouterr().out
    folder = cache_folder(address) / "sick"
    assert f"{address}/sick" in text and f"in {folder} (delete it to clear the cache)" in text
    assert main(["info", f"{address}/sick", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cached"]["folder"] == str(folder) and facts["address"] == f"{address}/sick"
    assert facts["cached"]["bytes"] > 10_000
    assert not (cache_folder(address) / "healthy").exists()


def test_up_and_down(memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_trial(tmp_path / "runs", trial="one", steps=2, blocks=1)
    live = TrialWriter(tmp_path / "runs", open_trial(tmp_path / "runs" / "one").info)
    assert main(["upload", str(tmp_path / "runs"), memory]) == 1
    said = capsys.readouterr().err
    assert f"one is at {memory}/one" in said and "one-2 was not uploaded" in said and "is being written to" in said
    live.close(None)
    assert main(["upload", str(tmp_path / "runs"), memory]) == 0
    assert main(["download", f"{memory}/one", str(tmp_path / "back")]) == 0
    assert main(["download", f"{memory}/one", str(tmp_path / "back")]) == 2
    assert "is not written over it" in capsys.readouterr().err
    assert len(open_trial(tmp_path / "back" / "one").steps) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", "memory://nowhere"], "there is nothing at memory://nowhere"),
        (["doctor", "foo://x"], "Protocol not known: foo"),
        (["diff", "memory://a/b", "memory://a/c"], "there is nothing at memory://a"),
        (["view", "foo://x"], "Protocol not known: foo"),
        (["upload", ".", "there"], "is no address"),
    ],
)
def test_mistakes_become_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_group_where_a_trial_is_expected(runs: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", runs[0], runs[0]]) == 2
    assert f"give one of them: {runs[0]}/healthy, {runs[0]}/sick" in capsys.readouterr().err


def test_the_dashboard_opens_on_an_address(runs: tuple[str, Path], no_pause: None) -> None:
    address, local = runs
    source = Source(address)
    client = make_app(source).server.test_client()
    assert client.get("/_dash-layout").status_code == 200
    assert "<title>runs – stepscope</title>" in client.get("/").get_data(as_text=True)
    remote, here = Answers(source, None), Answers(Source(local), None)
    wish = {"trial": "sick", "step": 30, "node": "model.head"}
    states = [answers.state(wish, {})[0] for answers in (remote, here)]
    assert states[0]["selection"] == states[1]["selection"]
    assert remote.table(states[0])[0] == here.table(states[1])[0]
    assert str(remote.node(states[0])[0]) == str(here.node(states[1])[0])
    assert [trial.name for trial in source.group.opened] == ["sick"]  # type: ignore[union-attr]


def test_the_dashboard_follows_an_address(memory: str, no_pause: None) -> None:
    source = Source(memory)
    assert source.group is None and source.name == memory
    writer = new_writer(memory)
    writer.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    version = source.refresh()
    trial = source.trial("synthetic")
    writer.write_step(RECORDS[1])
    uploaded(f"{memory}/synthetic", 2)
    assert source.refresh() > version and len(trial.steps) == 2
    writer.close(None)


def test_looks_are_seldom(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the page asks."""
    new_writer(memory).close(None)
    source = Source(memory)
    monkeypatch.setattr(RemoteFolder, "sizes", lambda self, path="": pytest.fail("another look"))
    assert source.refresh() == source.refresh()


def test_an_outage_does_not_hurt_the_page(
    memory: str, no_pause: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stepscope.store import UnreachableError

    with new_writer(memory) as writer:
        writer.write_step(RECORDS[0])
    source = Source(memory)
    trial = source.trial("synthetic")

    def refuse(self: RemoteFolder, path: str = "") -> dict[str, int]:
        raise UnreachableError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "sizes", refuse)
        assert source.refresh() == source.refresh()
        assert "the network is down" in caplog.text
    assert source.trial("synthetic") is trial and len(trial.steps) == 1
