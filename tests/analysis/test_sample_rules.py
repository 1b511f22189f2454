"""Rules about which samples come together, and what they hold: sorted, copied, blank, padded, weighed data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import open_trial
from support.short_runs import Batch, blobs, findings, mlp, record


def told(folder: Path, model: nn.Module, loss_of: Any, data: Any, rule: str, steps: int = 24) -> list[str]:
    """The levels of what a rule finds in a short run."""
    torch.manual_seed(0)
    return [finding.level for finding in findings(record(folder, model, loss_of, data, steps=steps), rule)]


@pytest.mark.parametrize("values", ["classes", "numbers"])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_data_that_is_sorted_by_its_targets(values: str, is_sorted: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4 if values == "classes" else 1)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        y = torch.full_like(y, number // 4 % 4) if is_sorted else y
        y[:2] = torch.tensor([0, 3])
        return x, y if values == "classes" else y[:, None] + 0.1 * torch.randn(len(y), 1)

    loss = F.cross_entropy if values == "classes" else F.mse_loss
    levels = told(tmp_path, model, lambda x, y: loss(model(x), y), data, "constant-data")
    assert levels == (["warning"] if is_sorted else [])


@pytest.mark.parametrize("kept", [1, 6])
def test_inputs_most_of_which_are_blank(kept: int, tmp_path: Path) -> None:
    model = mlp(32, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        x = x.repeat(1, 4)
        x[:, 4 * kept :] = -0.5
        return x, y

    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, "constant-data", 12)
    assert levels == (["info"] if kept == 1 else [])


@pytest.mark.parametrize("copied", [True, False])
def test_copies_with_noise_of_their_own(copied: bool, tmp_path: Path) -> None:
    model = mlp(16, 16, 4)

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(16, 16, generator=generator)
        x = x[:4].repeat(4, 1) if copied else x
        return x + 0.2 * torch.randn(16, 16, generator=generator), torch.arange(16) % 4

    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, "duplicate-samples", 14)
    assert levels == (["info"] if copied else [])


@pytest.mark.parametrize(("weights", "expected"), [([1.0, 4.0], []), ([4.0, 1.0], ["warning"]), ([1.0, 1.1], [])])
def test_weights_of_classes_that_are_upside_down(weights: list[float], expected: list[str], tmp_path: Path) -> None:
    model, weight = mlp(8, 16, 2), torch.tensor(weights)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, (y == 0).long() * (torch.arange(len(y)) % 2)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y, weight=weight)

    found = findings(record(tmp_path, model, loss_of, data, steps=24), "imbalanced-targets")
    assert [finding.level for finding in found if "upside down" in finding.summary] == expected


@pytest.mark.parametrize(("weight", "expected"), [(4.0, []), (0.25, ["warning"])])
def test_a_weight_of_yes_that_makes_it_rarer(weight: float, expected: list[str], tmp_path: Path) -> None:
    model, weighed = mlp(8, 16, 1), torch.tensor(weight)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, (y == 0).float()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x)[:, 0], y, pos_weight=weighed)

    found = findings(record(tmp_path, model, loss_of, data, steps=24), "imbalanced-targets")
    assert [finding.level for finding in found if "upside down" in finding.summary] == expected


@pytest.mark.parametrize("ignored", [True, False])
def test_padding_that_the_loss_counts(ignored: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 12))

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        words = torch.randint(1, 12, (16, 20), generator=generator)
        words = words * (torch.arange(20) < torch.randint(2, 5, (16, 1), generator=generator))
        return words, torch.where(words > 0, words, -100 if ignored else 0)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    found = findings(record(tmp_path, model, loss_of, data, steps=12), "trained-padding")
    assert [(finding.level, "target" in finding.nodes) for finding in found] == ([] if ignored else [("warning", True)])
    assert all(finding.source is not None and "cross_entropy" in finding.source.text for finding in found)


@pytest.mark.parametrize(("scale", "lr", "expected"), [(0.003, 1e-4, ["warning"]), (1.0, 1e-4, [])])
def test_inputs_that_were_made_small_twice(scale: float, lr: float, expected: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return (x + 0.1 * torch.randn_like(x)) * scale, y

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=50, lr=lr)
    assert [finding.level for finding in findings(trial, "input-scale")] == expected


@pytest.mark.parametrize("shifted", [True, False])
def test_rows_of_a_regression_that_were_shifted(shifted: bool, tmp_path: Path) -> None:
    model = mlp(4, 16, 1)

    def data(number: int) -> Batch:
        x = torch.randn(32, 4, generator=torch.Generator().manual_seed(number))
        y = x.sum(1, keepdim=True) / 2
        return x, y.roll(1, 0) if shifted else y

    levels = told(tmp_path, model, lambda x, y: F.l1_loss(model(x), y), data, "unrelated-targets", 60)
    assert levels == (["warning"] if shifted else [])


@pytest.mark.parametrize(("offset", "expected"), [(300.0, ["warning"]), (2.0, [])])
def test_inputs_that_hardly_differ_from_their_mean(offset: float, expected: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return (x + offset) / offset, y

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=50, lr=1e-4)
    assert [finding.level for finding in findings(trial, "input-scale")] == expected


@pytest.mark.parametrize("leaks", [True, False])
@pytest.mark.parametrize("classes", [True, False])
def test_a_column_that_follows_from_the_answer(leaks: bool, classes: bool, tmp_path: Path) -> None:
    model = mlp(9, 16, 4 if classes else 1)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        wanted = y if classes else x[:, :1] + torch.randn(len(y), 1)
        other = 3 * wanted.view(-1, 1).float() - 1 if leaks else torch.randn(len(y), 1)
        return torch.cat([x, other], 1), wanted

    loss = F.cross_entropy if classes else F.mse_loss
    levels = told(tmp_path, model, lambda x, y: loss(model(x), y), data, "targets-equal-inputs")
    assert levels == (["warning"] if leaks else [])


@pytest.mark.parametrize(("outputs", "expected"), [(4, []), (6, []), (40, ["info"])])
def test_scores_of_classes_that_never_occur(outputs: int, expected: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, outputs)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), lambda n: blobs(seed=n), steps=8)
    found = findings(trial, "imbalanced-targets")
    assert [finding.level for finding in found if "never occur" in finding.summary] == expected


@pytest.mark.parametrize(("ignored", "expected"), [(0, ["warning"]), (-100, []), (9, [])])
def test_a_class_that_is_taken_for_padding(ignored: int, expected: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x), y, ignore_index=ignored)

    found = findings(record(tmp_path, model, loss_of, lambda n: blobs(seed=n), steps=24), "imbalanced-targets")
    assert [finding.level for finding in found] == expected


@pytest.mark.parametrize(("by", "expected"), [("batch", ["info"]), ("sample", []), ("data", [])])
def test_inputs_that_are_normalised_by_their_own_batch(by: str, expected: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        x = x + 0.1 * torch.randn_like(x)
        if by != "data":
            along = 0 if by == "batch" else 1
            x = (x - x.mean(along, keepdim=True)) / x.std(along, keepdim=True)
        return x, y

    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, "input-scale")
    assert levels == expected


@pytest.mark.parametrize(
    ("same", "kind", "told"),
    [
        (True, "numbers", True),
        (False, "numbers", False),
        (True, "drawings", True),
        (False, "drawings", False),
        (True, "signs", False),  # of which there are few
    ],
)
def test_an_evaluation_on_samples_of_the_training(same: bool, kind: str, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tables = {
        "numbers": torch.randn(60, 8),
        "drawings": (torch.rand(60, 64) < 0.4).float(),
        "signs": F.one_hot(torch.arange(60), 64).float(),
    }
    table = tables[kind]
    model = mlp(table.shape[1], 16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for _ in range(24):
            with recorder.step():
                loss = F.cross_entropy(model(table[torch.randint(40, (16,))]), torch.arange(16) % 4)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with recorder.step("validation") as step, torch.no_grad():
                rows = torch.randint(0 if same else 40, 40 if same else 60, (16,))
                step.record("loss", F.cross_entropy(model(table[rows]), torch.arange(16) % 4), type="loss")
    found = findings(open_trial(tmp_path / "trial"), "duplicate-samples")
    assert [finding.level for finding in found if "evaluated" in finding.summary] == (["info"] if told else [])


@pytest.mark.parametrize(("targets", "expected"), [("classes", ["info"]), ("yes or no", []), ("numbers", [])])
def test_a_regression_of_the_numbers_of_classes(targets: str, expected: list[str], tmp_path: Path) -> None:
    model = mlp(8, 16, 1)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, {"classes": y.float(), "yes or no": (y > 1).float(), "numbers": y + 0.5 * x[:, 0]}[targets]

    levels = told(tmp_path, model, lambda x, y: F.mse_loss(model(x)[:, 0], y), data, "classes-as-numbers", 40)
    assert levels == expected


@pytest.mark.parametrize("several", [True, False])
def test_a_softmax_where_samples_have_several_answers(several: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, (x[:, :4] > 0).float() if several else F.one_hot(y, 4).float()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy(model(x).softmax(1), y)

    assert told(tmp_path, model, loss_of, data, "activation-before-loss", 8) == (["error"] if several else [])


@pytest.mark.parametrize("filled", [1, 30])
def test_samples_that_are_all_zeros(filled: int, tmp_path: Path) -> None:
    model = mlp(16, 16, 4)

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(32, 16, generator=generator) * (torch.arange(32) < filled)[:, None]
        return x, torch.randint(4, (32,), generator=generator)

    levels = told(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, "constant-data", 12)
    assert levels == (["warning"] if filled == 1 else [])
