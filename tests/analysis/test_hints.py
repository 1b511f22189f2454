"""Hints: what moves with the loss is found, what merely has a trend is not."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepscope.analysis.hints import hints
from stepscope.analysis.hints.curves import Curve
from stepscope.analysis.hints.over_kinds import _relations
from stepscope.analysis.hints.ranks import partial, rank_biserial, ranks, spearman
from stepscope.analysis.hints.sample_loss import formula
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from stepscope.store.files import file_path
from stepscope.store.records import Neurons
from support.synthetic import write_trial


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """The loss is driven by the spread of ``driver``; ``warning`` announces it a step before; ``trend`` just decays."""
    folder = tmp_path_factory.mktemp("hints")
    draw = torch.Generator().manual_seed(0)
    scales = (1 + torch.rand(61, generator=draw)).tolist()
    with Recorder(folder, trial="one", schedule=Every(1)) as recorder:
        for number in range(60):
            with recorder.step() as step:
                decay = 5 * 0.95**number
                noise = torch.randn(8, 50, generator=draw)
                driver = scales[number] * noise
                step.record("driver", driver)
                step.record("warning", scales[number + 1] * torch.randn(8, 50, generator=draw))
                step.record("trend", decay * torch.randn(8, 500, generator=draw))
                step.record("noise", torch.randn(8, 50, generator=draw))
                step.record("loss", driver.pow(2).mean() + decay, type="loss")
    return open_trial(folder / "one")


def test_what_drives_the_loss_comes_first(trial: Trial) -> None:
    found = hints(trial)
    assert (found.hints[0].relation, found.hints[0].node, found.hints[0].statistic) == ("with", "driver", "std")
    assert found.hints[0].strength > 0.9
    assert ("before", "warning") in {(hint.relation, hint.node) for hint in found.hints}


def test_trends_and_noise_are_no_hints(trial: Trial) -> None:
    found = hints(trial)
    assert {hint.node for hint in found.hints} == {"driver", "warning"}
    assert found.comparisons == 4 * 2 * 2  # four nodes, two statistics that vary, with and before


def test_too_few_steps_say_nothing(tmp_path: Path) -> None:
    with Recorder(tmp_path, trial="short", schedule=Every(1)) as recorder:
        for _ in range(5):
            with recorder.step() as step:
                x = torch.randn(4)
                step.record("x", x)
                step.record("loss", x.sum(), type="loss")
    assert hints(open_trial(tmp_path / "short")).comparisons == 0


def naive_ranks(values: list[float]) -> list[float]:
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30))
def test_spearman_is_the_correlation_of_the_ranks(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(spearman(np.array(a), np.array(b)))
    else:
        wanted = np.corrcoef(naive_ranks(a), naive_ranks(b))[0, 1]
        assert spearman(np.array(a), np.array(b)) == pytest.approx(wanted, abs=1e-9)


def test_the_time_is_taken_out() -> None:
    time = np.arange(50.0)
    wave = np.sin(time * 1.7)
    assert spearman(time + wave, time - wave) > 0.9
    assert partial(time + 3 * wave, time - 3 * wave) < -0.5
    assert np.isnan(partial(time, time**2))


def test_what_is_unusual_before_a_spike(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    with Recorder(tmp_path, trial="spikes", schedule=Every(1)) as recorder:
        for number in range(120):
            with recorder.step() as step:
                loud = 30.0 if number % 17 == 15 else 1.0
                step.record("herald", loud * torch.randn(8, 50, generator=draw))
                step.record("calm", torch.randn(8, 50, generator=draw))
                base = 100.0 if number % 17 == 16 else 1.0
                step.record("loss", base + 0.1 * torch.randn((), generator=draw), type="loss")
    found = hints(open_trial(tmp_path / "spikes"))
    spikes = [hint for hint in found.hints if hint.relation == "spike"]
    assert {hint.node for hint in spikes} == {"herald"}
    assert spikes[0].strength > 0.9


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A model that errs on negative inputs; kind "long" has wide inputs; category "b" makes ``branch`` loud."""
    folder = tmp_path_factory.mktemp("samples")
    draw = torch.Generator().manual_seed(2)
    with Recorder(folder, trial="one", schedule=Every(1)) as recorder:
        for number in range(60):
            kind = "long" if number % 3 == 0 else "short"
            labels = ["a", "b", "a", "b", "a"]
            with recorder.step(kind=None) as step:
                x = torch.randn(5, 1, generator=draw) * (3.0 if kind == "long" else 1.0)
                loud = torch.tensor([[1.0], [4.0], [1.0], [4.0], [1.0]])
                step.record("x", x, type="input")
                step.record("branch", loud * torch.randn(5, 40, generator=draw))
                step.record("noise", torch.randn(5, 40, generator=draw))
                weight = torch.ones(1, requires_grad=True)
                answer, target = torch.relu(x) * weight, x.clone()
                step.record("answer", answer)
                step.record("target", target, type="target")
                torch.nn.functional.mse_loss(answer, target).backward()
                step.decide(kind, categories=labels)
    return open_trial(folder / "one")


