"""The settings of torch's own layers, out of what torch prints of them."""

from __future__ import annotations

import re

from stepscope.store.records import ModuleInfo


def numbers(module: ModuleInfo, name: str) -> tuple[int, ...]:
    """A setting of whole numbers, such as ``kernel_size=(3, 3)`` or ``stride=2``; empty if it is not known."""
    found = re.search(rf"\b{name}=(?:\(([\d, ]+)\)|(\d+))", module.settings)
    if found is None:
        return ()
    return tuple(int(part) for part in (found[1] or found[2]).split(",") if part.strip())
