"""Rules about copies of nets, targets that a net makes itself, scores, half precision and cut memories."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from support.short_runs import blob_batches, blobs, curve_batches, descend, findings, mlp, only, record

PLACES = 6


def learn_values(folder: Path, *, follow: str = "copy", stop: bool = True, apart: bool = False) -> Trial:
    """Temporal differences on a line of six places, with a reward in each and a target network."""
    value = mlp(PLACES, 24, 1)
    target = (mlp(PLACES, 24, 1) if apart else deepcopy(value)).requires_grad_(False)
    optimizer = torch.optim.Adam(value.parameters(), lr=2e-2)
    with Recorder(folder, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"value": value, "target": target}, optimizer)
        for number in range(60):
            place = torch.randint(PLACES, (32,), generator=torch.Generator().manual_seed(number))
            here, onwards = (F.one_hot(p, PLACES).float() for p in (place, (place + 1).clamp(max=PLACES - 1)))
            arrived = (place == PLACES - 1).float()
            with recorder.step():
                wanted = 1 + target(onwards)[:, 0] * ((1 - arrived) if stop else 1)
                descend(F.mse_loss(value(here)[:, 0], wanted), optimizer)
            if follow == "copy":
                target.load_state_dict(value.state_dict())
            elif follow == "average":
                with torch.no_grad():
                    for mine, other in zip(target.parameters(), value.parameters(), strict=True):
                        mine.lerp_(other, 0.05)
    return open_trial(folder / "trial")


@pytest.mark.parametrize(
    ("follow", "apart", "names"),
    [
        ("never", False, ["target"]),
        ("copy", False, []),
        ("average", False, []),
        ("never", True, []),  # a teacher of its own, that shall stay
    ],
)
def test_a_target_network_that_never_follows(follow: str, apart: bool, names: list[str], tmp_path: Path) -> None:
    found = findings(learn_values(tmp_path, follow=follow, apart=apart), "stale-copy")
    assert [finding.node for finding in found] == names
    assert all(finding.level == "info" and "target.0.weight" in finding.nodes for finding in found)


@pytest.mark.parametrize("stop", [True, False])
def test_values_without_an_end_grow_and_grow(stop: bool, tmp_path: Path) -> None:
    found = findings(learn_values(tmp_path, stop=stop), "growing-targets")
    assert len(found) == (not stop)
    assert all("keep growing" in finding.summary and finding.node == "value" for finding in found)
    assert all(finding.source is not None and finding.source.text.startswith("wanted = 1 +") for finding in found)


class Cosines(nn.Module):
    """Cosines between codes and one vector for each class, times a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body, self.classes, self.scale = mlp(8, 32, 16), nn.Parameter(torch.randn(4, 16)), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * F.linear(F.normalize(self.body(x)), F.normalize(self.classes))


@pytest.mark.parametrize(("scale", "told"), [(0.2, True), (0.001, True), (10.0, False)])
def test_cosines_that_are_too_flat_for_a_softmax(scale: float, told: bool, tmp_path: Path) -> None:
    model = Cosines(scale)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=60)
    assert bool(findings(trial, "flat-scores")) == told


def test_scores_that_do_not_grow_yet_are_not_flat(tmp_path: Path) -> None:
    model = mlp(8, 16, 4)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=40, lr=1e-6)
    assert findings(trial, "flat-scores") == []