def test_what_goes_with_the_loss_of_a_sample(samples: Trial) -> None:
    found = [hint for hint in hints(samples).hints if hint.relation == "sample"]
    by_node = {hint.node: hint for hint in found}
    assert by_node["x"].statistic == "mean" and by_node["x"].strength < -0.6  # the loss is high where x is negative
    assert "noise" not in by_node and "branch" not in by_node


def test_what_goes_with_a_category(samples: Trial) -> None:
    found = [hint for hint in hints(samples).hints if hint.relation == "category"]
    assert {(hint.node, hint.group) for hint in found} == {("branch", "a"), ("branch", "b")}
    assert {hint.group: hint.strength > 0 for hint in found} == {"a": False, "b": True}


def test_what_goes_with_a_kind(samples: Trial) -> None:
    found = [hint for hint in hints(samples, most=20).hints if hint.relation == "kind"]
    assert ("x", "long") in {(hint.node, hint.group) for hint in found if hint.strength > 0.8}
    assert not {"noise", "branch"} & {hint.node for hint in found}


def test_the_loss_of_a_sample_is_what_the_loss_function_gives() -> None:
    draw = torch.Generator().manual_seed(3)
    logits, classes = torch.randn(7, 4, generator=draw), torch.randint(0, 4, (7, 1), generator=draw)
    floats, chances = torch.randn(7, 4, generator=draw), torch.rand(7, 4, generator=draw)
    F = torch.nn.functional
    wanted = {
        "mse_loss": (logits, floats, F.mse_loss(logits, floats, reduction="none").mean(1)),
        "l1_loss": (logits, floats, F.l1_loss(logits, floats, reduction="none").mean(1)),
        "cross_entropy": (logits, classes, F.cross_entropy(logits, classes[:, 0], reduction="none")),
        "nll_loss": (logits, classes, F.nll_loss(logits, classes[:, 0], reduction="none")),
        "binary_cross_entropy": (chances, (floats > 0).float(), F.binary_cross_entropy(
            chances, (floats > 0).float(), reduction="none").mean(1)),
        "binary_cross_entropy_with_logits": (logits, chances, F.binary_cross_entropy_with_logits(
            logits, chances, reduction="none").mean(1)),
    }  # fmt: skip
    for operation, (prediction, target, losses) in wanted.items():
        mine, theirs = (Neurons(t.shape[1], None, t.numpy().astype(np.float32)) for t in (prediction, target))
        np.testing.assert_allclose(formula(operation, mine, theirs), losses.numpy(), rtol=1e-5)


def naive_biserial(values: list[int], inside: list[bool]) -> float:
    ours = [v for v, i in zip(values, inside, strict=True) if i]
    others = [v for v, i in zip(values, inside, strict=True) if not i]
    return sum((a > b) - (a < b) for a in ours for b in others) / (len(ours) * len(others))


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=20))
def test_the_rank_biserial_correlation_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    values, inside = [v for v, _ in pairs], [i for _, i in pairs]
    if len(set(inside)) == 2:
        effect, _ = rank_biserial(ranks(np.array(values, dtype=float)), np.array(inside))
        assert effect == pytest.approx(naive_biserial(values, inside))


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 3), (3, 5), (4, 4)])
def test_the_exact_probability_is_that_of_all_choices(n: int, m: int) -> None:
    values = np.arange(1.0, n + m + 1)
    effects = []
    for chosen in itertools.combinations(range(n + m), n):
        inside = np.isin(np.arange(n + m), chosen)
        effects.append(rank_biserial(values, inside))
    wanted = [np.mean([abs(other) >= abs(effect) - 1e-9 for other, _ in effects]) for effect, _ in effects]
    np.testing.assert_allclose([probability for _, probability in effects], wanted, atol=1e-12)


def test_a_step_that_came_meanwhile_is_left_out() -> None:
    """While training goes on, a curve may be longer than the list of steps that was read before it."""
    steps = np.arange(41)
    values = np.where(steps % 2 == 0, 5.0, 1.0) + np.sin(steps)
    kinds = {step: "train" if step % 2 else "test" for step in range(40)}
    grown = list(_relations(Curve("a", "value", "mean", steps, values), kinds))
    before = list(_relations(Curve("a", "value", "mean", steps[:40], values[:40]), kinds))
    assert grown == before and {candidate.hint.group for candidate in grown} == {"train", "test"}


def test_steps_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    path = write_trial(tmp_path, trial="lost", steps=12, blocks=1)
    file_path(path, "catalog").write_bytes(b"garbage")
    assert hints(open_trial(path)).hints == ()
