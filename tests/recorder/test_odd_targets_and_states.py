"""What the recorder marks of targets, of states that begin anew, of sums before a logarithm, and of lost losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.recorder import Recorder
from stepscope.store import open_trial

KINDS = (
    "overwritten",
    "all ignored",
    "one class left",
    "hardly any",
    "holds blank",
    "anew",
    "log of sum",
    "against zeros",
    "exponential",
    "heated",
    "held",
)
Loss = Callable[["Net", torch.Tensor], torch.Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores, self.rnn, self.cell = nn.Linear(4, 4), nn.GRU(4, 4, batch_first=True), nn.GRUCell(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(x)


def marks(folder: Path, loss_of: Loss) -> list[str]:
    """The calls of these kinds in one step: what they are, and of what."""
    torch.manual_seed(0)
    net = Net()
    with Recorder(folder, trial="t", schedule=1, strict=True) as recorder:
        recorder.watch(net)
        with recorder.step():
            loss_of(net, torch.randn(8, 4)).backward()
    calls = open_trial(folder / "t").step(0).graph().calls
    return [f"{call.kind}: {call.operation}" for call in calls if call.kind in KINDS]


def classes(*numbers: int) -> torch.Tensor:
    return torch.tensor([*numbers, *[-100] * (8 - len(numbers))])


def last(net: Net, x: torch.Tensor) -> torch.Tensor:
    for part in net(x).split(2):
        loss = part.square().mean()
    return loss


def spelled(blank: int, length: int) -> Loss:
    def loss_of(net: Net, x: torch.Tensor) -> torch.Tensor:
        log = net(x).log_softmax(1)[:, None]
        return F.ctc_loss(log, torch.tensor([[1, 2, 0]]), torch.tensor([8]), torch.tensor([length]), blank=blank)

    return loss_of


def heated(scores: torch.Tensor, others: torch.Tensor, own: float, other: float) -> torch.Tensor:
    return F.kl_div((scores / own).log_softmax(1), (others * (1 / other)).softmax(1), reduction="batchmean")


def in_turn(net: Net, x: torch.Tensor, *, held: bool) -> torch.Tensor:
    """Three moments, each from the same state, or from what the one before has left."""
    start, state = x[:2].tanh(), None
    made = []
    for moment in x.view(2, 4, 4)[:, :3].unbind(1):
        state = net.cell(moment, start if held else state)
        made.append(state)
    return torch.stack(made).mean()


@pytest.mark.parametrize(
    ("loss_of", "found"),
    [
        (last, ["overwritten: mean(3 unseen)"]),
        (lambda net, x: F.cross_entropy(net(x), classes(), reduction="sum"),
         ["all ignored: cross_entropy(ignore_index=-100)"]),
        (lambda net, x: F.cross_entropy(net(x), classes(2, 2)),
         ["one class left: cross_entropy(2, ignore_index=-100)"]),
        (lambda net, x: F.cross_entropy(net(x), classes(2, 1)), []),
        (lambda net, x: F.cross_entropy(net(x.repeat(8, 1)), F.pad(classes(2, 1), (0, 56), value=-100)),
         ["hardly any: cross_entropy(ignore_index=-100)"]),
        (lambda net, x: F.cross_entropy(net(x), torch.full((8, 4), 0.25)), []),
        (lambda net, x: F.mse_loss(net(x), torch.zeros_like(x)), ["against zeros: mse_loss"]),
        (lambda net, x: F.mse_loss(net(x)[:, 0], torch.zeros(8)), []),
        (lambda net, x: F.mse_loss(net(x), torch.ones_like(x)), []),
        (spelled(0, 3), ["holds blank: ctc_loss(blank=0)"]),
        (spelled(0, 2), []),
        (spelled(3, 3), []),
        (lambda net, x: net.rnn(x[:, None])[0].mean(), ["anew: gru(whole)"]),
        (lambda net, x: net.rnn(x.view(2, 4, 4)[:, :1])[0].mean(), ["anew: gru(slice)"]),
        (lambda net, x: net.rnn(x.view(2, 4, 4))[0].mean(), []),
        (lambda net, x: net.cell(x, net.cell(x)).mean(), ["anew: gru_cell(whole)"]),
        (lambda net, x: -F.logsigmoid(net(x).sum()), ["log of sum: logsigmoid"]),
        (lambda net, x: -F.logsigmoid(net(x).sum(1)).sum(), []),
        (lambda net, x: (F.cross_entropy(net(x), classes(2, 1)) / 2).exp(), ["exponential: exp"]),
        (lambda net, x: net(x).mean().exp(), []),
        (lambda net, x: F.cross_entropy(net(x).exp(), classes(2, 1)), []),
        (lambda net, x: heated(net(x), x, 4, 4), ["heated: kl_div(T=4)"]),
        (lambda net, x: heated(net(x) * 4, x, 0.25, 4), []),
        (lambda net, x: heated(net(x), x, 4, 2), []),
        (lambda net, x: heated(net(x), x, 1, 1), []),
        (lambda net, x: in_turn(net, x, held=True), ["held: gru_cell(slice)"] * 2),
        (lambda net, x: in_turn(net, x, held=False), ["anew: gru_cell(slice)"]),
    ],
)  # fmt: skip
def test_what_is_marked(loss_of: Loss, found: list[str], tmp_path: Path) -> None:
    assert marks(tmp_path, loss_of) == found


def test_targets_that_are_mapped_over_are_not_read(tmp_path: Path) -> None:
    def loss_of(net: Net, x: torch.Tensor) -> torch.Tensor:
        each = torch.vmap(lambda scores, y: F.cross_entropy(scores, y, reduction="sum"))
        return each(net(x).view(2, 4, 4), torch.full((2, 4), -100)).sum()

    assert marks(tmp_path, loss_of) == []
