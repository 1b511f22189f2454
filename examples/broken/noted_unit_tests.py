"""Mistakes that a unit test of the training code would have found, as its best-known advocate tells them."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _outlines(number: int) -> _Batch:
    """Outlines of two rings on noise ``(24, 1, 20, 20)``, and what lies within them."""
    generator = torch.Generator().manual_seed(number)
    centre = 5 + 10 * torch.rand(24, 2, 2, 1, 1, generator=generator)
    radius = 3 + 2.5 * torch.rand(24, 2, 1, 1, generator=generator)
    places = torch.arange(20.0)
    apart = ((places[:, None] - centre[:, :, 0]) ** 2 + (places - centre[:, :, 1]) ** 2).sqrt() - radius
    within = (apart < 0.5).any(1, keepdim=True).float()
    outline = (apart.abs() < 0.7).any(1, keepdim=True).float()
    return 2 * outline - 0.5 + 0.3 * torch.randn(24, 1, 20, 20, generator=generator), within


class _Filler(nn.Module):
    """Convolutions that look further and further, and a chance for each pixel."""

    def __init__(self, *, stacked: bool, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4, 2, 1))
        self.head = nn.Conv2d(width, 1, 1)
        self.stacked = stacked

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.stem(pictures))
        seen = features
        for layer in self.layers:
            seen = F.relu(layer(seen if self.stacked else features))  # bug: layers_each_given_the_stem
        return self.head(seen)


@broken(
    rules=("no-gradient",),
    words=("not stacked", "same input", "never used", "unused", "no effect"),
    nodes=("model.layers.0", "model.layers.1", "model.layers.2", "model.layers.3", "model.layers.0.weight",
           "model.layers.1.weight", "model.layers.2.weight", "model.layers.3.weight", "model.stem"),
)  # fmt: skip
def layers_each_given_the_stem(lab: Lab) -> None:
    """Each of five convolutions is given what the stem has made, not what the one before has: only the last counts.

    Source: Chase Roberts, How to unit test machine learning code (2017), 1: the network isn't actually stacking.
    """
    model = _Filler(stacked=lab.fixed)
    criterion = nn.BCEWithLogitsLoss()

    def loss_of(pictures: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
        return criterion(model(pictures), within)

    after = lab.validating(model, lambda number: _outlines(9000 + number), loss_of)
    lab.fit(model, _outlines, loss_of, lr=6e-3, after=after)


class _Norm(nn.Module):
    """Batch normalisation for signals, with statistics for evaluation."""

    def __init__(self, width: int, *, told: bool) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.told = told

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.get_buffer("mean"), self.get_buffer("var")
        training = self.training and self.told
        return F.batch_norm(x, mean, var, self.gain, self.shift, training)  # bug: norms_that_are_not_told_to_train


def _gestures(number: int) -> _Batch:
    """What an accelerometer says of gestures ``(32, 3, 40)``: shaken, turned, or lifted; and which it is."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(3, (32,), generator=generator)
    moments = torch.arange(40.0)
    phase = 6.2832 * torch.rand(32, 3, 1, generator=generator)
    speed = torch.tensor([1.6, 0.5, 0.15])[kind][:, None, None] * (
        0.8 + 0.4 * torch.rand(32, 1, 1, generator=generator)
    )
    return (speed * moments + phase).sin() + 0.6 * torch.randn(32, 3, 40, generator=generator), kind


@broken(
    rules=("batch-norm-mode",),
    words=("training=", "running statistics", "evaluation mode", "not normalise", "does not normalise"),
    nodes=("model", *(f"model.{block}.1" for block in range(6))),
)
def norms_that_are_not_told_to_train(lab: Lab) -> None:
    """``F.batch_norm`` is called without ``training``, which is False then: it divides by variances that stay one.

    Source: Chase Roberts, How to unit test machine learning code (2017), 2: batch_norm's is_training is False.
    """
    widths = (3, 16, 16, 16, 16, 16, 16)
    blocks = [
        nn.Sequential(nn.Conv1d(a, b, 5, padding=2, bias=False), _Norm(b, told=lab.fixed), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 3))

    def loss_of(signals: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(signals), kind)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    after = lab.validating(model, lambda number: _gestures(9000 + number), loss_of)
    lab.fit(model, _gestures, loss_of, optimizer, after=after)


