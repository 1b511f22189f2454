"""The lines at which a step calls what leaves no tensor with a name: the first one of each, found when it is called."""

from __future__ import annotations

from stepscope.recorder.frames import Place, calling_function, user_place
from stepscope.store.records import BACKWARD, ZERO_GRAD


class CallPlaces:
    """What a step called, and where. ``found`` has ``(operation, node)``; the node is empty where there is none."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Place] = {}
        self._writers: set[str] = set()

    def note(self, operation: str, node: str = "") -> None:
        """A call is being made; only the first of its kind is looked at."""
        key = (operation, node)
        if key not in self.found and (place := user_place(2)) is not None:
            self.found[key] = place

    def zeroed(self) -> None:
        """Gradients are set to zero: worth knowing after a ``backward`` only, and not in every loop's first line."""
        if (BACKWARD, "") in self.found:
            self.note(ZERO_GRAD)

    def written(self, operation: str) -> None:
        """An operation writes to gradients: it is called what the user's code called it (``clip_grad_norm_``)."""
        if operation not in self._writers:
            self._writers.add(operation)
            self.note(calling_function(2) or operation)
