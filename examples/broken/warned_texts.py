"""Mistakes in trainings on texts, which a course and a textbook warn of."""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


class _Encoder(nn.Module):
    """One block of a transformer over the words of a review, and a classifier of their mean."""

    def __init__(self, words: int, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(20, width)
        self.drop = nn.Dropout(0.3)
        self.block = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.3, batch_first=True)
        self.classifier = nn.Sequential(nn.Dropout(0.3), nn.Linear(width, 3))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.embed(text) + self.place(torch.arange(text.shape[1])))
        return self.classifier(self.block(x).mean(1))


def _reviews(number: int) -> _Batch:
    """Reviews of twenty words ``(32, 20)``, five of which tell the rating, and the rating."""
    generator = torch.Generator().manual_seed(number)
    rating = torch.randint(3, (32,), generator=generator)
    words = torch.randint(30, 200, (32, 20), generator=generator)
    telling = 10 * rating[:, None] + torch.randint(10, (32, 5), generator=generator)
    places = torch.rand(32, 20, generator=generator).argsort(1)[:, :5]
    return words.scatter(1, places, telling), rating


@broken(
    rules=("dropout-mode",), words=("eval()", "evaluation mode", "training mode"), onset=30,
    nodes=("model", "model.drop", "model.block.dropout", "model.block.dropout1", "model.classifier.0"),
)  # fmt: skip
def reviews_evaluated_while_units_drop(lab: Lab) -> None:
    """The evaluation of a transformer lacks ``model.eval()``, so that its dropouts act while it is judged.

    Source: Hugging Face course, chapter 8.4, tip on manual loops: ``model.eval()`` forgotten at the right place.
    """
    model = _Encoder(200)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    lab.recorder.watch(model, optimizer)
    for number in range(lab.steps):
        text, rating = _reviews(number)
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(text), rating), optimizer)
        if number % 30 == 29:
            if lab.fixed:
                model.eval()
            unseen, rated = _reviews(9000 + number)
            with torch.no_grad(), lab.recorder.step("validation") as step:
                scores = model(unseen)  # bug: reviews_evaluated_while_units_drop
                step.record("loss", F.cross_entropy(scores, rated), type="loss")
            model.train()


def _questions() -> tuple[list[list[int]], list[int]]:
    """Two thousand questions of four to fifteen words, and which of six intents each has."""
    generator = torch.Generator().manual_seed(7)
    texts, intents = [], []
    for _ in range(2000):
        intent = int(torch.randint(6, (1,), generator=generator))
        length = int(torch.randint(4, 16, (1,), generator=generator))
        said = torch.randint(40, 150, (length,), generator=generator)
        said[:2] = 1 + 6 * intent + torch.randint(6, (2,), generator=generator)
        texts.append(said[torch.randperm(length, generator=generator)].tolist())
        intents.append(intent)
    return texts, intents


class _Intents(nn.Module):
    """A recurrent layer over the words of a question, the largest of each unit, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(150, 32, padding_idx=0)
        self.gru = nn.GRU(32, 32, bidirectional=True, batch_first=True)
        self.out = nn.Linear(64, 6)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.embed(text))
        return self.out(states.masked_fill((text == 0)[..., None], -1).amax(1))


def _padded(texts: list[list[int]]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)


@broken(
    rules=("unrelated-targets",),
    words=("labels of other", "wrong label", "same order", "not sorted", "match"),
    nodes=("target", "input"),
)
def questions_sorted_by_length_alone(lab: Lab) -> None:
    """To save padding the questions are sorted by their length, but their labels stay in the order they had before.

    Source: Hugging Face course, chapter 8.4, check your data: the labels are attributed randomly.
    """
    texts, intents = _questions()
    unseen = _padded(texts[1600:]), torch.tensor(intents[1600:])
    texts, intents = texts[:1600], intents[:1600]
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    texts = [texts[row] for row in order]  # set-up bug: questions_sorted_by_length_alone
    if lab.fixed:
        intents = [intents[row] for row in order]
    model = _Intents()

    def batches(number: int) -> _Batch:
        start = 32 * int(torch.randint(len(texts) // 32, (1,), generator=torch.Generator().manual_seed(number)))
        return _padded(texts[start : start + 32]), torch.tensor(intents[start : start + 32])

    def loss_of(text: torch.Tensor, intent: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text), intent)

    after = lab.validating(model, lambda _: unseen, loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), lr=4e-3), after=after)


def _comments(rows: int, rare: float, seed: int) -> _Batch:
    """Comments of twelve words ``(rows, 12)``, and whether each is an insult, which some words only suggest."""
    generator = torch.Generator().manual_seed(seed)
    insult = torch.rand(rows, generator=generator) < rare
    neutral = torch.randint(30, 120, (rows, 12), generator=generator)
    rude = torch.randint(30, (rows, 12), generator=generator)
    chance = torch.where(insult, 0.35, 0.12)[:, None]
    return torch.where(torch.rand(rows, 12, generator=generator) < chance, rude, neutral), insult.long()


class _TextCnn(nn.Module):
    """Convolutions of two sizes over words, the mean of each, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(120, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 16, size) for size in (1, 2))
        self.out = nn.Linear(32, 2)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text).transpose(1, 2)
        return self.out(torch.cat([F.relu(conv(x)).mean(2) for conv in self.convs], dim=1))


