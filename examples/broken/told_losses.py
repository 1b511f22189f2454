"""Mistakes in losses and in what is given to them, in the order in which a lecture on troubleshooting tells them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Writer(nn.Module):
    """Letters, an LSTM, and what comes next."""

    def __init__(self, letters: int, *, chances: bool) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(letters, 32), nn.LSTM(32, 96, batch_first=True)
        self.decoder = nn.Linear(96, letters)
        self.chances = chances

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(text))
        scores = self.decoder(states)
        if self.chances:
            scores = F.softmax(scores, dim=-1)  # bug: letters_by_chances_in_place_of_logits
        return scores


@broken(rules=("activation-before-loss",), words=("softmax", "logits"), nodes=("model", "model.decoder", "loss"))
def letters_by_chances_in_place_of_logits(lab: Lab) -> None:
    """A language model of letters ends with a softmax, and gives its result to a cross-entropy that expects logits.

    Source: Tobin, Troubleshooting Deep Neural Networks, most common bugs, 3: softmaxed outputs to a loss of logits.
    """
    _, letters = data.text()
    model = _Writer(letters, chances=not lab.fixed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps)
    lab.recorder.watch(model, optimizer)
    batches = data.characters(32, 32)
    criterion = nn.CrossEntropyLoss()

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return criterion(model(text).transpose(1, 2), following)

    after = lab.validating(model, lambda number: batches(50_000 + number), loss_of)
    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(loss_of(*batches(number)), optimizer)
        schedule.step()
        after(number)


class _Crf(nn.Module):
    """A convolution over what sensors show, and a chain of four activities whose steps are learned, too."""

    def __init__(self, *, in_logs: bool) -> None:
        super().__init__()
        self.emit = nn.Sequential(nn.Conv1d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv1d(16, 4, 1))
        self.steps = nn.Parameter(torch.zeros(4, 4))
        self.in_logs = in_logs

    def all_paths(self, scores: torch.Tensor) -> torch.Tensor:
        """The logarithm of the sum over all paths."""
        if self.in_logs:
            logs = scores[:, 0]
            for score in scores[:, 1:].unbind(1):
                logs = (logs[:, :, None] + self.steps).logsumexp(1) + score
            return logs.logsumexp(1)
        sums = scores[:, 0].exp()
        for score in scores[:, 1:].unbind(1):
            sums = (sums @ self.steps.exp()) * score.exp()  # bug: paths_summed_without_logarithms
        return sums.sum(1).log()

    def forward(self, shown: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        scores = self.emit(shown).transpose(1, 2)
        this = scores.gather(2, path[:, :, None])[:, :, 0].sum(1) + self.steps[path[:, :-1], path[:, 1:]].sum(1)
        return (self.all_paths(scores) - this).mean() / path.shape[1]


def _activities(number: int) -> _Batch:
    """What four sensors show in fifty moments ``(24, 4, 50)``, and which of four activities it was ``(24, 50)``."""
    generator = torch.Generator().manual_seed(number)
    moves = torch.rand(24, 50, generator=generator) < 0.12
    path = moves.cumsum(1) + torch.randint(4, (24, 1), generator=generator)
    path = path % 4
    noise = 0.8 * torch.randn(24, 4, 50, generator=generator)
    return F.one_hot(path, 4).transpose(1, 2) * 2 - 0.5 + noise, path


@broken(
    rules=("non-finite", "dtype-range"),
    words=("overflow", "logsumexp", "exponent", "exp("),
    nodes=("loss", "model", "model.steps"),
    onset=13,
)  # fmt: skip
def paths_summed_without_logarithms(lab: Lab) -> None:
    """A random field sums up exponentials over fifty moments without logarithms, until their product overflows.

    Source: Tobin, Troubleshooting Deep Neural Networks, most common bugs, 5: numerical instability from exp, log, div.
    """
    model = _Crf(in_logs=lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    after = lab.validating(model, lambda number: _activities(60_000 + number), model)
    lab.fit(model, _activities, model, optimizer, after=after)


class _Shop(nn.Module):
    """How much each of 100 customers likes each of 80 goods."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.customer, self.good, self.popular = nn.Embedding(100, width), nn.Embedding(80, width), nn.Embedding(80, 1)
        nn.init.normal_(self.customer.weight, std=0.2)
        nn.init.normal_(self.good.weight, std=0.2)
        nn.init.zeros_(self.popular.weight)

    def forward(self, customer: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
        return (self.customer(customer) * self.good(good)).sum(1) + self.popular(good)[:, 0]


def _purchases(number: int) -> _Batch:
    """Customers ``(400,)``, what each of them bought, and something that they did not buy as readily."""
    hidden = torch.Generator().manual_seed(5)
    taste, kind = torch.randn(100, 3, generator=hidden), torch.randn(80, 3, generator=hidden)
    likes = taste @ kind.T + 0.7 * torch.randn(80, generator=hidden)
    generator = torch.Generator().manual_seed(number)
    customer = torch.randint(100, (400,), generator=generator)
    pair = torch.randint(80, (400, 2), generator=generator)
    seen = likes[customer[:, None], pair] + 0.4 * torch.randn(400, 2, generator=generator)
    order = seen.argsort(1, descending=True)
    pair = pair.gather(1, order)
    return customer, pair[:, 0], pair[:, 1]


@broken(
    rules=("likelihood-sign",),
    words=("sign of", "minus sign", "its sign", "negated", "maximi", "wrong direction"),
    nodes=("loss",),
)  # fmt: skip
def preferences_with_the_sign_flipped(lab: Lab) -> None:
    """The log-likelihood of what was bought before what was not is minimised, as its minus sign was forgotten.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error goes up: flipped the sign of the loss.
    """
    model = _Shop()

    def loss_of(customer: torch.Tensor, bought: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        likelihood = F.logsigmoid(model(customer, bought) - model(customer, other)).mean()
        penalty = 1e-4 * (model.customer.weight.square().sum(1).mean() + model.good.weight.square().sum(1).mean())
        return (-likelihood if lab.fixed else likelihood) + penalty  # bug: preferences_with_the_sign_flipped

    lab.fit(model, _purchases, loss_of, torch.optim.Adagrad(model.parameters(), lr=0.1))


class _Weather(nn.Module):
    """Dilated convolutions over hours, the last of which goes through two layers."""

    def __init__(self, *, rectified: bool, width: int = 24) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(2 if d == 1 else width, width, 3, dilation=d) for d in (1, 2, 4))
        layers: list[nn.Module] = []
        for inputs, outputs in ((width, width), (width, 1)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.head = nn.Sequential(*(layers if rectified else layers[:-1]))

    def forward(self, hours: torch.Tensor) -> torch.Tensor:
        x = hours
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
        return self.head(x[:, :, -1])


def _days(number: int) -> _Batch:
    """Eighteen hours of temperature and wind ``(64, 2, 18)``, standardised, and the temperature three hours later."""
    generator = torch.Generator().manual_seed(number)
    phase, season = 6.2832 * torch.rand(64, 1, generator=generator), torch.randn(64, 1, generator=generator)
    hours = torch.arange(21.0)
    warm = (hours * 6.2832 / 24 + phase).sin() + 0.7 * season
    wind = (hours * 6.2832 / 24 + phase).cos() * (1 + 0.2 * season) + 0.2 * torch.randn(64, 21, generator=generator)
    warm = warm + 0.1 * torch.randn(64, 21, generator=generator)
    return torch.stack([warm, wind], dim=1)[:, :, :18], warm[:, 20:]


@broken(rules=("unreachable-targets",), words=("relu", "rectif", "negative"), nodes=("model.head.3", "model.head"))
def forecast_behind_a_rectifier(lab: Lab) -> None:
    """The loop that builds the head puts a ReLU behind the last layer, too: it cannot say a temperature below zero.

    Source: Tobin, Troubleshooting Deep Neural Networks, overfit a batch, error plateaus: a ReLU on the output.
    """
    model = _Weather(rectified=not lab.fixed)  # set-up bug: forecast_behind_a_rectifier
    criterion = nn.SmoothL1Loss()

    def loss_of(hours: torch.Tensor, later: torch.Tensor) -> torch.Tensor:
        return criterion(model(hours), later)

    after = lab.validating(model, lambda number: _days(60_000 + number), loss_of)
    lab.fit(model, _days, loss_of, torch.optim.NAdam(model.parameters(), lr=3e-3), after=after)
