"""``assert_trains(..., probe=...)`` asks the trained model, and fails with what it answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding, diagnose
from stepscope.integrations.testing import assert_trains
from stepscope.recorder import Recorder, probe
from stepscope.store import open_trial

WORDS = [torch.randint(12, (16, 7), generator=torch.Generator().manual_seed(i)) for i in range(8)]
BATCHES = [(words[:, :-1], words[:, 1:].flatten()) for words in WORDS]


class Writer(nn.Module):
    """Predicts the next token from the mean of those before, through a function of what it has in between."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], *, ahead: bool = False) -> None:
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(12, 16), nn.Linear(16, 16), nn.Linear(16, 12)
        self.function, self.ahead = function, ahead

    def forward(self, tokens: torch.Tensor, hint: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embed(tokens)
        x = x.mean(1, keepdim=True).expand_as(x) if self.ahead else x.cumsum(1)
        return self.head(self.function(self.inner(x).relu()))


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, 1), target)


def train(model: nn.Module, **options: object) -> tuple[Finding, ...]:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return assert_trains(model, loss_of, BATCHES, optimizer, steps=8, ignore=["loss-plateau"], **options)  # type: ignore[arg-type]


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def test_a_sound_model_passes_all_probes() -> None:
    assert not [f for f in train(Writer(same), probe=("batch", "input", "time")) if f.level != "info"]


@pytest.mark.parametrize(
    ("model", "probes", "rule"),
    [
        (Writer(lambda x: x - x.mean(0)), True, "batch-leak"),
        (Writer(lambda x: x * 0), True, "ignored-input"),
    ],
)
def test_a_leak_fails_with_the_module_in_which_it_shows(model: nn.Module, probes: bool, rule: str) -> None:
    with pytest.raises(AssertionError, match=f"{rule}: model") as failed:
        train(model, probe=probes)
    assert "A probe of the model as it is now." in " ".join(str(failed.value).split())


def test_a_look_ahead_is_an_error_where_it_is_asked_for(tmp_path: Path) -> None:
    sound, ahead = Writer(same), Writer(same, ahead=True)
    with Recorder(tmp_path, trial="t", schedule=1) as recorder:
        recorder.watch(ahead)
        with recorder.step():
            loss_of(ahead(BATCHES[0][0]), BATCHES[0][1]).backward()
    trial = open_trial(tmp_path / "t")
    asked = [diagnose(trial, probed=probe(model, BATCHES[0][0], probes=["time"])) for model in (sound, ahead)]
    leaks = [[f for f in found if f.rule == "future-leak"] for found in asked]
    assert not leaks[0]
    assert [(f.level, f.module, f.node) for f in leaks[1]] == [("error", "model.inner", "model.inner")]


def test_without_probes_the_model_is_not_asked() -> None:
    assert not any("probe" in f.summary for f in train(Writer(lambda x: x - x.mean(0))))


def test_an_argument_by_name_is_probed_too() -> None:
    model = Writer(same)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def epoch() -> None:
        for tokens, target in BATCHES:
            optimizer.zero_grad()
            loss_of(model(tokens, hint=torch.ones(16)), target).backward()
            optimizer.step()

    found = assert_trains(model, optimizer=optimizer, train=epoch, steps=8, probe=["input"], ignore=["loss-plateau"])
    assert [f.level for f in found if f.rule == "ignored-input" and "hint" in f.summary] == ["info"]


def test_a_model_that_is_never_called_cannot_be_probed() -> None:
    model = Writer(same)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(model.forward(BATCHES[0][0]), BATCHES[0][1]).backward()
        optimizer.step()

    with pytest.raises(ValueError, match="never called itself"):
        assert_trains(model, optimizer=optimizer, train=step, steps=3, probe=True)
