"""Which logged metrics are new, and how they are filed."""

from __future__ import annotations

import pytest
import torch

from stepscope.integrations.lightning_metrics import LoggedMetrics, group_and_name


def test_only_new_values_are_told() -> None:
    seen = LoggedMetrics()
    loss, accuracy = torch.tensor(1.0), torch.tensor(0.5)
    assert list(seen.new({"loss": loss})) == [("loss", loss)]
    assert list(seen.new({"loss": loss.detach(), "accuracy": accuracy})) == [("accuracy", accuracy)]
    # An equal number that was logged anew is new.
    assert [name for name, _ in seen.new({"loss": torch.tensor(1.0), "accuracy": accuracy})] == ["loss"]


def test_what_is_no_number_is_left_out() -> None:
    assert list(LoggedMetrics().new({"matrix": torch.ones(2, 2), "text": "high"})) == []


def test_values_whose_memory_would_be_used_again_are_still_told_apart() -> None:
    seen = LoggedMetrics()
    for number in range(1000):
        assert [value.item() for _, value in seen.new({"loss": torch.tensor(float(number))})] == [number]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("loss", ("", "loss")), ("a/b/loss", ("a/b", "loss")), ("odd/", ("", "odd/")), ("/loss", ("", "loss"))],
)
def test_groups(metric: str, expected: tuple[str, str]) -> None:
    assert group_and_name(metric) == expected
