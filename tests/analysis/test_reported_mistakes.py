"""What another set of unseen runs had taught: mistakes that were missed, and sound trainings that were accused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, blob_batches, blobs, curve, curve_batches, descend, findings, mlp, only, record


@pytest.mark.parametrize(("dtype", "told"), [(torch.bfloat16, True), (torch.float32, False)])
def test_updates_that_are_lost_to_rounding(dtype: torch.dtype, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 32, 4).to(dtype)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x.to(dtype)).float(), y)

    found = findings(record(tmp_path, model, loss_of, blob_batches, lr=1e-4, steps=20), "rounded-updates")
    assert ["bfloat16" in one.summary for one in found] == [True] * told


@pytest.mark.parametrize("through", ["a norm", "nothing"])
def test_a_sigmoid_of_what_is_never_negative(through: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(mlp(8, 16, 4), nn.Sigmoid()) if through == "nothing" else nn.Sequential(
        mlp(8, 16, 4), nn.ReLU(), nn.Sigmoid()
    )  # fmt: skip
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), F.one_hot(y, 4).float()), blob_batches, steps=20)
    assert [one.level for one in findings(trial, "half-sigmoid")] == (["warning"] if through == "a norm" else [])


@pytest.mark.parametrize(("reduction", "told"), [("mean", True), ("sum", False)])
def test_means_over_texts_of_other_lengths(reduction: str, told: bool, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 12))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(6):
            generator = torch.Generator().manual_seed(number)
            texts = [torch.randint(12, (4, length + 1), generator=generator) for length in (40, 3, 3)]
            count = sum(text[:, 1:].numel() for text in texts) if reduction == "sum" else len(texts)
            with recorder.step("train"):
                optimizer.zero_grad()
                for text in texts:
                    scores = model(text[:, :-1]).flatten(0, 1)
                    (F.cross_entropy(scores, text[:, 1:].flatten(), reduction=reduction) / count).backward()
                optimizer.step()
    found = findings(open_trial(tmp_path / "trial"), "uneven-means")
    assert ["12 to 160 targets" in one.summary for one in found] == [True] * told


def _critic(folder: Path, *, penalised: bool) -> Trial:
    torch.manual_seed(0)
    critic = mlp(4, 32, 32, 1)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)

    def loss_of(real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        loss = critic(made).mean() - critic(real).mean()
        if penalised:
            between = made.lerp(real, 0.5).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            loss = loss + 10 * (slope.norm(dim=1) - 1).square().mean()
        return loss

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(32, 4, generator=generator) + 1, torch.randn(32, 4, generator=generator)

    return record(folder, critic, loss_of, data, optimizer=optimizer, steps=120, every=2)


@pytest.mark.parametrize("penalised", [True, False])
def test_a_critic_that_nothing_holds(penalised: bool, tmp_path: Path) -> None:
    found = findings(_critic(tmp_path, penalised=penalised), "unbounded-loss")
    assert ["Lipschitz" in one.summary for one in found if one.node == "model"] == ([] if penalised else [True])


@pytest.mark.parametrize("shuffled", [True, False])
def test_the_same_samples_in_another_order(shuffled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    x, y = blobs(seed=0)

    def data(number: int) -> Batch:
        if not shuffled:
            return blobs(seed=number)
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(number))
        return x[rows], y[rows]

    found = findings(record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data), "repeated-batch")
    assert ["same 64 samples" in one.summary for one in found] == [True] * shuffled


@pytest.mark.parametrize(("weight", "told"), [(1.0, True), (0.01, False)])
def test_a_term_that_is_passed_over(weight: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, kind, place = mlp(8, 16, 16), nn.Linear(16, 4), nn.Linear(16, 1)
    model = nn.ModuleDict({"body": body, "kind": kind, "place": place})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen = body(x).relu()
        far = 20 * x[:, :1] + 30
        return F.cross_entropy(kind(seen), y) + weight * F.l1_loss(50 * place(seen), far)

    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        optimizer.step()

    trial = record(
        tmp_path, model, loss_of, blob_batches, optimizer=optimizer, train=train, steps=120, every=2
    )  # fmt: skip
    found = [one for one in findings(trial, "loss-balance") if one.node == "cross_entropy"]
    assert bool(found) == told


@pytest.mark.parametrize(("largest", "told"), [(255.0, True), (1.0, False)])
def test_bytes_for_a_frozen_net(largest: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 4)
    model[0].requires_grad_(False)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return largest * x.sigmoid(), y

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, lr=1e-4, steps=12)
    assert any("bytes" in one.summary for one in findings(trial, "pretrained-input")) == told


@pytest.mark.parametrize(("hidden", "told"), [(0.9, True), (0.2, False)])
def test_an_augmentation_that_hides_nearly_all(hidden: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(16):
            points, labels = blobs(seed=number)
            seen = points * (torch.rand(points.shape, generator=torch.Generator().manual_seed(number)) > hidden)
            with recorder.step("train"):
                descend(F.cross_entropy(model(seen), labels), optimizer)
            if number % 4 == 3:
                with recorder.step("validation"), torch.no_grad():
                    F.cross_entropy(model(points), labels)
    found = findings(open_trial(tmp_path / "trial"), "evaluation-data")
    assert any("masks nearly all" in one.summary for one in found) == told


@pytest.mark.parametrize(("steps", "told"), [(16, True), (80, False)])
def test_a_handful_of_updates(steps: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 16, 2)
    x, y = curve(samples=256)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), lambda _: (x, y), lr=3e-3, steps=steps)
    assert any("so few updates" in one.summary for one in findings(trial, "short-training")) == told


@pytest.mark.parametrize(("size", "level"), [(300.0, "info"), (60000.0, "warning")])
def test_an_extreme_batch_that_harms_nothing(size: float, level: str, tmp_path: Path) -> None:
    """Behind a squashing layer it is worth knowing only."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)) if level == "info" else mlp(6, 16, 2)

    def data(number: int) -> Batch:
        x, y = curve_batches(number)
        return (x.index_fill(0, torch.tensor([0]), size), y) if number == 40 else (x, y)

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, lr=1e-3, steps=60)
    assert [one.level for one in findings(trial, "extreme-batch")] == [level]


