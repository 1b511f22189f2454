"""The rule ``likelihood-sign``: log-probabilities with a plus, and with the minus that they need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical, Normal

from support.short_runs import Batch, findings, record

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def data(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return (
        torch.randn(16, 6, generator=generator),
        torch.randint(4, (16,), generator=generator),
        torch.randn(16, generator=generator),
    )


def told(folder: Path, loss_of: Loss) -> list[str]:
    """Of scores ``(16, 4)``, actions and advantages."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    trial = record(folder, model, lambda x, action, gain: loss_of(model(x), action, gain), data, steps=4)
    return [found.level for found in findings(trial, "likelihood-sign")]


def ratio(scores: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    log_probability = Categorical(logits=scores).log_prob(action)
    return (log_probability - log_probability.detach()).exp()


@pytest.mark.parametrize(
    ("loss_of", "level"),
    [
        (lambda s, a, gain: (Categorical(logits=s).log_prob(a) * gain).mean(), "info"),
        (lambda s, a, gain: (s.log_softmax(1).gather(1, a[:, None])[:, 0] * gain).sum() / 16, "info"),
        (lambda s, a, gain: (-F.cross_entropy(s, a, reduction="none") * gain).mean(), "info"),
        (lambda s, a, gain: (-Categorical(logits=s).log_prob(a) * -gain).mean(), "info"),
        (lambda s, a, gain: torch.min(ratio(s, a) * gain, ratio(s, a).clamp(0.8, 1.2) * gain).mean(), "info"),
        (lambda s, a, gain: (s.softmax(1)[torch.arange(16), a].log() * gain).mean(), "info"),
        (lambda s, a, gain: s.log_softmax(1)[torch.arange(16), a].mean(), "warning"),
        (lambda s, a, gain: Normal(s[:, 0], F.softplus(s[:, 1]) + 0.1).log_prob(gain).mean(), "warning"),
        (lambda s, a, gain: Normal(s[:, 0], 0.3).log_prob(gain).sum(), "warning"),
        (lambda s, a, gain: F.logsigmoid(s[:, 0]).mean(), "warning"),
    ],
)
def test_a_log_probability_with_a_plus_is_told(loss_of: Loss, level: str, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of) == [level]


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda s, a, gain: -(Categorical(logits=s).log_prob(a) * gain).mean(),
        lambda s, a, gain: (-Categorical(logits=s).log_prob(a) * gain).mean(),
        lambda s, a, gain: (Categorical(logits=s).log_prob(a) * -gain).mean(),
        lambda s, a, gain: -1 * (s.log_softmax(1).gather(1, a[:, None])[:, 0] * gain).sum() / 16,
        lambda s, a, gain: (F.cross_entropy(s, a, reduction="none") * gain).mean(),
        lambda s, a, gain: torch.max(-gain * ratio(s, a), -gain * ratio(s, a).clamp(0.8, 1.2)).mean(),
        lambda s, a, gain: -Normal(s[:, 0], F.softplus(s[:, 1]) + 0.1).log_prob(gain).mean(),
        lambda s, a, gain: (s[:, 0] - gain).square().mean(),
        lambda s, a, gain: F.logsigmoid(-s[:, 0]).mean(),
        lambda s, a, gain: -F.logsigmoid(s[:, 0] - s[:, 1]).mean(),
        lambda s, a, gain: F.logsigmoid(s[:, 1] - s[:, 0]).mean(),
        lambda s, a, gain: -(F.logsigmoid(s[:, 0]) + F.logsigmoid(-s[:, 1])).mean(),
        lambda s, a, gain: (1 - s[:, 0].sigmoid()).log().mean(),
    ],
)
def test_what_is_to_be_made_small_is_right(loss_of: Loss, tmp_path: Path) -> None:
    assert told(tmp_path, loss_of) == []


def test_a_reward_that_falls_tells_that_they_are_no_costs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)

    def end(recorder: object) -> None:
        for number in range(30):
            recorder.scalar("reward", 1 - number / 30, step=number)  # type: ignore[attr-defined]

    trial = record(
        tmp_path, model, lambda x, a, gain: (model(x).log_softmax(1)[torch.arange(16), a] * gain).mean(), data,
        steps=30, after=end,
    )  # fmt: skip
    assert [found.level for found in findings(trial, "likelihood-sign")] == ["warning"]


def test_the_size_of_a_policys_loss_says_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    trial = record(
        tmp_path, model, lambda x, a, gain: -(model(x).log_softmax(1)[torch.arange(16), a] * (gain + 2)).mean(),
        lambda number: data(0), steps=60, lr=1e-6,
    )  # fmt: skip
    assert findings(trial, "loss-plateau") == []
