"""What the runs learn from: data sets that come with scikit-learn and with Python, and made-up sequences."""

from __future__ import annotations

from functools import lru_cache
from pydoc_data.topics import topics

import torch

from stepscope.examples import digits as handwritten
from stepscope.examples.broken.lab import Batches

BATCH = 64
CONTEXT = 24
Table = tuple[torch.Tensor, torch.Tensor]


def draw(table: Table, batch: int = BATCH) -> Batches:
    """Random rows of a table, others in each step."""
    x, y = table

    def batches(number: int) -> Table:
        rows = torch.randint(len(x), (batch,), generator=torch.Generator().manual_seed(number))
        return x[rows], y[rows]

    return batches


def standardised(x: torch.Tensor) -> torch.Tensor:
    """Each column with mean 0 and standard deviation 1."""
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)


@lru_cache
def _digits() -> tuple[handwritten.Digits, handwritten.Digits]:
    return handwritten.load()


def images() -> Table:
    """Digits ``(n, 1, 8, 8)`` of mean 0 and standard deviation 1, and their classes ``(n,)``."""
    train, _ = _digits()
    return (train.images - train.images.mean()) / train.images.std(), train.labels


def pixels() -> Table:
    """The same as vectors ``(n, 64)``."""
    x, y = images()
    return x.flatten(1), y


def unseen_pixels() -> Table:
    """Other digits, made like ``pixels``."""
    train, test = _digits()
    return ((test.images - train.images.mean()) / train.images.std()).flatten(1), test.labels


@lru_cache
def raw_tumours() -> Table:
    """Thirty measurements of tumours, as they are: up to 4,000; and whether each is harmless ``(n,)``."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target, dtype=torch.float32)


def tumours() -> Table:
    """The same with standardised measurements."""
    x, y = raw_tumours()
    return standardised(x), y


@lru_cache
def raw_diabetes() -> Table:
    """Ten standardised measurements of patients, and the progress of their disease, 25 to 346, ``(n, 1)``."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    x, y = torch.tensor(bunch.data, dtype=torch.float32), torch.tensor(bunch.target, dtype=torch.float32)
    return standardised(x), y[:, None]


def diabetes() -> Table:
    """The same with standardised targets."""
    x, y = raw_diabetes()
    return x, standardised(y)


@lru_cache
def text() -> tuple[torch.Tensor, int]:
    """The documentation of Python's syntax as numbers ``(n,)`` of characters, and how many characters there are."""
    letters = "\n".join(topics[key] for key in sorted(topics))[:200_000]
    number = {letter: index for index, letter in enumerate(sorted(set(letters)))}
    return torch.tensor([number[letter] for letter in letters]), len(number)


def characters(batch: int = 16, context: int = CONTEXT) -> Batches:
    """Pieces of the text ``(batch, context)``, and the same one character later."""
    letters, _ = text()

    def batches(number: int) -> Table:
        generator = torch.Generator().manual_seed(number)
        places = torch.randint(len(letters) - context - 1, (batch, 1), generator=generator) + torch.arange(context + 1)
        piece = letters[places]
        return piece[:, :-1], piece[:, 1:]

    return batches


def sequences(length: int, *, tells: int = 0, batch: int = 32) -> Batches:
    """Random numbers ``(batch, length, 4)``, and the class ``(batch,)`` that the first (or another) moment tells."""

    def batches(number: int) -> Table:
        x = torch.randn(batch, length, 4, generator=torch.Generator().manual_seed(number))
        return x, x[:, tells].argmax(1)

    return batches


def circles(number: int) -> tuple[torch.Tensor]:
    """Points ``(64, 2)`` on a circle, with a little noise."""
    generator = torch.Generator().manual_seed(number)
    angle = 2 * torch.pi * torch.rand(BATCH, generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], dim=1)
    return (points + 0.05 * torch.randn(BATCH, 2, generator=generator),)