class _Policy(nn.Module):
    """A normal distribution over actions, from which one is drawn so that a gradient can pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4)

    def forward(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, spread = self.net(state).chunk(2, 1)
        drawn = torch.distributions.Normal(mean, F.softplus(spread) + 0.1)
        action = drawn.rsample()
        return action, drawn.log_prob(action).sum(1)


@pytest.mark.parametrize("judged", [True, False])
def test_an_entropy_of_actions_that_a_critic_judges(judged: bool, tmp_path: Path) -> None:
    """That its own actions become less likely is wanted of a policy, if it is paid for them besides."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"policy": _Policy(), "critic": mlp(8, 16, 1)})
    optimizer = torch.optim.Adam(model["policy"].parameters(), 1e-3)

    def loss_of(state: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        action, likely = model["policy"](state)
        value = model["critic"](torch.cat([state, action if judged else action.detach()], 1))[:, 0]
        return (0.1 * likely - value).mean()

    trial = record(tmp_path, model, loss_of, curve_batches, optimizer=optimizer, steps=12)
    assert bool(findings(trial, "likelihood-sign")) != judged


def test_units_that_other_data_open_are_no_kept_mask(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 64, 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(20):
            x, y = curve(seed=number)
            with recorder.step("train"):
                descend(F.mse_loss(model(0.05 * x - 1), y), optimizer)
            if number % 4 == 3:
                with recorder.step("validation"), torch.no_grad():
                    F.mse_loss(model(5 * x), y)
    assert findings(open_trial(tmp_path / "trial"), "kept-mask") == []


def test_one_class_a_batch_is_said_to_be_sorted(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> Batch:
        x, y = blobs(seed=number)
        return x, torch.full_like(y, number // 8 % 4)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=32)
    assert "not shuffled" in only(trial, "constant-data").summary


class _Pooled(nn.Module):
    """A mean of several rows, weighed by a softmax over them, or by mistake over the one score of each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score, self.softmax, self.head = nn.Linear(8, 1), nn.Softmax(dim), nn.Linear(8, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head((self.softmax(self.score(rows)) * rows).sum(1))


@pytest.mark.parametrize(("dim", "told"), [(-1, True), (1, False)])
def test_a_softmax_over_a_single_score(dim: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Pooled(dim)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x.view(16, 4, 8)), y[:16])

    found = findings(record(tmp_path, model, loss_of, blob_batches, steps=12), "single-class")
    assert [(one.level, one.node) for one in found] == [("warning", "model.softmax")] * told


class _Noisy(nn.Module):
    """Weights that are drawn anew in each call, from a mean and a deviation of each."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.deviation = nn.Parameter(0.3 * torch.randn(4, 8)), nn.Parameter(torch.full((4, 8), -3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.mean + F.softplus(self.deviation) * torch.randn_like(self.mean))


def test_deviations_that_begin_alike_are_no_equal_units(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Noisy()
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=12)
    assert findings(trial, "weight-scale") == []


class _Prompt(nn.Module):
    """A frozen net with a few numbers before it that learn."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Parameter(0.5 * torch.randn(2, 8))
        self.body = mlp(8, 16, 4)
        self.body.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x + self.prompt.sum(0))


@pytest.mark.parametrize(("rate", "told"), [(1e-5, True), (3e-2, False)])
def test_a_prompt_that_hardly_moves(rate: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Prompt()
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, lr=rate, steps=100, every=2
    )  # fmt: skip
    assert ["too low" in one.summary for one in findings(trial, "learning-rate")] == [True] * told


def test_a_training_that_blew_up_says_nothing_of_its_targets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 32, 2)
    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), torch.stack([y, -y], 1).float()), blob_batches,
        optimizer=torch.optim.Adam(model.parameters(), 30.0), steps=120, every=2,
    )  # fmt: skip
    assert trial.series("loss").values[-1] > 200
    assert findings(trial, "unrelated-targets") == []
    assert len(findings(trial, "learning-rate")) == 1
