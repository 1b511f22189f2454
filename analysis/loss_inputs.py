"""What a loss compares: the prediction that carries a gradient, and the target that does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stepscope.analysis.flow import Place
from stepscope.analysis.view import View

Shape = tuple[int, ...]
SMALL = frozenset(
    [
        "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
    ]
)  # fmt: skip
"""Losses with a well-known formula, which are to be small."""
OF_CLASSES = frozenset(["cross_entropy", "nll_loss"])
"""Losses whose targets are numbers of classes (or chances of each)."""
MADE = frozenset(
    ["zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "arange"]
)
"""What makes targets in the step itself, on purpose: the labels of a GAN, which sample belongs to which."""


@dataclass(frozen=True)
class Comparison:
    """A loss with one of its predictions and, if there is one, the target it is held against.

    ``shape`` and ``target_shape`` are of the last training step.
    """

    loss: Place
    operation: str
    prediction: Place
    shape: Shape
    target: Place | None
    target_shape: Shape
    target_dtype: str


def comparisons(view: View) -> Iterator[Comparison]:
    """All pairs of prediction and target that directly feed a loss of the training steps."""
    if not view.training:
        return
    for loss in view.losses:
        yield from _of_loss(view, loss)


def unreduced(view: View, operations: Iterable[str]) -> Iterator[Comparison]:
    """The same of losses of these operations whose elements are only added up, or averaged, to the loss itself."""
    wanted = frozenset(operations)
    for loss in view.losses if view.training else ():
        links = [link for link in view.flow.sources.get(loss, ()) if not link.lag]
        place = links[0].place if len(links) == 1 and links[0].differentiable else loss
        vertex = view.flow.vertices[place]
        if vertex.operation in wanted and vertex.type == "calculated":
            yield from _of_loss(view, place)


def is_whole(view: View, comparison: Comparison) -> bool:
    """Whether what is known as the prediction is all that the loss is computed from, besides its target.

    The scores of a contrastive loss are not: they are products of several recorded embeddings.
    """
    links = view.flow.sources.get(comparison.loss, ())
    return all(link.place in (comparison.prediction, comparison.target) for link in links if not link.lag)


def is_floating(view: View, place: Place) -> bool:
    """Whether a place holds floating numbers in the last training step that has it."""
    return "float" in _shape_and_dtype(view, place)[1]


def _of_loss(view: View, loss: Place) -> Iterator[Comparison]:
    links = [link for link in view.flow.sources.get(loss, ()) if not link.lag]
    data = [link.place for link in links if not link.differentiable]
    for link in links:
        if link.differentiable and view.flow.vertices[link.place].type == "calculated":
            yield from _compare(view, loss, link.place, data)


def _compare(view: View, loss: Place, prediction: Place, data: list[Place]) -> Iterator[Comparison]:
    shape, _ = _shape_and_dtype(view, prediction)
    if shape is None:
        return
    operation = view.flow.vertices[loss].operation
    found = False
    for target in data:
        target_shape, dtype = _shape_and_dtype(view, target)
        is_data = view.flow.vertices[target].type in ("target", "input", "calculated")
        if target_shape is not None and is_data and not (dtype == "bool" and _is_fixed(view, target)):
            found = True
            yield Comparison(loss, operation, prediction, shape, target, target_shape, dtype)
    if not found:
        yield Comparison(loss, operation, prediction, shape, None, (), "")


def _is_fixed(view: View, place: Place) -> bool:
    """Whether each step makes the same anew: all pairs but those of a sample with itself, say."""
    return bool(view.flow.vertices[place].operation) and view.history(place.node, role=place.role).is_constant


def _shape_and_dtype(view: View, place: Place) -> tuple[Shape | None, str]:
    for step in reversed(view.training):
        row = step.layout.row(place.node, "value", place.role, None)
        if row is not None:
            return step.find(place.node, role=place.role).shape, step.layout.tensors[row].dtype
    return None, ""
