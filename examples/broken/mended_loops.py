"""Mistakes in training loops that projects have mended: gradients, schedules, batches that run out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _courts(number: int) -> _Batch:
    """Outlines of courts ``(8, 1, 16, 16)``, and a heat map for each of their four corners ``(8, 4, 16, 16)``."""
    generator = torch.Generator().manual_seed(number)
    low = torch.randint(1, 6, (8, 2), generator=generator)
    high = torch.randint(9, 15, (8, 2), generator=generator)
    images = 0.1 * torch.randn(8, 1, 16, 16, generator=generator)
    for image, (top, left), (bottom, right) in zip(images, low.tolist(), high.tolist(), strict=True):
        image[0, [top, bottom], left : right + 1] += 1
        image[0, top : bottom + 1, [left, right]] += 1
    rows, columns = torch.stack([low[:, 0], high[:, 0]], 1), torch.stack([low[:, 1], high[:, 1]], 1)
    corners = torch.stack([rows[:, [0, 0, 1, 1]], columns[:, [0, 1, 0, 1]]], dim=2)[..., None, None]
    grid = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij"))
    heat = (-(grid - corners).float().pow(2).sum(2) / 4).exp()
    return images, heat


class _ConvBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class _TrackerNet(nn.Module):
    """Convolutions down to half the size and up again, one heat map for each point."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = _ConvBlock(1, 8), _ConvBlock(8, 16), _ConvBlock(16, 16)
        self.conv4, self.conv5 = _ConvBlock(16, 8), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv3(self.conv2(F.max_pool2d(self.conv1(x), 2)))
        return self.conv5(F.interpolate(self.conv4(x), scale_factor=2))


