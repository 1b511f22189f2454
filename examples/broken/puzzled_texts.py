"""Mistakes in nets for words, speech and sequences that people were puzzled about, and whose cause they were told."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]
_WORDS = 60


@lru_cache
def _corpus(sentences: int = 4000) -> torch.Tensor:
    """Sentences of four words ``(4000, 4)``: one who does something, what he does, how, and with what.

    Every word belongs to one of three subjects, and goes with words of the same subject, mostly.
    """
    generator = torch.Generator().manual_seed(11)
    subject = torch.randint(3, (sentences, 1), generator=generator)
    stray = torch.rand(sentences, 4, generator=generator) < 0.1
    subject = torch.where(stray, torch.randint(3, (sentences, 4), generator=generator), subject)
    which = torch.randint(5, (sentences, 4), generator=generator)
    return 15 * torch.arange(4) + 5 * subject + which


@lru_cache
def _skip_grams() -> _Batch:
    """Each word of the corpus and each word next to it: two columns of numbers."""
    text = _corpus()
    left, right = text[:, :-1].flatten(), text[:, 1:].flatten()
    return torch.cat([left, right]), torch.cat([right, left])


class _Skipgram(nn.Module):
    """A vector for a word in the centre, another for the same word beside it, and a softmax over all words."""

    def __init__(self, voc_size: int, emb_size: int, *, both: bool) -> None:
        super().__init__()
        self.embedding_center = nn.Embedding(voc_size, emb_size)
        self.embedding_outside = nn.Embedding(voc_size, emb_size)
        nn.init.normal_(self.embedding_center.weight, std=0.3)
        nn.init.normal_(self.embedding_outside.weight, std=0.3)
        self.both = both

    def forward(self, center: torch.Tensor, outside: torch.Tensor, all_vocabs: torch.Tensor) -> torch.Tensor:
        table = self.embedding_outside if self.both else self.embedding_center  # bug: one_table_for_centre_and_context
        center_embedding = self.embedding_center(center)
        top = (table(outside) * center_embedding).sum(1)
        lower = (center_embedding @ table(all_vocabs).T).logsumexp(1)
        return (lower - top).mean()


@broken(
    rules=("module-never-called", "no-gradient"),
    words=("outside", "unused", "not used", "never used", "takes no part"),
    nodes=("model.embedding_outside", "model.embedding_outside.weight", "model.embedding_center", "model"),
)
def one_table_for_centre_and_context(lab: Lab) -> None:
    """Words beside the centre are looked up in the table of centres, and ``embedding_outside`` is never used.

    Source: chaklam-silpasuwanchai/Python-fo-Natural-Language-Processing 6, embedding_outside not used in forward.
    """
    model = _Skipgram(_WORDS, 16, both=lab.fixed)
    center, outside = _skip_grams()
    order = torch.randperm(len(center), generator=torch.Generator().manual_seed(2))
    train, unseen = order[:22000], order[22000:]
    all_vocabs = torch.arange(_WORDS)

    def batches(number: int) -> _Batch:
        rows = train[torch.randint(len(train), (256,), generator=torch.Generator().manual_seed(number))]
        return center[rows], outside[rows]

    def loss_of(center: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
        return model(center, outside, all_vocabs)

    after = lab.validating(model, lambda _: (center[unseen], outside[unseen]), loss_of)
    lab.fit(model, batches, loss_of, torch.optim.Adam(model.parameters(), lr=2e-2), after=after)


_SOUNDS, _BANDS = 6, 12


def _utterances(number: int, *, cut_off: float = 1 / 300) -> _Batch:
    """Speech ``(16, 56, 12)`` of two to five sounds, its frames, what is said ``(16, 5)``, and how many sounds.

    A sound lasts six to nine frames. A recording in three hundred was cut off at the beginning.
    """
    generator = torch.Generator().manual_seed(number)
    voices = torch.randn(_SOUNDS + 1, _BANDS, generator=torch.Generator().manual_seed(77))
    said = torch.randint(1, _SOUNDS + 1, (16, 5), generator=generator)
    sounds = torch.randint(2, 6, (16,), generator=generator)
    lasts = torch.randint(6, 10, (16, 5), generator=generator)
    ends = lasts.cumsum(1)
    frames = ends.gather(1, sounds[:, None] - 1)[:, 0]
    moment = torch.arange(56)
    place = (moment[None, :, None] >= ends[:, None, :]).sum(2).clamp(max=4)
    speech = voices[said.gather(1, place)] + 0.4 * torch.randn(16, 56, _BANDS, generator=generator)
    cut = torch.rand(16, generator=generator) < cut_off
    frames = torch.where(cut, 4, frames)
    sounds = torch.where(cut, 5, sounds)
    speech = torch.where(moment[None, :, None] < frames[:, None, None], speech, 0.0)
    return speech, frames, said, sounds


class _Listener(nn.Module):
    """A convolution that halves the frames, a recurrent layer in both directions, and a score for each sound."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(_BANDS, 32, 5, stride=2, padding=2)
        self.rnn = nn.GRU(32, 32, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(64, _SOUNDS + 1)

    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        heard, _ = self.rnn(F.relu(self.conv(speech.transpose(1, 2))).transpose(1, 2))
        return self.fc(heard).log_softmax(2)


@broken(
    rules=("non-finite",),
    words=("zero_infinity", "too short", "shorter than", "cut off"),
    nodes=("loss", "target", "input"),
    onset=21,
)
def recordings_shorter_than_what_is_said(lab: Lab) -> None:
    """Some recordings have fewer frames than sounds, their CTC loss is infinite, and ``zero_infinity`` is not set.

    Source: sooftware/kospeech 64, nn.CTCLoss(zero_infinity=True).
    """
    model = _Listener()
    criterion = nn.CTCLoss(blank=0, zero_infinity=lab.fixed)

    def loss_of(speech: torch.Tensor, frames: torch.Tensor, said: torch.Tensor, sounds: torch.Tensor) -> torch.Tensor:
        scores = model(speech).transpose(0, 1)
        return criterion(scores, said, (frames + 1) // 2, sounds)  # bug: recordings_shorter_than_what_is_said

    after = lab.validating(model, lambda number: _utterances(9000 + number, cut_off=0.0), loss_of)
    lab.fit(model, _utterances, loss_of, torch.optim.Adam(model.parameters(), lr=6e-3), after=after)


def _spellings(number: int, *, hasty: float = 1 / 150) -> _Batch:
    """Words spelled aloud ``(20, 40, 8)``, their frames, four to six letters of ten ``(20, 6)``, and how many letters.

    Most speakers take four to six frames for a letter; a hasty one takes two.
    """
    generator = torch.Generator().manual_seed(number)
    voices = torch.randn(11, 8, generator=torch.Generator().manual_seed(78))
    letters = torch.randint(1, 11, (20, 6), generator=generator)
    count = torch.randint(4, 7, (20,), generator=generator)
    pace = torch.randint(4, 7, (20,), generator=generator)
    pace = torch.where(torch.rand(20, generator=generator) < hasty, 2, pace)
    moment = torch.arange(40)
    place = (moment // pace[:, None]).clamp(max=5)
    spelled = voices[letters.gather(1, place)]
    spelled = spelled * (0.6 + 0.8 * ((moment % pace[:, None]) / pace[:, None]))[:, :, None]
    frames = (pace * count).clamp(max=40)
    spelled = spelled + 0.25 * torch.randn(20, 40, 8, generator=generator)
    return torch.where(moment[None, :, None] < frames[:, None, None], spelled, 0.0), frames, letters, count


class _Inverted(nn.Module):
    """Widens, mixes each channel over time, narrows, and adds what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1), nn.BatchNorm1d(2 * width), nn.ReLU6(),
            nn.Conv1d(2 * width, 2 * width, 5, padding=2, groups=2 * width), nn.BatchNorm1d(2 * width), nn.ReLU6(),
            nn.Conv1d(2 * width, width, 1), nn.BatchNorm1d(width),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


@broken(
    rules=("non-finite",),
    words=("zero_infinity", "too short", "shorter than", "too few frames"),
    nodes=("loss", "target", "input"),
    onset=5,
)
def double_letters_spoken_in_haste(lab: Lab) -> None:
    """Hasty speakers leave no frame for the blank between double letters: infinite CTC losses are not left out.

    Source: kaiidams/voice100 90, use ``nn.CTCLoss(zero_infinity=True)``.
    """
    encoder = nn.Sequential(nn.Conv1d(8, 24, 3, stride=2, padding=1), nn.ReLU(), _Inverted(24))
    model = nn.ModuleDict({"encoder": encoder, "decoder": nn.Conv1d(24, 11, 1)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    lab.recorder.watch(model, optimizer)

    def loss_of(speech: torch.Tensor, frames: torch.Tensor, letters: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        logits = model["decoder"](model["encoder"](speech.transpose(1, 2)))
        probs = logits.permute(2, 0, 1).log_softmax(2)
        lengths = (frames + 1) // 2
        return F.ctc_loss(
            probs, letters, lengths, count, zero_infinity=lab.fixed
        )  # bug: double_letters_spoken_in_haste

    after = lab.validating(model, lambda number: _spellings(9000 + number, hasty=0.0), loss_of)
    for number in range(lab.steps):
        batch = _spellings(number)
        with lab.recorder.step("train"):
            optimizer.zero_grad()
            loss_of(*batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        after(number)


def _reports(number: int) -> _Batch:
    """Reports of 20 to 40 words out of 40 ``(48, 40)``, padded with 0, how long they are, and of what they are.

    The subject stands in the first two words; each word after it is said of any subject.
    """
    generator = torch.Generator().manual_seed(number)
    length = torch.randint(20, 41, (48,), generator=generator)
    words = torch.randint(13, 40, (48, 40), generator=generator)
    about = torch.randint(4, (48,), generator=generator)
    words[:, :2] = 1 + 3 * about[:, None] + torch.randint(3, (48, 2), generator=generator)
    words[torch.arange(40) >= length[:, None]] = 0
    return words, length, about


class _WordRnn(nn.Module):
    """Reads words in both directions, and judges by the last state of each."""

    def __init__(self, hidden_size: int = 24, *, first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16, padding_idx=0)
        self.rnn = nn.RNN(16, hidden_size, batch_first=True, bidirectional=True)
        self.clf = nn.Linear(2 * hidden_size, 4)
        self.hidden_size, self.first = hidden_size, first

    def _select_last_unpadded(self, out: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return out[torch.arange(len(out)), lengths - 1]

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        forward, backward = out[..., : self.hidden_size], out[..., self.hidden_size :]
        last_forward = self._select_last_unpadded(forward, lengths)
        last_backward = backward[:, 0]
        if not self.first:
            last_backward = self._select_last_unpadded(backward, lengths)  # bug: backward_state_of_the_last_word
        return self.clf(torch.cat([last_forward, last_backward], dim=1))


@broken(
    rules=("no-gradient", "forgetful-recurrence"),
    words=("last word", "last token", "first token", "first moment", "backward direction", "reverse"),
    nodes=("model", "model.rnn", "model.rnn.weight_hh_l0_reverse", "model.clf"),
)
def backward_state_of_the_last_word(lab: Lab) -> None:
    """The backward direction is read at the last word, where it has seen that word only, and not at the first.

    Source: georgepar/slp 6, fixes RNN training by choosing the proper last hidden layers.
    """
    model = _WordRnn(first=lab.fixed)

    def loss_of(words: torch.Tensor, lengths: torch.Tensor, about: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words, lengths), about)

    after = lab.validating(model, lambda number: _reports(9000 + number), loss_of)
    lab.fit(model, _reports, loss_of, torch.optim.Adam(model.parameters(), lr=5e-3), after=after)
