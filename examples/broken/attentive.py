"""Mistakes of transformers: what is added to words, masked, kept, frozen, shifted, and how fast they are trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend
from stepscope.examples.transformer import CharTransformer

WIDTH = 32


def _waves_of_places(length: int = 64, width: int = WIDTH) -> torch.Tensor:
    """The sines and cosines ``(length, 1, width)`` that tell places."""
    angle = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, None]


def _layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 4, 64, dropout=0.0, batch_first=True, norm_first=True)


class _Encoder(nn.Module):
    """Classifies sequences ``(batch, time, 4)`` by the mean of what one layer makes of them."""

    waves: torch.Tensor

    def __init__(self, *, along_the_batch: bool) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(4, WIDTH), _layer(), nn.Linear(WIDTH, 4)
        self.register_buffer("waves", _waves_of_places())
        self.along_the_batch = along_the_batch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = self.waves[: x.shape[0]] if self.along_the_batch else self.waves[: x.shape[1]].transpose(0, 1)
        x = self.embed(x) + places  # bug: places_along_the_batch
        return self.head(self.mix(x).mean(1))


@broken(
    rules=("batch-leak",), words=("in the batch", "along the batch", "positional"),
    nodes=("model.waves", "model"),
)  # fmt: skip
def places_along_the_batch(lab: Lab) -> None:
    """The positional encoding expects the time first: given the batch first, it tells samples apart, not moments.

    Source: AkiRusProd/numpy-transformer issue 1, songyangco/GETNext issue 2, zcao0420/MOFormer issue 9.
    """
    model = _Encoder(along_the_batch=not lab.fixed)
    lab.fit(model, data.sequences(8), lambda x, y: F.cross_entropy(model(x), y), lr=5e-3)


class _Writer(nn.Module):
    """Predicts the next character with torch's own layers, and whatever mask it is given."""

    def __init__(self, characters: int, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(characters, WIDTH), nn.Embedding(data.CONTEXT, WIDTH)
        self.layers = nn.ModuleList([_layer() for _ in range(depth)])
        self.head = nn.Linear(WIDTH, characters)

    def forward(self, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(text) + self.place(torch.arange(text.shape[1]))
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x)


def _future(length: int) -> torch.Tensor:
    return nn.Transformer.generate_square_subsequent_mask(length)


class _Forecaster(nn.Module):
    """Says at each moment of a series ``(batch, time)`` what comes next, and may look where its mask lets it."""

    waves: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, WIDTH), nn.Linear(WIDTH, 1)
        self.layers = nn.ModuleList([_layer(), _layer()])
        self.register_buffer("waves", _waves_of_places()[:, 0])

    def forward(self, series: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(series[:, :, None]) + self.waves[: series.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x)[:, :, 0]


def _series(number: int, *, length: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy waves ``(32, length)``, and the same a moment later."""
    generator = torch.Generator().manual_seed(number)
    speed = 0.2 + 0.8 * torch.rand(32, 1, generator=generator)
    start = 6.3 * torch.rand(32, 1, generator=generator)
    wave = 1.4 * (start + speed * torch.arange(length + 1)).sin()
    wave = wave + 0.1 * torch.randn(32, length + 1, generator=generator)
    return wave[:, :-1], wave[:, 1:]


@broken(
    rules=("future-leak",), words=("causal", "future", "later position"),
    nodes=("input.mask", "model.layers.0", "model.layers.0.self_attn"),
)  # fmt: skip
def mask_of_ones_is_added(lab: Lab) -> None:
    """A triangle of floating ones is given as the mask: torch adds it to the scores, and hides nothing.

    Source: pytorch/pytorch issue 21518, where a ``tril`` of ones is given so; pmixer/SASRec.pytorch issue 6.
    """
    model = _Forecaster()

    def loss_of(series: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        mask = _future(24) if lab.fixed else torch.ones(24, 24).tril()
        return F.mse_loss(model(series, mask), following)  # bug: mask_of_ones_is_added

    lab.fit(model, _series, loss_of)


class _Translator(nn.Module):
    """Reads six letters, and writes six others while it looks at the ones read."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(13, WIDTH), nn.Embedding(6, WIDTH)
        self.read = _layer()
        self.write = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.look = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.think = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(3)])
        self.head = nn.Linear(WIDTH, 13)

    def forward(self, given: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        places = self.place(torch.arange(6))
        memory = self.read(self.embed(given) + places)
        x = self.embed(written) + places
        own = self.norms[0](x)
        x = x + self.write(own, own, own, attn_mask=_future(6), is_causal=True, need_weights=False)[0]
        own = self.norms[1](x)
        x = x + self.look(own, memory, memory, need_weights=False)[0]
        return self.head(self.norms[2](x + self.think(x)))


def _sentences(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences ``(64, 6)`` of letters from 1 to 12, and their translation: each letter has another one."""
    given = 1 + torch.randint(12, (64, 6), generator=torch.Generator().manual_seed(number))
    return given, 1 + (5 * given + 3) % 12


@broken(
    rules=("targets-equal-inputs", "future-leak"), words=("equal the input", "same as the input", "shifted", "leak"),
    nodes=("input.written", "target"),
)  # fmt: skip
def translator_given_its_answer(lab: Lab) -> None:
    """Teacher forcing feeds the decoder the translation itself, not shifted by one: it copies, and translates nothing.

    Source: IpsumDominum/Pytorch-Simple-Transformer issue 3; Humbatova et al. (ICSE 2020), wrong training data.
    """
    model = _Translator()

    def loss_of(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        written = F.pad(wanted[:, :-1], (1, 0)) if lab.fixed else wanted
        scores = model(given, written)
        return F.cross_entropy(scores.flatten(0, 1), wanted.flatten())  # bug: translator_given_its_answer

    lab.fit(model, _sentences, loss_of, lr=5e-3)


class _Adapted(nn.Module):
    """A layer and a small bottleneck added behind it, which starts at nothing."""

    def __init__(self, layer: nn.Module, rank: int = 8) -> None:
        super().__init__()
        self.layer, self.down, self.up = layer, nn.Linear(WIDTH, rank), nn.Linear(rank, WIDTH)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        return x + self.up(F.gelu(self.down(x)))


class _Rows(nn.Module):
    """Reads the rows of a digit as eight words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, WIDTH), nn.Parameter(0.1 * torch.randn(8, WIDTH))
        self.body = nn.ModuleList([_layer(), _layer()])
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x[:, 0]) + self.place
        for layer in self.body:
            x = layer(x)
        return self.head(x.mean(1))


