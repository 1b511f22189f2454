"""Mistakes that people report from trainings on text and speech."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TOPICS = ("formatstrings", "specialnames", "typesmapping", "import")


@lru_cache
def _pages() -> list[torch.Tensor]:
    """The text of four topics as bytes."""
    return [torch.tensor(list(topics[topic].encode("ascii", "replace"))).clamp(max=127) for topic in _TOPICS]


def _excerpts(number: int, *, later: bool = False) -> _Batch:
    """Excerpts of eighty letters ``(32, 80)``, and which topic each is of; later ones are kept for validation."""
    generator = torch.Generator().manual_seed(number)
    about = torch.randint(4, (32,), generator=generator)
    excerpts = []
    for topic in about.tolist():
        page = _pages()[topic]
        cut = len(page) * 4 // 5
        page = page[cut:] if later else page[:cut]
        start = int(torch.randint(len(page) - 80, (1,), generator=generator))
        excerpts.append(page[start : start + 80])
    return torch.stack(excerpts), about


class _CharCnn(nn.Module):
    """Convolutions over letters, the greatest of each filter, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 24, size) for size in (3, 5))
        self.fc1, self.fc2 = nn.Linear(48, 32), nn.Linear(32, 4)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.embed(text).transpose(1, 2), 0.2, self.training)
        x = torch.cat([F.relu(conv(x)).amax(2) for conv in self.convs], dim=1)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.4, self.training))


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.fc1.weight", "model.convs.0.weight"))
def one_topic_for_all_texts(lab: Lab) -> None:
    """A convolutional network for letters is trained at a learning rate a hundred times too high, and says one class.

    Source: srviest/char-cnn-text-classification-pytorch 5, no learning, one of the classes only.
    """
    model = _CharCnn()
    rate = 3e-3 if lab.fixed else 0.3  # set-up bug: one_topic_for_all_texts
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def loss_of(text: torch.Tensor, about: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text), about)

    after = lab.validating(model, lambda number: _excerpts(9000 + number, later=True), loss_of)
    lab.fit(model, _excerpts, loss_of, optimizer, after=after)


_BEGIN, _END, _PAD = 26, 27, 28


@lru_cache
def _vocabulary() -> list[str]:
    """Words of four to ten letters out of the documentation, each once, in a random order."""
    words = {word for text in topics.values() for word in text.lower().split() if word.isalpha() and word.isascii()}
    known = sorted(word for word in words if 4 <= len(word) <= 10)
    return [known[i] for i in torch.randperm(len(known), generator=torch.Generator().manual_seed(0)).tolist()]


