"""Networks for tables whose mistakes were reported by their users or mended by their makers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Restorer(nn.Module):
    """Restores the columns of a table that were hidden from it."""

    def __init__(self, columns: int, width: int = 48) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(columns, width), nn.BatchNorm1d(width), nn.GLU(), nn.Linear(width // 2, 16)
        )
        self.decoder = nn.Linear(16, columns)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x * (1 - hidden)))


def _customers() -> torch.Tensor:
    """Ten standardised columns that hang together, and four flags that are set for few rows."""
    draws = torch.Generator().manual_seed(4)
    few = torch.randn(2000, 4, generator=draws)
    numbers = few @ torch.randn(4, 10, generator=draws) + 0.3 * torch.randn(2000, 10, generator=draws)
    flags = (few > 2.6).float()
    return data.standardised(torch.cat([numbers, flags], dim=1))


@broken(words=("variance", "standard deviation", "divided", "division", "divisor"), nodes=("loss", "input.x"))
def divided_by_the_variance_of_the_batch(lab: Lab) -> None:
    """Errors are divided by the variance in the batch or, if a column is constant there, by its mean, though negative.

    Source: dreamquark-ai/tabnet issues 572 and 515, loss of the self-supervised pretraining goes to minus infinity.
    """
    table = _customers()
    model = _Restorer(table.shape[1])
    whole = table.var(0)

    def loss_of(x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        errors = ((model(x, hidden) - x) * hidden) ** 2
        means = x.mean(0)
        means[means == 0] = 1
        spreads = x.std(0) ** 2
        spreads[spreads == 0] = means[spreads == 0]
        features = errors @ (1 / (whole if lab.fixed else spreads))  # bug: divided_by_the_variance_of_the_batch
        return (features / (hidden.sum(1) + 1e-9)).mean()

    def batches(number: int) -> _Batch:
        draws = torch.Generator().manual_seed(number)
        rows = torch.randint(len(table), (64,), generator=draws)
        return table[rows], (torch.rand(64, table.shape[1], generator=draws) < 0.2).float()

    lab.fit(model, batches, loss_of, lr=2e-2)


class _Weak(nn.Module):
    """A weak learner: it reads the table and what the learner before it found."""

    def __init__(self, inputs: int, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.out = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.body(x)
        return found, self.out(found)


class _Boosted(nn.Module):
    """Weak learners, each of which adds to what those before it say."""

    def __init__(self, columns: int, learners: int = 3) -> None:
        super().__init__()
        self.learners = nn.ModuleList(_Weak(columns + (16 if number else 0)) for number in range(learners))

    def forward(self, x: torch.Tensor, upto: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the first learners, and the input of the next one."""
        total, given = torch.zeros(len(x), 1), x
        for number in range(upto):
            found, out = self.learners[number](given)
            total, given = total + out, torch.cat([x, found], dim=1)
        return total, given


@broken(rules=("broadcast-target",), words=("broadcast",), nodes=("loss", "target"))
def residuals_of_every_row_for_every_row(lab: Lab) -> None:
    """A sum of shape (B, 1) minus targets of shape (B,) makes (B, B) residuals, which each learner shall meet at once.

    Source: LAMDA-Tabular/TALENT pull request 109, GrowNet regression trained on the wrong loss.
    """
    model = _Boosted(10)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    lab.recorder.watch(model, optimizer)
    x, y = data.diabetes()
    batches = data.draw((x[:340], y[:340, 0]), 64)
    unseen = data.draw((x[340:], y[340:, 0]), 100)
    for number in range(lab.steps):
        rows, wanted = batches(number)
        learner = number // 50
        with lab.recorder.step("train"):
            with torch.no_grad():
                so_far, given = model(rows, learner)
            goal = wanted.view(-1, 1) if lab.fixed else wanted
            towards = -(so_far - goal)  # bug: residuals_of_every_row_for_every_row
            loss = (model.learners[learner](given)[1] - towards).square().mean()
            descend(loss, optimizer)
        lab.validate(unseen, lambda x, y: F.mse_loss(model(x, 3)[0][:, 0], y), number)


class _Norm(nn.Module):
    """Batch normalisation of the features; a batch of one row was feared to break it."""

    def __init__(self, features: int, *, always: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features, momentum=0.3)
        self.always = always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) != 1 or self.always:
            return self.norm(x)
        return x  # bug: single_rows_are_not_normalised


class _Gated(nn.Module):
    """Normalised measurements, and two gated layers."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.norm = _Norm(30, always=always)
        self.first, self.second = nn.Linear(30, 32), nn.Linear(16, 32)
        self.norm_first, self.norm_second = _Norm(32, always=always), _Norm(32, always=always)
        self.head = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.glu(self.norm_first(self.first(self.norm(x))))
        x = F.glu(self.norm_second(self.second(x)))
        return self.head(x)[:, 0]


@broken(
    words=("not normalised", "skipped", "not called in", "left out in", "single row"),
    nodes=("model.norm", "model.norm_first", "model.norm_second"), onset=30,
)  # fmt: skip
def single_rows_are_not_normalised(lab: Lab) -> None:
    """A batch of one row skips the normalisation, in evaluation too, so that single rows go in as they are.

    Source: ludwig-ai/ludwig pull request 2299, TabNet gives other outputs for a single row than for a batch.
    """
    model = _Gated(always=lab.fixed)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    lab.recorder.watch(model, optimizer)
    x, y = data.raw_tumours()
    seen = torch.arange(len(x)) % 5 > 0
    batches = data.draw((x[seen], y[seen]))
    unseen = data.draw((x[~seen][:, None], y[~seen]), 24)
    for number in range(lab.steps):
        rows, wanted = batches(number)
        with lab.recorder.step("train"):
            descend(F.binary_cross_entropy_with_logits(model(rows), wanted), optimizer)
        model.eval()
        lab.validate(
            unseen, lambda x, y: F.binary_cross_entropy_with_logits(torch.cat([model(row) for row in x]), y), number
        )
        model.train()


def _quality(number: int) -> _Batch:
    """Three answers of patients, and how well they are: between -0.45 and 1."""
    x = torch.rand(64, 3, generator=torch.Generator().manual_seed(number))
    return x, 1 - 1.45 * x.mean(1, keepdim=True) - 0.4 * (x[:, :1] - x[:, 1:2])


@broken(words=("squared target", "square of", "loses the sign", "sign of the target"), nodes=("target", "loss"))
def targets_squared_to_be_positive(lab: Lab) -> None:
    """The targets are squared to lie between 0 and 1, so that -0.4 and 0.4 become the same.

    Source: Cross Validated, neural network for regression in R, actual against predicted (nnet of a squared variable).
    """
    model = nn.Sequential(nn.Linear(3, 6), nn.Sigmoid(), nn.Linear(6, 1), nn.Sigmoid())

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        goal = (y + 0.454) / 1.454 if lab.fixed else y**2  # bug: targets_squared_to_be_positive
        return F.mse_loss(model(x), goal)

    def error_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(1.454 * model(x) - 0.454 if lab.fixed else model(x).sqrt(), y)

    lab.fit(
        model, _quality, loss_of, lr=3e-2,
        after=lambda number: lab.validate(lambda step: _quality(10_000 + step), error_of, number),
    )  # fmt: skip