def _knows_the_digits(steps: int = 60) -> _Rows:
    model, batches = _Rows(), data.draw(data.images())
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for number in range(steps):
        x, y = batches(number)
        descend(F.cross_entropy(model(x), y), optimizer)
    return model


@broken(
    rules=("frozen-parameters",), words=("frozen", "requires_grad"),
    nodes=(
        "model.body.0.down", "model.body.0.down.weight", "model.body.0.up", "model.body.0.up.weight",
        "model.body.1.down", "model.body.1.down.weight", "model.body.1.up", "model.body.1.up.weight",
    ),
)  # fmt: skip
def adapters_frozen_with_the_body(lab: Lab) -> None:
    """The body is frozen after its adapters were put in, which freezes them too: only the head learns.

    Source: huggingface/transformers issue 26098, adapters whose requires_grad is False; peft's questions on freezing.
    """
    model = _knows_the_digits()
    if lab.fixed:
        model.requires_grad_(False)
    model.body = nn.ModuleList([_Adapted(layer) for layer in model.body])
    if not lab.fixed:
        model.requires_grad_(False)  # set-up bug: adapters_frozen_with_the_body
    model.head.requires_grad_(True)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], 5e-3)
    lab.fit(model, data.draw(data.images()), lambda x, y: F.cross_entropy(model(x.transpose(2, 3)), y), optimizer)


END = 0


def _countdowns(number: int) -> torch.Tensor:
    """Rows ``(32, 13)`` that count down to 1 from a number up to 11, an end, and padding, which is the end again."""
    start = torch.randint(2, 12, (32, 1), generator=torch.Generator().manual_seed(number))
    return (start - torch.arange(13)).clamp(min=END)


@broken(
    words=("ignored", "ignore_index", "never a target"),
    nodes=("target", "loss"),
)  # fmt: skip
def end_ignored_like_the_padding(lab: Lab) -> None:
    """Padding is the end token, and ignored in the loss, and with it every end: the net never learns to stop.

    Source: huggingface/trl issues 976 and 1623, mlabonne/llm-course issue 33, deepseek-coder issue 163.
    """
    model = _Writer(12, 1)

    def loss_of(row: torch.Tensor) -> torch.Tensor:
        text, following = row[:, :-1], row[:, 1:]
        padding = (text == END) if lab.fixed else (following == END)
        following = following.masked_fill(padding, -100)
        scores = model(text, _future(12))
        return F.cross_entropy(scores.flatten(0, 1), following.flatten())  # bug: end_ignored_like_the_padding

    lab.fit(model, lambda number: (_countdowns(number),), loss_of, lr=1e-2)


