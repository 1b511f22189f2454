"""The rule ``identical-views``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_LEAST, _VIEWS = 5, 4
_LOSSES = frozenset(
    ["cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy", "kl_div",
     "binary_cross_entropy_with_logits", "cosine_embedding_loss", "triplet_margin_loss", "cosine_similarity"]
)  # fmt: skip


@dataclass(frozen=True)
class IdenticalViews(Rule):
    """A net is shown the same batch twice in a step, and a loss compares the two, which cannot but agree.

    Symptom: a contrastive loss falls quickly, and what was learned is of no use elsewhere.

    How it is measured: two calls of a module give results with the very same statistics in each training step, so that
    both got the same numbers and nothing random lay between; and one and the same loss is computed of both. Layers are
    left out, and what is called more than four times: it may get the same thing twice on purpose.

    Causes: views that are not augmented; one view that is passed twice; an anchor that is its own positive.

    Remedy: give each view an augmentation of its own; or, as SimCSE does, dropout.

    Source: Chen et al., A simple framework for contrastive learning (2020): the task is defined by the augmentations.
    Equality to the last digit.
    """

    name = "identical-views"
    causes = "Views that are not augmented, or one of them passed twice: an anchor that is its own positive."
    remedy = "Augment each view by itself (crop, shift, noise, colour), or let dropout make the difference."

    def check(self, view: View) -> Iterable[Finding]:
        losses = _first_losses(view)
        for module, places in _called(view).items():
            pairs = [pair for pair in combinations(places, 2) if _are_equal(view, *pair)]
            for one, two in pairs[:1]:
                both = [loss for loss in losses if {one, two} <= view.flow.upstream([loss])]
                if both:
                    yield self._finding(view, module, one, both[0])
                    return

    def _finding(self, view: View, module: str, place: Place, loss: Place) -> Finding:
        history = view.history(place.node, role=place.role)
        inputs = [found.node for found in view.flow.of_type("input") if found in view.flow.upstream([place])]
        summary = (
            f"{module} is called twice in each step with the same numbers (identical views of the same batch, without "
            f"augmentation), and {loss.node} compares the two results: they agree from the start, whatever is learned."
        )
        return self.finding(
            view, inputs[0] if inputs else module, "warning", summary,
            [evidence(history, "mean", "the same in both calls")], step=view.began, nodes=[module, loss.node],
            confidence=0.85, source=view.flow.vertices[place].source,
        )  # fmt: skip


def _first_losses(view: View) -> list[Place]:
    """Losses of torch that are computed of no other loss."""
    known = set(view.losses)
    return [
        loss
        for loss in view.losses
        if view.flow.vertices[loss].operation in _LOSSES
        and not any(link.place in known for link in view.flow.sources.get(loss, ()))
    ]


def _called(view: View) -> dict[str, list[Place]]:
    """The calls of the outermost modules that are called several times in a step, by module."""
    found: dict[str, list[Place]] = {}
    holders = {above for module in view.modules for above in _above(module)}  # no layer: it may read what is the same
    for place in view.flow.vertices:
        if place.role.startswith("call ") and place.node in holders:
            found.setdefault(place.node, []).append(place)
    several = {node: places for node, places in found.items() if 1 < len(places) <= _VIEWS}
    return {node: places for node, places in several.items() if not any(map(several.get, _above(node)))}


def _above(node: str) -> Iterator[str]:
    """The modules that a module is in."""
    while "." in node:
        node = node.rpartition(".")[0]
        yield node


def _are_equal(view: View, one: Place, two: Place) -> bool:
    first, second = (view.history(place.node, role=place.role) for place in (one, two))
    if len(first) < _LEAST or not np.array_equal(first.steps, second.steps) or not float(first.of("std")[0]):
        return False
    return bool(np.array_equal(first.identity, second.identity, equal_nan=True))
