"""Training runs that read rows, letters and sounds, in which nothing is wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab


class Masked(nn.Module):
    """Fills in the rows of a picture that are hidden behind a learned token."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.restore = nn.Linear(8, width), nn.Linear(width, 8)
        self.hidden = nn.Parameter(0.02 * torch.randn(width))
        self.place = nn.Parameter(0.02 * torch.randn(8, width))
        self.mix = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = torch.where(mask[:, :, None], self.hidden, self.embed(rows)) + self.place
        return self.restore(self.mix(x))


def masked_rows(lab: Lab) -> None:
    """A transformer restores three hidden rows of eight, and is judged on those only."""
    model = Masked()

    def loss_of(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        rows = x[:, 0]
        mask = torch.rand(len(x), 8).argsort(1) < 3
        return F.mse_loss(model(rows, mask)[mask], rows[mask])

    lab.fit(model, data.draw(data.images()), loss_of)


class Translator(nn.Module):
    """Reads a row of letters, and writes another one, letter by letter, looking back at the first."""

    def __init__(self, letters: int = 10, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(letters + 1, width), nn.Embedding(8, width)
        self.read = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.write = nn.GRU(width, width, batch_first=True)
        self.look = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(2 * width, letters)

    def forward(self, given: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        places = self.place(torch.arange(given.shape[1]))
        memory, _ = self.read(self.embed(given) + places)
        states, _ = self.write(self.embed(written) + places)
        seen, _ = self.look(states, memory, memory, need_weights=False)
        return self.head(torch.cat([states, seen], dim=2))


def reversing_with_attention(lab: Lab) -> None:
    """A recurrent encoder and decoder with attention reverse eight letters, by teacher forcing."""
    model = Translator()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        given = torch.randint(10, (64, 8), generator=torch.Generator().manual_seed(number))
        wanted = given.flip(1)
        return given, F.pad(wanted[:, :-1], (1, 0), value=10), wanted

    lab.fit(
        model, batches,
        lambda given, written, wanted: F.cross_entropy(model(given, written).flatten(0, 1), wanted.flatten()), lr=1e-2,
    )  # fmt: skip


class Speller(nn.Module):
    """Reads a sound of 20 moments, and says at each of them one of five letters or none."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read = nn.GRU(6, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 6)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.head(self.read(sound)[0])


def letters_without_alignment(lab: Lab) -> None:
    """Connectionist temporal classification: four letters, each sounding for four or five moments, are spelled."""
    model = Speller()

    def batches(number: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        letters = 1 + torch.rand(32, 5, generator=generator).argsort(1)[:, :4]
        sound = F.one_hot(letters.repeat_interleave(5, dim=1), 6).float()
        return sound + 0.3 * torch.randn(32, 20, 6, generator=generator), letters

    def loss_of(sound: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
        found = model(sound).log_softmax(2).transpose(0, 1)
        return F.ctc_loss(found, letters, torch.full((len(sound),), 20), torch.full((len(sound),), 4))

    lab.fit(model, batches, loss_of, lr=1e-2)
