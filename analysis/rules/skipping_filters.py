"""The rule ``skipping-filters``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.module_settings import numbers
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store.records import ModuleInfo

_KINDS = ("Conv1d", "Conv2d", "Conv3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d")


@dataclass(frozen=True)
class SkippingFilters(Rule):
    """A convolution or pooling whose steps are longer than its filters are wide: it never sees what lies between.

    Symptom: small things in images or signals are found by chance, depending on where they lie.

    How it is measured: by the settings of the layer: in some direction its ``stride`` is larger than its
    ``kernel_size``. What it skips is one minus the product of kernel over stride, whatever the padding. It is worth
    knowing only if that is less than half, or if another layer reads the same. Filters of one place with a stride are
    left out where another layer reads the same: the shortcut of a residual block is made like that.

    Causes: a kernel size that was made smaller without the stride, numbers of samples taken for milliseconds.

    Remedy: make the kernel at least as large as the stride, or the stride smaller.

    Source: Humbatova et al., Taxonomy of real faults in deep learning systems (ICSE 2020): wrong filter size.

    Attributes:
        skipped: the part of its input that such a layer never sees, for a warning. Source: of ours.
    """

    name = "skipping-filters"
    causes = "A kernel size that was made smaller without the stride, or a stride that was made larger without it."
    remedy = "Make the kernel at least as large as the stride, or the stride smaller."
    skipped: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        for module in view.modules.values() if view.training else ():
            kernel, stride = numbers(module, "kernel_size"), numbers(module, "stride")
            skipped = _skipped(kernel, stride) if module.module_class in _KINDS and module.path in view.nodes else 0.0
            shares = skipped > 0 and _has_company(view, module)
            if not skipped or (shares and set(kernel) == {1}):
                continue
            summary = (
                f"{module.path} ({module.module_class}) has a kernel of {_told(kernel)} and a stride of "
                f"{_told(stride)}: {skipped:.0%} of what it is given is skipped, and never seen."
            )
            yield self.finding(
                view, module.path, "info" if shares or skipped < self.skipped else "warning", summary,
                [evidence(view.history(module.path), "std", "its output")], step=view.began, confidence=0.8,
            )  # fmt: skip


def _skipped(kernel: tuple[int, ...], stride: tuple[int, ...]) -> float:
    """The part of the places that lies between the filters: kernels of ``(2,)`` every ``(8,)`` places skip 0.75."""
    if not kernel or not stride:
        return 0.0
    width = max(len(kernel), len(stride))
    kernels, strides = kernel * (width // len(kernel)), stride * (width // len(stride))
    return 1 - math.prod(min(1.0, one / two) for one, two in zip(kernels, strides, strict=True) if two)


def _has_company(view: View, module: ModuleInfo) -> bool:
    """Whether something else is computed from what the module is given."""
    mine = set(view.flow.of_node(module.path))
    given = [link.place for place in mine for link in view.flow.sources.get(place, ())]
    given = [place for place in given if view.flow.vertices[place].type not in ("parameter", "buffer")]
    return any(link.place not in mine for place in given for link in view.flow.sinks.get(place, ()))


def _told(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
