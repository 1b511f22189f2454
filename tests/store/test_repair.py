"""A repair takes out what is damaged, rebuilds what is written twice, and leaves alone what can be read."""

from __future__ import annotations

import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stepscope.store import NotARecordingError, StoreError, TrialInUseError, TrialWriter, open_trial, verify
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.detail_parts import file_names, parts_of
from stepscope.store.files import FILE_NAMES, file_header, file_path
from stepscope.store.repair import Repair, repair
from stepscope.store.room import Limits
from support import flips, golden, mutate
from support.everything import everything
from support.records import assert_step_is
from support.synthetic import Synthetic, SyntheticTrial, write_whole

SYNTHETIC = Synthetic(blocks=1, width=6, iterations=2, kinds=("train",))
STEPS = 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole(tmp_path_factory.mktemp("group"), SYNTHETIC, STEPS)


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    """A copy of the trial, not damaged yet."""
    return flips.copy(whole, tmp_path)


def _repair(path: Path, *, back_to: int | None = None) -> Repair:
    """Repair a trial; what could be read before can be read after, and nothing is damaged any more.

    If its training went back to a step, and that is damaged, superseded steps came to light: they do not have to stay.
    """
    before = everything(path)
    if back_to is not None and all(place.kind != "restart" for place in flips.blocks(path, "steps")):
        before = {key: value for key, value in before.items() if not isinstance(key[0], int) or key[0] < back_to}
    originals = {name: file_path(path, name).read_bytes() for name in FILE_NAMES if file_path(path, name).exists()}
    done = repair(path)
    after = everything(path)
    assert [key for key in before if before[key] != after.get(key)] == []
    assert (done.left, verify(path)) == ((), [])
    for name, data in originals.items():  # nothing is thrown away
        kept = [file_path(path, name), *(file_path(entry, name) for entry in path.glob("damaged-*"))]
        assert data in [file.read_bytes() for file in kept if file.exists()]
    return done