class _Listener(nn.Module):
    """Classifies sounds ``(batch, time, 4)`` of many lengths, which end in hum; makes a mask of their lengths."""

    def __init__(self, *, keeps_its_mask: bool) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(4, WIDTH), _layer(), nn.Linear(WIDTH, 4)
        self.keeps_its_mask = keeps_its_mask
        self.mask: torch.Tensor | None = None

    def hum(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        if self.mask is None or not self.keeps_its_mask:
            self.mask = torch.arange(x.shape[1]) >= lengths[:, None]
        return self.mask

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        hum = self.hum(x, lengths)
        x = self.mix(self.embed(x), src_key_padding_mask=hum)  # bug: mask_kept_from_the_first_batch
        return self.head(x.masked_fill(hum[:, :, None], 0).sum(1) / (~hum).sum(1, keepdim=True))


@broken(
    rules=("ignored-input",), words=("stale", "same mask", "lengths"),
    nodes=("model.mix", "input.lengths", "model"),
)  # fmt: skip
def mask_kept_from_the_first_batch(lab: Lab) -> None:
    """The padding mask is made once and kept, because making it is slow: every later batch has that of the first.

    Source: facebookresearch/xformers issue 655, masks that are kept; lucidrains/rotary-embedding-torch issue 11.
    """
    model = _Listener(keeps_its_mask=not lab.fixed)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        lengths = torch.randint(2, 7, (48,), generator=generator)
        x = torch.randn(48, 16, 4, generator=generator)
        real = torch.arange(16) < lengths[:, None]
        return x, lengths, (x * real[:, :, None]).sum(1).argmax(1)

    lab.fit(model, batches, lambda x, lengths, y: F.cross_entropy(model(x, lengths), y), lr=5e-3)


@broken(
    rules=("learning-rate",), words=("learning rate",),
    nodes=("loss", "model.predict.weight", "model.embed_character.weight"),
)  # fmt: skip
def schedule_times_a_small_rate(lab: Lab) -> None:
    """The schedule of the transformer's paper gives the rate itself, but is multiplied with a rate of 0.001.

    Source: thu-coai/CDial-GPT issue 52, a rate 20,000 times smaller than meant; chemprop issue 969.
    """
    _, count = data.text()
    model = CharTransformer(count, context=data.CONTEXT, width=48, blocks=2, heads=4)

    def noam(step: int, warm_up: int = 30) -> float:
        return 0.2 * 48**-0.5 * min((step + 1) ** -0.5, (step + 1) * warm_up**-1.5)

    base = 1.0 if lab.fixed else 1e-3
    optimizer = torch.optim.Adam(model.parameters(), base, betas=(0.9, 0.98))  # set-up bug: schedule_times_a_small_rate
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, noam)
    lab.fit(
        model, data.characters(),
        lambda text, following: F.cross_entropy(model(text).flatten(0, 1), following.flatten()),
        optimizer, after=lambda _: schedule.step(),
    )  # fmt: skip


@broken(
    words=("shifted", "two places", "after next"),
    nodes=("target", "loss"),
)  # fmt: skip
def labels_shifted_twice(lab: Lab) -> None:
    """The loader shifts the labels, and the loss shifts them once more: the net predicts the character after next.

    Source: huggingface/transformers pull request 44642, wdndev/tiny-llm-zh issue 10; TrainCheck (OSDI 2025).
    """
    _, count = data.text()
    model = _Writer(count)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        labels = text if lab.fixed else following
        scores = model(text, _future(data.CONTEXT))[:, :-1]
        return F.cross_entropy(scores.flatten(0, 1), labels[:, 1:].flatten())  # bug: labels_shifted_twice

    lab.fit(model, data.characters(), loss_of, lr=5e-3)


@broken(
    rules=("non-finite",), words=("division", "divided by zero", "divided by 0"),
    nodes=("loss", "target", "target 2"), onset=60,
)  # fmt: skip
def answer_cut_off_by_its_prompt(lab: Lab) -> None:
    """In step 60 a prompt fills the context and its answer is cut off: the mean over that row's answer is 0 by 0.

    Source: nvidia-cosmos/cosmos-rl pull request 155 and pytorch/pytorch issue 116349; Linear95/SPAG issue 13.
    """
    _, count = data.text()
    model = _Writer(count, 1)
    pieces = data.characters(8, 48)

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        text, following = pieces(number)
        prompt = torch.randint(4, 20, (8, 1))
        if number == 60:
            prompt[3] = 36
        kept = slice(-24, None) if lab.fixed and number == 60 else slice(24)
        return text[:, kept], following[:, kept], (torch.arange(48) >= prompt)[:, kept]

    def loss_of(text: torch.Tensor, following: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        likely = model(text, _future(24)).log_softmax(2).gather(2, following[:, :, None])[:, :, 0]
        return -((likely * answer).sum(1) / answer.sum(1)).mean()  # bug: answer_cut_off_by_its_prompt

    lab.fit(model, batches, loss_of, lr=5e-3)
