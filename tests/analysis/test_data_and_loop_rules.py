"""Rules about batches, targets, losses without bound and weights that something else writes to; and look-alikes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from support.short_runs import blob_batches, curve_batches, findings, mlp, only, record


def squared(model: nn.Module):
    return lambda x, y: F.mse_loss(model(x), y)


def crossed(model: nn.Module):
    return lambda x, y: F.cross_entropy(model(x), y)


def test_a_batch_that_is_far_larger_than_the_others(tmp_path: Path) -> None:
    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = curve_batches(number)
        return (x, y * 1000) if number == 15 else (x, y)

    model = mlp(6, 16, 2)
    finding = only(record(tmp_path, model, squared(model), data), "extreme-batch")
    assert finding.node == "target" and finding.step == 15 and finding.level == "warning"


def test_batches_of_changing_sizes_are_not_extreme(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    trial = record(tmp_path, model, squared(model), lambda n: (curve_batches(n)[0] * (1 + n % 7), curve_batches(n)[1]))
    assert findings(trial, "extreme-batch") == []


def test_the_same_batch_in_every_step(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    finding = only(record(tmp_path / "same", model, crossed(model), lambda _: blob_batches(0)), "repeated-batch")
    assert finding.node == "input" and finding.level == "info"
    assert findings(record(tmp_path / "other", model, crossed(model), blob_batches), "repeated-batch") == []


def test_a_loss_without_bound(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    trial = record(tmp_path, model, lambda x, y: model(x).square().mean() * -1, curve_batches, steps=60)
    finding = only(trial, "unbounded-loss")
    assert finding.node == "loss" and finding.level == "error"


def test_the_likelihood_of_a_density_has_a_bound(tmp_path: Path) -> None:
    model = mlp(6, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mean, log_scale = model(x).chunk(2, dim=1)
        return -torch.distributions.Normal(mean, log_scale.exp()).log_prob(y / 100).mean()

    trial = record(tmp_path, model, loss_of, curve_batches, steps=60)
    assert trial.series("loss").values[-1] < 0
    assert findings(trial, "unbounded-loss") == []


def test_weights_that_are_reset(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        if number == 20:
            for layer in (model[0], model[2]):
                layer.reset_parameters()
        return blob_batches(number)

    finding = only(record(tmp_path, model, crossed(model), data, lr=0.03), "weights-reset")
    assert finding.step == 20 and {finding.node, *finding.nodes} == {"model.0.weight", "model.2.weight"}


def test_one_of_many_layers_that_is_made_anew(tmp_path: Path) -> None:
    model = mlp(8, 16, 16, 16, 4)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        if number == 30:
            nn.init.normal_(model[2].weight, std=0.5)
        return blob_batches(number)

    finding = only(record(tmp_path, model, crossed(model), data, lr=0.003, steps=60), "weights-reset")
    assert finding.step == 30 and (finding.node, finding.nodes) == ("model.2.weight", ())


def test_a_norm_that_is_kept_by_hand_is_no_reset(tmp_path: Path) -> None:
    model = mlp(8, 16, 16, 16, 4)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            model[2].weight.div_(model[2].weight.norm(dim=1, keepdim=True))
        return blob_batches(number)

    trial = record(tmp_path, model, crossed(model), data, lr=0.03, steps=60)
    assert findings(trial, "weights-reset") == []


def test_large_steps_are_no_reset(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    trial = record(tmp_path, model, crossed(model), blob_batches, lr=0.3, every=3, steps=60)
    assert findings(trial, "weights-reset") == []


class Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 32), nn.Linear(32, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens))


def sentences(number: int) -> tuple[torch.Tensor, ...]:
    return (torch.randint(20, (16, 9), generator=torch.Generator().manual_seed(number)),)


def test_targets_that_are_not_shifted(tmp_path: Path) -> None:
    model = Writer()
    trial = record(
        tmp_path, model, lambda tokens: F.cross_entropy(model(tokens).flatten(0, 1), tokens.clone().flatten()),
        sentences, lr=0.1, steps=40,
    )  # fmt: skip
    assert only(trial, "targets-equal-inputs").node == "input"


def test_targets_that_are_shifted_by_slices(tmp_path: Path) -> None:
    model = Writer()
    trial = record(
        tmp_path, model,
        lambda tokens: F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()), sentences, lr=0.1,
    )  # fmt: skip
    assert findings(trial, "targets-equal-inputs") == []


@pytest.mark.parametrize("weighed", [True, False])
def test_one_class_of_many_that_towers_above_the_others(weighed: bool, tmp_path: Path) -> None:
    model, weight = mlp(8, 16, 12), torch.full((12,), 2.0) if weighed else None

    def data(number: int) -> tuple[torch.Tensor, ...]:
        y = torch.where(torch.arange(64) % 6 == 0, (torch.arange(64) + number) % 11 + 1, 0)
        return blob_batches(number)[0], y

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y, weight), data, steps=22)
    assert [finding.level for finding in findings(trial, "imbalanced-targets")] == ([] if weighed else ["info"])


def test_one_class_in_fifty(tmp_path: Path) -> None:
    model = mlp(8, 16, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(x)[:, 0], y)

    def rare(number: int) -> tuple[torch.Tensor, ...]:
        return blob_batches(number)[0], (torch.arange(64) == number % 64).float()

    finding = only(record(tmp_path / "rare", model, loss_of, rare), "imbalanced-targets")
    assert finding.node == "target" and "98.4%" in finding.summary
    even = record(tmp_path / "even", model, loss_of, lambda n: (blob_batches(n)[0], (blob_batches(n)[1] > 1).float()))
    assert findings(even, "imbalanced-targets") == []


@pytest.mark.parametrize("words", [3, 20])
def test_padding_as_a_class(words: int, tmp_path: Path) -> None:
    """The kept samples are the first places, which are words; of all places most are padding, which is class 0."""
    model = nn.Embedding(30, 7)

    def padded(number: int) -> tuple[torch.Tensor, ...]:
        text = torch.zeros(16, 60, dtype=torch.int64)
        text[:, :words] = torch.randint(1, 30, (16, words), generator=torch.Generator().manual_seed(number))
        return text, torch.where(text > 0, 1 + text % 6, 0)

    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten()), padded, lr=0.1, steps=40
    )
    found = findings(trial, "imbalanced-targets")
    assert [finding.level for finding in found] == (["info"] if words == 3 else [])
    assert not found or "95.0% of the targets target are 0" in found[0].summary


def test_an_optimizer_of_frozen_parameters(tmp_path: Path) -> None:
    model = mlp(8, 16, 4).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters())
    trial = record(
        tmp_path / "all", model, lambda x, y: F.cross_entropy(model(x), y).requires_grad_(), blob_batches,
        optimizer=optimizer,
    )  # fmt: skip
    assert only(trial, "frozen-parameters").level == "error"
    model[2].requires_grad_(True)
    trial = record(tmp_path / "some", model, crossed(model), blob_batches, optimizer=optimizer)
    assert only(trial, "frozen-parameters").level == "info"


def test_a_bias_that_cancels_is_worth_knowing_only(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    trial = record(tmp_path, model, lambda x, y: (model(x) - model(x.flip(0))).square().mean(), blob_batches)
    (finding,) = findings(trial, "no-gradient")
    assert finding.node == "model.2.bias" and finding.level == "info"


def test_zeros_that_go_into_a_layer(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    (finding,) = findings(
        record(tmp_path, model, lambda x, y: F.cross_entropy(model(0 * x), y), blob_batches), "no-gradient"
    )
    assert finding.node == "model.0.weight" and "What goes into model.0 is zero" in finding.summary
