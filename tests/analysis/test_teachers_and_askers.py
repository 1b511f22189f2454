"""What teachers' lists and askers had taught: norms, means, scales of two sides, bursts, and small batches of data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.renumbered import answers
from stepscope.analysis.view import View
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import Batch, blob_batches, blobs, curve, descend, findings, mlp, record


class _Norm(nn.Module):
    def __init__(self, told: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(16)), nn.Parameter(torch.zeros(16))
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("var", torch.ones(16))
        self.told = told

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.get_buffer("mean"), self.get_buffer("var")
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training and self.told)


@pytest.mark.parametrize(("norm", "told"), [("forgotten", True), ("told", False), ("frozen module", False)])
def test_a_norm_that_is_not_told_to_train(norm: str, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(16).eval() if norm == "frozen module" else _Norm(norm == "told")
    model = nn.Sequential(nn.Linear(8, 16), layer, nn.ReLU(), nn.Linear(16, 4))
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=6)
    found = findings(trial, "functional-norm")
    assert [(one.node, "batch_norm" in (one.source.text if one.source else "")) for one in found] == [
        ("model.1", True)
    ] * told


@pytest.mark.parametrize(("by", "told"), [(64, True), (2, False), (1, False)])
def test_a_mean_that_is_divided_by_the_batch_once_more(by: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = model(x)
        return F.cross_entropy(scores, y) / by + 1e-3 * scores.square().mean()

    found = findings(record(tmp_path, model, loss_of, blob_batches, steps=8), "averaged-twice")
    assert [one.node for one in found] == ["cross_entropy"] * told


@pytest.mark.parametrize(("units", "told"), [(2, True), (4, False)])
def test_too_few_units_for_the_classes(units: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(32, units, 10, activation=nn.Sigmoid)

    def data(number: int) -> Batch:
        return blobs(classes=10, features=32, seed=number)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=6)
    assert [(one.level, one.node) for one in findings(trial, "single-unit")] == [("info", "model.0")] * told


def _game(folder: Path, *, minus: bool, scale: float = 1.0) -> Trial:
    """A generator that is far off, and a critic that soon knows it."""
    torch.manual_seed(0)
    generator = nn.Sequential(*mlp(4, 16, 8), nn.Unflatten(1, (2, 4)))
    critic = nn.Sequential(nn.Flatten(), *mlp(8, 32, 1))
    made_by, judged_by = torch.optim.SGD(generator.parameters(), 1e-3), torch.optim.Adam(critic.parameters(), 1e-2)
    ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)
    loss_of = F.binary_cross_entropy_with_logits
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"generator": generator, "critic": critic}, {"generator": made_by, "critic": judged_by})
        for number in range(40):
            real = scale * (blobs(seed=number)[0] + 4).unflatten(1, (2, 4))
            with recorder.step():
                fake = generator(torch.randn(64, 4))
                judged = loss_of(critic(real), ones) + loss_of(critic(fake.detach()), zeros)
                descend(judged, judged_by)
                wanted = loss_of(critic(fake), zeros if minus else ones)
                descend(-wanted if minus else wanted, made_by)
    return open_trial(folder / "trial")


@pytest.mark.parametrize("minus", [True, False])
def test_a_generator_that_saturates(minus: bool, tmp_path: Path) -> None:
    found = findings(_game(tmp_path, minus=minus), "gan-balance")
    assert any("log(1 - D)" in one.summary for one in found) == minus
    assert not any("want the same" in one.summary for one in found)


@pytest.mark.parametrize(("scale", "told"), [(50.0, True), (0.2, False)])
def test_real_ones_in_bytes_through_a_flatten(scale: float, told: bool, tmp_path: Path) -> None:
    found = findings(_game(tmp_path, minus=False, scale=scale), "input-scale")
    assert [(one.node, one.nodes) for one in found if one.level == "warning"] == [
        ("critic input", ("critic.1",))
    ] * told


@pytest.mark.parametrize(("burst", "told"), [(6.0, True), (0.0, False)])
def test_outliers_at_the_end_of_the_file(burst: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 16, 2)

    def data(number: int) -> Batch:
        x, y = curve(seed=number)
        return x, y + burst * (number >= 54)

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=59, lr=1e-2)
    assert [(one.node, one.step) for one in findings(trial, "data-shift")] == [("target", 54)] * told


@pytest.mark.parametrize(("batches", "told"), [(3, True), (6, False)])
def test_a_few_batches_that_come_again_and_again(batches: int, told: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), lambda number: blobs(seed=number % batches),
        steps=48,
    )  # fmt: skip
    found = [one for one in findings(trial, "repeated-batch") if "the same 3 batches" in one.summary]
    assert [one.level for one in found] == ["info"] * told


class _Words(nn.Module):
    def __init__(self, std: float) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 32)
        nn.init.normal_(self.words.weight, std=std)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(self.words(words), (32,)) @ self.words.weight.T


@pytest.mark.parametrize(("std", "told"), [(1.0, True), (0.5, False)])
def test_scores_that_are_products_with_a_table_as_it_came(std: float, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Words(std)

    def data(number: int) -> Batch:
        words = torch.randint(40, (64,), generator=torch.Generator().manual_seed(number))
        return words, (words + 1) % 40

    found = findings(record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=4), "loss-start")
    assert any("unit normal" in one.summary for one in found) == told


@pytest.mark.parametrize(("samples", "told"), [(24, True), (2400, False)])
def test_data_that_are_known_by_heart(samples: int, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(20, 64, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    x = torch.randn(samples + 200, 20)
    y = x[:, :1] + 0.5 * x[:, 1:2] * x[:, 2:3]
    with Recorder(tmp_path, trial="trial", schedule=Every(2), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(150):
            rows = torch.randint(samples, (24,))
            with recorder.step():
                descend(F.mse_loss(model(x[rows]), y[rows]), optimizer)
            if number % 10 == 0:
                with recorder.step("validation"), torch.no_grad():
                    F.mse_loss(model(x[samples:]), y[samples:])
    found = findings(open_trial(tmp_path / "trial"), "overfitting")
    assert [(one.level, "by heart" in one.summary) for one in found] == [("info", True)] * told


class _Heads(nn.Module):
    def __init__(self, *, in_a_row: bool) -> None:
        super().__init__()
        self.body, self.in_a_row = nn.Linear(8, 16), in_a_row
        self.heads = nn.ModuleList([nn.Linear(16, 16) for _ in range(2)])

    def forward(self, x: torch.Tensor, head: int) -> torch.Tensor:
        x = self.body(x).relu()
        if self.in_a_row:
            x = self.heads[0](x)
            self.heads[1](x)
            return x
        return self.heads[head](x)


@pytest.mark.parametrize(("in_a_row", "level"), [(False, "info"), (True, "warning")])
def test_a_head_for_another_task_has_no_gradient(in_a_row: bool, level: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = _Heads(in_a_row=in_a_row)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(8):
            points, labels = blobs(seed=number)
            with recorder.step():
                descend(F.cross_entropy(model(points, 0), labels), optimizer)
            with recorder.step("validation"), torch.no_grad():
                F.cross_entropy(model(points, 1), labels)
    found = findings(open_trial(tmp_path / "trial"), "no-gradient")
    assert [(one.level, one.node) for one in found] == [(level, "model.heads.1.weight")]


def test_a_narrow_convolution_before_a_flatten_is_no_second_layer_for_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 4, 1), nn.Flatten(), nn.Linear(36, 3)
    )  # fmt: skip

    def data(number: int) -> Batch:
        generator = torch.Generator().manual_seed(number)
        return torch.randn(32, 1, 8, 8, generator=generator), torch.randn(32, 3, generator=generator)

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=6)
    assert findings(trial, "missing-nonlinearity") == []


@pytest.mark.parametrize("fresh", [True, False])
def test_an_evaluation_that_has_the_same_samples_counts_once(fresh: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(10):
            points, labels = blobs(seed=number)
            with recorder.step():
                descend(F.cross_entropy(model(points), labels), optimizer)
            points, labels = blobs(seed=100 + number * fresh)
            with recorder.step("validation"), torch.no_grad():
                F.cross_entropy(model(points), labels)
    view = View(open_trial(tmp_path / "trial"))
    (comparison,) = comparisons(view)
    steps = [step for step in view.steps if step.kind == "validation"]
    assert comparison.target is not None
    chosen, wanted = answers(steps, comparison.prediction, comparison.target)
    kept = len(steps[0].samples)
    assert len(chosen) == len(wanted) == (10 * kept if fresh else kept)


@pytest.mark.parametrize(("way", "told"), [("black pictures", True), ("pictures", False), ("made in the step", False)])
def test_zeros_that_the_step_reshapes_are_still_data(way: str, told: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(torch.zeros(64, 8) if way == "made in the step" else x.reshape(64, 8)), y)

    def data(number: int) -> Batch:
        points, labels = blobs(seed=number)
        return (points if way == "pictures" else 0 * points).unflatten(1, (2, 4)), labels

    found = [
        one
        for one in findings(record(tmp_path, model, loss_of, data, steps=8), "constant-data")
        if "same input" in one.summary
    ]
    assert [one.level for one in found] == ["warning"] * told
