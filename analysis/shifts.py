"""Which place of its input a net's targets are taken from: the next one, as of a language model, or another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from stepscope.analysis.flow import Place
from stepscope.analysis.lines import sites_of
from stepscope.analysis.loss_inputs import OF_CLASSES, Comparison, comparisons
from stepscope.analysis.neurons import neurons_of, tensor_of
from stepscope.analysis.next_token import Tokens, known_targets, known_tokens
from stepscope.analysis.view import View
from stepscope.store import Step

_FARTHEST, _LEAST, _MOST_STEPS = 6, 24, 8
_NEARLY = 0.95
IGNORED = -100
"""The label that torch's losses leave out."""


@dataclass(frozen=True)
class Shift:
    """How many places later a target lies in an input, as seen from the scores that it is compared with."""

    comparison: Comparison
    input: Place
    target: Place
    places: int


def shifts(view: View) -> list[Shift]:
    """Those of all losses of classes whose targets are tokens of an input, all by the same number of places."""
    found: dict[tuple[Place, Place, Place], Shift] = {}
    for comparison in comparisons(view):
        if comparison.operation not in OF_CLASSES or comparison.target is None:
            continue
        for place in view.flow.of_type("input"):
            key = (comparison.loss, comparison.target, place)
            places = _places(view, comparison, comparison.target, place) if key not in found else None
            if places is not None:
                found[key] = Shift(comparison, place, comparison.target, places)
    return list(found.values())


def _places(view: View, comparison: Comparison, target: Place, place: Place) -> int | None:
    later = _start(view, comparison.prediction, comparison.loss)
    if place == target:  # by its slices alone
        return (_start(view, target, comparison.loss) - later) or None
    offset = _offset(view, place, target)
    return None if offset is None else offset - later


def _start(view: View, place: Place, loss: Place) -> int:
    """At which place of it the slice begins that goes into a loss."""
    behind = set(view.flow.same_tensor(place))
    sites = (site for site in sites_of(view, "starts") if loss in site.after and behind & site.before)
    return max((int(site.operation.partition("(")[2].rstrip(")")) for site in sites), default=0)


def _offset(view: View, place: Place, target: Place) -> int | None:
    """By how many places all known targets lie later in an input; None if it is not so, or of several such numbers."""
    same: Counter[int] = Counter()
    compared: Counter[int] = Counter()
    values: set[float] = set()
    for given, wanted in known(view, place, target):
        for (sample, position), value in wanted.items():
            values.add(value)
            for offset in range(-_FARTHEST, _FARTHEST + 1):
                other = given.get((sample, position + offset))
                if other is not None and value != IGNORED:
                    compared[offset] += 1
                    same[offset] += other == value
    most = max(compared.values(), default=0)
    judged = {offset: count for offset, count in compared.items() if count >= max(_LEAST, most / 2)}
    fits = [offset for offset, count in judged.items() if same[offset] == count]
    near = [offset for offset, count in judged.items() if same[offset] >= _NEARLY * count]
    return fits[0] if len(fits) == len(near) == 1 and len(values) > 2 else None


def known(view: View, place: Place, target: Place) -> Iterator[tuple[Tokens, Tokens]]:
    """The kept tokens of an input ``(batch, time)``, and the targets at the same places, of some steps."""
    for step in view.training[:: max(1, len(view.training) // _MOST_STEPS)]:
        pair = _known(step, place, target)
        if pair is not None:
            yield pair


def _known(step: Step, place: Place, target: Place) -> tuple[Tokens, Tokens] | None:
    tensor, kept = tensor_of(step, place), neurons_of(step, place)
    if tensor is None or kept is None or len(tensor.shape) != 2 or tensor.info.batch_dim is None:
        return None
    if not tensor.info.dtype.startswith(("int", "uint")):
        return None
    batch = tensor.info.batch_dim
    return known_tokens(step, kept), known_targets(step, target, tensor.shape[batch], is_batch_first=batch == 0)
