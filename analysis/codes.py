"""The means and log-variances of variational autoencoders, known by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from stepscope.analysis.flow import Place
from stepscope.analysis.view import View

_MEAN = re.compile(r"(^|[._])(z_?)?(mu|mean|loc)(_?z)?$|(^|_)(mu|mean)(_|$)")
_VARIANCE = re.compile(r"log_?(var|variance|sigma|std)")


class Code(NamedTuple):
    """What an encoder says of a sample's code, be they modules' outputs or recorded tensors."""

    mean: Place
    variance: Place


def named_codes(view: View) -> Iterator[Code]:
    """All in data-flow order: ``mu`` or ``mean`` with ``logvar``, ``log_var``, ``log_sigma`` or ``log_std``."""
    calculated = [place for place in view.flow.of_type("calculated") if view.flow.sinks.get(place)]
    means = [place for place in calculated if _is_named(place, _MEAN)]
    variances = [place for place in calculated if _is_named(place, _VARIANCE)]
    yield from map(Code, means, variances)


def _is_named(place: Place, pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(name.lower()) for name in (place.node.rpartition(".")[2], place.role))
