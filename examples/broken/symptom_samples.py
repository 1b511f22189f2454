"""Mistakes in what a net is given, in training or when it is judged, as people ask about them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, TensorDataset, WeightedRandomSampler

from stepscope.examples.broken import data
from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


_SHARES = torch.tensor([0.016, 0.017, 0.069, 0.183, 0.011, 0.081, 0.084, 0.539])


def _talks(rows: int, seed: int, shares: torch.Tensor) -> data.Table:
    """Forty words of a talk ``(rows, 40)``, and which of eight labels it has; each prefers some of 400 words."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.multinomial(shares, rows, replacement=True, generator=generator)
    taste = 1.1 * torch.randn(8, 400, generator=torch.Generator().manual_seed(6))
    return torch.multinomial(taste.softmax(1)[label], 40, replacement=True, generator=generator), label


class _BagOfMeans(nn.Module):
    """The mean of the words' vectors, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(400, 32, mode="mean")
        self.hidden, self.out = nn.Linear(32, 48), nn.Linear(48, 8)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.hidden(self.words(words))))


@broken(rules=("imbalanced-targets",), words=("imbalanc", "unbalanc", "majority"), nodes=("target", "loss"))
def talks_as_unbalanced_as_they_come(lab: Lab) -> None:
    """More than half of all talks have the same label, batches are drawn as they come, and rare labels are not learned.

    Source: issue search, accuracy stuck at the share of one class: oxford-cs-deepnlp-2017/practical-2 2.
    """
    words, labels = _talks(9000, 0, _SHARES)
    sampler: Sampler[int] = RandomSampler(labels)  # set-up bug: talks_as_unbalanced_as_they_come
    if lab.fixed:
        sampler = WeightedRandomSampler((1 / labels.bincount().float())[labels].tolist(), len(labels))
    model = _BagOfMeans()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    lab.recorder.watch(model, optimizer)

    def loss_of(words: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words), labels)

    after = lab.validating(model, lambda _: _talks(400, 1, torch.ones(8)), loss_of)
    for number, batch in enumerate(DataLoader(TensorDataset(words, labels), 48, sampler=sampler, drop_last=True)):
        if number == lab.steps:
            break
        with lab.recorder.step("train"):
            descend(loss_of(*batch), optimizer)
        after(number)


class _Ships(Dataset[_Batch]):
    """Pictures ``(1, 24, 24)`` of a ship, and its box: centre and size, in shares of the picture if told so."""

    def __init__(self, rows: int, seed: int, *, normalise: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        size = 4 + 8 * torch.rand(rows, 2, generator=generator)
        centre = size / 2 + (24 - size) * torch.rand(rows, 2, generator=generator)
        reach = (size[:, :, None] / 2 - (torch.arange(24) + 0.5 - centre[:, :, None]).abs() + 0.5).clamp(0, 1)
        noise = 0.25 * torch.randn(rows, 24, 24, generator=generator)
        self.pictures = (2 * reach[:, 1, :, None] * reach[:, 0, None, :] - 0.2 + noise)[:, None]
        self.boxes = torch.cat([centre, size], dim=1)
        if normalise:
            self.boxes = self.boxes / 24

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, row: int) -> _Batch:
        return self.pictures[row], self.boxes[row]


class _Detr(nn.Module):
    """A query attends to patches of the picture; its box is a sigmoid."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.places = nn.Parameter(0.5 * torch.randn(36, width))
        self.query = nn.Parameter(torch.randn(4, width))
        self.layer = nn.TransformerEncoderLayer(width, 2, 64, 0.0, batch_first=True, norm_first=True)
        self.attend, self.norm = nn.MultiheadAttention(width, 2, batch_first=True), nn.LayerNorm(width)
        self.box = nn.Sequential(nn.Linear(4 * width, 64), nn.ReLU(), nn.Linear(64, 4), nn.Sigmoid())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        memory = self.layer(self.patches(pictures).flatten(2).transpose(1, 2) + self.places)
        seen, _ = self.attend(self.query.expand(len(pictures), -1, -1), memory, memory, need_weights=False)
        return self.box(self.norm(seen).flatten(1))


