"""Training runs of the same trade as those that users bring up, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def tumours_by_sums_of_small_batches(lab: Lab) -> None:
    """A classifier of standardised measurements adds up the gradients of four small batches, and decays its weights."""
    x, y = data.tumours()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    train, unseen = order[:440], order[440:]
    model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1))
    criterion, optimizer = nn.BCEWithLogitsLoss(), torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (x[unseen], y[unseen]), lambda x, y: criterion(model(x)[:, 0], y))
    for number in range(120):
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            for part in train[torch.randperm(440)[:64]].split(16):
                (criterion(model(x[part])[:, 0], y[part]) / 4).backward()
            optimizer.step()
        after(number)


def digits_with_pretrained_convolutions(lab: Lab) -> None:
    """A net that knows the digits up to four learns those from five on, its convolutions at a tenth of the rate."""
    images, labels = data.images()
    low, high = (labels < 5).nonzero()[:, 0], (labels >= 5).nonzero()[:, 0]
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
    )  # fmt: skip
    before = nn.Sequential(body, nn.Linear(128, 5))
    warming = torch.optim.Adam(before.parameters(), 3e-3)
    for _ in range(60):
        rows = low[torch.randint(len(low), (64,))]
        descend(F.cross_entropy(before(images[rows]), labels[rows]), warming)
    model = nn.ModuleDict({"body": body, "head": nn.Linear(128, 5)})
    optimizer = torch.optim.Adam([
        {"params": model["body"].parameters(), "lr": 5e-4}, {"params": model["head"].parameters(), "lr": 5e-3}
    ])  # fmt: skip
    lab.recorder.watch(model, optimizer)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model["head"](model["body"](images)), labels - 5)

    after = lab.validating(model, lambda _: (images[high[500:]], labels[high[500:]]), loss_of)
    loader = DataLoader(TensorDataset(images[high[:500]], labels[high[:500]]), batch_size=50, shuffle=True)
    for epoch in range(15):
        for place, batch in enumerate(loader):
            with lab.recorder.step("train"):
                descend(loss_of(*batch), optimizer)
            after(10 * epoch + place)


def letters_by_packed_sequences(lab: Lab) -> None:
    """A GRU reads packed texts of many lengths, with clipped gradients and a rate that falls as a cosine."""
    model = nn.ModuleDict({"embed": nn.Embedding(30, 16), "gru": nn.GRU(16, 32, batch_first=True)})
    model["head"] = nn.Linear(32, 4)

    def texts(number: int) -> _Batch:
        generator = torch.Generator().manual_seed(number)
        lengths = torch.randint(4, 16, (48,), generator=generator)
        letters = torch.randint(5, 30, (48, 16), generator=generator)
        label = torch.randint(4, (48,), generator=generator)
        letters[torch.arange(48), (lengths * torch.rand(48, generator=generator)).long()] = 1 + label
        return letters, lengths, label

    def loss_of(letters: torch.Tensor, lengths: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            model["embed"](letters), lengths, batch_first=True, enforce_sorted=False
        )
        return F.cross_entropy(model["head"](model["gru"](packed)[1][0]), label)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, lab.steps, eta_min=1e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        batch = texts(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss_of(*batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        lab.validate(lambda n: texts(9000 + n), loss_of, number)


def bandit_with_a_learned_baseline(lab: Lab) -> None:
    """A policy over four levers learns from rewards less a learned baseline, with a bonus for its entropy."""
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 32), nn.Tanh()), "policy": nn.Linear(32, 4)})
    model["value"] = nn.Linear(32, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)
    best = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    for number in range(lab.steps):
        state = torch.randn(128, 3, generator=torch.Generator().manual_seed(number))
        with lab.recorder.step("train") as step:
            seen = model["body"](state)
            policy, value = Categorical(logits=model["policy"](seen)), model["value"](seen)[:, 0]
            action = policy.sample()
            reward = ((state @ best).argmax(1) == action).float()
            advantage = reward - value.detach()
            loss = -(policy.log_prob(action) * advantage).mean() + 0.5 * F.mse_loss(value, reward)
            step.record("reward", reward.mean())
            descend(loss - 0.005 * policy.entropy().mean(), optimizer)


def noise_taken_off_by_a_small_unet(lab: Lab) -> None:
    """A U-Net with one skip takes fresh noise off digits; its rate warms up first."""
    images, _ = data.images()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))
    train, unseen = images[order[300:]], images[order[:300]]
    model = nn.ModuleDict({
        "down": nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU()),
        "deep": nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.SiLU(),
                              nn.ConvTranspose2d(32, 16, 2, stride=2)),
        "up": nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3, padding=1)),
    })  # fmt: skip

    def loss_of(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        down = model["down"](clean + noise)
        return F.mse_loss(model["up"](torch.cat([down, model["deep"](down)], dim=1)), clean)

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: min(1.0, (number + 1) / 15))
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: (unseen, 0.5 * torch.randn(unseen.shape)), loss_of)
    for number in range(lab.steps):
        clean = train[torch.randint(len(train), (64,))]
        noise = 0.5 * torch.randn(clean.shape)
        with lab.recorder.step("train"):
            descend(loss_of(clean, noise), optimizer)
        schedule.step()
        after(number)
