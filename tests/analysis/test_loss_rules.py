"""Rules about losses: on runs that have the problem, and on look-alikes that have not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import Finding
from stepscope.store import Trial
from support.short_runs import blob_batches, blobs, curve, findings, mlp, only, record

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def classify(folder: Path, model: nn.Module, loss: Loss = F.cross_entropy, **options: object) -> Trial:
    options = {"steps": 12, **options}
    return record(folder, model, lambda x, y: loss(model(x), y), blob_batches, **options)


def regress(
    folder: Path, model: nn.Module, targets: Callable[[torch.Tensor], torch.Tensor], **options: object
) -> Trial:
    options = {"steps": 30, **options}

    def data(number: int) -> tuple[torch.Tensor, ...]:
        inputs, wanted = curve(seed=number)
        return inputs, targets(wanted)

    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), data, **options)


def of(trial: Trial, rule: str) -> list[Finding]:
    return [finding for finding in findings(trial, rule) if finding.level != "info"]


# ---------------------------------------------------------------------- unreachable-targets


@pytest.mark.parametrize("last", [nn.ReLU(), nn.LeakyReLU(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.Softmax(1)])
def test_targets_out_of_an_activations_range(tmp_path: Path, last: nn.Module) -> None:
    finding = only(regress(tmp_path, mlp(6, 16, 2, last=(last,)), lambda t: 2 * t), "unreachable-targets")
    assert finding.level == "error" and finding.node == "model.3"
    assert finding.evidence and "target" in finding.summary


def test_a_relu_under_a_view_is_known_by_its_zeros(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(6, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.body(x)).squeeze(-1)

    assert only(regress(tmp_path, Flat(), lambda t: t[:, 0]), "unreachable-targets").node == "model"


@pytest.mark.parametrize(
    ("last", "targets"),
    [
        (nn.ReLU(), torch.abs),
        (nn.Sigmoid(), torch.sigmoid),
        (nn.Tanh(), lambda t: 0.9 * torch.tanh(t)),
        (nn.Identity(), lambda t: 10 * t),
        (nn.LeakyReLU(0.9), lambda t: t),
    ],
)
def test_targets_within_the_range_are_no_finding(
    tmp_path: Path, last: nn.Module, targets: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    assert findings(regress(tmp_path, mlp(6, 16, 2, last=(last,)), targets), "unreachable-targets") == []


# ---------------------------------------------------------------------- activation-before-loss


def bce(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(outputs, F.one_hot(labels, 4).float())


def nll(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(outputs, labels)


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (nn.Softmax(1), F.cross_entropy),
        (nn.ReLU(), F.cross_entropy),
        (nn.Sigmoid(), bce),
        (nn.ReLU(), bce),
        (nn.Softmax(1), nll),
    ],
)
def test_an_activation_that_the_loss_already_contains(tmp_path: Path, last: nn.Module, loss: Loss) -> None:
    finding = only(classify(tmp_path, mlp(8, 16, 4, last=(last,)), loss), "activation-before-loss")
    assert finding.node == "model.3" and finding.level in ("error", "warning")


def test_a_softmax_under_a_view_is_known_by_its_sums(tmp_path: Path) -> None:
    model = mlp(8, 16, 4, last=(nn.Softmax(1),))
    loss = classify(tmp_path, model, lambda outputs, labels: F.cross_entropy(outputs.view(-1, 4), labels))
    assert only(loss, "activation-before-loss").node == "model.3"


@pytest.mark.parametrize(("last", "loss"), [((), F.cross_entropy), ((), bce), ((nn.LogSoftmax(1),), nll)])
def test_a_loss_that_gets_what_it_wants(tmp_path: Path, last: tuple[nn.Module, ...], loss: Loss) -> None:
    assert of(classify(tmp_path, mlp(8, 16, 4, last=last), loss), "activation-before-loss") == []


# ---------------------------------------------------------------------- loss-start


def test_a_loss_that_starts_too_high(tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    with torch.no_grad():
        model[2].weight.mul_(25)
    finding = only(classify(tmp_path, model), "loss-start")
    assert finding.node == "model" and "log(4)" in finding.summary


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_usual_start_is_no_finding_also_as_a_sum(tmp_path: Path, reduction: str) -> None:
    loss = lambda outputs, labels: F.cross_entropy(outputs, labels, reduction=reduction)  # noqa: E731
    assert findings(classify(tmp_path, mlp(8, 32, 4), loss), "loss-start") == []


# ---------------------------------------------------------------------- divergence, spike, plateau


def test_a_loss_with_the_wrong_learning_rate_diverges(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    trial = regress(tmp_path, model, lambda t: t, optimizer=torch.optim.SGD(model.parameters(), lr=3.0), steps=12)
    assert {finding.rule for finding in findings(trial, "loss-divergence", "non-finite")}


def test_ascent_is_a_divergence(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, maximize=True)
    finding = only(regress(tmp_path, model, lambda t: t, optimizer=optimizer, steps=25), "loss-divergence")
    assert finding.level == "error" and finding.step is not None and finding.step > 0


def test_one_broken_batch_is_a_spike(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def data(n: int) -> tuple[torch.Tensor, ...]:
        inputs, targets = curve(seed=n)
        return inputs, targets * (30 if n == 25 else 1)

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=45, lr=1e-3)
    finding = only(trial, "loss-spike")
    assert finding.step == 25 and finding.level == "info"  # Adam bounds its step: nothing was lost


def test_noise_is_no_spike(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    trial = record(
        tmp_path,
        model,
        lambda n, _: F.mse_loss(model(curve(samples=2, seed=n)[0]), curve(samples=2, seed=n)[1]),
        steps=60,
    )
    assert findings(trial, "loss-spike", "loss-divergence") == []


def test_labels_at_random_are_a_plateau(tmp_path: Path) -> None:
    model = mlp(8, 4)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(0 * x), y), blob_batches, steps=60, lr=1e-5)
    finding = only(trial, "loss-plateau")
    assert finding.node == "loss" and finding.level == "warning"


def test_a_net_that_is_already_good_is_no_plateau(tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for n in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(blobs(seed=n)[0]), blobs(seed=n)[1]).backward()
        optimizer.step()
    assert findings(classify(tmp_path, model, lr=1e-6, steps=60), "loss-plateau") == []


# ---------------------------------------------------------------------- non-finite


class Normalised(nn.Module):
    """Divides by a standard deviation that may be zero."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.first, self.last, self.eps = nn.Linear(6, 8), nn.Linear(8, 2), eps
        self.scale = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        hidden = self.scale(hidden / (x.std(dim=1, keepdim=True) + self.eps))
        return self.last(torch.relu(hidden))