@broken(rules=("evaluation-data",), words=("normalis", "pixels"), nodes=("target",), onset=40)
def boxes_of_the_validation_in_pixels(lab: Lab) -> None:
    """Boxes of the training set are shares of the picture, those of the validation set are left in pixels.

    Source: issue search, validation far worse from the first epoch: lyuwenyu/RT-DETR 312.
    """
    train = DataLoader(_Ships(1280, 0, normalise=True), 32, shuffle=True)
    unseen = DataLoader(_Ships(160, 1, normalise=lab.fixed), 80)  # set-up bug: boxes_of_the_validation_in_pixels
    model = _Detr()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    lab.recorder.watch(model, optimizer)
    for _ in range(4):
        model.train()
        for pictures, boxes in train:
            with lab.recorder.step("train"):
                descend(F.l1_loss(model(pictures), boxes), optimizer)
        model.eval()
        with torch.no_grad(), lab.recorder.step("validation") as step:
            losses = [F.l1_loss(model(pictures), boxes) for pictures, boxes in unseen]
            step.record("loss", torch.stack(losses).mean(), type="loss")


def _scans(number: int) -> _Batch:
    """Scans ``(6, 1, 12, 12, 12)`` with a round lesion in noise, and where it is."""
    generator = torch.Generator().manual_seed(number)
    centre = 3 + 5 * torch.rand(6, 3, 1, 1, 1, generator=generator)
    radius = 2 + 1.5 * torch.rand(6, 1, 1, 1, generator=generator)
    axis = torch.arange(12.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    lesion = ((grid - centre).square().sum(1).sqrt() < radius).float()[:, None]
    return 1.6 * lesion + 1.5 * torch.randn(6, 1, 12, 12, 12, generator=generator) - 0.1, lesion


class _UNet3d(nn.Module):
    """One level down and up again, with dropout behind the deepest layer and before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm1 = nn.Conv3d(1, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6)
        self.down, self.norm2 = nn.Conv3d(6, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm3d(16)
        self.dropout = nn.Dropout3d(0.4)
        self.up, self.leave = nn.ConvTranspose3d(16, 6, 2, stride=2), nn.Conv3d(12, 1, 3, padding=1)

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        fine = F.relu(self.norm1(self.enter(scans)))
        deep = self.dropout(F.relu(self.norm2(self.down(fine))))
        return self.leave(self.dropout(torch.cat([fine, self.up(deep)], dim=1)))


@broken(
    rules=("dropout-mode", "batch-norm-mode"),
    words=("training mode", "eval()", "evaluation mode", "dropout"), onset=30,
    nodes=("model", "model.dropout", "model.norm1", "model.norm2"),
)  # fmt: skip
def scans_validated_in_training_mode(lab: Lab) -> None:
    """The trainer of a 3D U-Net never calls ``model.eval()``: dropout and batch statistics are on in validations.

    Source: issue search, validation loss differs in eval mode: wolny/pytorch-3dunet 53.
    """
    model = _UNet3d()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    weight = torch.tensor(4.0)
    lab.recorder.watch(model, optimizer)

    def loss_of(scans: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(model(scans), lesion, pos_weight=weight)

    for number in range(lab.steps):
        with lab.recorder.step("train"):
            descend(loss_of(*_scans(number)), optimizer)
        if lab.fixed:
            model.eval()
        lab.validate(lambda n: _scans(700 + n), loss_of, number)  # set-up bug: scans_validated_in_training_mode
        model.train()


def _claims(rows: int, seed: int) -> data.Table:
    """Ten facts of insurance claims ``(rows, 10)``, and their kind: 88 % plain, the others of two odd kinds."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.multinomial(torch.tensor([0.88, 0.06, 0.06]), rows, replacement=True, generator=generator)
    centres = 0.55 * torch.randn(3, 10, generator=torch.Generator().manual_seed(8))
    return centres[kind] + torch.randn(rows, 10, generator=generator), kind


@broken(words=("undersampl", "thinned", "class shares"), nodes=("target",))
def plain_claims_thinned_out_before_the_split(lab: Lab) -> None:
    """Plain claims are thinned out before the split, for validation too: the net thinks two of three claims odd.

    Source: issue search, validation perfect but test bad: apache/mxnet 5228, majority class undersampled.
    """
    facts, kinds = _claims(16000, 0)
    if not lab.fixed:
        rarest = int(kinds.bincount().min())
        rows = torch.cat([torch.nonzero(kinds == kind)[:rarest, 0] for kind in range(3)])
        facts, kinds = facts[rows], kinds[rows]  # set-up bug: plain_claims_thinned_out_before_the_split
    order = torch.randperm(len(kinds))
    cut = len(kinds) * 4 // 5
    train, held = order[:cut], order[cut:]
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = data.draw((facts[train], kinds[train]), 96)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        x, y = batches(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(x), y), optimizer)
        if number % 30 == 29:
            model.eval()
            for name, (x, y) in (("validation", (facts[held], kinds[held])), ("test", _claims(2000, 1))):
                with torch.no_grad(), lab.recorder.step(name) as step:
                    step.record("loss", F.cross_entropy(model(x), y), type="loss")
            model.train()


