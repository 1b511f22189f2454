"""What docs/remote.md says is true: the layout, the example, the numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from stepscope.store import TrialWriter, upload
from stepscope.store.remote import lazy_file, manifest, mirror, parts, uploader, writer
from stepscope.viewer import source
from stepscope.viewer.cli import main
from support.remote import RECORDS, SYNTHETIC, new_writer, uploaded

PAGE = (Path(__file__).parents[3] / "docs" / "remote.md").read_text("utf-8")


def test_the_example_is_a_manifest() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    parsed = manifest.parse_manifest(example.encode(), "here")
    assert json.loads(parsed.to_bytes()) == json.loads(example)
    (name, file), *_ = parsed.files.items()
    for part in file.parts(name):
        assert f"runs/bugged/{part.path}\n" in PAGE or f"runs/bugged/{part.path} " in PAGE


def test_numbers() -> None:
    text = " ".join(PAGE.split())
    assert f"every {mirror.INTERVAL:.0f} seconds a thread uploads" in text
    assert f"shows every {uploader._BEAT:.0f} seconds" in text
    assert f"After {manifest.SILENCE:.0f} seconds of silence" in text
    assert f"in pages of {lazy_file.PAGE >> 10} KiB" in text
    assert f"up to {parts.LARGEST >> 20} MiB" in text
    assert f"every {source._REMOTE_PAUSE:.0f} seconds at most" in text
    assert (writer.WAIT, mirror._LONGEST_PAUSE) == (60.0, 60.0) and text.count("at most a minute") == 1


def test_commands_exist(capsys: object) -> None:
    for command in re.findall(r"^stepscope (\w+)", PAGE, re.M):
        try:
            main([command, "--help"])
        except SystemExit as stopped:
            assert stopped.code == 0


def test_files_are_their_parts_one_after_the_other(address: str, tmp_path: Path) -> None:
    """Read with nothing but fsspec and the page."""
    from fsspec.core import url_to_fs

    with TrialWriter(tmp_path / "runs", SYNTHETIC.info()) as local:
        for record in RECORDS[:6]:
            local.write_step(record)
    upload(local.path, address)
    system, root = url_to_fs(address)
    said = json.loads(system.cat_file(f"{root}/synthetic/manifest.json"))
    assert said["stepscope"] == 1 and said["writer"] is None
    for name, file in said["files"].items():
        starts = [0, *file["ends"]]
        paths = [
            f"{root}/synthetic/{name}/{file['generation']:04}-{start:012}-{end:012}"
            for start, end in zip(starts, file["ends"], strict=False)
        ]
        assert b"".join(system.cat_file(path) for path in paths) == (local.path / name).read_bytes()
        listed = [entry["name"] for entry in system.ls(f"{root}/synthetic/{name}", detail=True)]
        assert sorted(map(str, listed)) == sorted(paths)


def test_a_live_manifest_names_its_writer(memory: str) -> None:
    import os

    live = new_writer(memory)
    live.write_step(RECORDS[0])
    uploaded(f"{memory}/synthetic", 1)
    from stepscope.store.remote.folder import RemoteFolder

    there = manifest.read_manifest(RemoteFolder(memory), "synthetic")
    assert there is not None and there.writer is not None and there.writer.pid == os.getpid()
    live.close(None)
