"""How much may be held between training and the writer's thread, and what gives way when it is too much.

Bytes are taken before memory is made, in three ranks: tensors that wait to be measured, detail that was measured
(neurons, and the statistics of single samples), statistics. Each rank may fill the memory up to its own level, so that
tensors leave room for detail, and detail for statistics: what is lost first is what is missed least.
"""

from __future__ import annotations

import os
import threading
import time
from enum import Enum

PATIENCE = 0.2
"""Seconds that training waits for the writer in one step, at most."""


class Rank(Enum):
    """What is to be held; the value is the share of the memory up to which it may fill it."""

    TENSORS = 0.75
    DETAIL = 0.9
    STATISTICS = 1.0


class Memory:
    """A number of bytes that is taken and given back by different threads.

    Attributes:
        limit: how many bytes may be held.
        patience: for how many seconds a step may wait for bytes, all in all.
        held: how many are; peak: the most there were.
        waited: seconds that were waited for bytes, all in all.
    """

    def __init__(self, limit: int, patience: float = PATIENCE) -> None:
        self.limit = limit
        self.patience = patience
        self.held = 0
        self.peak = 0
        self.waited = 0.0
        self._process = os.getpid()
        self._changed = threading.Condition()

    def take(self, size: int, rank: Rank) -> bool:
        """Take some, if there is that much for this rank."""
        with self._changed:
            if self.held + size > self.limit * rank.value:
                return False
            self.held += size
            self.peak = max(self.peak, self.held)
            return True

    def wait(self, size: int, rank: Rank, seconds: float) -> float:
        """Wait until that much would fit, or until the time is over; returns the seconds that it took."""
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self.held + size <= self.limit * rank.value, seconds)
            taken = time.perf_counter() - started
            self.waited += taken
        return taken

    def give_back(self, size: int) -> None:
        """Give back what was taken. In a forked process this does nothing: nobody there waits for it."""
        if size and os.getpid() == self._process:
            with self._changed:
                self.held -= size
                self._changed.notify_all()


class Holding:
    """What one step holds of the memory, from its first tensor until it is written or forgotten.

    Training takes; training and the writer's thread give back.

    Attributes:
        patience: seconds that the step may still wait.
        is_complete: False once detail, or more, had no room.
        is_lost: whether not even its statistics had room.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.patience = memory.patience
        self.is_complete = True
        self.is_lost = False
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int, rank: Rank) -> bool:
        """Take some; waits a little if what other steps hold is in the way."""
        taken = self.take_free(size, rank)
        if not taken and self.patience > 0 and self._held + size <= self.memory.limit * rank.value:
            self.patience -= self.memory.wait(size, rank, self.patience)
            taken = self.take_free(size, rank)
        return taken

    def take_free(self, size: int, rank: Rank) -> bool:
        """Take some if it is there now."""
        with self._lock:
            taken = self.memory.take(size, rank)
            self._held += size if taken else 0
        return taken

    def give_back(self, size: int) -> None:
        """Give a part back before the rest; nothing, once all was given back."""
        with self._lock:
            size = min(size, self._held)
            self._held -= size
            self.memory.give_back(size)

    def release(self) -> None:
        """Give back all of it."""
        self.give_back(self._held)

    def __del__(self) -> None:
        self.release()