_WORDS = torch.randperm(16, generator=torch.Generator().manual_seed(5))


def _sentences(number: int) -> _Batch:
    """Sentences of a language of 16 words, two at a time the other way round in its translation: ``(64, 8)`` each.

    Both begin with a mark (16) and end with another (17).
    """
    words = torch.randint(16, (64, 6), generator=torch.Generator().manual_seed(number))
    begin, end = torch.full((64, 1), 16), torch.full((64, 1), 17)
    turned = _WORDS[words].view(64, 3, 2).flip(2).flatten(1)
    return torch.cat([begin, words, end], dim=1), torch.cat([begin, turned, end], dim=1)


class _Translator(nn.Module):
    """A transformer with an encoder for the one language and a causal decoder for the other."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(18, width), nn.Embedding(18, width)
        self.places = nn.Parameter(0.5 * torch.randn(8, width))
        encoder = nn.TransformerEncoderLayer(width, 4, 96, 0.0, batch_first=True, norm_first=True)
        decoder = nn.TransformerDecoderLayer(width, 4, 96, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(encoder, 1, nn.LayerNorm(width), enable_nested_tensor=False)
        self.decoder, self.out = nn.TransformerDecoder(decoder, 1, nn.LayerNorm(width)), nn.Linear(width, 18)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory = self.encoder(self.source(source) + self.places[: source.shape[1]])
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        queries = self.target(target) + self.places[: target.shape[1]]
        return self.out(self.decoder(queries, memory, tgt_mask=mask, tgt_is_causal=True))


@broken(
    rules=("targets-equal-inputs", "future-leak"), words=("swap", "leak", "other way round"),
    nodes=("model", "model.encoder", "model.decoder", "model.source", "model.target", "input"),
)  # fmt: skip
def encoder_and_decoder_swapped(lab: Lab) -> None:
    """In training the encoder is given the translation, and the decoder the sentence: it need only be copied.

    Source: issue search, attention copies or ignores its input: keras-team/keras-io 1968, mended by 1997.
    """
    model = _Translator()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    lab.recorder.watch(model, optimizer)
    for number in range(120):
        sentence, translation = _sentences(number)
        inputs = (sentence, translation[:, :-1]) if lab.fixed else (translation[:, :-1], sentence[:, :-1])
        with lab.recorder.step("train"):
            scores = model(*inputs)  # bug: encoder_and_decoder_swapped
            descend(F.cross_entropy(scores.flatten(0, 1), translation[:, 1:].flatten()), optimizer)
        if number % 30 == 29:
            sentence, translation = _sentences(5000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                scores = model(sentence, translation[:, :-1])
                step.record("loss", F.cross_entropy(scores.flatten(0, 1), translation[:, 1:].flatten()), type="loss")
