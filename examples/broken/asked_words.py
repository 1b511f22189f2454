"""Mistakes in trainings on melodies, speech, questions and prompts that somebody asked about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab, descend

_Batch = tuple[torch.Tensor, ...]


def _songs(number: int) -> _Batch:
    """The notes of songs ``(24, 24)``, and those that follow: a motif of four, repeated ever two notes higher."""
    generator = torch.Generator().manual_seed(number)
    motif = torch.randint(0, 8, (24, 1, 4), generator=generator)
    notes = (motif + 2 * torch.arange(7)[:, None]).flatten(1)[:, :25] % 24
    return notes[:, :-1], notes[:, 1:]


class _Composer(nn.Module):
    """Two layers of LSTM over notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = nn.Embedding(24, 32)
        self.lstm = nn.LSTM(32, 96, batch_first=True)
        self.dense, self.out = nn.Linear(96, 64), nn.Linear(64, 24)

    def forward(self, notes: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.notes(notes))
        return self.out(F.relu(self.dense(states)))


@broken(
    rules=("short-training",),
    words=("too few", "too short", "ended early", "stopped", "epochs", "still falling"),
    nodes=("model", "loss"),
)
def songs_left_after_two_epochs(lab: Lab) -> None:
    """The training on songs ends after two short epochs, when the notes that it says are still nearly all the same.

    Source: Skuldur/Classical-Piano-Composer issue 16, one note repeating, loss only went from 4.3 to 3.9.
    """
    model = _Composer()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    epochs = 12 if lab.fixed else 2  # set-up bug: songs_left_after_two_epochs
    lab.recorder.watch(model, optimizer)

    def loss_of(notes: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(notes).flatten(0, 1), following.flatten())

    for epoch in range(epochs):
        for number in range(15 * epoch, 15 * epoch + 15):
            notes, following = _songs(number)
            with lab.recorder.step("train"):
                descend(loss_of(notes, following), optimizer)
            lab.validate(lambda n: _songs(9000 + n), loss_of, number)


_FRAMES = 15


def _spoken(number: int, *, spaces: bool) -> _Batch:
    """Texts ``(32, 16)`` of four names, what is heard ``(32, 15, 8)``, a frame a letter and a pause between words."""
    generator = torch.Generator().manual_seed(number)
    voice = torch.randn(27, 8, generator=torch.Generator().manual_seed(1))
    voice[0] = 0
    texts, heard = torch.zeros(32, 16, dtype=torch.long), torch.zeros(32, _FRAMES, 8)
    for row in range(32):
        letters = torch.randint(1, 27, (13,), generator=generator).tolist()
        for place in (torch.tensor([3, 7, 11]) + torch.randint(-1, 2, (3,), generator=generator)).tolist():
            letters[place] = 0
        text = "".join(" " if letter == 0 else chr(96 + letter) for letter in letters)
        heard[row, : len(letters)] = voice[letters]
        cleaned = text if spaces else text.replace(" ", "")
        texts[row, : len(cleaned)] = torch.tensor([28 if letter == " " else ord(letter) - 96 for letter in cleaned])
    return texts, heard


