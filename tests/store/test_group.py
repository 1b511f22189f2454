"""A group: a folder of trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepscope.store import NotARecordingError, TrialWriter, UnknownNameError, open_group
from support.synthetic import STARTED, Synthetic, SyntheticTrial, write_trial


def test_trials_are_listed_oldest_first(tmp_path: Path) -> None:
    write_trial(tmp_path, steps=1, blocks=1, trial="a", started=STARTED + 9)
    write_trial(tmp_path, steps=1, blocks=1, trial="b", started=STARTED + 1)
    write_trial(tmp_path, steps=1, blocks=1, trial="c", started=STARTED + 5)
    group = open_group(tmp_path)
    assert group.names == ("b", "c", "a")
    assert len(group) == 3
    assert group["c"].name == "c" and group["c"] is group["c"]


def test_what_is_no_trial_is_passed_over(tmp_path: Path) -> None:
    path = write_trial(tmp_path / "group", steps=1, blocks=1)
    (tmp_path / "group" / "notes.txt").write_text("mine")
    (tmp_path / "group" / "folder").mkdir()
    outside = write_trial(tmp_path / "elsewhere", steps=1, blocks=1, trial="outside")
    (tmp_path / "group" / "link").symlink_to(outside)
    assert open_group(tmp_path / "group").names == (path.name,)


def test_a_trials_folder_is_a_group_of_one(tmp_path: Path) -> None:
    path = write_trial(tmp_path, steps=1, blocks=1, trial="a")
    write_trial(tmp_path, steps=1, blocks=1, trial="b")
    group = open_group(path)
    assert group.names == ("a",) and group.path == tmp_path.resolve()


def test_unknown_trial(tmp_path: Path) -> None:
    write_trial(tmp_path, steps=1, blocks=1, trial="bugged")
    with pytest.raises(UnknownNameError, match=r"no trial 'buged'; did you mean 'bugged'\?"):
        open_group(tmp_path)["buged"]
    with pytest.raises(UnknownNameError):
        open_group(tmp_path)["../bugged"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotARecordingError, match="is no folder; give the folder that the recorder wrote to"):
        open_group(tmp_path / "nothing")


def test_refresh_sees_new_and_gone_trials(tmp_path: Path) -> None:
    group = open_group(tmp_path)
    assert group.names == () and not group.refresh()
    write_trial(tmp_path, steps=1, blocks=1, trial="a")
    assert group.refresh() and group.names == ("a",)
    assert not group.refresh()
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    assert group.refresh() and group.names == ()


def test_a_foreign_trial_does_not_hide_the_others(tmp_path: Path) -> None:
    write_trial(tmp_path, steps=1, blocks=1, trial="fine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "journal.stepscope").write_bytes(b"something else altogether" * 9)
    group = open_group(tmp_path)
    assert set(group.names) == {"fine", "foreign"}
    assert "not a file of a Stepscope recording" in group.problems["foreign"]
    assert group["fine"].steps.tolist() == [0]
    with pytest.raises(NotARecordingError):
        group["foreign"]


def test_an_overwritten_trial_is_read_anew(tmp_path: Path) -> None:
    trial = open_group(write_trial(tmp_path, steps=3, blocks=1))["synthetic"]
    synthetic = Synthetic(every=7, blocks=1)
    with TrialWriter(tmp_path, synthetic.info(), if_exists="overwrite") as writer:
        writer.write_step(synthetic.record(1))
    assert trial.refresh()
    assert trial.steps.tolist() == [7] and trial.problems == ()


def test_many_trials_need_few_open_files(tmp_path: Path) -> None:
    for number in range(4):
        SyntheticTrial(tmp_path, Synthetic(trial=f"t{number}", blocks=1)).close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    group = open_group(tmp_path)
    assert len(group.names) == 4
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
