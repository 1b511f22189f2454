"""The rule ``trained-padding``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.embeddings import Embedding, embeddings, used_rows
from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.flow import Place
from stepscope.analysis.lines import line_of_loss
from stepscope.analysis.loss_inputs import comparisons
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.next_token import known_targets, known_tokens
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_FEWEST = 10


@dataclass(frozen=True)
class TrainedPadding(Rule):
    """The row of an embedding that stands for padding learns: what is no data has a say in the result.

    Symptom: results depend on how long the longest sequence of the batch is.

    How it is measured: a token counts as padding if it stands in runs at the end (or at the start) of the kept
    sequences, runs of different lengths (or of half their length), and nowhere else. It trains if its row of the
    embedding's gradient is not zero, as far as an element of that row was kept (that of row 0 always is).

    Causes: ``nn.Embedding`` without ``padding_idx``, and no mask (or packing) behind it.

    Remedy: ``nn.Embedding(..., padding_idx=...)``, a mask for attention and means, ``pack_padded_sequence`` for
    recurrent nets, ``ignore_index`` in the loss.

    A padding that matters little does no harm: it is worth knowing only.

    Attributes:
        most: the part of all tokens from which padding does harm. Source: SageMaker's NLPSequenceRatio, 0.5 of the
            tokens, with room for losses that leave it out.
    """

    name = "trained-padding"
    causes = "nn.Embedding without padding_idx, and no mask or packing that keeps the padding out behind it."
    remedy = "Set padding_idx, mask the padding (or pack the sequences), and give the loss ignore_index."
    most: float = 0.75

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // 20)]
        for embedding in embeddings(view):
            places = view.flow.upstream(view.flow.of_node(embedding.module))
            tokens = [place for place in view.flow.of_type("input") if place in places]
            sequences = [row for place in tokens[:1] for row in _sequences(view, place)]
            found = (_padding(sequences), _padding([row[::-1] for row in sequences]))
            used = used_rows(steps, embedding)
            for padding in {token for token in found if token is not None and used.get(token)}:
                share = float(np.mean([token == padding for row in sequences for token in row]))
                if share < 1:  # else there are no words at all
                    yield self._finding(view, embedding, padding, share, tokens[0])

    def _finding(self, view: View, embedding: Embedding, padding: int, share: float, tokens: Place) -> Finding:
        history = view.history(embedding.weight, "gradient")
        counted = _counted(view, tokens, padding)
        summary = (
            f"Token {padding} looks like padding ({share:.0%} of all tokens), but its row of {embedding.module} is "
            f"trained like a word's."
        )
        if counted:
            summary += f" The loss may count it, too: {counted} is the same at all places of padding."
        shown = [evidence(history, "norm", "its gradient")]
        level: Level = "warning" if share > self.most else "info"
        return self.finding(
            view, embedding.weight, level, summary, shown, step=view.began,
            confidence=0.8 if level == "warning" else 0.6, nodes=[tokens.node, *([counted] if counted else [])],
            source=line_of_loss(view) if counted else None,
        )  # fmt: skip


def _counted(view: View, tokens: Place, padding: int) -> str:
    """The target whose places of padding all have one class; empty if there is none."""
    step = view.training[-1]
    tensor, kept = tensor_of(step, tokens), neurons_of(step, tokens)
    if tensor is None or kept is None or tensor.info.batch_dim is None:
        return ""
    batch = tensor.info.batch_dim
    padded = [place for place, token in known_tokens(step, kept).items() if token == padding]
    for target in {comparison.target for comparison in comparisons(view)} - {None}:
        assert target is not None
        wanted = known_targets(step, target, tensor.shape[batch], is_batch_first=batch == 0)
        classes = {wanted[place] for place in padded if place in wanted}
        if len(classes) == 1 and min(classes) >= 0:
            return target.node
    return ""


def _sequences(view: View, place: Place) -> Iterator[list[int]]:
    """The kept sequences of tokens of some steps that are kept in full."""
    for step in view.training[:: max(1, len(view.training) // 20)]:
        tensor, kept = tensor_of(step, place), neurons_of(step, place)
        is_tokens = tensor is not None and "int" in tensor.info.dtype and len(tensor.shape) == 2
        if is_tokens and kept is not None and kept.samples.shape[-1] == kept.total:
            yield from kept.samples.astype(int).tolist()


def _padding(sequences: list[list[int]]) -> int | None:
    """The token that stands in runs of different lengths at the end, and nowhere else; None if there is none."""
    ends = [row[-1] for row in sequences if row]
    if len(ends) < _FEWEST:
        return None
    token = max(set(ends), key=ends.count)
    runs = []
    for row in sequences:
        run = next((index for index, value in enumerate(reversed(row)) if value != token), len(row))
        if token in row[: len(row) - run]:
            return None
        runs.append(run)
    vary = len(set(runs)) >= 2 or min(runs) * 2 >= max(map(len, sequences))
    return token if max(runs) >= 2 and vary and ends.count(token) * 2 >= len(ends) else None
