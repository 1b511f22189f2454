"""What looks like a mistake at first sight and is none: each run needs one condition of a rule that leaves it alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import diagnose
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blob_batches, blobs, curve, curve_batches, findings, mlp, only, record


def levels(trial: Trial, rule: str) -> list[str]:
    return [finding.level for finding in findings(trial, rule)]


# ---------------------------------------------------------------------- gradients and copies


@pytest.mark.parametrize("copied", [True, False])
def test_a_copy_that_is_only_looked_at_needs_no_gradient(copied: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    average = copy.deepcopy(model) if copied else mlp(8, 16, 4)
    both = nn.ModuleDict({"model": model, "average": average})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        average(x)
        return F.cross_entropy(model(x), y)

    trial = record(tmp_path, both, loss_of, blob_batches, steps=6, optimizer=torch.optim.Adam(model.parameters()))
    assert len(findings(trial, "no-gradient")) == (0 if copied else 1)


def test_the_gradients_of_a_teacher_are_left_over_from_its_own_training(tmp_path: Path) -> None:
    teacher, student = mlp(8, 16, 4), mlp(8, 8, 4)
    x, y = blobs()
    F.cross_entropy(teacher(x), y).backward()
    both = nn.ModuleDict({"teacher": teacher, "student": student})

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(x)
        return F.mse_loss(student(x), wanted)

    trial = record(tmp_path, both, loss_of, blob_batches, steps=6, optimizer=torch.optim.Adam(student.parameters()))
    assert findings(trial, "unchanged-parameters", "untrained-parameters") == []


def test_the_gradient_of_a_bias_before_a_normalisation_is_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer, steps=6
    )
    assert findings(trial, "unchanged-parameters") == []


@pytest.mark.parametrize("follows", [True, False])
def test_an_average_that_is_not_asked_yet(follows: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"model": model, "average": average}, optimizer)
        for number in range(6):
            x, y = blobs(seed=number)
            with recorder.step("train"):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
            if follows:
                average.update_parameters(model)
    found = findings(open_trial(tmp_path / "trial"), "module-never-called")
    assert [finding.node.split(".")[0] for finding in found] == ([] if follows else ["average"])


def test_scores_whose_gradients_add_up_to_nothing_say_nothing_of_zero_grad(tmp_path: Path) -> None:
    """The sum of the gradient of a softmax's scores is rounding, if no single ones were kept."""
    head = nn.Linear(8, 40)
    model = nn.ModuleDict({"read": nn.Embedding(40, 8), "head": head})

    def data(number: int) -> tuple[torch.Tensor, ...]:
        tokens = torch.randint(40, (4, 13, 11), generator=torch.Generator().manual_seed(number))
        return tokens, tokens.roll(1, 1)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(head(model["read"](x)).flatten(0, 2), y.flatten())

    trial = record(tmp_path, model, loss_of, data, steps=24, every=2)
    assert findings(trial, "accumulated-gradients") == []


def test_a_gradient_that_comes_back_to_what_it_was_at_first_has_not_exploded(tmp_path: Path) -> None:
    model = nn.Linear(6, 2)
    x, _ = curve()

    def data(number: int) -> tuple[torch.Tensor, ...]:
        return x, x[:, :2] * (1 if number < 45 else 3)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.8)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, optimizer=optimizer, steps=60, every=1)
    norms = trial.series("model.weight", quantity="gradient", statistic="norm").values
    assert norms[45] > 1000 * float(sorted(norms[:30])[15]), "else the run does not need the condition"
    assert findings(trial, "exploding-gradient") == []


# ---------------------------------------------------------------------- losses


def test_a_sum_over_the_words_that_are_no_padding_starts_where_it_should(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        some = y.where(torch.arange(len(y)) < 9, -100)
        return F.cross_entropy(model(x), some, ignore_index=-100, reduction="sum")

    assert findings(record(tmp_path, model, loss_of, blob_batches, steps=3), "loss-start") == []


@pytest.mark.parametrize(("thrown_back", "level"), [(False, "info"), (True, "warning")])
def test_a_wild_batch_that_harms_nothing_is_worth_knowing(thrown_back: bool, level: str, tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = curve(seed=number)
        return x, y * (300 if number == 25 else 1)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    start = optimizer.step

    def step(closure: None = None) -> None:
        if not thrown_back:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        start()

    optimizer.step = step  # type: ignore[method-assign, assignment]
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=60, every=1, optimizer=optimizer)
    assert only(trial, "loss-spike").level == level


@pytest.mark.parametrize(("steps", "level"), [(45, "info"), (70, "warning")])
def test_a_jump_is_judged_when_some_steps_have_followed(steps: int, level: str, tmp_path: Path) -> None:
    model = mlp(6, 16, 2)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = curve(seed=number)
        return x, y if number < 35 else y + 4 * torch.randn(y.shape, generator=torch.Generator().manual_seed(number))

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=steps, every=1, lr=2e-2)
    assert levels(trial, "loss-jump") == [level]


