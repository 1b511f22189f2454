"""Several trials may be written at once, by threads of one process."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from stepscope.store.frames import compress, decompress

THREADS = 4


def test_threads_compress_at_the_same_time() -> None:
    """A compressor that threads shared crashed the interpreter within a second."""
    parts = [random.Random(size).randbytes(1000) * size for size in (1, 5, 50, 500)]

    def work(first: int) -> int:
        return sum(
            decompress(compress(part)) == part for i in range(1500) for part in (parts[(first + i) % len(parts)],)
        )

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [1500] * THREADS