def _spelled(words: list[str], *, nonstop: bool) -> _Batch:
    """Words as numbers ``(n, 11)``, and the number that follows at each place: -100 where nothing is to be learned."""
    text, following = torch.full((len(words), 11), _PAD), torch.full((len(words), 11), -100)
    for row, word in enumerate(words):
        letters = [_LETTERS.index(letter) for letter in word]
        ids = [_BEGIN, *letters] if nonstop else [_BEGIN, *letters, _END]
        text[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        following[row, : len(ids) - 1] = torch.tensor(ids[1:])
    return text, following


class _Gpt(nn.Module):
    """A block of a transformer that sees what came before."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(29, width, padding_idx=_PAD), nn.Embedding(11, width)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 1, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 28)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        x = self.embed(text) + self.place(torch.arange(text.shape[1]))
        return self.head(self.blocks(x, mask=mask, is_causal=True))


@broken(rules=("hidden-end",), words=("end of", "end-of", "eos", "never stop"), nodes=("target", "model.head"))
def words_that_never_end(lab: Lab) -> None:
    """The examples are encoded as nonstop, without a mark at their end, so that a language model never learns to stop.

    Source: stanfordnlp/pyreft 142, model responses repeat a lot, ``nonstop=True`` means no EOS token.
    """
    words, model = _vocabulary(), _Gpt()
    nonstop = not lab.fixed  # set-up bug: words_that_never_end
    unseen = _spelled(words[:200], nonstop=False)

    def batches(number: int) -> _Batch:
        rows = torch.randint(200, len(words), (48,), generator=torch.Generator().manual_seed(number))
        return _spelled([words[row] for row in rows.tolist()], nonstop=nonstop)

    def loss_of(text: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(text).flatten(0, 1), following.flatten())

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    after = lab.validating(model, lambda _: unseen, loss_of)
    replace(lab, steps=120).fit(model, batches, loss_of, optimizer, after=after)


class _Translator(nn.Module):
    """A transformer from six words of one language to six of another."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(13, width), nn.Embedding(13, width)
        self.place = nn.Embedding(9, width)
        self.body = nn.Transformer(width, 4, 1, 1, 96, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, 12)

    def forward(self, source: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        place = self.place(torch.arange(6))
        mask = nn.Transformer.generate_square_subsequent_mask(6)
        return self.head(self.body(self.source(source) + place, self.target(before) + place, tgt_mask=mask))


def _sentences(number: int) -> _Batch:
    """Sentences ``(48, 6)``, their translation up to each place, and the translation: other words, pairs swapped."""
    generator = torch.Generator().manual_seed(number)
    source = torch.randint(12, (48, 6), generator=generator)
    target = (5 * source + 3)[:, [1, 0, 3, 2, 5, 4]] % 12
    return source, F.pad(target, (1, -1), value=12), target


@broken(rules=("learning-rate",), words=("learning rate", "adam"), nodes=("model.body", "model.head.weight"))
def transformer_with_the_defaults_for_lstms(lab: Lab) -> None:
    """A transformer is trained with the defaults that suit LSTMs, SGD at a learning rate of 1, at which it diverges.

    Source: OpenNMT/OpenNMT-py 227, transformer model sensitive to learning rate (reasonable defaults).
    """
    model = _Translator()
    if lab.fixed:
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)  # set-up bug: transformer_with_the_defaults_for_lstms

    def loss_of(source: torch.Tensor, before: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(source, before).flatten(0, 1), target.flatten(), label_smoothing=0.1)

    after = lab.validating(model, lambda number: _sentences(9000 + number), loss_of)
    replace(lab, steps=90).fit(model, _sentences, loss_of, optimizer, after=after)


_SPOKEN = ("on", "off", "left", "right", "up", "down", "stop", "go")
_CAPITALS = {letter: number for number, letter in enumerate(_LETTERS.upper(), start=1)}


def _speech(number: int, *, upper: bool) -> _Batch:
    """Two words spoken ``(32, 40, 12)``, four frames a letter, their letters' numbers in a row, and how many each."""
    generator = torch.Generator().manual_seed(number)
    voice = torch.randn(26, 12, generator=torch.Generator().manual_seed(1))
    sound, written, lengths = torch.zeros(32, 40, 12), [], []
    for row in range(32):
        said = "".join(_SPOKEN[i] for i in torch.randint(8, (2,), generator=generator).tolist())
        for place, letter in enumerate(said):
            sound[row, 4 * place : 4 * place + 3] = voice[_LETTERS.index(letter)]
        transcript = said.upper() if upper else said
        numbers = [_CAPITALS[letter] for letter in transcript if letter in _CAPITALS]
        written += numbers
        lengths.append(len(numbers))
    sound = sound + 0.3 * torch.randn(sound.shape, generator=generator)
    return sound, torch.tensor(written, dtype=torch.long), torch.tensor(lengths)


@broken(rules=("ignored-targets",), words=("empty", "upper", "alphabet", "vocabulary"), nodes=("target", "loss"))
def small_letters_for_a_capital_alphabet(lab: Lab) -> None:
    """The alphabet of a recogniser has capitals, the transcripts small letters, all of which are left out as unknown.

    Source: SeanNaren/warp-ctc 111, loss is converging but giving wer 100, uppercase and lowercase characters.
    """
    model = nn.ModuleDict({"reader": nn.GRU(12, 32, bidirectional=True, batch_first=True), "head": nn.Linear(64, 27)})
    criterion = nn.CTCLoss()
    upper = lab.fixed  # set-up bug: small_letters_for_a_capital_alphabet

    def loss_of(sound: torch.Tensor, written: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        frames = model["head"](model["reader"](sound)[0]).log_softmax(2).transpose(0, 1)
        return criterion(frames, written, torch.full((len(sound),), 40), lengths)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    after = lab.validating(model, lambda number: _speech(9000 + number, upper=True), loss_of)
    lab.fit(model, lambda number: _speech(number, upper=upper), loss_of, optimizer, after=after)


class _Adapted(nn.Module):
    """A linear layer that stays as it is, and a change of rank eight to it, which starts at zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.lora_a, self.lora_b = nn.Linear(inputs, 8, bias=False), nn.Linear(8, outputs, bias=False)
        self.attach()

    def attach(self) -> None:
        nn.init.kaiming_uniform_(self.lora_a.weight, a=5**0.5)
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + 2 * self.lora_b(self.lora_a(x))


class _Opinion(nn.Module):
    """The mean of the words of a post, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(80, 64)
        self.fc1, self.fc2 = _Adapted(64, 64), _Adapted(64, 2)

    def forward(self, post: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu(self.fc1(3 * self.words(post))))


def _posts(number: int, *, slang: bool) -> _Batch:
    """Posts of nine words ``(64, 9)``, and whether they mean well; in slang, half of the words mean others."""
    generator = torch.Generator().manual_seed(number)
    good = torch.randn(2, 80, generator=torch.Generator().manual_seed(2))
    meaning = torch.where(torch.arange(80) % 2 > 0, good[int(slang)], good[0])
    post = torch.randint(80, (64, 9), generator=generator)
    return post, (meaning[post].sum(1) > 0).long()


@broken(rules=("weights-reset",), words=("adapter", "anew"), nodes=("model.fc1.lora_b", "model.fc2.lora_b"), onset=30)
def adapters_made_anew_for_each_session(lab: Lab) -> None:
    """At the start of each session fresh adapters are made for the model, where the trained ones should be loaded.

    Source: huggingface/peft 793, ``get_peft_model`` makes a fresh model where ``PeftModel.from_pretrained`` was meant.
    """
    model = _Opinion()
    learning = torch.optim.Adam(model.parameters(), lr=1e-2)
    for number in range(120):
        post, well = _posts(number, slang=False)
        descend(F.cross_entropy(model(post), well), learning)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora" in name)
    model.fc1.attach()
    model.fc2.attach()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    lab.recorder.watch(model, optimizer)
    for session in range(5):
        if session and not lab.fixed:
            model.fc1.attach()
            model.fc2.attach()  # set-up bug: adapters_made_anew_for_each_session
        for number in range(30 * session, 30 * session + 30):
            post, well = _posts(500 + number, slang=True)
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(post), well), optimizer)
        lab.validate(lambda n: _posts(n, slang=True), lambda x, y: F.cross_entropy(model(x), y), 9029 + 30 * session)
