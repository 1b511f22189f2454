"""Finds Lightning, under either of its two names."""

from __future__ import annotations

import importlib
import sys

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
"""The same framework is published twice; a program uses one of them, seldom both."""


def callback_base() -> type:
    """The ``Callback`` class to inherit from.

    Packages that the program has already imported are preferred, because its Trainer comes from one of them; with
    both imported the class is a callback of both.

    Raises:
        ImportError: neither package is installed.
    """
    loaded = [name for name in PACKAGES if sys.modules.get(name) is not None]
    classes = [importlib.import_module(name).Callback for name in loaded] or [_first_installed()]
    return classes[0] if len(classes) == 1 else type("Callback", tuple(classes), {})


def _first_installed() -> type:
    for name in PACKAGES:
        try:
            callback: type = importlib.import_module(name).Callback
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise  # it is installed, but something that it needs is not
        else:
            return callback
    raise ImportError(
        "stepscope.integrations.lightning needs Lightning, and neither 'lightning' nor 'pytorch_lightning' is "
        "installed: pip install 'stepscope[lightning]'"
    )