def test_a_loss_that_was_low_before_the_data_became_harder_is_no_plateau(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = blobs(seed=number)
        return x, y if number < 35 else torch.randint(4, y.shape, generator=torch.Generator().manual_seed(number))

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=60)
    assert findings(trial, "loss-plateau") == []


def test_a_loss_that_fell_again_after_each_harder_task_has_come_back(tmp_path: Path) -> None:
    model = mlp(8, 32, 4)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = blobs(seed=number)
        return x, (y + (number // 40)) % 4 if number < 110 else torch.randint(4, y.shape)

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=120, lr=2e-2)
    assert "warning" not in levels(trial, "loss-jump")


def test_batches_of_one_take_their_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(8, 16, 4)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, _ = blobs()
        return x[number % 64 :][:1], torch.randint(4, (1,), generator=torch.Generator().manual_seed(number))

    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), data, steps=60, lr=1e-4)
    assert findings(trial, "loss-plateau") == []


@pytest.mark.parametrize(("chosen", "level"), [(True, "info"), (False, "warning")])
def test_scores_that_are_scaled_at_last_may_start_high(chosen: bool, level: str, tmp_path: Path) -> None:
    torch.manual_seed(0)

    class Cosines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.wanted = mlp(8, 16, 8), nn.Parameter(torch.randn(4, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            code, wanted = F.normalize(self.body(x), dim=1), F.normalize(self.wanted, dim=1)
            return 64 * (code @ wanted.T) if chosen else 64 * code @ wanted.T

    model = Cosines()
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=3)
    assert levels(trial, "loss-start") == [level]


def test_the_loss_of_a_policy_that_begins_at_zero_has_not_diverged(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def loss_of(number: int, step: object) -> torch.Tensor:
        x, y = blobs(seed=number)
        swing = 0.02 if number == 0 else (-1.0 if number == 1 else 0.5)
        return F.cross_entropy(model(x), y) * 1e-3 + torch.tensor(swing)

    assert findings(record(tmp_path, model, loss_of, steps=20), "loss-divergence") == []


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("risen", "level"), [(0.065, "info"), (0.5, "warning")])
def test_an_evaluation_that_rises_by_next_to_nothing(risen: float, level: str, known: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(40):
            x, y = blobs(seed=number)
            with recorder.step("train"):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                # Of a loss of one's own nobody knows what a constant answer would have.
                (loss if known else (1 - model(x).softmax(1).gather(1, y[:, None])).mean() * 4).backward()
                optimizer.step()
            if number % 5 == 4:
                with torch.no_grad(), recorder.step("validation") as step:
                    step.record("loss", torch.tensor(0.3 + (risen if number > 20 else 0)), type="loss")
    assert levels(open_trial(tmp_path / "trial"), "overfitting") == [level]


# ---------------------------------------------------------------------- data


def test_classes_left_out_of_rows_are_padding(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = blobs(samples=64, seed=number)
        rows, wanted = x.view(8, 8, 8), y.view(8, 8)
        return rows, wanted.where(torch.arange(8) < 5, 0)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(x).transpose(1, 2), y, ignore_index=0)

    trial = record(tmp_path, model, loss_of, data, steps=20)
    assert not [finding for finding in findings(trial, "imbalanced-targets") if "ignore_index" in finding.summary]


def test_a_mask_that_begins_to_be_needed_is_no_other_data(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(8, 16, 4)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.net(x * mask)

    model = Masked()

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = blobs(seed=number)
        return x, torch.ones(8) if number < 30 else (torch.arange(8) > 0).float(), y

    trial = record(tmp_path, model, lambda x, mask, y: F.cross_entropy(model(x, mask), y), data, steps=60)
    assert findings(trial, "data-shift") == []


@pytest.mark.parametrize(("size", "steps", "level"), [(13.0, 60, "info"), (30.0, 60, "warning"), (13.0, 15, "info")])
def test_large_inputs_that_a_net_learns_from(size: float, steps: int, level: str, tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y),
        lambda n: (size * blobs(seed=n)[0], blobs(seed=n)[1]), steps=steps, lr=1e-3,
    )  # fmt: skip
    found = [finding for finding in findings(trial, "input-scale") if "unnormalised" in finding.summary]
    assert [finding.level for finding in found] == [level]


def test_targets_that_the_step_makes_of_zeros_may_be_constant(tmp_path: Path) -> None:
    model = mlp(8, 16, 1)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        wanted = torch.zeros(len(x), 1)
        wanted = 0.8 * wanted
        return F.mse_loss(model(x), wanted)

    assert findings(record(tmp_path, model, loss_of, blob_batches, steps=12), "constant-data") == []


@pytest.mark.parametrize("weighs", [True, False])
def test_an_advantage_beside_a_ratio_is_no_target(weighs: bool, tmp_path: Path) -> None:
    policy, value = mlp(6, 16, 3), mlp(6, 16, 1)
    both = nn.ModuleDict({"policy": policy, "value": value})

    def data(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        x, _ = curve(seed=number)
        return x, torch.randint(3, (64,), generator=generator), torch.randn(64, generator=generator)

    def loss_of(x: torch.Tensor, action: torch.Tensor, better: torch.Tensor) -> torch.Tensor:
        chances = torch.distributions.Categorical(logits=policy(x))
        ratio = (chances.log_prob(action) + 1.1).exp()
        if not weighs:
            return (ratio - better).abs().mean()
        clipped = torch.min(ratio * better, ratio.clamp(0.8, 1.2) * better)
        return -clipped.mean() + 0.5 * F.mse_loss(value(x)[:, 0], 9 * better) - 0.01 * chances.entropy().mean()

    trial = record(tmp_path, both, loss_of, data, steps=20)
    assert len(findings(trial, "unreachable-targets")) == (0 if weighs else 1)


# ---------------------------------------------------------------------- what becomes of a net


def test_a_net_that_learned_to_say_little_has_not_collapsed(tmp_path: Path) -> None:
    model = mlp(6, 16, 1)
    with torch.no_grad():
        model[-1].weight.mul_(20)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, _ = curve(seed=number)
        return x, torch.randn(len(x), 1, generator=torch.Generator().manual_seed(number))

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=110, lr=2e-2)
    assert findings(trial, "constant-output") == []


@pytest.mark.parametrize("beside_a_policy", [True, False])
def test_a_value_with_nothing_left_to_foretell(beside_a_policy: bool, tmp_path: Path) -> None:
    policy, value = mlp(6, 16, 3), mlp(6, 16, 1)
    both = nn.ModuleDict({"policy": policy, "value": value})
    with torch.no_grad():
        value[-1].weight.mul_(2)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, _ = curve(seed=number)
        return x, torch.randn(len(x), 1, generator=torch.Generator().manual_seed(number))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = F.mse_loss(value(x), y)
        return loss - policy(x).log_softmax(1)[:, 0].mean() + 1.0 if beside_a_policy else loss

    trial = record(tmp_path, both, loss_of, data, steps=110, lr=1e-2)
    assert len(findings(trial, "constant-output")) == (0 if beside_a_policy else 1)


@pytest.mark.parametrize("in_parts", [True, False])
def test_a_body_and_a_head_may_both_end_with_a_layer(in_parts: bool, tmp_path: Path) -> None:
    body, head = mlp(6, 16, 16), mlp(16, 16, 2)
    model = nn.Sequential(body, head) if in_parts else nn.Sequential(*body, *head)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, steps=8)
    assert levels(trial, "missing-nonlinearity") == ["info" if in_parts else "warning"]


def test_a_strong_decay_that_weights_grow_against_is_worth_knowing(tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2, weight_decay=0.6)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer, steps=40
    )
    assert levels(trial, "shrinking-weights") == ["info"]