class Halved(nn.Module):
    """A part of it works in another precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first, self.last, self.dtype = nn.Linear(6, 16), nn.Linear(16, 2), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).to(self.dtype).tanh().float())


@pytest.mark.parametrize(
    ("dtype", "weight", "told"),
    [
        (torch.float16, 1e-5, True),
        (torch.float16, 1.0, False),
        (torch.float32, 1e-6, False),
        (torch.bfloat16, 1e-6, False),
    ],
)
def test_gradients_that_half_precision_rounds_away(
    dtype: torch.dtype, weight: float, told: bool, tmp_path: Path
) -> None:
    model = Halved(dtype)
    trial = record(tmp_path, model, lambda x, y: weight * F.mse_loss(model(x), y), curve_batches, steps=15)
    found = findings(trial, "dtype-range")
    assert [finding.node for finding in found] == (["model.first"] if told else [])
    assert all("underflow" in finding.summary and "float()" in finding.source.text for finding in found)


@pytest.mark.parametrize("half", [True, False])
def test_the_eps_of_adam_is_nothing_in_half_precision(half: bool, tmp_path: Path) -> None:
    model = mlp(8, 16, 4).to(torch.float16 if half else torch.float32)
    kind = model[0].weight.dtype
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x.to(kind)).float(), y), blob_batches, steps=6)
    assert bool(findings(trial, "adam-epsilon")) == half


class Memory(nn.Module):
    """A cell over five moments, whose state may be cut off."""

    def __init__(self, *, cut: str) -> None:
        super().__init__()
        self.cell, self.head, self.cut = nn.GRUCell(8, 16), nn.Linear(16, 4), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), 16)
        for moment in range(5):
            is_cut = self.cut == "always" or (self.cut == "once" and moment == 2)
            state = self.cell(x, state.detach() if is_cut else state)
        return self.head(state)


@pytest.mark.parametrize("cut", ["always", "once", "never"])
def test_a_memory_that_is_cut_off_at_every_moment(cut: str, tmp_path: Path) -> None:
    model = Memory(cut=cut)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=8)
    found = findings(trial, "gradient-cut")
    assert [finding.node for finding in found] == (["model.cell"] if cut == "always" else [])


class Scaled(nn.Module):
    """A residual block whose branch starts with a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = mlp(8, 16, 8), nn.Parameter(torch.full((8,), scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.inner(x)


@pytest.mark.parametrize(("scale", "levels"), [(1e-5, ["info"]), (0.0, []), (0.1, [])])
def test_a_branch_that_wakes_up_late(scale: float, levels: list[str], tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), Scaled(scale), nn.Linear(8, 4))
    trial = record(
        tmp_path,
        model,
        lambda x, y: F.cross_entropy(model(x), y),
        blob_batches,
        optimizer=torch.optim.SGD(model.parameters(), 1e-2),
        steps=20,
    )
    assert [finding.level for finding in findings(trial, "residual-balance")] == levels


@pytest.mark.parametrize("pulled", ["both", "one"])
def test_codes_that_only_pull_at_each_other(pulled: str, tmp_path: Path) -> None:
    encode, predict = mlp(8, 32, 8), mlp(8, 16, 8)
    model = nn.ModuleDict({"encode": encode, "predict": predict})

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        one, two = (encode(x + 0.3 * torch.randn_like(x)) for _ in range(2))
        two = two if pulled == "both" else two.detach()
        return -F.cosine_similarity(predict(one), two).mean()

    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    trial = record(tmp_path, model, loss_of, blob_batches, optimizer=optimizer, steps=60)
    assert bool(findings(trial, "representation-collapse")) == (pulled == "both")


def test_the_estimate_of_a_reward_swings_about_zero(tmp_path: Path) -> None:
    policy = mlp(8, 16, 4)

    def loss_of(number: int, _: object) -> torch.Tensor:
        x, y = blobs(seed=number)
        chances = policy(x).log_softmax(1)
        action = torch.distributions.Categorical(logits=chances.detach()).sample()
        reward = (action == y).float()
        return -(chances[torch.arange(len(x)), action] * (reward - reward.mean())).mean()

    trial = record(tmp_path, policy, loss_of, steps=60, lr=1e-4)
    assert findings(trial, "loss-plateau") == []


def test_one_finding_tells_a_stale_copy_and_names_its_original(tmp_path: Path) -> None:
    assert "copy of value" in only(learn_values(tmp_path, follow="never"), "stale-copy").summary


@pytest.mark.parametrize("recognised", [True, False])
def test_a_generator_that_wants_to_be_recognised(recognised: bool, tmp_path: Path) -> None:
    generator, critic = mlp(4, 24, 2), mlp(2, 24, 1, activation=lambda: nn.LeakyReLU(0.2))
    optimizers = {name: torch.optim.Adam(net.parameters(), 1e-2) for name, net in (("g", generator), ("c", critic))}
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch({"generator": generator, "critic": critic}, optimizers)
        for _ in range(50):
            real = torch.randn(64, 2) + 1
            with recorder.step() as step:
                made = generator(torch.randn(64, 4))
                with step.loss_group("c"):
                    loss = F.softplus(-critic(real)).mean() + F.softplus(critic(made.detach())).mean()
                    descend(loss, optimizers["c"])
                with step.loss_group("g"):
                    descend(F.softplus((1 if recognised else -1) * critic(made)).mean(), optimizers["g"])
    found = findings(open_trial(tmp_path / "trial"), "gan-balance")
    assert bool(found) == recognised and all("want the same" in finding.summary for finding in found)
