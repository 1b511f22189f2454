"""Hints: what moves with the loss is found, what merely has a trend is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepscope.analysis.hints import hints, partial, spearman
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial


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
    assert (found.hints[0].kind, found.hints[0].node, found.hints[0].statistic) == ("with", "driver", "std")
    assert found.hints[0].strength > 0.9
    assert ("before", "warning") in {(hint.kind, hint.node) for hint in found.hints}


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
