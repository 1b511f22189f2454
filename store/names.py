"""Names of trials: what may become a folder's name."""

from __future__ import annotations

import os

from stepscope.store.errors import StoreError

_LONGEST = 200


def checked_trial_name(name: str) -> str:
    """The name, if it can be a folder's name inside the group; no name leads out of it."""
    if not isinstance(name, str) or not name.strip():
        raise StoreError(f"a trial's name must be a text that is not empty, got {name!r}")
    separators = {"/", "\\", os.sep, "\0"}
    if name.startswith(".") or any(s in name for s in separators) or len(name.encode()) > _LONGEST:
        raise StoreError(
            f"a trial cannot be named {name!r}: a name has no slash, does not start with a dot, "
            f"and has at most {_LONGEST} bytes"
        )
    return name