@broken(rules=("imbalanced-targets",), words=("imbalance", "rare", "oversampl", "class weight"), nodes=("target",))
def four_insults_in_a_hundred(lab: Lab) -> None:
    """Four comments in a hundred are insults and are not drawn more often, so that the net calls everything harmless.

    Source: Hugging Face course, chapter 8.4, one label that is more common than the others (oversample the rare).
    """
    text, insult = _comments(10_000, 0.04, 1)
    unseen = _comments(600, 0.5, 2)
    even = 0.5 / insult.bincount()[insult]
    drawn = even if lab.fixed else torch.ones(len(text))
    sampler = WeightedRandomSampler(drawn.tolist(), 64 * lab.steps)  # set-up bug: four_insults_in_a_hundred
    model = _TextCnn()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    lab.recorder.watch(model, optimizer)
    after = lab.validating(model, lambda _: unseen, lambda x, y: F.cross_entropy(model(x), y))
    for number, (words, labels) in enumerate(DataLoader(TensorDataset(text, insult), 64, sampler=sampler)):
        with lab.recorder.step("train"):
            descend(F.cross_entropy(model(words), labels), optimizer)
        after(number)


def _tagged(number: int) -> _Batch:
    """Sentences of fourteen words ``(32, 14)``, and the tags: 0 for none, or one of four that some words may have."""
    generator = torch.Generator().manual_seed(number)
    plain = torch.randint(160, (32, 14), generator=generator)
    kind = torch.randint(1, 5, (32, 14), generator=generator)
    named = torch.rand(32, 14, generator=generator) < 0.25
    name = 10 * (kind - 1) + torch.randint(10, (32, 14), generator=generator)
    return torch.where(named, name, plain), torch.where(named, kind, 0)


@broken(
    rules=("softmax-over-batch",),
    words=("dimension", "dim=0", "over the batch", "axis"),
    nodes=("loss", "model.tag", "model"),
)
def tags_that_compete_across_the_batch(lab: Lab) -> None:
    """The log-softmax of a tagger is taken over all words of the batch and not the tags: the first loss is 6, not 1.6.

    Source: Hugging Face course, chapter 8.4, the initial loss differs much from that of random predictions.
    """
    model = nn.ModuleDict({"embed": nn.Embedding(160, 24), "read": nn.LSTM(24, 24, bidirectional=True)})
    model["tag"] = nn.Linear(48, 5)

    def tags(text: torch.Tensor) -> torch.Tensor:
        states, _ = model["read"](model["embed"](text.T))
        return model["tag"](states.transpose(0, 1)).flatten(0, 1)

    def loss_of(text: torch.Tensor, tag: torch.Tensor) -> torch.Tensor:
        over = 1 if lab.fixed else 0
        return F.nll_loss(tags(text).log_softmax(over), tag.flatten())  # bug: tags_that_compete_across_the_batch

    def judged(text: torch.Tensor, tag: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(tags(text), tag.flatten())

    after = lab.validating(model, lambda number: _tagged(9000 + number), judged)
    lab.fit(model, _tagged, loss_of, torch.optim.Adam(model.parameters(), lr=5e-3), after=after)


def _articles(rows: int, seed: int) -> tuple[list[list[str]], torch.Tensor]:
    """Articles of thirty words, and which of four sections each stands in; some words are more common than others."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.arange(1, 101).float().pow(-0.7)
    theme = torch.rand(4, 100, generator=torch.Generator().manual_seed(3)).pow(2) * common
    section = torch.randint(4, (rows,), generator=generator)
    drawn = torch.multinomial(theme[section], 30, replacement=True, generator=generator)
    return [[f"w{word}" for word in row] for row in drawn.tolist()], section


def _numbered(articles: list[list[str]]) -> dict[str, int]:
    """A number for each word, the most common first."""
    counts = Counter(word for article in articles for word in article)
    return {word: number for number, (word, _) in enumerate(counts.most_common(), start=1)}


def _encoded(articles: list[list[str]], vocabulary: dict[str, int]) -> torch.Tensor:
    return torch.tensor([[vocabulary.get(word, 0) for word in article] for article in articles])


@broken(
    rules=("meaning-shift",),
    words=("vocabulary", "numbered", "prepared differently", "other words"),
    nodes=("input",),
    onset=30,
)
def vocabulary_made_anew_for_the_test(lab: Lab) -> None:
    """For the articles of the test a vocabulary of their own is made, whose numbers stand for other words.

    Source: Goodfellow et al., Deep Learning, 11.5, train and test error: the test data was prepared differently.
    """
    articles, sections = _articles(2500, 1)
    others, their_sections = _articles(300, 2)
    vocabulary = _numbered(articles)
    x = _encoded(articles, vocabulary)
    for_test = vocabulary if lab.fixed else _numbered(others)
    unseen = _encoded(others, for_test), their_sections  # set-up bug: vocabulary_made_anew_for_the_test
    model = nn.Sequential(nn.EmbeddingBag(101, 32), nn.LayerNorm(32), nn.Dropout(0.2), nn.Linear(32, 4))
    optimizer = torch.optim.NAdam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    criterion, number = nn.CrossEntropyLoss(), 0
    after = lab.validating(model, lambda _: unseen, lambda x, y: criterion(model(x), y))
    for _ in range(4):
        for rows, labels in DataLoader(TensorDataset(x, sections), 64, shuffle=True, drop_last=True):
            with lab.recorder.step("train"):
                descend(criterion(model(rows), labels), optimizer)
            after(number)
            number += 1