def test_a_single_layer_may_be_replaced_by_its_first_step(tmp_path: Path) -> None:
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.weight.mul_(0.1)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    trial = record(
        tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, optimizer=optimizer, steps=40
    )
    assert findings(trial, "learning-rate") == []


def test_a_single_layer_may_move_far_in_noise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 1)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, _ = blobs(samples=16, seed=number)
        return x, 0.3 * x[:, :1] + torch.randn(16, 1, generator=torch.Generator().manual_seed(number))

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, optimizer=optimizer, steps=60, every=1)
    assert findings(trial, "learning-rate") == []


def test_an_optimizer_that_has_arrived_may_stand_still(tmp_path: Path) -> None:
    model = nn.Linear(6, 2)
    x, y = curve()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=4)

    def train(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)

    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y), lambda _: (x, y), optimizer=optimizer, steps=40,
        train=train,
    )  # fmt: skip
    assert findings(trial, "unchanged-parameters") == []


@pytest.mark.parametrize(("steps", "told"), [(30, False), (60, True)])
def test_codes_that_draw_together_at_first_are_not_judged_yet(steps: int, told: bool, tmp_path: Path) -> None:
    model = mlp(6, 32, 8)

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        one, two = (model(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        return (F.normalize(one, dim=1) - F.normalize(two, dim=1)).square().sum(1).mean()

    trial = record(tmp_path, model, loss_of, curve_batches, steps=steps)
    assert bool(findings(trial, "representation-collapse")) == told


@pytest.mark.parametrize("weighed", [True, False])
def test_a_policy_learns_by_the_log_probability_of_what_it_draws(weighed: bool, tmp_path: Path) -> None:
    model = nn.ModuleDict({"first": nn.Linear(8, 4), "second": nn.Linear(4, 4)})

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        choice = torch.distributions.Categorical(logits=model["first"](x))
        drawn = choice.sample()
        loss = F.cross_entropy(model["second"](F.one_hot(drawn, 4).float()), y, reduction="none")
        return (loss + loss.detach() * choice.log_prob(drawn) if weighed else loss + choice.entropy()).mean()

    trial = record(tmp_path, model, loss_of, blob_batches, steps=6)
    assert levels(trial, "gradient-cut") == ([] if weighed else ["warning"])


def test_a_rate_that_blows_up_what_began_well(tmp_path: Path) -> None:
    """Large weights give what is as large as the targets; it is the rate that is too high for them."""
    torch.manual_seed(0)
    model = mlp(6, 32, 32, 2)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = curve_batches(number)
        return x, 60 * y

    optimizer = torch.optim.SGD(model.parameters(), 3e-2)
    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, optimizer=optimizer, steps=20)
    first = diagnose(trial)[0]
    assert first.rule == "learning-rate" and "too high" in first.summary
    assert levels(trial, "weight-scale") == ["info"]


@pytest.mark.parametrize(("size", "level"), [(60.0, "info"), (1.0, "warning")])
def test_a_large_initialisation_suits_large_targets(size: float, level: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mlp(6, 32, 32, 2)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        x, y = curve_batches(number)
        return x, size * y

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=60, every=1)
    assert levels(trial, "weight-scale") == [level]


def test_a_line_that_goes_on_contains_nothing_of_what_follows(tmp_path: Path) -> None:
    model = mlp(8, 16, 1)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        start = torch.randint(100, (16, 1), generator=torch.Generator().manual_seed(number))
        numbers = (start + torch.arange(9)) / 50 - 1
        return numbers[:, :-1], numbers[:, -1:]

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=6)
    assert levels(trial, "targets-equal-inputs") == []


