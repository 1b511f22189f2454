"""The rule ``pointwise-filters``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.curves import fallen
from stepscope.analysis.finding import Finding
from stepscope.analysis.layers import Layer, layers
from stepscope.analysis.parameters import listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class PointwiseFilters(Rule):
    """All filters of a convolutional net have a size of one: no place is ever seen together with its neighbours.

    Symptom: the net learns colours or levels, if anything, and no shapes.

    How it is measured: by the shapes of the weights: two or more convolutions, all of them with a kernel of size one
    (but for transposed ones, which make several places of each), and no other weights than linear ones that read as
    many numbers as a convolution has channels (each place, or their mean). Nets of points are made like that; so it
    counts only if the loss has hardly fallen.

    Causes: ``kernel_size=1`` from a bottleneck or a projection; arguments in the wrong order.

    Remedy: give the first convolutions a kernel of three or more, with ``padding="same"``.

    Source: Humbatova et al., Taxonomy of real faults in deep learning systems (ICSE 2020): wrong filter size.

    Attributes:
        least: with fewer convolutions it is a projection.
        fall: the part of the first loss that would have gone.
    """

    name = "pointwise-filters"
    causes = "A kernel size taken from a bottleneck or projection, or arguments in the wrong order."
    remedy = "Give the first convolutions a kernel of three or more (padding='same' keeps the size)."
    least: int = 2
    fall: float = 0.1

    def check(self, view: View) -> Iterable[Finding]:
        found = layers(view)
        convolutions = [layer for layer in found if len(layer.shape) > 2 and not _widens(view, layer)]
        if view.is_young or len(convolutions) < self.least or fallen(view) > self.fall:
            return
        if all(set(layer.shape[2:]) == {1} for layer in convolutions) and _is_all(view, found, convolutions):
            names = [layer.module for layer in convolutions]
            summary = (
                f"All {len(names)} convolutions have filters of size 1 ({listed(names)}): none sees a place together "
                f"with its neighbours (a receptive field of one), and the loss has hardly fallen."
            )
            yield self.finding(
                view, names[0], "warning", summary, [evidence(view.history(names[0]), "std", "the first one's output")],
                step=view.began, nodes=names[1:], confidence=0.75,
            )  # fmt: skip


def _widens(view: View, layer: Layer) -> bool:
    """Whether it is a transposed convolution, which makes several places of each."""
    return "Transpose" in view.modules[layer.module].module_class if layer.module in view.modules else False


def _is_all(view: View, found: list[Layer], convolutions: list[Layer]) -> bool:
    """Whether nothing else can put places together: an attention, a recurrence, a layer that reads them all."""
    channels = {size for layer in convolutions for size in layer.shape[:2]}
    weights = {layer.weight for layer in found}
    matrices = [p for p in trainable(view) if len(p.shape) > 1 and p.node not in weights]
    readers = [layer for layer in found if len(layer.shape) == 2]
    widths = channels | {layer.shape[0] for layer in readers}
    return not matrices and all(layer.shape[1] in widths for layer in readers)
