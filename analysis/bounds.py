"""What activations can give."""

from __future__ import annotations

import math

import numpy as np

from stepscope.analysis.flow import Place, Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.view import View
from stepscope.store.records import SourceLine

BOUNDS: dict[str, tuple[float, float]] = {
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "gumbel_softmax": (0.0, 1.0),
    "log_softmax": (-math.inf, 0.0),
    "logsigmoid": (-math.inf, 0.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "softplus": (0.0, math.inf),
    "exp": (0.0, math.inf),
    "abs": (0.0, math.inf),
    "square": (0.0, math.inf),
    "normalize": (-1.0, 1.0),
    "elu": (-1.0, math.inf),
    "selu": (-1.7581, math.inf),
    "gelu": (-0.17, math.inf),
    "silu": (-0.2785, math.inf),
    "mish": (-0.3089, math.inf),
    "leaky_relu": (0.0, math.inf),
    "prelu": (0.0, math.inf),
    "rrelu": (0.0, math.inf),
}
"""The smallest and the largest value by the torch function that makes them; of leaky ReLUs what they hardly leave."""

LEAKY = frozenset(["leaky_relu", "prelu", "rrelu"])

RESHAPES = frozenset(
    [
        "squeeze", "unsqueeze", "view", "reshape", "flatten", "unflatten", "getitem", "transpose", "permute", "T", "mT",
        "contiguous", "clone", "to", "float", "double", "half", "select", "narrow", "chunk", "split", "stack", "cat",
        "expand", "repeat", "unbind", "identity",
    ]
)  # fmt: skip
"""Torch functions that move numbers but do not change them."""


def maker(view: View, place: Place) -> Place:
    """The first place that holds these numbers: behind names, reshapes and modules that pass them on."""
    seen: set[Place] = set()
    while place not in seen:
        seen.add(place)
        *_, place = view.flow.same_tensor(place)
        vertex = view.flow.vertices[place]
        behind = [link.place for link in view.flow.sources.get(place, ()) if not link.lag]
        if vertex.operation in RESHAPES and len(behind) == 1 and same_numbers(view, place, behind[0]):
            place = behind[0]
    return place


def operation_of(view: View, place: Place) -> str:
    """The operation that made a place's numbers, also where it has no name behind a reshape or a slice."""
    site = _site_of(view, place)
    return site.operation if site else view.flow.vertices[place].operation


def line_of_making(view: View, place: Place) -> SourceLine | None:
    """The line of that operation; None where it is that of the place itself."""
    site = _site_of(view, place)
    return site.source if site else None


def _site_of(view: View, place: Place) -> Site | None:
    return next((site for site in sites_of(view, "made by") if place in site.after), None)


def same_numbers(view: View, place: Place, behind: Place) -> bool:
    """Whether both have the same range: more than a reshape may lie between two names."""
    one, two = (view.history(node, role=role) for node, role in (place, behind))
    if view.flow.vertices[behind].type != "calculated" or not len(one) or len(one) != len(two):
        return False
    return all(bool(np.allclose(one.of(name), two.of(name), equal_nan=True)) for name in ("min", "max", "mean"))
