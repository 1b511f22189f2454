"""What a repair did, collected in sentences while it works."""

from __future__ import annotations


class Findings:
    """What was rebuilt from what is written twice, and what is lost; each sentence once, in order."""

    def __init__(self) -> None:
        self._rebuilt: dict[str, None] = {}
        self._lost: dict[str, None] = {}

    @property
    def rebuilt(self) -> tuple[str, ...]:
        return tuple(self._rebuilt)

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(self._lost)

    def add_rebuilt(self, text: str) -> None:
        self._rebuilt[text] = None

    def add_lost(self, text: str) -> None:
        self._lost[text] = None