def with_flat_sample(n: int) -> tuple[torch.Tensor, ...]:
    inputs, targets = curve(seed=n)
    if n >= 6:
        inputs[3] = 0
    return inputs, targets


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_a_division_by_zero_is_born_where_it_happens(tmp_path: Path, eps: float) -> None:
    model = Normalised(eps)
    with torch.no_grad():
        model.first.bias.zero_()
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), with_flat_sample, steps=10)
    if eps:
        assert findings(trial, "non-finite") == []
        return
    finding = only(trial, "non-finite")
    assert (finding.node, finding.step, finding.level) == ("model.scale", 6, "error")
    assert "NaN" in finding.summary or "infinite" in finding.summary


def test_a_gradient_of_a_root_at_zero_is_born_on_the_way_back(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def loss(n: int, _: object) -> torch.Tensor:
        inputs, targets = curve(seed=n)
        outputs = model(inputs)
        return (outputs - (outputs.detach() if n == 4 else targets)).pow(2).mean().sqrt()

    finding = only(record(tmp_path, model, loss, steps=8), "non-finite")
    assert finding.step == 4 and finding.evidence[0].quantity == "gradient"
    assert finding.node == "model"


def test_data_with_nan_is_named_as_data(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def data(n: int) -> tuple[torch.Tensor, ...]:
        inputs, targets = curve(seed=n)
        if n == 3:
            inputs[2, 1] = float("nan")
        return inputs, targets

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=6)
    finding = only(trial, "non-finite")
    assert finding.node == "input" and finding.step == 3 and "data" in finding.summary


def test_a_mask_of_infinities_is_no_finding(tmp_path: Path) -> None:
    model = nn.ModuleDict({"scores": nn.Linear(8, 8), "head": nn.Linear(8, 4)})

    def loss(n: int, step: object) -> torch.Tensor:
        inputs, labels = blobs(seed=n)
        mask = torch.full((8,), 0.0).index_fill(0, torch.tensor([2, 3]), float("-inf"))
        scores = step.record("scores", model["scores"](inputs) + mask)  # type: ignore[attr-defined]
        del scores
        weights = torch.softmax(model["scores"](inputs) + mask, dim=1)
        return F.cross_entropy(model["head"](weights * inputs), labels)

    assert findings(record(tmp_path, model, loss, steps=6), "non-finite") == []


def test_targets_that_are_scaled_on_the_way_to_the_loss_are_not_taken_for_unreachable(tmp_path: Path) -> None:
    model = mlp(6, 16, 2, last=(nn.Sigmoid(),))

    def data(n: int) -> tuple[torch.Tensor, ...]:
        inputs, targets = curve(seed=n)
        return inputs, 255 * torch.sigmoid(targets)

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y / 255), data)
    assert findings(trial, "unreachable-targets") == []
