"""``assert_trains``: what passes, what fails, and with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.integrations.testing import assert_trains
from stepscope.store import open_group
from support.short_runs import blob_batches, descend, mlp

BATCHES = [blob_batches(number) for number in range(20)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def adam(model: nn.Module, lr: float = 1e-2) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr)


def epoch_of(model: nn.Module, optimizer: torch.optim.Optimizer, most: int = 20) -> Callable[[], None]:
    def train() -> None:
        for x, y in BATCHES[:most]:
            descend(F.cross_entropy(model(x), y), optimizer)

    return train


def test_a_healthy_net_passes() -> None:
    model = mlp(8, 32, 4)
    findings = assert_trains(model, nn.CrossEntropyLoss(), BATCHES, adam(model), steps=30)
    assert all(finding.level == "info" for finding in findings)


def test_a_broken_net_fails_with_the_findings() -> None:
    model = mlp(8, 32, 4, last=[nn.Softmax(dim=1)])
    with pytest.raises(AssertionError) as failed:
        assert_trains(model, nn.CrossEntropyLoss(), BATCHES, adam(model))
    text = str(failed.value)
    assert text.startswith("the training is not healthy: 1 error")
    assert "activation-before-loss" in text and "Try:" in text


@pytest.mark.parametrize("most", [1, 7, 20])
def test_training_code_of_ones_own(most: int, tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    optimizer = adam(model)
    assert_trains(model, optimizer=optimizer, train=epoch_of(model, optimizer, most), steps=20, keep=tmp_path)
    (trial,) = open_group(tmp_path).names
    steps = open_group(tmp_path)[trial].steps
    assert 20 <= len(steps) < 20 + most
    assert open_group(tmp_path)[trial].node("loss")


def test_a_broken_loop_fails() -> None:
    model = mlp(8, 32, 4)
    optimizer = adam(model[0])  # forgets the last layer

    with pytest.raises(AssertionError, match=r"WARNING .*model\.2.weight"):
        assert_trains(model, optimizer=optimizer, train=epoch_of(model, optimizer))


def test_a_loop_that_never_steps_fails() -> None:
    model = mlp(8, 32, 4)
    with pytest.raises(AssertionError, match="without a step of the"):
        assert_trains(model, optimizer=adam(model), train=lambda: model(BATCHES[0][0]))


def test_the_level_that_fails() -> None:
    model = mlp(8, 32, 4)
    large = [(300 * x, y) for x, y in BATCHES]
    with pytest.raises(AssertionError, match="WARNING input-scale"):
        assert_trains(model, nn.CrossEntropyLoss(), large, adam(model, 1e-3))
    findings = assert_trains(model, nn.CrossEntropyLoss(), large, adam(model, 1e-3), level="error")
    assert "input-scale" in [finding.rule for finding in findings]


def test_rules_that_do_not_count() -> None:
    model = mlp(8, 32, 4, last=[nn.Softmax(dim=1)])
    with pytest.raises(AssertionError) as failed:
        assert_trains(model, nn.CrossEntropyLoss(), BATCHES, adam(model), level="info")
    rules = [
        line.split()[1].rstrip(",:") for line in str(failed.value).splitlines() if line[:4] in ("ERRO", "WARN", "INFO")
    ]
    assert "activation-before-loss" in rules
    assert_trains(model, nn.CrossEntropyLoss(), BATCHES, adam(model), ignore=["activation-before-loss"], level="error")


def test_the_recording_stays_if_asked_for(tmp_path: Path) -> None:
    model = mlp(8, 32, 4, last=[nn.Softmax(dim=1)])
    with pytest.raises(AssertionError, match=f"stepscope view {tmp_path / 'runs'}"):
        assert_trains(model, nn.CrossEntropyLoss(), BATCHES, adam(model), steps=8, keep=tmp_path / "runs")
    (name,) = open_group(tmp_path / "runs").names
    assert open_group(tmp_path / "runs")[name].steps.tolist() == list(range(8))


def test_batches_run_out(tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    assert_trains(model, nn.CrossEntropyLoss(), BATCHES[:3], adam(model), steps=7, keep=tmp_path / "again")
    assert_trains(model, nn.CrossEntropyLoss(), iter(BATCHES[:3]), adam(model), steps=7, keep=tmp_path / "once")
    lengths = [len(open_group(tmp_path / name)["assert_trains"].steps) for name in ("again", "once")]
    assert lengths == [7, 3]


def test_several_inputs_and_optimizers() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.one(x) + self.other(y)

    model = Sum()
    batches = [(x, x.flip(1), y) for x, y in BATCHES]
    assert_trains(model, F.cross_entropy, batches, [adam(model.one), adam(model.other)], steps=15)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"optimizer": None}, "no optimizer is given"),
        ({"loss_fn": None}, "give either loss_fn and batches, or train"),
        ({"train": print}, "give either loss_fn and batches, or train"),
        ({"steps": 0}, "give at least 1"),
        ({"level": "bad"}, "give one of error, warning, info"),
        ({"ignore": ["dead-unit"]}, "there is no rule 'dead-unit'; there are"),
        ({"batches": []}, "give at least one batch"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict, sentence: str) -> None:
    model = mlp(8, 4)
    given = {"loss_fn": F.cross_entropy, "batches": BATCHES, "optimizer": adam(model), **arguments}
    with pytest.raises(ValueError, match=sentence):
        assert_trains(model, **given)


def test_the_page_s_tests_pass() -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(code, names)
    tests = [function for name, function in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for function in tests:
        function()
