"""How small, and how fast, other encodings would make a recording: a table, in percent of the raw bytes.

    stepscope demo --steps 300 --out runs/demo --no-view
    python benchmarks/compare_encodings.py runs/demo/bugged

The numbers of some steps are taken out of the recording and encoded anew. "XOR" stands for storing the difference to
the step before of the same kind; "copies", "differences" and "choices" are the codings of FORMAT.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zstandard
from content import as_record
from numpy.typing import NDArray
from table import markdown

from stepscope.store import open_trial
from stepscope.store.coding_choice import code_part
from stepscope.store.codings import CHOICE, COPY, DIFFERENCE
from stepscope.store.columns import batch_columns
from stepscope.store.multiples import Scales
from stepscope.store.pages import PAGE_BYTES
from stepscope.store.records import StepRecord, TensorInfo

Words = NDArray[np.uint32] | NDArray[np.uint64]


@dataclass(frozen=True)
class Part:
    """One part of a step: the words of each row."""

    tensors: Sequence[TensorInfo]
    rows: Sequence[Words]

    @cached_property
    def words(self) -> Words:
        joined: Words = np.concatenate(self.rows) if self.rows else np.zeros(0, np.uint32)
        return joined


Encoding = Callable[[Part, Part | None], int]
"""A part and the same part of the step before -> bytes."""

PARTS = ("statistics", "samples", "histograms", "neuron statistics", "raw neurons")
MOST_STEPS = 12
LEAST_TRAINING = 1 << 16


def parts_of(record: StepRecord) -> tuple[Part, ...]:
    """The numbers of a step, in the order of ``PARTS``."""
    samples = batch_columns(record.aggregates, record.per_sample)
    kept = [(None, None) if n is None else (n.statistics, n.samples) for n in record.neurons]
    rows: tuple[list[Any], ...] = (
        list(record.statistics),
        list(samples),
        [np.trim_zeros(counts) for counts in record.histograms],
        [_or_nothing(statistics) for statistics, _ in kept],
        [_or_nothing(raw) for _, raw in kept],
    )
    return tuple(Part(record.tensors, [_words(row) for row in own]) for own in rows)


def _or_nothing(numbers: NDArray[Any] | None) -> NDArray[Any]:
    return np.zeros(0, np.float32) if numbers is None else numbers.astype(np.float32)


def _words(row: NDArray[Any]) -> Words:
    words: Words = np.ascontiguousarray(row).reshape(-1).view(f"u{row.itemsize}")
    return words


def plain(page: Words) -> list[bytes]:
    return [page.tobytes()]


def byte_shuffle(page: Words) -> list[bytes]:
    return [page.view(np.uint8).reshape(-1, page.itemsize).T.tobytes()]


def frame_a_byte(page: Words) -> list[bytes]:
    return [plane.tobytes() for plane in page.view(np.uint8).reshape(-1, page.itemsize).T]


def sign_last(page: Words) -> list[bytes]:
    """A frame for each byte, of which the highest is the whole exponent of a float32."""
    bits = 8 * page.itemsize - 1
    return frame_a_byte((page << page.dtype.type(1)) | (page >> page.dtype.type(bits)))


def bit_shuffle(page: Words) -> list[bytes]:
    bits = np.unpackbits(page.view(np.uint8)).reshape(-1, 8 * page.itemsize)
    return [np.packbits(bits.T).tobytes()]


def pages(words: Words, page_bytes: int = PAGE_BYTES) -> Iterator[Words]:
    size = page_bytes // words.itemsize
    yield from (words[at : at + size] for at in range(0, len(words), size))


def encoding(
    arrange: Callable[[Words], list[bytes]],
    level: int = 3,
    *,
    page_bytes: int = PAGE_BYTES,
    difference: bool = False,
    **settings: Any,
) -> Encoding:
    """An arrangement of bytes, and zstandard with these settings."""
    parameters = zstandard.ZstdCompressionParameters.from_level(level, write_checksum=True, **settings)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)

    def encode(part: Part, last: Part | None) -> int:
        words = part.words
        if difference and last is not None and len(last.words) == len(words):
            words = words ^ last.words
        return sum(len(compressor.compress(raw)) for page in pages(words, page_bytes) for raw in arrange(page))

    return encode


def with_dictionary(part: Part, last: Part | None) -> int:
    """A frame a byte, with a dictionary of 64 KiB that is trained on the step before."""
    if last is None or last.words.nbytes < LEAST_TRAINING:
        return FRAME_A_BYTE(part, last)
    samples = [raw for page in pages(last.words, 1 << 12) for raw in frame_a_byte(page)]
    compressor = zstandard.ZstdCompressor(level=3, dict_data=zstandard.train_dictionary(1 << 16, samples))
    return sum(len(compressor.compress(raw)) for page in pages(part.words) for raw in frame_a_byte(page))


def coded(*allowed: int) -> Encoding:
    """The codings of FORMAT.md, where a row may have them; a frame a byte."""

    def encode(part: Part, last: Part | None) -> int:
        if part.words.itemsize != 4:
            return FRAME_A_BYTE(part, last)
        found = code_part(part.tensors, part.rows, Scales(), allowed=allowed)
        extra = (list(found.differences.values()), list(found.choices.values()))
        streams = (found.numbers, *extra, [found.coding, found.reference, found.literals])
        return sum(FRAME_A_BYTE(Part((), [_words(row) for row in stream if row.size]), None) for stream in streams)

    return encode


FRAME_A_BYTE = encoding(frame_a_byte)
ENCODINGS: dict[str, Encoding] = {
    "plain": encoding(plain),
    "byte shuffle": encoding(byte_shuffle),
    "bit shuffle": encoding(bit_shuffle),
    "a frame a byte": FRAME_A_BYTE,
    "a frame a byte, sign last": encoding(sign_last),
    "a frame a byte, 64 KiB pages": encoding(frame_a_byte, page_bytes=1 << 16),
    "a frame a byte, level 1": encoding(frame_a_byte, 1),
    "a frame a byte, level 9": encoding(frame_a_byte, 9),
    "a frame a byte, level 19": encoding(frame_a_byte, 19),
    "byte shuffle, 8 MiB pages, long window": encoding(
        byte_shuffle, page_bytes=8 << 20, window_log=27, enable_ldm=True
    ),
    "a frame a byte, XOR with the step before": encoding(frame_a_byte, difference=True),
    "a frame a byte, dictionary": with_dictionary,
    "copies": coded(COPY),
    "copies, differences": coded(COPY, DIFFERENCE),
    "copies, choices": coded(COPY, CHOICE),
    "copies, differences, choices": coded(COPY, DIFFERENCE, CHOICE),
}
"""zstandard's level 3 and pages of 256 KiB unless the name says otherwise."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", help="the folder of a recorded trial")
    trial = open_trial(parser.parse_args().trial)
    chosen = trial.steps[:: max(len(trial.steps) // MOST_STEPS, 1)].tolist()
    steps = [(trial.step(number).kind, parts_of(as_record(trial.step(number)))) for number in chosen]
    raw = [sum(parts[index].words.nbytes for _, parts in steps) for index in range(len(PARTS))]
    rows = [["raw, kB a step", *(f"{n / len(steps) / 1000:.0f}" for n in [*raw, sum(raw)]), ""]]
    for name, encode in ENCODINGS.items():
        sizes, seconds = measure(encode, steps)
        shares = (100 * size / max(of, 1) for size, of in zip([*sizes, sum(sizes)], [*raw, sum(raw)], strict=True))
        rows.append([name, *(f"{share:.1f}" for share in shares), f"{1000 * seconds / len(steps):.1f}"])
    print(f"{len(steps)} steps of {trial.name!r}, in percent of the raw bytes\n")
    print(markdown(("encoding", *PARTS, "all", "ms a step"), rows))
    return 0


def measure(encode: Encoding, steps: Sequence[tuple[str, tuple[Part, ...]]]) -> tuple[list[int], float]:
    """Bytes of each part, and processor seconds, of all steps."""
    sizes, last = [0] * len(PARTS), dict[str, tuple[Part, ...]]()
    start = time.process_time()
    for kind, parts in steps:
        for index, part in enumerate(parts):
            before = last[kind][index] if kind in last else None
            sizes[index] += encode(part, before)
        last[kind] = parts
    return sizes, time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