@pytest.mark.parametrize("moved", [0.0, 20.0])
def test_batches_that_differ_among_themselves_may_differ_from_those_evaluated(moved: float, tmp_path: Path) -> None:
    model = nn.Linear(1, 1)

    def data(number: int) -> tuple[torch.Tensor, ...]:
        start = 2 * torch.rand(1, generator=torch.Generator().manual_seed(number)) - 1
        return (start + torch.linspace(0, 0.2, 8))[:, None], start.expand(8, 1)

    def evaluate(recorder: Recorder) -> None:
        with recorder.step("validation"), torch.no_grad():
            x, y = data(1)
            F.mse_loss(model(x + moved), y)

    trial = record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), data, steps=20, after=evaluate)
    assert levels(trial, "evaluation-data") == ([] if moved == 0 else ["warning"])


@pytest.mark.parametrize("noisy", [True, False])
def test_a_rise_within_the_noise_of_the_training_batches_is_none(noisy: bool, tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    evaluated = [0.05, 0.01, 0.01, 0.01, 0.02, 0.04, 0.04]
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({}, optimizer)
        for number in range(70):
            level = 0.5 * 0.9**number + (0.1 if noisy and number % 8 == 7 else 0.005)
            with recorder.step("train") as step:
                loss = level * weight
                step.record("loss", loss, type="loss")
                loss.backward()
                optimizer.step()
            if number % 10 == 9:
                with recorder.step("validation") as step, torch.no_grad():
                    step.record("loss", evaluated[number // 10] * weight, type="loss")
    assert levels(open_trial(tmp_path / "trial"), "overfitting") == ([] if noisy else ["warning"])