@broken(
    rules=("accumulated-gradients",), words=("zero_grad", "cleared", "accumulat"),
    nodes=("model.conv1.block.0.weight", "model.conv2.block.0.weight", "model.conv3.block.0.weight",
           "model.conv4.block.0.weight", "model.conv5.weight"),
)  # fmt: skip
def court_points_without_zero_grad(lab: Lab) -> None:
    """The trainer of a net that finds the corners of courts never calls ``zero_grad``, so that gradients add up.

    Source: github.com/yastrebksv/TennisCourtDetector/issues/7, no optimizer.zero_grad() in base_trainer.py.
    """
    model = _TrackerNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, betas=(0.9, 0.999))
    lab.recorder.watch(model, optimizer)

    def loss_of(images: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(torch.sigmoid(model(images)), heat)

    after = lab.validating(model, lambda number: _courts(9000 + number), loss_of)
    for number in range(120):
        images, heat = _courts(number)
        with lab.recorder.step("train"):
            loss = loss_of(images, heat)
            if lab.fixed:
                optimizer.zero_grad()
            loss.backward()  # bug: court_points_without_zero_grad
            optimizer.step()
        after(number)


def _slices(number: int) -> _Batch:
    """Slices with a bright blob among dark ones ``(8, 1, 16, 16)``, and where the bright one is."""
    generator = torch.Generator().manual_seed(number)
    grid = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")).float()
    middle = 3 + 10 * torch.rand(8, 2, 2, 1, 1, generator=generator)
    radius = 2 + 1.5 * torch.rand(8, 2, 1, 1, generator=generator)
    inside = ((grid - middle).pow(2).sum(2) < radius.pow(2)).float()
    image = inside[:, :1] - inside[:, 1:] + 0.3 * torch.randn(8, 1, 16, 16, generator=generator)
    return image, inside[:, :1] * (1 - inside[:, 1:])


class _Unet(nn.Module):
    """One level down, one up, and a shortcut between them."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = _ConvBlock(1, 8), _ConvBlock(8, 16)
        self.up, self.out = _ConvBlock(24, 8), nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        second = F.interpolate(self.down2(F.max_pool2d(first, 2)), scale_factor=2)
        return self.out(self.up(torch.cat([first, second], dim=1)))


def _dice_loss(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    chance = scores.sigmoid()
    return 1 - (2 * (chance * mask).sum() + 1) / (chance.sum() + mask.sum() + 1)


@broken(rules=("scheduler-rhythm", "learning-rate-decay"),
        words=("schedul",), nodes=("model", "model.down1.block.0.weight",
        "model.down2.block.0.weight", "model.up.block.0.weight", "model.out.weight"), onset=1)  # fmt: skip
def decay_of_an_epoch_at_each_batch(lab: Lab) -> None:
    """The scheduler, set for epochs, is stepped within the loop over batches, and the rate is gone after an epoch.

    Source: github.com/ivadomed/ivadomed/pull/55, scheduler stepped in the batch loop instead of the epoch loop.
    """
    model = _Unet()
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda number: _slices(9000 + number), lambda x, y: _dice_loss(model(x), y))
    for epoch in range(8):
        for number in range(15 * epoch, 15 * epoch + 15):
            image, mask = _slices(number)
            with lab.recorder.step("train"):
                descend(_dice_loss(model(image), mask), optimizer)
                if not lab.fixed:
                    scheduler.step()  # bug: decay_of_an_epoch_at_each_batch
            after(number)
        if lab.fixed:
            scheduler.step()


class _Shards:
    """Gives the batches of a corpus one after the other, and begins again if it may."""

    def __init__(self, letters: torch.Tensor, *, wrap_around: bool, rows: int = 16, length: int = 24) -> None:
        windows = letters.unfold(0, length + 1, length)
        windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(1))]
        self.batches = windows[: len(windows) // rows * rows].split(rows)
        self.wrap_around = wrap_around

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.batches
        while self.wrap_around:
            yield from self.batches


class _Decoder(nn.Module):
    """A GRU over letters."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, 48)
        self.gru, self.norm = nn.GRU(48, 64, batch_first=True), nn.LayerNorm(64)
        self.lm_head = nn.Linear(64, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.norm(self.gru(self.embed(text))[0]))


def _next_letter(model: nn.Module, window: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())


@broken(words=("exhaust", "no data", "placeholder"), nodes=("loss", "input", "model"), onset=26)
def corpus_ends_and_a_placeholder_is_told(lab: Lab) -> None:
    """The corpus is read once; when its batches are exhausted, a step does nothing and tells a placeholder of one.

    Source: github.com/paiml/aprender/pull/1073, the shard reader must wrap around so that training can loop the corpus.
    """
    letters, kinds = data.text()
    model = _Decoder(kinds)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    lab.recorder.watch(model, optimizer)
    batches = iter(_Shards(letters[:10_000], wrap_around=lab.fixed))
    unseen = letters[10_000:13_000].unfold(0, 25, 24)
    for number in range(lab.steps):
        window = next(batches, None)
        with lab.recorder.step("train") as step:
            if window is None:
                step.record("loss", torch.ones(()), type="loss")  # bug: corpus_ends_and_a_placeholder_is_told
            else:
                descend(_next_letter(model, window), optimizer)
        lab.validate(lambda _: (unseen,), lambda window: _next_letter(model, window), number)


class _SmallLlama(nn.Module):
    """Embedded letters, two causal layers of a transformer, a head."""

    def __init__(self, letters: int, width: int = 32) -> None:
        super().__init__()
        self.embed_tokens, self.positions = nn.Embedding(letters, width), nn.Embedding(24, width)
        layer = nn.TransformerEncoderLayer(width, 2, 64, 0.0, batch_first=True, norm_first=True)
        self.layers, self.norm = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, letters)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(text) + self.positions.weight[: text.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        return self.lm_head(self.norm(self.layers(x, mask, is_causal=True)))


@broken(words=("accumulated batches", "divided by"), nodes=("loss", "model", "model.lm_head.weight"))
def accumulated_batches_are_summed(lab: Lab) -> None:
    """Five batches are accumulated for an update, but the loss is not divided by five any more.

    Source: github.com/huggingface/transformers/issues/35663, GA loss in the latest transformers version.
    """
    _, kinds = data.text()
    model, batches = _SmallLlama(kinds), data.characters(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda update: min(1.0, (update + 1) / 4))
    lab.recorder.watch(model, optimizer)
    for number in range(120):
        text, following = batches(number)
        with lab.recorder.step("train"):
            loss = F.cross_entropy(model(text).flatten(0, 1), following.flatten())
            loss = loss / 5 if lab.fixed else loss
            loss.backward()  # bug: accumulated_batches_are_summed
            if number % 5 == 4:
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()


class _TextClassifier(nn.Module):
    """Averaged word vectors and a feed-forward head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedder = nn.EmbeddingBag(120, 32)
        self.feedforward = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.feedforward(3 * self.embedder(tokens))


def _articles(number: int) -> _Batch:
    """Texts of twelve words out of 120 ``(64, 12)``, and their subject: each has forty words of its own."""
    generator = torch.Generator().manual_seed(number)
    subject = torch.randint(3, (64,), generator=generator)
    words = torch.randint(120, (64, 12), generator=generator)
    own = torch.rand(64, 12, generator=generator) < 0.4
    return torch.where(own, words % 40 + 40 * subject[:, None], words), subject


@broken(rules=("constant-clipping",),
        words=("unscale", "scaled gradient", "clip"), nodes=("model.embedder.weight", "model.feedforward.0.weight",
                                                             "model.feedforward.2.weight", "model"))  # fmt: skip
def clipping_before_unscaling(lab: Lab) -> None:
    """In mixed precision the gradients are clipped while they are still scaled, and unscaling makes them tiny.

    Source: github.com/allenai/allennlp/pull/5426, a bug when using fp16 training and gradient clipping.
    """
    model = _TextClassifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        tokens, subject = _articles(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(tokens), subject)
            scaler.scale(loss).backward()
            if lab.fixed:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # bug: clipping_before_unscaling
            scaler.step(optimizer)
            scaler.update()
        lab.validate(lambda n: _articles(7000 + n), lambda x, y: F.cross_entropy(model(x), y), number)
