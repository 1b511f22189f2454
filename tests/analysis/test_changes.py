"""What goes wrong in the midst of a training: the step is named, and what is wrong only from there on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stepscope.analysis import Finding, diagnose
from stepscope.analysis.changes import LOOK_AGAIN
from stepscope.analysis.readings import choose_steps
from stepscope.analysis.registry import RULES
from stepscope.analysis.section import Section, until_now
from stepscope.analysis.turns import find_turn, points_of_interest
from stepscope.recorder import Recorder
from stepscope.store import Trial, open_trial

CHANGE, STEPS = 150, 220


class Run:
    """A net that learns which of four blobs a sample comes from, until something is changed."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.centres = torch.randn(4, 16)
        self.net = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))
        self.optimizer = torch.optim.Adam(self.net.parameters(), 3e-3)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 4, (32,))
        return self.centres[labels] + 0.5 * torch.randn(32, 16), labels


Change = Callable[[Run, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def trained(folder: Path, change: Change, *first: nn.Module) -> tuple[Finding, ...]:
    """Train, with these layers first; from the step ``CHANGE`` on, ``change`` has its hand in each batch."""
    run = Run()
    run.net = nn.Sequential(*first, *run.net)
    with Recorder(folder, trial="t", schedule=2, strict=True) as recorder:
        recorder.watch(run.net, run.optimizer)
        for number in range(STEPS):
            x, y = run.batch()
            if number >= CHANGE:
                x, y = change(run, x, y)
            with recorder.step():
                loss = F.cross_entropy(run.net(x), y)
                run.optimizer.zero_grad()
                loss.backward()
                run.optimizer.step()
    return diagnose(open_trial(folder / "t"))


def nothing(run: Run, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x, y


def black(run: Run, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros_like(x), y


def shuffled(run: Run, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x, y[torch.randperm(len(y))]


def dead(run: Run, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    bias = run.net[2].bias
    if float(bias.detach().mean()) > -10:
        with torch.no_grad():
            bias.sub_(1000)
    return x, y


def too_fast(run: Run, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    run.optimizer.param_groups[0]["lr"] = 1.0
    return x, y


def raw(run: Run, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return -20 * x, y


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (black, {"constant-data"}),
        (shuffled, {"unrelated-targets"}),
        (dead, {"dead-units"}),
        (too_fast, {"settings-change"}),
        (raw, {"data-shift"}),
    ],
)
def test_the_step_and_the_cause_of_a_change(tmp_path: Path, change: Change, rules: set[str]) -> None:
    findings = trained(tmp_path, change)
    assert findings[0].rule in rules, [finding.summary for finding in findings]
    assert findings[0].step is not None and CHANGE <= findings[0].step <= CHANGE + 2
    jumps = [one for tree in findings for one in tree.walk() if one.rule in ("loss-jump", "loss-spike")]
    assert all(one.step is not None and one.step >= CHANGE for one in jumps)


def test_data_that_change_before_a_normalisation_that_hides_it(tmp_path: Path) -> None:
    (finding,) = trained(tmp_path, lambda run, x, y: (20 * x, y), nn.BatchNorm1d(16, affine=False))
    assert (finding.rule, finding.node, finding.step) == ("data-shift", "input", CHANGE)
    assert finding.summary.endswith("so it stays.")


def test_without_a_change_nothing_is_said(tmp_path: Path) -> None:
    assert [finding for finding in trained(tmp_path, nothing) if finding.level != "info"] == []


def test_the_rules_that_look_again_exist() -> None:
    assert set(RULES) >= LOOK_AGAIN


# ---------------------------------------------------------------------- turns


@given(st.integers(60, 400), st.floats(0.2, 0.8), st.integers(0, 100))
def test_a_jump_is_found_where_it_is(count: int, part: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    place = round(part * count)
    values = 0.1 * (1 + 0.2 * draw.standard_normal(count))
    values[: count // 10] = 2.0
    values[place:] += 2.0
    turn = find_turn(values)
    assert turn is not None and turn.index == place
    assert turn.before == pytest.approx(0.1, rel=0.5) and turn.after == pytest.approx(2.1, rel=0.2)


@given(st.integers(10, 400), st.floats(0.0, 3.0), st.floats(0.0, 0.5), st.integers(0, 100))
def test_a_loss_that_falls_has_no_turn(count: int, floor: float, noise: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = floor + 2.0 * np.exp(-np.arange(count) / 20) * (1 + noise * draw.standard_normal(count))
    assert find_turn(values) is None


def test_what_comes_back_is_no_turn() -> None:
    """A restart of the learning rate, a spike, and the first steps of a warm-up."""
    values = np.exp(-np.arange(200) / 30)
    values[100:] = np.exp(-np.arange(100) / 30)
    assert find_turn(values) is None
    assert find_turn(np.where(np.arange(200) == 90, 50.0, 1.0)) is None


def losses_of(folder: Path, values: list[float]) -> Trial:
    """A training whose loss is this, whatever the net does."""
    net = nn.Linear(2, 1)
    with Recorder(folder, trial="t", schedule=1) as recorder:
        recorder.watch(net)
        for value in values:
            with recorder.step():
                (0 * net(torch.ones(3, 2)).sum() + value).backward()
    return open_trial(folder / "t")


def test_what_counts_as_a_jump_can_be_set(tmp_path: Path) -> None:
    trial = losses_of(tmp_path, [2.0] * 80 + [5.0] * 40)
    assert diagnose(trial, rules=["loss-jump"]) == ()
    (finding,) = diagnose(trial, rules=["loss-jump"], settings={"loss-jump": {"factor": 2.0}})
    assert finding.step == 80 and "from 2 to 5" in finding.summary


@pytest.mark.parametrize(("end", "level"), [(9.0, "warning"), (4.0, "info")])
def test_what_is_learned_anew_after_a_jump_is_worth_knowing(end: float, level: str, tmp_path: Path) -> None:
    (finding,) = diagnose(losses_of(tmp_path, [1.0] * 80 + [10.0] * 20 + [end] * 30), rules=["loss-jump"])
    assert (finding.step, finding.level) == (80, level)


def test_points_of_interest() -> None:
    values = np.full(300, 0.1)
    values[:10] = 2.0
    values[70], values[200:], values[250] = 3.0, 1.5, np.nan
    points = set(points_of_interest(values))
    assert {70, 200, 250} <= points and len(points) <= 6
    assert list(points_of_interest(np.ones(5))) == []


# ---------------------------------------------------------------------- what is looked at


def test_a_sample_of_steps_has_those_around_a_jump(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="t", schedule=1) as recorder:
        for number in range(700):
            with recorder.step() as step:
                step.record("loss", torch.tensor(3.0 if number < 50 or number >= 431 else 0.1), type="loss")
    trial = open_trial(tmp_path / "t")
    chosen = choose_steps(trial)
    assert set(range(426, 437)) <= set(chosen) and len(chosen) < 500
    assert set(chosen) <= set(trial.steps.tolist()) and chosen == sorted(chosen)


def test_a_section_is_a_part_of_a_trial(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="t", schedule=1) as recorder:
        for number in range(20):
            with recorder.step("train" if number % 2 else "test") as step:
                step.record("x", torch.full((3,), float(number)))
            recorder.scalar("y", number, step=number)
    section = Section(open_trial(tmp_path / "t"), 5, 12)
    assert section.steps.tolist() == list(range(5, 13)) and section.kinds == ("train", "test")
    assert section.series("x", statistic="mean").values == pytest.approx(range(5, 13))
    assert section.series("x", kind="test").steps.tolist() == [6, 8, 10, 12]
    assert section.scalars("y").steps.tolist() == list(range(5, 13))
    assert section.step(7).number == 7


def test_what_comes_meanwhile_is_left_for_later(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="t", schedule=1) as recorder:

        def record(numbers: range) -> None:
            for number in numbers:
                with recorder.step("train" if number % 2 else "test") as step:
                    step.record("loss", torch.tensor(float(number)), type="loss")
            recorder.flush()

        record(range(10))
        trial = open_trial(tmp_path / "t")
        now = until_now(trial)
        record(range(10, 30))
        assert trial.refresh() and len(trial.steps) == 30
        assert now.steps.tolist() == list(range(10)) and len(now.step_kinds) == 10
        assert now.series("loss").steps.tolist() == list(range(10)) == choose_steps(now)


def test_kinds_that_are_read_after_more_steps_came(tmp_path: Path) -> None:
    """A reader in another thread refreshes the same trial between two questions."""
    with Recorder(tmp_path, trial="t", schedule=1) as recorder:
        for number in range(12):
            with recorder.step("train" if number % 2 else "test") as step:
                step.record("loss", torch.tensor(float(number)), type="loss")
    trial = open_trial(tmp_path / "t")

    class Growing(Section):
        @property
        def step_kinds(self) -> tuple[str, ...]:
            return (*trial.step_kinds, "train", "test")

    grown = Section(Growing(trial, 0, 11), 2, 9)
    assert grown.step_kinds == trial.step_kinds[2:10] and choose_steps(grown) == list(range(2, 10))


def test_a_trial_without_steps_has_none_until_now(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="t"):
        pass
    trial = open_trial(tmp_path / "t")
    assert len(until_now(trial).steps) == 0 and diagnose(trial) == ()
