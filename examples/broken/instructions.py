"""Mistakes in the fine-tuning of language models on questions and their answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken.case import broken
from stepscope.examples.broken.lab import Lab

_Batch = tuple[torch.Tensor, ...]
_END, _USER, _ASSISTANT, _LINE, _BEGIN, _VOCABULARY = 0, 1, 2, 3, 4, 24
_NOT_ASKED = -100


class _Block(nn.Module):
    """Attention to what came before, and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.c_attn(self.ln_1(x)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


class _Writer(nn.Module):
    """A small GPT."""

    def __init__(self, width: int = 32, context: int = 64) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(_VOCABULARY, width), nn.Embedding(context, width)
        self.h = nn.Sequential(_Block(width), _Block(width))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, _VOCABULARY, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        return self.lm_head(self.ln_f(self.h(x)))


def _talk(generator: torch.Generator, most: int = 6) -> tuple[list[int], list[int]]:
    """A question of some words, and as its answer the three that come after its last one, and the end."""
    count = int(torch.randint(2, most + 1, (1,), generator=generator))
    words = torch.randint(5, _VOCABULARY, (count,), generator=generator).tolist()
    answer = [5 + (words[-1] - 5 + step) % (_VOCABULARY - 5) for step in (1, 2, 3)]
    return [_USER, _LINE, *words, _END, _ASSISTANT, _LINE], [*answer, _END]


def _padded(rows: list[list[int]], length: int, filler: int) -> torch.Tensor:
    return torch.tensor([row[:length] + [filler] * (length - len(row)) for row in rows])


def _talks(number: int, batch: int = 16) -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(number)
    return [_talk(generator) for _ in range(batch)]


def _answers(number: int, length: int = 20, batch: int = 16) -> _Batch:
    """Talks ``(batch, length)``, and as labels only their answers."""
    talks = _talks(number, batch)
    ids = _padded([question + answer for question, answer in talks], length, _END)
    labels = [[_NOT_ASKED] * len(question) + answer for question, answer in talks]
    return ids, _padded(labels, length, _NOT_ASKED)


def _loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean loss of each next word that is asked for."""
    return F.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_NOT_ASKED)


def _loss_per_item(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same, and zero if nothing is asked for."""
    wanted = labels[:, 1:].flatten()
    summed = F.cross_entropy(scores[:, :-1].flatten(0, 1), wanted, ignore_index=_NOT_ASKED, reduction="sum")
    return summed / (wanted != _NOT_ASKED).sum().clamp(min=1)


@broken(
    rules=("constant-data", "imbalanced-targets"),
    words=("ignored", "ignore_index", "-100", "no target"),
    nodes=("target", "cross_entropy", "loss"),
)  # fmt: skip
def limit_shorter_than_the_question(lab: Lab) -> None:
    """Texts are cut at a greatest length that hardly leaves the question: no word of an answer remains to be learned.

    Source: zjysteven/lmms-finetune issue 45, the loss is always 0 when fine-tuning.
    """
    model = _Writer()
    picture = torch.randint(5, _VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(1)).expand(16, -1)

    def batches(number: int) -> _Batch:
        ids, labels = _answers(number)
        ids, labels = torch.cat([picture, ids], dim=1), F.pad(labels, (24, 0), value=_NOT_ASKED)
        limit = 64 if lab.fixed else 28  # set-up bug: limit_shorter_than_the_question
        return ids[:, :limit], labels[:, :limit]

    lab.fit(model, batches, lambda ids, labels: _loss_per_item(model(ids), labels))


@broken(rules=("imbalanced-targets",), words=("padding", "padded", "ignore_index"), nodes=("target", "loss"))
def labels_with_all_their_padding(lab: Lab) -> None:
    """The labels are the texts with all their padding up to the greatest length, three quarters of each.

    Source: getainode/ainode issue 186, labels = input_ids with padding="max_length" and no -100.
    """
    model = _Writer()

    def batches(number: int) -> _Batch:
        talks = [question + answer for question, answer in _talks(number)]
        ids = _padded(talks, 64, _END)
        labels = (
            _padded(talks, 64, _NOT_ASKED) if lab.fixed else ids.clone()
        )  # set-up bug: labels_with_all_their_padding
        return ids, labels

    def after(number: int) -> None:
        lab.validate(lambda number: _answers(10_000 + number), lambda ids, labels: _loss(model(ids), labels), number)

    lab.fit(model, batches, lambda ids, labels: _loss(model(ids), labels), after=after)


def _mask_of_answers(ids: torch.Tensor, start: list[int]) -> torch.Tensor:
    """One at each place behind the last ``start`` of a row up to its end, otherwise zero."""
    mask = torch.zeros(ids.shape)
    for row, words in enumerate(ids.tolist()):
        for place in range(len(words) - len(start) + 1):
            if words[place : place + len(start)] == start:
                behind = place + len(start)
                end = words.index(_END, behind)
                mask[row, behind : end + 1] = 1
    return mask


@broken(rules=("non-finite",), words=("mask", "0 / 0", "divided by zero", "division by zero"), nodes=("loss",))
def marker_with_a_word_too_many(lab: Lab) -> None:
    """The tokenizer puts a beginning before the marker of an answer, which is then found in no text: no loss counts.

    Source: datawhalechina/happy-llm issue 50, the loss of SFT is NaN.
    """
    model = _Writer()
    marker = (
        [_ASSISTANT, _LINE] if lab.fixed else [_BEGIN, _ASSISTANT, _LINE]
    )  # set-up bug: marker_with_a_word_too_many

    def batches(number: int) -> _Batch:
        ids = _padded([question + answer for question, answer in _talks(number)], 21, _END)
        return ids, _mask_of_answers(ids, marker)

    def loss_of(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(model(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        return (losses * mask[:, 1:]).sum() / mask[:, 1:].sum()

    lab.fit(model, batches, loss_of)


@broken(rules=("hidden-end",), words=("ignored", "ignore_index", "never a target"), nodes=("target", "loss"))
def end_has_the_number_of_padding(lab: Lab) -> None:
    """The padding is the end-of-text word, and whatever is padding is ignored: the end of an answer is never learned.

    Source: mlabonne/llm-course issue 33, pad_token == eos_token, the model does not learn when to stop.
    """
    model = _Writer()

    def batches(number: int) -> _Batch:
        ids = _padded([question + answer for question, answer in _talks(number)], 20, _END)
        labels = ids.masked_fill(ids == _END, _NOT_ASKED)  # set-up bug: end_has_the_number_of_padding
        return ids, _with_ends(ids, labels) if lab.fixed else labels

    def after(number: int) -> None:
        lab.validate(lambda number: _answers(10_000 + number), lambda ids, labels: _loss(model(ids), labels), number)

    lab.fit(model, batches, lambda ids, labels: _loss(model(ids), labels), after=after)


def _with_ends(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The labels, and the first two ends of each row, which are no padding."""
    ends = ids == _END
    return torch.where(ends & (ends.cumsum(1) <= 2), ids, labels)
