"""What questions and mended projects taught: on runs that have the mistake, and on look-alikes that have not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blob_batches, blobs, curve, descend, findings, mlp, only, record


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mean, self.logvar, self.dec = nn.Linear(8, 32), nn.Linear(32, 3), nn.Linear(32, 3), mlp(3, 32, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.enc(x).relu()
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        return self.dec(mean + (0.5 * logvar).exp() * torch.randn_like(mean)), mean, logvar


def restore(folder: Path, weight: float, *, after: Callable[[Recorder], None] | None = None) -> Trial:
    torch.manual_seed(0)
    model = Vae()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        restored, mean, logvar = model(x)
        divergence = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1).mean()
        error = F.mse_loss(restored, x)
        return error + weight * divergence if weight else error

    return record(folder, model, loss_of, blob_batches, after=after)


class TestMissingDivergence:
    def test_it_is_computed_but_not_added(self, tmp_path: Path) -> None:
        finding = only(restore(tmp_path, 0.0), "missing-divergence")
        assert finding.level == "warning" and finding.node == "model.mean" and "model.logvar" in finding.nodes
        assert finding.source is not None and finding.source.text == "error = F.mse_loss(restored, x)"

    def test_a_small_one_is_one(self, tmp_path: Path) -> None:
        assert findings(restore(tmp_path, 0.01), "missing-divergence") == []

    def test_no_autoencoder(self, tmp_path: Path) -> None:
        model = Vae()
        model.dec = mlp(3, 32, 4)
        trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x)[0], y), blob_batches)
        assert findings(trial, "missing-divergence") == []

    def test_a_decoder_that_is_shown_drawn_codes_skips_no_encoder(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = Vae()

        def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            restored, mean, logvar = model(x)
            return F.mse_loss(restored, x) - 0.005 * (1 + logvar - mean**2 - logvar.exp()).sum(1).mean()

        def draw(recorder: Recorder) -> None:
            for _ in range(3):
                with torch.no_grad(), recorder.step("validation") as step:
                    step.record("loss", model.dec(torch.randn(20, 3)).square().mean(), type="loss")

        trial = record(tmp_path, model, loss_of, blob_batches, after=draw)
        assert findings(trial, "skipped-module") == []


def run_out(folder: Path, batches: int, *, kind: str = "train") -> Trial:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.Adam(model.parameters())
    with Recorder(folder, trial="trial", schedule=1) as recorder:
        recorder.watch(model, optimizer)
        for number in range(24):
            x, y = blobs(seed=number)
            with recorder.step("train" if number < batches else kind) as step:
                if number < batches:
                    descend(F.cross_entropy(model(x), y), optimizer)
                else:
                    step.record("loss", torch.ones(()), type="loss")
    return open_trial(folder / "trial")


class TestIdleSteps:
    def test_the_data_is_exhausted(self, tmp_path: Path) -> None:
        finding = only(run_out(tmp_path, 10), "idle-steps")
        assert finding.level == "error" and finding.step == 10 and finding.node == "loss"
        assert finding.source is not None and "torch.ones(())" in finding.source.text

    def test_the_last_batch_is_left_out(self, tmp_path: Path) -> None:
        assert findings(run_out(tmp_path, 23), "idle-steps") == []

    def test_steps_of_another_kind_may_compute_nothing(self, tmp_path: Path) -> None:
        assert findings(run_out(tmp_path, 10, kind="notes"), "idle-steps") == []

    def test_evaluations_under_the_same_name_compute_something(self, tmp_path: Path) -> None:
        model = mlp(8, 16, 4)

        def evaluate(recorder: Recorder) -> None:
            for number in range(8):
                x, y = blobs(seed=90 + number)
                with torch.no_grad(), recorder.step():
                    F.cross_entropy(model(x), y)

        trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, after=evaluate)
        assert findings(trial, "idle-steps") == []


def accumulate(folder: Path, *, divided: bool, cleared: bool = True) -> Trial:
    """Five batches for each update, at a rate that is far too high."""
    torch.manual_seed(0)
    model = mlp(8, 16, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
    calls = iter(range(1000))

    def train(loss: torch.Tensor, _: object) -> None:
        loss.backward()
        if next(calls) % 5 == 4:
            optimizer.step()
            if cleared:
                optimizer.zero_grad()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        entropy = F.cross_entropy(model(x), y)
        return entropy / 5 if divided else entropy

    return record(folder, model, loss_of, blob_batches, optimizer=optimizer, steps=40, train=train)


@pytest.mark.parametrize(
    ("divided", "cleared", "is_told"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_accumulated_batches_that_are_not_divided(tmp_path: Path, divided: bool, cleared: bool, is_told: bool) -> None:
    finding = only(accumulate(tmp_path, divided=divided, cleared=cleared), "learning-rate")
    assert ("5 accumulated batches" in finding.summary) == is_told
    if is_told:
        assert finding.source is not None and finding.source.text == "loss.backward()"


def learn_values(folder: Path, *, discount: float, samples: int = 64) -> Trial:
    """Q-values whose targets are ``reward + discount * value``, the value that the same net had a step before."""
    torch.manual_seed(0)
    model, other = mlp(6, 24, 1), mlp(6, 24, 1)

    def moves(number: int) -> tuple[torch.Tensor, ...]:
        other.load_state_dict(model.state_dict())
        return (*curve(samples, seed=number), curve(samples, seed=1000 + number)[0])

    def loss_of(here: torch.Tensor, reward: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = 1 + reward.mean(1, keepdim=True) + discount * other(following)
        return F.mse_loss(model(here), wanted)

    return record(folder, model, loss_of, moves, steps=80, lr=1e-2)


def test_targets_that_rise_towards_their_limit_are_no_sorted_data(tmp_path: Path) -> None:
    assert findings(learn_values(tmp_path, discount=0.9), "constant-data", "growing-targets") == []


def test_targets_that_a_step_computes_and_that_grow_without_bound(tmp_path: Path) -> None:
    assert only(learn_values(tmp_path, discount=1.5), "growing-targets").level == "warning"


def test_an_agent_that_learns_from_its_latest_move(tmp_path: Path) -> None:
    finding = only(learn_values(tmp_path, discount=0.5, samples=1), "tiny-batch")
    assert finding.level == "info" and "single sample" in finding.summary and "correlated" in finding.summary


def test_single_samples_of_data_that_are_learned_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 24, 2)
    trial = record(
        tmp_path,
        model,
        lambda x, y: F.mse_loss(model(x), y),
        lambda number: tuple(t[:1] for t in curve(seed=0)),
        steps=40,
    )
    assert findings(trial, "tiny-batch") == []


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_weight_that_an_unrecorded_step_broke_leads_to_the_only_logarithm(tmp_path: Path, is_alone: bool) -> None:
    torch.manual_seed(0)
    model = mlp(6, 24, 1, last=[nn.Softplus()])
    model[2].bias.data.fill_(3.0)

    def loss_of(number: int, _: object) -> torch.Tensor:
        x, _ = curve(seed=number)
        energy = model(x) * (0.0 if number == 7 else 1.0)
        told = energy.log()
        return told.square().mean() if is_alone else (told.square() + (energy + 1).sqrt()).mean()

    trial = record(tmp_path, model, loss_of, steps=20, every=2, lr=1e-3)
    finding = only(trial, "non-finite")
    assert finding.node.startswith("model.") and "an earlier update broke it" in finding.summary
    assert ("is a log" in finding.summary) == is_alone
    assert finding.source is not None and (finding.source.text == "told = energy.log()") == is_alone