def _check_steps(path: Path, lost: set[int]) -> None:
    trial = open_trial(path)
    assert trial.steps.tolist() == [10 * index for index in range(STEPS) if index not in lost]
    for number in trial.steps.tolist():
        assert_step_is(trial.step(number), SYNTHETIC.record(number // 10))
    assert trial.series("model").steps.tolist() == trial.steps.tolist()


def test_an_undamaged_trial_is_left_alone(damaged: Path) -> None:
    before = {entry: entry.stat().st_mtime_ns for entry in damaged.iterdir()}
    done = _repair(damaged)
    assert (done.damaged, done.rebuilt, done.lost, done.originals, done.steps) == ((), (), (), None, STEPS)
    assert before == {entry: entry.stat().st_mtime_ns for entry in damaged.iterdir()}


def test_a_damaged_step(damaged: Path) -> None:
    flips.flip(damaged, "steps", flips.blocks(damaged, "steps")[3].offset + 30)
    done = _repair(damaged)
    assert done.lost == ("step 30: its block in the steps' file is damaged",)
    assert done.originals == damaged / "damaged-1"
    _check_steps(damaged, {3})
    assert "step 30: its block" in open_trial(damaged).messages[0].text
    assert repair(damaged).damaged == ()  # once is enough


@pytest.mark.parametrize("at", range(40, 4000, 300))
def test_numbers_that_the_columns_have_too(damaged: Path, at: int) -> None:
    place = flips.blocks(damaged, "steps")[4]
    flips.flip(damaged, "steps", place.end - at)
    done = _repair(damaged)
    parts = [text for text in (*done.rebuilt, *done.lost) if not text.startswith("columns")]
    assert len(parts) == 1 and parts[0].startswith("step 40: ")
    if any(name in parts[0] for name in ("the statistics", "the aggregates", "the per_sample")):
        assert done.lost == () and parts[0].endswith("it was found elsewhere in the recording")
        _check_steps(damaged, set())


def test_detail_that_is_lost(damaged: Path) -> None:
    flips.flip(damaged, "detail", flips.blocks(damaged, "detail")[5].offset + 26)
    done = _repair(damaged)
    assert len(done.lost) == 1 and done.lost[0].startswith("step 50: detail.stepscope has no readable detail at byte")
    step = open_trial(damaged).step(50)
    assert step.lost == ("detail",) and step.statistics().tobytes() == SYNTHETIC.record(5).statistics.tobytes()
    with pytest.raises(StoreError, match="the histograms and neurons of step 50 were lost"):
        step.tensor("model").histogram  # noqa: B018


def test_some_neurons_that_are_lost(damaged: Path) -> None:
    flips.flip(damaged, "detail", flips.blocks(damaged, "detail")[5].end - 5)
    assert len(_repair(damaged).lost) == 1
    step = open_trial(damaged).step(50)
    assert step.lost == ("neurons",) and step.tensor("model").histogram.counts.sum() > 0


@pytest.mark.parametrize("size", [1, 8, 24, 25, 300])
@pytest.mark.parametrize("before", [0, 4])
def test_detail_that_moved(damaged: Path, size: int, before: int) -> None:
    """Bytes were inserted before it, so that no step refers to the right place."""
    offset = flips.blocks(damaged, "detail")[before].offset
    path = file_path(damaged, "detail")
    data = path.read_bytes()
    path.write_bytes(data[:offset] + b"\x5a" * size + data[offset:])
    done = _repair(damaged)
    assert done.lost == () and len(done.rebuilt) == STEPS - before
    _check_steps(damaged, set())


def test_detail_that_moved_behind_that_of_a_step_that_was_not_finished(tmp_path: Path) -> None:
    """Both have the same number."""
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    live.write(2)
    live.close("died")
    place = flips.blocks(live.path, "steps")[-1]
    flips.cut(live.path, "steps", place.end - 9)
    again = replace(SYNTHETIC, seed=5)
    with TrialWriter(tmp_path, again.info(), resume=True) as writer:
        writer.write_step(again.record(1))
    path = file_path(live.path, "detail")
    assert [header["number"] for _, header in BlockFile(path).new_blocks()] == [0, 10, 10]
    data = path.read_bytes()
    path.write_bytes(data[:16] + bytes(100) + data[16:])
    assert _repair(live.path).lost == ()
    assert_step_is(open_trial(live.path).step(10), again.record(1))


def test_detail_of_which_bytes_are_missing(damaged: Path) -> None:
    place = flips.blocks(damaged, "detail")[4]
    path = file_path(damaged, "detail")
    data = path.read_bytes()
    path.write_bytes(data[: place.offset + 50] + data[place.offset + 60 :])
    done = _repair(damaged)
    assert len(done.lost) == 1 and "step 40" in done.lost[0] and len(done.rebuilt) == STEPS - 5
    assert len(open_trial(damaged).steps) == STEPS


@pytest.mark.parametrize("which", [0, 4, STEPS - 1])
@pytest.mark.parametrize("more", [1, 30, 5000, 2**30])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_detail_that_says_that_it_is_longer(damaged: Path, which: int, more: int, is_named: bool) -> None:
    """With a checksum that fits. Steps find theirs by the offset, so that what it hides from a scan can be read."""
    flips.flip(damaged, "steps", flips.blocks(damaged, "steps")[2].offset + 30)  # there is something to be mended
    file = BlockFile(file_path(damaged, "detail"))
    place, header = list(file.new_blocks())[which]
    header = header if is_named else {**header, "number": b""}
    flips.forge(damaged, place, header, place.payload_length + more)
    is_read = is_named and place.end + more <= file.size()
    _repair(damaged)
    trial = open_trial(damaged)
    lost = {number: trial.step(number).lost for number in trial.steps.tolist() if trial.step(number).lost}
    assert lost == ({} if is_read else {10 * which: ("detail",)})


def test_no_detail_of_a_step_that_occurs_twice(tmp_path: Path) -> None:
    """The one that counts has lost its detail; that of the other one is nobody's."""
    live = SyntheticTrial(tmp_path, SYNTHETIC)
    for index in (0, 1, 1):
        live.writer.write_step(SYNTHETIC.record(index))
    live.close()
    file_path(live.path, "detail").unlink()
    assert [text.split(":")[0] for text in _repair(live.path).lost] == ["step 0", "step 10"]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_damaged_first_bytes(damaged: Path, name: str) -> None:
    flips.flip(damaged, name, 3)
    assert _repair(damaged).lost == ()
    _check_steps(damaged, set())


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_missing_file(damaged: Path, name: str) -> None:
    file_path(damaged, name).unlink()
    if name == "columns":  # nothing is lost, and nothing needs to be done
        assert repair(damaged).damaged == ()
        return
    done = _repair(damaged)
    trial = open_trial(damaged)
    lost = {"journal": 1, "catalog": STEPS, "steps": STEPS, "detail": STEPS}
    assert len(done.lost) == lost[name]
    assert len(trial.steps) == (0 if name in ("catalog", "steps") else STEPS)
    if name == "journal":
        assert trial.config == {} and abs(trial.info.started - SYNTHETIC.started) < 1
        _check_steps(damaged, set())


def test_a_journal_of_which_nothing_is_left(damaged: Path) -> None:
    file_path(damaged, "journal").write_bytes(b"\x89PNG" + bytes(5000))
    assert _repair(damaged).lost[-1] == "the beginning of the journal: config and environment"
    _check_steps(damaged, set())


def test_a_layout_that_another_trial_has_too(damaged: Path) -> None:
    with TrialWriter(damaged.parent, replace(SYNTHETIC, trial="other").info()) as writer:
        writer.write_step(SYNTHETIC.record(0))
    for place in flips.blocks(damaged, "catalog"):
        flips.flip(damaged, "catalog", place.end - 3)
    done = _repair(damaged)
    assert done.lost == () and "a damaged layout was found in the trial 'other' as well" in done.rebuilt
    _check_steps(damaged, set())


def test_a_lost_layout(damaged: Path) -> None:
    flips.flip(damaged, "catalog", flips.blocks(damaged, "catalog")[0].end - 3)
    done = _repair(damaged)
    assert [text.split(":")[0] for text in done.lost] == [f"step {10 * index}" for index in range(STEPS)]


def test_a_lost_graph(damaged: Path) -> None:
    place = next(place for place in flips.blocks(damaged, "catalog") if place.kind == "graph")
    flips.flip(damaged, "catalog", place.end - 3)
    assert len(_repair(damaged).lost) == STEPS
    assert open_trial(damaged).step(0).lost == ("graph 0",)


def test_a_restart_that_the_journal_has_too(damaged: Path) -> None:
    with TrialWriter(damaged.parent, SYNTHETIC.info(), resume=True) as writer:
        writer.rewind(40)
        writer.write_step(SYNTHETIC.record(6))
    place = next(place for place in flips.blocks(damaged, "steps") if place.kind == "restart")
    flips.flip(damaged, "steps", place.offset + 25)
    assert len(open_trial(damaged).steps) == STEPS
    repair(damaged)
    assert verify(damaged) == [] and open_trial(damaged).steps.tolist() == [0, 10, 20, 30, 60]


def test_into_another_folder(damaged: Path, tmp_path: Path) -> None:
    flips.flip(damaged, "steps", flips.blocks(damaged, "steps")[3].offset + 30)
    before = {entry: entry.read_bytes() for entry in damaged.iterdir()}
    done = repair(damaged, tmp_path / "copies" / "better")
    assert before == {entry: entry.read_bytes() for entry in damaged.iterdir()}
    assert done.trial == tmp_path / "copies" / "better" and done.originals is None
    _check_steps(done.trial, {3})
    assert verify(done.trial) == []
    with pytest.raises(StoreError, match="exists; give a folder that is to be made"):
        repair(damaged, done.trial)


def test_a_live_trial_is_not_repaired(tmp_path: Path) -> None:
    with SyntheticTrial(tmp_path, SYNTHETIC) as live:
        live.write(1)
        for out in (None, tmp_path / "out"):
            with pytest.raises(TrialInUseError, match="is being written to by process"):
                repair(live.path, out)
    assert repair(live.path).damaged == ()


def test_who_watches_sees_whole_steps_only(damaged: Path) -> None:
    """A repair moves several files, one after the other."""
    flips.flip(damaged, "detail", flips.blocks(damaged, "detail")[5].offset + 26)
    flips.flip(damaged, "steps", flips.blocks(damaged, "steps")[3].end - 500)
    watching, stop, faults, looks = open_trial(damaged), threading.Event(), [], 0

    def watch() -> None:
        nonlocal looks
        while not stop.is_set():
            watching.refresh()
            try:
                assert len(watching.steps) == STEPS
                for index in (0, 1, 4, 8):
                    assert_step_is(watching.step(10 * index), SYNTHETIC.record(index))
            except Exception as fault:
                faults.append(fault)
            looks += 1

    thread = threading.Thread(target=watch)
    thread.start()
    while looks < 2:
        time.sleep(0.01)
    repair(damaged)
    stop.set()
    thread.join()
    assert faults == []
    watching.refresh()
    assert watching.problems == () and watching.step(50).lost == ("detail",)


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_newer_format_is_left_alone(damaged: Path, name: str) -> None:
    flips.flip(damaged, "steps", -300)
    with open(file_path(damaged, name), "r+b") as file:
        file.write(file_header(version=7))
    before = {entry: entry.read_bytes() for entry in damaged.iterdir()}
    with pytest.raises(NotARecordingError, match="has format version 7"):
        repair(damaged)
    assert before == {entry: entry.read_bytes() for entry in damaged.iterdir()}


def test_what_is_no_trial(tmp_path: Path) -> None:
    with pytest.raises(NotARecordingError, match="is no folder of a trial"):
        repair(tmp_path)
    file_path(tmp_path, "journal").write_bytes(b"\x89PNG" + bytes(5000))
    with pytest.raises(NotARecordingError, match="no file in which anything of a Stepscope recording is left"):
        repair(tmp_path)


def test_a_repaired_trial_can_be_resumed_and_overwritten(damaged: Path) -> None:
    flips.flip(damaged, "steps", flips.blocks(damaged, "steps")[3].offset + 30)
    repair(damaged)
    with TrialWriter(damaged.parent, SYNTHETIC.info(), resume=True) as writer:
        writer.write_step(SYNTHETIC.record(STEPS))
    assert len(open_trial(damaged).steps) == STEPS and verify(damaged) == []
    with TrialWriter(damaged.parent, SYNTHETIC.info(), if_exists="overwrite"):
        assert not (damaged / "damaged-1").exists()


# ---------------------------------------------------------------------- details in several files


@pytest.fixture
def limited(tmp_path: Path) -> Path:
    """A trial that was thinned to stay within a limit of bytes."""
    with TrialWriter(tmp_path / "limited", SYNTHETIC.info(), limits=Limits(trial=300_000)) as writer:
        for index in range(30):
            writer.write_step(SYNTHETIC.record(index))
    assert len(parts_of(writer.path)) > 3
    return writer.path


def _blocks_of_part(path: Path) -> tuple[str, list[BlockPlace]]:
    """A file of details with several blocks."""
    names = [name for name in file_names(path) if name.startswith("detail-")]
    name = max(names, key=lambda name: len(flips.blocks(path, name)))
    return name, flips.blocks(path, name)


def test_a_damaged_part(limited: Path) -> None:
    name, blocks = _blocks_of_part(limited)
    flips.flip(limited, name, blocks[1].offset + 26)
    done = _repair(limited)
    assert len(done.lost) == 1 and "no readable detail" in done.lost[0]
    assert done.originals is not None and [entry.stem for entry in done.originals.glob("detail*")] == [name]


def test_a_part_that_moved(limited: Path) -> None:
    name, blocks = _blocks_of_part(limited)
    path = file_path(limited, name)
    data = path.read_bytes()
    path.write_bytes(data[: blocks[0].offset] + b"some bytes" + data[blocks[0].offset :])
    _repair(limited)
    assert len(open_trial(limited).steps) == 30


def test_a_part_that_is_missing(limited: Path) -> None:
    name, blocks = _blocks_of_part(limited)
    file_path(limited, name).unlink()
    assert len(_repair(limited).lost) == len(blocks)


def test_a_limited_trial_is_resumed(limited: Path) -> None:
    names = [name for name in file_names(limited) if name.startswith("detail-")]
    flips.cut(limited, names[-1], flips.blocks(limited, names[-1])[-1].end - 9)
    before = everything(limited)
    with TrialWriter(limited.parent, SYNTHETIC.info(), resume=True, limits=Limits(trial=300_000)) as writer:
        writer.write_step(SYNTHETIC.record(30))
    after = everything(limited)
    assert all(after[key] == before[key] for key in before if key[-1] in ("header", "statistics", "aggregates"))
    assert (limited / "damaged-1" / f"{names[-1]}.end").stat().st_size > 0
    assert open_trial(limited).steps.tolist() == list(range(0, 310, 10))


# ---------------------------------------------------------------------- any damage


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trial that was resumed: with one of everything that there is in a recording."""
    synthetic = Synthetic(blocks=1, width=2, batch=2, iterations=1, samples=1, gradients=(), kinds=("train", "long"))
    live = SyntheticTrial(tmp_path_factory.mktemp("small"), synthetic)
    live.write(3)
    live.close("died")
    with TrialWriter(live.path.parent, synthetic.info(), resume=True) as writer:
        writer.rewind(10)
        for index in range(1, 9):
            writer.write_step(synthetic.record(2 * index))
    return live.path


def _mutate_and_repair(source: Path, folder: Path, seed: int) -> None:
    choose = random.Random(seed)
    path = Path(shutil.copytree(source, folder / f"{source.name} {seed}"))
    for _ in range(choose.choice((1, 1, 2))):
        file = file_path(path, choose.choice(FILE_NAMES))
        file.write_bytes(mutate.mutate(file.read_bytes(), choose))
    _repair(path, back_to={"synthetic": 10, "resumed": 5}.get(source.name))
    shutil.rmtree(path)


@pytest.mark.supports(
    "What was recorded is kept", "damaged files are repaired: what could be read before can be read after"
)
@pytest.mark.parametrize("start", range(0, 80, 10))
def test_mutations(small: Path, tmp_path: Path, start: int) -> None:
    for seed in range(start, start + 10):
        _mutate_and_repair(small, tmp_path, seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", range(10_000, 15_000, 250))
def test_thousands_of_mutations(small: Path, tmp_path: Path, start: int) -> None:
    sources = [small, *(golden.FOLDER / f"v{v}" / name for v, names in golden.TRIALS.items() for name in names)]
    for seed in range(start, start + 250):
        _mutate_and_repair(sources[seed % len(sources)], tmp_path, seed)
