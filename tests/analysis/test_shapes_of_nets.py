"""Nets whose shape is wrong: signals that grow, filters of one pixel, wide codes, no bias, rows cut off to one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.store import Trial
from support.short_runs import Batch, blob_batches, curve_batches, findings, images, mlp, record


def levels(trial: Trial, rule: str) -> list[str]:
    return [finding.level for finding in findings(trial, rule)]


class Block(nn.Module):
    def __init__(self, *, normed: bool, gain: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16) if normed else nn.Identity()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        nn.init.normal_(self.two.weight, std=gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(self.one(self.norm(x)).relu())


@pytest.mark.parametrize(("normed", "gain", "found"), [(False, 1.0, ["warning"]), (True, 1.0, []), (False, 0.25, [])])
def test_what_grows_from_block_to_block(normed: bool, gain: float, found: list[str], tmp_path: Path) -> None:
    blocks = [Block(normed=normed, gain=gain) for _ in range(8)]
    model = nn.Sequential(nn.Linear(8, 16), *blocks, nn.Linear(16, 4))
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=4, lr=1e-4)
    assert levels(trial, "growing-signal") == found


def test_a_single_large_layer_grows_nothing_from_layer_to_layer(tmp_path: Path) -> None:
    model = mlp(6, 16, 16, 16, 2)
    nn.init.constant_(model[-1].bias, 200.0)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y + 200), curve_batches, steps=4)
    assert levels(trial, "growing-signal") == []


@pytest.mark.parametrize(("kernel", "last", "found"), [(1, "mean", ["warning"]), (3, "mean", []), (1, "flat", [])])
def test_filters_of_one_pixel(kernel: int, last: str, found: list[str], tmp_path: Path) -> None:
    pool = nn.Flatten() if last == "flat" else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(
        nn.Conv2d(1, 8, kernel, padding="same"), nn.ReLU(), nn.Conv2d(8, 8, kernel, padding="same"), nn.ReLU(), pool,
        nn.Linear(512 if last == "flat" else 8, 4),
    )  # fmt: skip
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), images, steps=60, lr=2e-3)
    assert levels(trial, "pointwise-filters") == found


@pytest.mark.parametrize(("kernel", "found"), [(1, ["warning"]), (3, [])])
def test_filters_of_one_pixel_beside_one_that_widens(kernel: int, found: list[str], tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, kernel, padding="same"), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU(),
        nn.Conv2d(8, 8, kernel, padding="same"), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), images, steps=60, lr=2e-3)
    assert levels(trial, "pointwise-filters") == found


@pytest.mark.parametrize(
    ("code", "way", "found"), [(24, "plain", ["info"]), (2, "plain", []), (24, "sparse", []), (24, "noisy", [])]
)
def test_a_code_that_is_wider_than_what_it_is_of(code: int, way: str, found: list[str], tmp_path: Path) -> None:
    encoder, decoder = mlp(6, 32, code), mlp(code, 32, 6)
    model = nn.ModuleList([encoder, decoder])

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        given = x + 0.3 * torch.randn_like(x) if way == "noisy" else x
        codes = encoder(given)
        error = F.mse_loss(decoder(codes), x)
        return error + 0.01 * F.l1_loss(codes, torch.zeros_like(codes)) if way == "sparse" else error

    assert levels(record(tmp_path, model, loss_of, curve_batches, steps=80), "wide-bottleneck") == found


@pytest.mark.parametrize(("usual", "bias", "found"), [(0.1, False, ["info"]), (0.1, True, []), (0.5, False, [])])
def test_a_single_layer_without_a_bias(usual: float, bias: bool, found: list[str], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8, bias=bias))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        chosen = torch.rand(len(x), 8, generator=torch.Generator().manual_seed(int(x[0, 0].abs() * 1e6)))
        return F.binary_cross_entropy_with_logits(model(x), (chosen < usual).float())

    assert levels(record(tmp_path, model, loss_of, curve_batches, steps=6), "missing-bias") == found


@pytest.mark.parametrize(("cut", "found"), [(60, ["warning"]), (150, [])])
def test_numbers_that_are_cut_off_to_the_last_row(cut: int, found: list[str], tmp_path: Path) -> None:
    embed, head = nn.Embedding(cut, 8), nn.Linear(8, 4)
    model = nn.ModuleList([embed, head])

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        words = torch.randint(150, (32, 12), generator=generator)
        return words.clamp(max=cut - 1), words[:, 0] % 4

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(head(embed(x).mean(1)), y), data, steps=40)
    assert levels(trial, "unused-embeddings") == found


@pytest.mark.parametrize(("given", "found"), [("zeros", ["info"]), ("so far", []), ("queries", [])])
def test_zeros_in_the_place_of_what_was_said_so_far(given: str, found: list[str], tmp_path: Path) -> None:
    decoder, queries = nn.GRU(6, 12, batch_first=True), nn.Parameter(torch.randn(1, 5, 6))
    head = nn.Linear(12, 6)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.head, self.queries = decoder, head, queries

        def forward(self, x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            return self.head(self.decoder(told + (self.queries if given == "queries" else 0) + 0 * x.mean())[0])

    model = Net()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        told = F.pad(y[:, :-1], (0, 0, 1, 0)) if given == "so far" else torch.zeros(len(y), 5, 6)
        return F.mse_loss(model(x, torch.zeros_like(y) if given == "zeros" else told), y)

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(16, 6, generator=generator), torch.randn(16, 5, 6, generator=generator)

    found_in = findings(record(tmp_path, model, loss_of, data, steps=6), "constant-data")
    assert [finding.level for finding in found_in if "zeros" in finding.summary] == found


@pytest.mark.parametrize(("kind", "found"), [(torch.optim.SGD, 1), (torch.optim.Adam, 0)])
def test_a_net_whose_optimizer_hardly_moves_it_beside_another(
    kind: type[torch.optim.Optimizer], found: int, tmp_path: Path
) -> None:
    generator, critic = mlp(4, 16, 16, 2), mlp(2, 16, 1)
    model = nn.ModuleDict({"generator": generator, "critic": critic})
    made_by, judged_by = kind(generator.parameters(), lr=1e-3), torch.optim.Adam(critic.parameters(), 4e-3)

    def train(loss: torch.Tensor, _: torch.optim.Optimizer) -> None:
        judged_by.zero_grad()
        loss.backward()
        judged_by.step()
        made_by.zero_grad()
        (critic(generator(torch.randn(32, 4))) - 1).square().mean().backward()
        made_by.step()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        fake = generator(torch.randn(32, 4)).detach()
        return (critic(x[:, :2]) - 1).square().mean() + critic(fake).square().mean()

    both = {"generator": made_by, "critic": judged_by}
    trial = record(tmp_path, model, loss_of, curve_batches, steps=120, every=4, optimizer=both, train=train)
    told = [finding for finding in findings(trial, "learning-rate") if "too low" in finding.summary]
    assert len(told) == found
    assert all("generator" in finding.node for finding in told)