class _Speaker(nn.Module):
    """Reads letters, and goes along them by a step or none for each frame that it says."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.letters = nn.Embedding(29, width)
        self.around = nn.Conv1d(width, width, 3, padding=1)
        self.decoder = nn.GRUCell(8 + width, width)
        self.move, self.say = nn.Linear(2 * width, 1), nn.Linear(2 * width, 8)

    def forward(self, text: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        letters = self.letters(text)
        memory = letters + F.relu(self.around(letters.transpose(1, 2))).transpose(1, 2)
        place = F.one_hot(torch.zeros(len(text), dtype=torch.long), text.shape[1]).float()
        state, said = memory.new_zeros(len(text), memory.shape[2]), []
        for frame in before.unbind(1):
            context = (place[:, None] @ memory).squeeze(1)
            state = self.decoder(torch.cat([frame, context], dim=1), state)
            both = torch.cat([state, context], dim=1)
            said.append(self.say(both))
            step = torch.sigmoid(self.move(both) + 1)
            place = (1 - step) * place + step * F.pad(place, (1, -1))
        return torch.stack(said, dim=1)


@broken(words=("space", "blank between", "word boundar", "cleaner"), nodes=("input", "model.letters"))
def text_without_its_spaces(lab: Lab) -> None:
    """The texts are given to a speech synthesiser without the spaces between words, so that no pause can be foreseen.

    Source: keithito/tacotron issue 78, noisy alignment, words were not split by spaces in the input.
    """
    model = _Speaker()
    spaces = lab.fixed  # set-up bug: text_without_its_spaces

    def loss_of(text: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(model(text, F.pad(heard, (0, 0, 1, -1))), heard)

    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    after = lab.validating(model, lambda number: _spoken(9000 + number, spaces=spaces), loss_of)
    replace(lab, steps=90).fit(model, lambda number: _spoken(number, spaces=spaces), loss_of, optimizer, after=after)


def _vectors() -> torch.Tensor:
    """Pre-trained vectors of words ``(60, 24)``: ten subjects, then ten words for each of five answers."""
    generator = torch.Generator().manual_seed(6)
    kinds = torch.randn(6, 24, generator=generator)
    return kinds.repeat_interleave(10, dim=0) + 0.6 * torch.randn(60, 24, generator=generator)


def _exam(rows: int, seed: int) -> TensorDataset:
    """Passages ``(rows, 8)`` of subjects with a word on each, who is asked about ``(rows,)``, and the right answer."""
    generator = torch.Generator().manual_seed(seed)
    subjects = torch.rand(rows, 10, generator=generator).argsort(1)[:, :4]
    kinds = torch.randint(5, (rows, 4), generator=generator)
    words = 10 + 10 * kinds + torch.randint(10, (rows, 4), generator=generator)
    passages = torch.stack([subjects, words], dim=2).flatten(1)
    asked = torch.randint(4, (rows, 1), generator=generator)
    question, answer = subjects.gather(1, asked).squeeze(1), kinds.gather(1, asked).squeeze(1)
    in_file = answer.argsort(stable=True)
    return TensorDataset(passages[in_file], question[in_file], answer[in_file])


class _Comprehension(nn.Module):
    """Frozen vectors of words, a recurrent reader, and attention from the question to the passage."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(_vectors(), freeze=True)
        self.read = nn.GRU(24, width // 2, bidirectional=True, batch_first=True)
        self.ask = nn.Linear(24, width)
        self.answer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 5))

    def forward(self, passage: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        read, _ = self.read(self.words(passage))
        weights = (read @ self.ask(self.words(question))[:, :, None]).softmax(1)
        return self.answer((weights * read).sum(1))


@broken(rules=("constant-data",), words=("shuffl", "sorted", "one class"), nodes=("target", "input"))
def questions_in_the_order_of_the_file(lab: Lab) -> None:
    """The questions of a comprehension test come in the order of their file, sorted by answer, and are not shuffled.

    Source: StonyBrookNLP/deformer issue 9, BERT on RACE does not converge, works once the file is shuffled.
    """
    train, unseen = _exam(2400, 1), _exam(400, 2)
    loader = DataLoader(train, batch_size=32, shuffle=lab.fixed)  # set-up bug: questions_in_the_order_of_the_file
    model = _Comprehension()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    lab.recorder.watch(model, optimizer)
    criterion = nn.CrossEntropyLoss()
    number = 0
    for _ in range(2):
        for passage, question, answer in loader:
            with lab.recorder.step("train"):
                descend(criterion(model(passage, question), answer), optimizer)
            lab.validate(lambda _: unseen.tensors, lambda p, q, a: criterion(model(p, q), a), number)
            number += 1


class _Pretrained(nn.Module):
    """A small transformer that reports the word of that place which the token in front tells."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.tasks, self.words = nn.Embedding(4, width), nn.Embedding(12, width)
        self.places = nn.Parameter(0.5 * torch.randn(7, width))
        self.block = nn.TransformerEncoderLayer(width, 2, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, 12)

    def forward(self, prompt: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        x = torch.cat([prompt, self.words(words)], dim=1) + self.places
        return self.head(self.block(x)[:, 0])


class _Prompted(nn.Module):
    """A frozen net with a prompt in front that is learned."""

    def __init__(self, base: _Pretrained) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.prompt = nn.Parameter(base.tasks.weight.mean(0, keepdim=True)[None].clone())

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.base(self.prompt.expand(len(words), -1, -1), words)


def _asked_for(number: int, task: torch.Tensor) -> _Batch:
    words = torch.randint(12, (len(task), 6), generator=torch.Generator().manual_seed(number))
    return words, words.gather(1, task[:, None]).squeeze(1)


def _optimizer_of_the_tuner(parameters: Iterable[nn.Parameter], learning_rate: float = 1e-5) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)


@broken(rules=("learning-rate",), words=("learning rate",), nodes=("model.prompt",))
def rate_not_passed_to_the_prompt(lab: Lab) -> None:
    """The learning rate of the settings is not passed on to the tuner of a soft prompt: its default of 1e-5 is used.

    Source: caikit/caikit-nlp pull request 294, fix example: pass learning rate to peft.
    """
    settings = {"learning_rate": 0.02}
    base = _Pretrained()
    pretraining = torch.optim.Adam(base.parameters(), lr=3e-3)
    for number in range(250):
        task = torch.randint(4, (64,), generator=torch.Generator().manual_seed(5000 + number))
        words, word = _asked_for(number, task)
        descend(F.cross_entropy(base(base.tasks(task)[:, None], words), word), pretraining)
    model = _Prompted(base)
    passed_on = settings if lab.fixed else {}  # set-up bug: rate_not_passed_to_the_prompt
    optimizer = _optimizer_of_the_tuner([model.prompt], **passed_on)
    third = torch.full((64,), 2)

    def loss_of(words: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(words), word)

    after = lab.validating(model, lambda number: _asked_for(9000 + number, third), loss_of)
    replace(lab, steps=100).fit(model, lambda number: _asked_for(number, third), loss_of, optimizer, after=after)
