"""How small, and how fast, other encodings would make a recording: a table, in percent of the raw bytes.

    stepscope demo --steps 300 --out runs/demo --no-view
    python benchmarks/compare_encodings.py runs/demo/bugged

The numbers of some steps are taken out of the recording and encoded anew. "XOR" stands for storing the difference to
the step before of the same kind.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from stepscope.store import Step, open_trial
from stepscope.store.detail_block import PAGE_BYTES

Part = NDArray[np.uint32] | NDArray[np.uint64]
Encoding = Callable[[Part, Part | None], bytes]

PARTS = ("statistics", "samples", "histograms", "neuron statistics", "raw neurons")
MOST_STEPS = 25


def parts_of(step: Step) -> tuple[Part, ...]:
    """The numbers of a step as words, in the order of ``PARTS``."""
    histograms: list[NDArray[Any]] = []
    statistics: list[NDArray[Any]] = []
    raw: list[NDArray[Any]] = []
    for row in range(len(step.rows())):
        counts = step.detail.histogram(row).astype(np.uint32)
        used = np.flatnonzero(counts)
        histograms.append(counts[used[0] : used[-1] + 1] if len(used) else counts[:0])
        neurons = step.detail.neurons(row)
        if neurons is not None:
            raw.append(neurons.samples)
            statistics += [] if neurons.statistics is None else [neurons.statistics]
    samples = [step.aggregates(), step.per_sample()]
    words = [_joined(arrays, np.uint32) for arrays in (samples, histograms, statistics, raw)]
    return (_joined([step.statistics()], np.uint64), *words)


def _joined(arrays: Sequence[NDArray[Any]], word: type) -> Part:
    flat = [np.ascontiguousarray(array).reshape(-1).view(word) for array in arrays]
    joined: Part = np.concatenate(flat) if flat else np.zeros(0, word)
    return joined


def plain(page: Part) -> bytes:
    return page.tobytes()


def byte_shuffle(page: Part) -> bytes:
    return page.view(np.uint8).reshape(-1, page.itemsize).T.tobytes()


def bit_shuffle(page: Part) -> bytes:
    bits = np.unpackbits(page.view(np.uint8)).reshape(-1, 8 * page.itemsize)
    return np.packbits(bits.T).tobytes()


def encoding(
    shuffle: Callable[[Part], bytes], level: int = 3, *, page_bytes: int = PAGE_BYTES, difference: bool = False
) -> Encoding:
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)

    def encode(words: Part, last: Part | None) -> bytes:
        if difference and last is not None and len(last) == len(words):
            words = words ^ last
        size = page_bytes // words.itemsize
        return b"".join(compressor.compress(shuffle(words[at : at + size])) for at in range(0, len(words), size))

    return encode


ENCODINGS: dict[str, Encoding] = {
    "plain": encoding(plain),
    "byte shuffle": encoding(byte_shuffle),
    "bit shuffle": encoding(bit_shuffle),
    "plain, 64 KiB pages": encoding(plain, page_bytes=1 << 16),
    "byte shuffle, 64 KiB pages": encoding(byte_shuffle, page_bytes=1 << 16),
    "plain, level 1": encoding(plain, 1),
    "plain, level 9": encoding(plain, 9),
    "byte shuffle, level 9": encoding(byte_shuffle, 9),
    "byte shuffle, level 19": encoding(byte_shuffle, 19),
    "XOR, plain": encoding(plain, difference=True),
    "XOR, byte shuffle": encoding(byte_shuffle, difference=True),
}
"""zstandard's level 3 and pages of 256 KiB unless the name says otherwise."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", help="the folder of a recorded trial")
    trial = open_trial(parser.parse_args().trial)
    chosen = trial.steps[:: max(len(trial.steps) // MOST_STEPS, 1)].tolist()
    steps = [(trial.step(number).kind, parts_of(trial.step(number))) for number in chosen]
    raw = [sum(parts[index].nbytes for _, parts in steps) for index in range(len(PARTS))]
    print(f"{len(steps)} steps of {trial.name!r}")
    print(f"| {'encoding':<27} | {' | '.join(PARTS)} | all | ms a step |")
    print(f"|{'-' * 29}|{'---:|' * (len(PARTS) + 2)}")
    print(f"| {'raw, kB a step':<27} | {' | '.join(f'{n / len(steps) / 1000:.0f}' for n in [*raw, sum(raw)])} | |")
    for name, encode in ENCODINGS.items():
        sizes, seconds = measure(encode, steps)
        shares = [
            f"{100 * size / max(of, 1):.1f} %" for size, of in zip([*sizes, sum(sizes)], [*raw, sum(raw)], strict=True)
        ]
        print(f"| {name:<27} | {' | '.join(shares)} | {1000 * seconds / len(steps):.1f} |")
    return 0


def measure(encode: Encoding, steps: Sequence[tuple[str, tuple[Part, ...]]]) -> tuple[list[int], float]:
    """Bytes of each part, and processor seconds, of all steps."""
    sizes, last = [0] * len(PARTS), dict[str, tuple[Part, ...]]()
    start = time.process_time()
    for kind, parts in steps:
        for index, part in enumerate(parts):
            before = last[kind][index] if kind in last else None
            sizes[index] += len(encode(part, before))
        last[kind] = parts
    return sizes, time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
