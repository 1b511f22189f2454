"""Sound trainings of the kinds that people ask about, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _rings(number: int) -> _Batch:
    """Grainy pictures ``(16, 1, 16, 16)`` with a disc in each, and its mask."""
    generator = torch.Generator().manual_seed(number)
    middle = 4 + 8 * torch.rand(2, 16, 1, 1, generator=generator)
    radius = 2 + 2 * torch.rand(16, 1, 1, generator=generator)
    rows, columns = torch.arange(16.0)[:, None], torch.arange(16.0)
    disc = (rows - middle[0]).square() + (columns - middle[1]).square() < radius**2
    return (disc + 0.5 * torch.randn(16, 16, 16, generator=generator))[:, None], disc[:, None].float()


def discs_by_entropy_and_dice(lab: Lab) -> None:
    """A small encoder and decoder segments discs with a sum of cross-entropy and Dice loss."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1),
    )  # fmt: skip

    def loss_of(pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        scores = model(pictures)
        chance = scores.sigmoid()
        dice = (2 * (chance * masks).sum((1, 2, 3)) + 1) / ((chance + masks).sum((1, 2, 3)) + 1)
        return F.binary_cross_entropy_with_logits(scores, masks) + 1 - dice.mean()

    after = lab.validating(model, lambda number: _rings(9000 + number), loss_of)
    lab.fit(model, _rings, loss_of, torch.optim.AdamW(model.parameters(), 3e-3), after=after)


def _calls(number: int) -> _Batch:
    """Calls of four to twelve notes ``(32, 12)``, how many notes, and which of three birds calls: by its last note."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(4, 13, (32,), generator=generator)
    notes = torch.randint(1, 10, (32, 12), generator=generator)
    bird = notes.gather(1, lengths[:, None] - 1)[:, 0] % 3
    return notes * (torch.arange(12) < lengths[:, None]), lengths, bird


def calls_of_several_lengths(lab: Lab) -> None:
    """A packed LSTM classifies sequences of several lengths by its last true state, with clipped gradients."""
    model = nn.ModuleDict({"embed": nn.Embedding(10, 16, 0), "lstm": nn.LSTM(16, 32), "head": nn.Linear(32, 3)})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def loss_of(notes: torch.Tensor, lengths: torch.Tensor, bird: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(model["embed"](notes), lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = model["lstm"](packed)
        return F.cross_entropy(model["head"](last[-1]), bird)

    after = lab.validating(model, lambda number: _calls(9000 + number), loss_of)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        batch = _calls(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss_of(*batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        after(number)


def student_of_a_wide_teacher(lab: Lab) -> None:
    """A narrow net learns digits from labels and from a trained wide net, whose soft targets weigh the temperature."""
    batches, temperature = data.draw(data.pixels()), 4.0
    teacher = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    learning = torch.optim.Adam(teacher.parameters(), 2e-3)
    for number in range(120):
        x, y = batches(5000 + number)
        descend(F.cross_entropy(teacher(x), y, label_smoothing=0.1), learning)
    teacher.requires_grad_(False).eval()
    student = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores, soft = student(x), (teacher(x) / temperature).softmax(1)
        distilled = F.kl_div((scores / temperature).log_softmax(1), soft, reduction="batchmean") * temperature**2
        return 0.5 * F.cross_entropy(scores, y) + 0.5 * distilled

    after = lab.validating(student, lambda _: data.unseen_pixels(), lambda x, y: F.cross_entropy(student(x), y))
    lab.fit(student, batches, loss_of, torch.optim.Adam(student.parameters(), 4e-3), after=after)


def _molecules(number: int) -> _Batch:
    """Graphs of ten atoms ``(32, 10, 4)``, who is bound to whom, and how many bonds are between unlike atoms."""
    generator = torch.Generator().manual_seed(number)
    kind = torch.randint(4, (32, 10), generator=generator)
    bound = (torch.rand(32, 10, 10, generator=generator) < 0.25).float().triu(1)
    bound = bound + bound.transpose(1, 2)
    unlike = (bound * (kind[:, :, None] != kind[:, None])).sum((1, 2)) / 2
    return F.one_hot(kind, 4).float(), bound, ((unlike - 8.4) / 2.6)[:, None]


class _Graph(nn.Module):
    """Two rounds of messages, and the mean of all atoms."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.own = nn.ModuleList([nn.Linear(4, width), nn.Linear(width, width)])
        self.sent = nn.ModuleList([nn.Linear(4, width, bias=False), nn.Linear(width, width, bias=False)])
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.out = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        for own, sent, norm in zip(self.own, self.sent, self.norms, strict=True):
            x = F.gelu(norm(own(x) + bound @ sent(x)))
        return self.out(x.mean(1))


def bonds_of_molecules(lab: Lab) -> None:
    """A graph network regresses a standardised property of small molecules, its rate warmed up and annealed."""
    model = _Graph()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, lab.steps)

    def loss_of(atoms: torch.Tensor, bound: torch.Tensor, unlike: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(atoms, bound), unlike)

    after = lab.validating(model, lambda number: _molecules(9000 + number), loss_of)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        batch = _molecules(number)
        with lab.recorder.step("train"):
            descend(loss_of(*batch), optimizer)
        schedule.step()
        after(number)


def digits_by_a_small_resnet(lab: Lab) -> None:
    """A residual block over digits with label smoothing, SGD with momentum, decayed weights and a cosine schedule."""

    class Residual(nn.Module):
        """Two normalised convolutions beside a shortcut."""

        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Sequential(
                nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
                nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x + self.inside(x))

    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), Residual(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(192, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps)
    criterion, digits = nn.CrossEntropyLoss(label_smoothing=0.1), data.draw(data.images(), 48)
    pixels, labels = data.unseen_pixels()
    unseen = pixels.view(-1, 1, 8, 8), labels
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        x, y = digits(number)
        with lab.recorder.step("train"):
            descend(criterion(model(x), y), optimizer)
        schedule.step()
        after(number)
