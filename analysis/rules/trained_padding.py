"""The rule ``trained-padding``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stepscope.analysis.embeddings import Embedding, embeddings, used_rows
from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_FEWEST = 10


@dataclass(frozen=True)
class TrainedPadding(Rule):
    """The row of an embedding that stands for padding learns: what is no data has a say in the result.

    Symptom: results depend on how long the longest sequence of the batch is.

    How it is measured: a token counts as padding if it stands in runs at the end (or at the start) of the kept
    sequences, runs of different lengths, and nowhere else. It trains if its row of the embedding's gradient is not
    zero, as far as an element of that row was kept (that of row 0 always is).

    Causes: ``nn.Embedding`` without ``padding_idx``, and no mask (or packing) behind it.

    Remedy: ``nn.Embedding(..., padding_idx=...)``, a mask for attention and means, ``pack_padded_sequence`` for
    recurrent nets, ``ignore_index`` in the loss.

    Source: no threshold; a padding that matters little does no harm, so this is worth knowing only.
    """

    name = "trained-padding"
    causes = "nn.Embedding without padding_idx, and no mask or packing that keeps the padding out behind it."
    remedy = "Set padding_idx, mask the padding (or pack the sequences), and give the loss ignore_index."

    def check(self, view: View) -> Iterable[Finding]:
        steps = view.training[:: max(1, len(view.training) // 20)]
        for embedding in embeddings(view):
            places = view.flow.upstream(view.flow.of_node(embedding.module))
            tokens = [place for place in view.flow.of_type("input") if place in places]
            sequences = [row for place in tokens[:1] for row in _sequences(view, place)]
            found = (_padding(sequences), _padding([row[::-1] for row in sequences]))
            used = used_rows(steps, embedding)
            for padding in {token for token in found if token is not None and used.get(token)}:
                yield self._finding(view, embedding, padding)

    def _finding(self, view: View, embedding: Embedding, padding: int) -> Finding:
        history = view.history(embedding.weight, "gradient")
        summary = f"Token {padding} looks like padding, but its row of {embedding.module} is trained like a word's."
        shown = [evidence(history, "norm", "its gradient")]
        return self.finding(
            view, embedding.weight, "info", summary, shown, step=view.training[0].number, confidence=0.6
        )


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
    return token if max(runs) >= 2 and len(set(runs)) >= 2 and ends.count(token) * 2 >= len(ends) else None
