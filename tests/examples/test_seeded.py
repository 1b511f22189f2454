"""The faults that are planted into sound trainings: each says what it is, does something, or changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import RULES
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.broken.seeded import FAULTS, Base, Fault, seed
from stepscope.examples.broken.seeded.seeding import Outcome, _harm, learned
from stepscope.examples.broken.seeded.training import Training
from stepscope.store import open_trial

NUMBERS = (0, 4, 9, 50, 99)
"""The batches of a small training: few, and of all ages."""
NODES = {"model", "input", "target", "prediction", "loss"}
"""With what the names of nodes begin."""


def _random(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def _rows(*shape: int) -> Callable[[int], tuple[torch.Tensor, ...]]:
    def batches(number: int) -> tuple[torch.Tensor, ...]:
        x = torch.randn(16, *shape, generator=_random(number))
        return x, x.flatten(1)[:, :3].argmax(1)

    return batches


def _numbers(number: int) -> tuple[torch.Tensor, ...]:
    x = torch.randn(16, 4, generator=_random(number))
    return x, x.sum(1, keepdim=True)


def _halves(number: int) -> tuple[torch.Tensor, ...]:
    x = torch.randn(16, 4, generator=_random(number))
    return x, (x.sum(1) > 0).float()


def _words(number: int) -> tuple[torch.Tensor, ...]:
    x = torch.randint(9, (8, 5), generator=_random(number))
    return x, x[:, 0] % 3


def _pairs(number: int) -> tuple[torch.Tensor, ...]:
    return torch.ones(3, 2, dtype=torch.int64), torch.ones(2)


class Reader(nn.Module):
    """Reads tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read, self.drop = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Dropout(0.1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.read(self.embed(x)).relu().mean(1)))


def _training(
    model: nn.Module,
    batches: Callable[[int], tuple[torch.Tensor, ...]],
    loss: Callable[..., torch.Tensor],
    *,
    sgd: bool = False,
) -> Training:
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, 0.1) if sgd else torch.optim.Adam(parameters, 1e-2)
    return Training(model, batches, lambda x, y: loss(x, y), optimizer, None, Random(3), ExitStack())


def _classes(*, sgd: bool = False) -> Training:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return _training(model, _rows(4), lambda x, y: F.cross_entropy(model(x), y), sgd=sgd)


def _by_descent() -> Training:
    return _classes(sgd=True)


def _regression() -> Training:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    return _training(model, _numbers, lambda x, y: F.mse_loss(model(x), y))


def _yes_or_no() -> Training:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    return _training(model, _halves, lambda x, y: F.binary_cross_entropy_with_logits(model(x)[:, 0], y))


def _pictures() -> Training:
    layers = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    model = nn.Sequential(*layers)
    return _training(model, _rows(2, 6, 6), lambda x, y: F.cross_entropy(model(x), y))


def _reader() -> Training:
    model = Reader()
    return _training(model, _words, lambda x, y: F.cross_entropy(model(x), y))


def _factors() -> Training:
    """No layers, no samples, no loss function: few faults have a place."""
    model = nn.ParameterList([torch.randn(2)])
    return _training(model, _pairs, lambda x, y: (model[0] - y).abs().sum(), sgd=True)


TRAININGS = (_classes, _by_descent, _regression, _yes_or_no, _pictures, _reader, _factors)
faults = pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))


@dataclass
class _Trace:
    losses: list[float]
    state: dict[str, torch.Tensor]

    def is_like(self, other: _Trace) -> bool:
        return str(self.losses) == str(other.losses) and _alike(self.state, other.state)


def _alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[name], other[name], 0, 0, True) for name in one)


def _made(make: Callable[[], Training]) -> Training:
    torch.manual_seed(0)
    return make()


def _run(training: Training) -> _Trace:
    losses = []
    with training.patches:
        for number in NUMBERS:
            loss = training.loss_of(*training.batches(number))
            descend(loss, training.optimizer)
            losses.append(loss.item())
            if training.after is not None:
                training.after(number)
    return _Trace(losses, training.model.state_dict())


@pytest.fixture(scope="module")
def sound() -> dict[str, _Trace]:
    return {make.__name__: _run(_made(make)) for make in TRAININGS}


@faults
def test_a_fault_says_what_it_is(fault: Fault) -> None:
    assert fault.cause.endswith(".") and 20 < len(fault.cause) < 200
    assert len(fault.source) > 10
    assert (fault.rules or fault.words) and set(fault.rules) <= set(RULES)


def test_enough_faults() -> None:
    assert len(FAULTS) >= 40


