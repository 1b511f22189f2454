"""How much memory may wait to be measured on the writer's thread, over all recorders of the process."""

from __future__ import annotations

import threading

STAGED_BYTES = 256 << 20


class Budget:
    """A number of bytes that is taken and given back by different threads."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take some, if there is that much."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._free += size


staged = Budget(STAGED_BYTES)
"""What is over it is measured at once, on the training thread: a recorder never falls behind without bound."""
