"""Every small training run there is for tests, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

from support import architectures_plain, architectures_sequence, architectures_special
from support.training import Training


def _runs_of(module: ModuleType) -> dict[str, Callable[[], Training]]:
    """The functions of a module that take nothing and make a ``Training``."""
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and function.__annotations__ == {"return": "Training"}
    }


ARCHITECTURES: dict[str, Callable[[], Training]] = {
    **_runs_of(architectures_plain),
    **_runs_of(architectures_sequence),
    **_runs_of(architectures_special),
}