@faults
def test_a_planted_fault_makes_a_difference(fault: Fault, sound: dict[str, _Trace]) -> None:
    differ = []
    for make in TRAININGS:
        training = _made(make)
        nodes = fault.plant(training)
        if nodes is not None:
            assert nodes and all(name.split(".")[0] in NODES for name in nodes)
            differ.append(not _run(training).is_like(sound[make.__name__]))
    assert any(differ)


@faults
def test_a_fault_without_a_place_changes_nothing(fault: Fault) -> None:
    for make in TRAININGS:
        training = _made(make)
        before, random = copy.deepcopy(training.model.state_dict()), torch.get_rng_state()
        batch, parts = training.batches(0), (training.batches, training.loss_of, training.after, training.optimizer)
        functions = dict(vars(F))
        if fault.plant(training) is None:
            assert _alike(training.model.state_dict(), before)
            assert all(torch.equal(one, other) for one, other in zip(training.batches(0), batch, strict=True))
            assert parts == (training.batches, training.loss_of, training.after, training.optimizer)
            assert all(module.training and "forward" not in vars(module) for module in training.model.modules())
            assert vars(F) == functions
        assert torch.equal(torch.get_rng_state(), random) or fault.name.startswith("weights_")
        training.patches.close()


@faults
def test_the_same_seed_plants_the_same(fault: Fault) -> None:
    found = []
    for training in (_made(_pictures), _made(_pictures)):
        with training.patches:
            found.append(fault.plant(training))
    assert found[0] == found[1]


def test_a_rehearsal_leaves_everything_as_it_is() -> None:
    training = _made(_pictures)
    before = copy.deepcopy(training.model.state_dict())
    found = training.rehearsal()
    assert _alike(training.model.state_dict(), before)
    assert found.layers == ["model.0", "model.3", "model.5"] and found.hidden() == ["model.0", "model.3"]
    assert found.ends() == ("model.5", "model") and found.target() == 1
    assert {"relu", "cross_entropy"} <= found.functions
    assert _made(_yes_or_no).rehearsal().ends() == ("model.2", "model", "prediction")


def test_an_input_that_is_the_target_is_no_target() -> None:
    model = nn.Linear(4, 4)
    training = _training(model, _numbers, lambda x, y: F.mse_loss(model(x), x))
    assert training.rehearsal().target() is None


@pytest.mark.parametrize(
    ("after", "harm"), [(0.2, 0.0), (0.6, 0.5), (1.0, 1.0), (1.8, 2.0), (float("nan"), float("inf"))]
)
def test_harm_is_the_share_that_is_not_learned(after: float, harm: float) -> None:
    assert _harm(Outcome(1.0, 0.2), Outcome(1.0, after)) == pytest.approx(harm)


def test_what_has_been_learned() -> None:
    assert Outcome(1.0, 0.8).has_learned and Outcome(-1.0, -2.0).has_learned
    assert not Outcome(1.0, 0.95).has_learned and not Outcome(None, 0.5).has_learned
    assert not Outcome(float("inf"), 0.5).has_learned and not Outcome(1.0, float("nan")).has_learned


def _base(batches: Callable[[int], tuple[torch.Tensor, ...]] = _numbers) -> Base:
    def train(lab: Lab) -> None:
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        replace(lab, steps=40).fit(model, batches, lambda x, y: F.mse_loss(model(x), y), lr=2e-2)

    return Base("sums", train, fixed=True)


def test_a_fault_is_seeded_and_recorded(tmp_path: Path) -> None:
    base, mse_loss = _base(), F.mse_loss
    sound = learned(base, tmp_path)
    assert sound.has_learned and sound.nodes is None
    for name in ("targets_broadcast", "step_never_called"):
        found = seed(base, FAULTS[name], sound, tmp_path)
        assert found is not None and found.does_harm and found.nodes
        assert len(open_trial(tmp_path / "sums" / name).steps) > 0
    assert seed(base, FAULTS["normalisation_removed"], sound, tmp_path) is None
    assert F.mse_loss is mse_loss


def _raise(training: Training) -> tuple[str, ...]:
    """The loss is no number."""
    training.loss_of = lambda x, y: x.sum(1)
    return ("loss",)


def test_a_training_that_does_not_run_cannot_be_seeded(tmp_path: Path) -> None:
    assert seed(_base(), Fault("no_number", _raise, (), ()), Outcome(1.0, 0.5), tmp_path) is None


def test_a_base_without_unseen_batches_has_not_learned(tmp_path: Path) -> None:
    few = [_numbers(number) for number in range(50)]
    assert not learned(_base(lambda number: few[number]), tmp_path).has_learned