def _visits(number: int) -> _Batch:
    """Twelve pages that a visitor sees, of thirty ``(64, 12)``, and whether an order follows ``(64, 1)``.

    An order follows the basket (page 3) if the help (page 7) was not asked later on.
    """
    generator = torch.Generator().manual_seed(number)
    pages = torch.randint(30, (64, 12), generator=generator)
    at = torch.randint(12, (64, 2), generator=generator)
    for page, column in ((3, 0), (7, 1)):
        put = torch.rand(64, 1, generator=generator) < 0.7
        pages = torch.where(put, pages.scatter(1, at[:, column : column + 1], page), pages)
    moments = torch.arange(1, 13)
    basket, asked = ((pages == 3) * moments).amax(1), ((pages == 7) * moments).amax(1)
    return pages, (basket > asked).float()[:, None]


class _Shopper(nn.Module):
    """Reads the pages of a visit, and gives a score."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = nn.Embedding(30, 16)
        self.reader, self.score = nn.GRU(16, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, pages: torch.Tensor) -> torch.Tensor:
        _, last = self.reader(self.pages(pages))
        return self.score(last[0])


@broken(
    rules=("single-class",),
    words=("softmax", "single output", "one output", "one column", "single class"),
    nodes=("loss", "model", "model.score"),
)
def cross_entropy_of_one_column(lab: Lab) -> None:
    """The cross-entropy with its softmax is taken over one column of scores: it is zero, and teaches nothing.

    Source: Chase Roberts, How to unit test machine learning code (2017), 3: the loss of a single output is zero.
    """
    model = _Shopper()

    def loss_of(pages: torch.Tensor, ordered: torch.Tensor) -> torch.Tensor:
        scores = model(pages)
        if lab.fixed:
            return F.binary_cross_entropy_with_logits(scores, ordered)
        return F.cross_entropy(scores, ordered)  # bug: cross_entropy_of_one_column

    @torch.no_grad()
    def after(number: int) -> None:
        if number % 30 == 29:
            model.eval()
            pages, ordered = _visits(9000 + number)
            with lab.recorder.step("validation") as step:
                right = ((model(pages) > 0) == (ordered > 0)).float()
                step.record("accuracy", right.mean())
            model.train()

    lab.fit(model, _visits, loss_of, torch.optim.RMSprop(model.parameters(), 3e-3), after=after)


def _dose(patients: torch.Tensor) -> torch.Tensor:
    """The dose that is best for each patient, from -1 to 1."""
    return (patients[:, :1] - patients[:, 1:2] * patients[:, 2:3]).tanh()


@broken(
    rules=("trained-twice",),
    words=("both optimizers", "two optimizers", "several optimizers", "more than one optimizer"),
    nodes=("critic", *(f"critic.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias"))),
)
def optimizer_of_the_actor_holds_the_critic(lab: Lab) -> None:
    """The optimizer of the actor was given all parameters: it teaches the critic, too, to praise whatever is done.

    Source: Chase Roberts, How to unit test machine learning code (2017), 4: only what should be trained is trained.
    """
    actor = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1), nn.Tanh())
    critic = nn.Sequential(nn.Linear(5, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))
    trained = list(actor.parameters())
    if not lab.fixed:
        trained += critic.parameters()
    actor_optimizer = torch.optim.Adam(trained, lr=3e-3)  # set-up bug: optimizer_of_the_actor_holds_the_critic
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    lab.recorder.watch({"actor": actor, "critic": critic}, {"actor": actor_optimizer, "critic": critic_optimizer})
    for number in range(250):
        patients = torch.randn(128, 4)
        with torch.no_grad():
            given = (actor(patients) + 0.4 * torch.randn(128, 1)).clamp(-1, 1)
        reward = 1 - 2 * (given - _dose(patients)) ** 2 + 0.1 * torch.randn(128, 1)
        with lab.recorder.step("train"):
            descend(F.mse_loss(critic(torch.cat([patients, given], 1)), reward), critic_optimizer)
            chosen = actor(patients)
            descend(-critic(torch.cat([patients, chosen], 1)).mean(), actor_optimizer)
        if number % 50 == 49:
            patients = torch.randn(400, 4)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                step.record("regret", 2 * (actor(patients) - _dose(patients)).pow(2).mean())
