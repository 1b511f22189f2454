"""A reader of recordings written from FORMAT.md alone: it shares no code with the package."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zstandard

KINDS = {1: "trial", 2: "network", 3: "scalars", 4: "note", 5: "message", 6: "end"}
KINDS |= {16: "layout", 17: "graph", 32: "step", 33: "detail", 34: "columns"}


class Block:
    """A block of a file: its kind, header and payload."""

    def __init__(self, kind: str, header: dict[str, Any], payload: bytes) -> None:
        self.kind, self.header, self.payload = kind, header, payload

    def array(self, name: str) -> np.ndarray:
        _, dtype, shape, offset, length, shuffled = next(e for e in self.header["arrays"] if e[0] == name)
        return unframe(self.payload[offset : offset + length], dtype, shape, shuffled)

    def behind_arrays(self) -> bytes:
        """The payload behind the arrays that the header lists."""
        return self.payload[max(entry[3] + entry[4] for entry in self.header["arrays"]) :]


def unframe(frame: bytes, dtype: str, shape: Any, shuffled: bool) -> np.ndarray:
    data = zstandard.ZstdDecompressor().decompress(frame)
    if shuffled:
        data = np.frombuffer(data, np.uint8).reshape(np.dtype(dtype).itemsize, -1).T.tobytes()
    return np.frombuffer(data, dtype).reshape(shape)


def block_at(data: bytes, at: int) -> tuple[Block, int] | None:
    """The block at an offset, and where it ends; None if there is no whole, undamaged one."""
    if at + 24 > len(data) or data[at : at + 4] != b"\xf5\x53\x73\x42":
        return None
    kind, version, h, p, crc = struct.unpack_from("<BxHIQI", data, at + 4)
    header = data[at + 24 : at + 24 + h]
    if at + 24 + h + p > len(data) or zlib.crc32(data[at : at + 20] + header) != crc or version != 1:
        return None
    payload = data[at + 24 + h : at + 24 + h + p]
    return Block(KINDS.get(kind, "?"), msgpack.unpackb(header, strict_map_key=False), payload), at + 24 + h + p


def read_file(path: Path) -> dict[int, Block]:
    """All undamaged blocks of a file, by offset."""
    data = path.read_bytes()
    assert data[:9] == b"STEPSCOPE" and struct.unpack_from("<H", data, 9) == (1,)
    assert zlib.crc32(data[:12]) == struct.unpack_from("<I", data, 12)[0]
    blocks, at = {}, 16
    while at >= 0:
        found = block_at(data, at)
        if found is None:
            at = data.find(b"\xf5\x53\x73\x42", at + 1)
        else:
            blocks[at], at = found
    return blocks


class MiniStep:
    """A step; rows are ``(node, role, iteration, quantity, ...)``."""

    def __init__(self, block: Block, catalog: dict[bytes, Any], details: dict[int, Block]) -> None:
        self.header = block.header
        self.rows = [tuple(row) for row in catalog[block.header["layout"]]]
        self.graphs = [catalog[digest] for digest in block.header["graphs"]]
        self.statistics, self.aggregates = block.array("statistics"), block.array("aggregates")
        self.per_sample = block.array("per_sample")
        self.shapes = self._lists(block.array("ranks"), block.array("shapes"))
        self.strides = self._lists(block.array("stride_ranks"), block.array("strides"))
        self.facts = msgpack.unpackb(block.array("facts").tobytes(), strict_map_key=False)
        self.detail = details[block.header["detail"]]
        assert self.detail.header["number"] == self.header["number"]
        self.table = self.detail.array("table")

    @staticmethod
    def _lists(ranks: np.ndarray, flat: np.ndarray) -> list[tuple[int, ...]]:
        numbers = iter(flat.tolist())
        return [tuple(next(numbers) for _ in range(rank)) for rank in ranks]

    def _piece(self, part: int, row: int) -> bytes:
        b, e, _, n, s, w, has = self.table.T
        sizes = [4 * (e - b), 12 * n * has, n * s * w][part]
        start, offset = 0, 0
        for page_part, end, length, shuffled in self.detail.array("pages").tolist():
            if page_part == part and start <= row < end:
                width = 8 if part == 2 and w[row] == 8 else 4
                count = int(sizes[start:end].sum()) // width
                frame = self.detail.behind_arrays()[offset : offset + length]
                page = unframe(frame, f"<u{width}", (count,), shuffled).tobytes()
                first = int(sizes[start:row].sum())
                return page[first : first + int(sizes[row])]
            start = end if page_part == part else start
            offset += length
        raise LookupError(row)

    def histogram(self, row: int) -> np.ndarray:
        counts = np.zeros(260, np.int64)
        counts[self.table[row, 0] : self.table[row, 1]] = np.frombuffer(self._piece(0, row), "<u4")
        return counts

    def neurons(self, row: int) -> tuple[int, np.ndarray | None, np.ndarray] | None:
        """Total, statistics, raw values."""
        _, _, total, n, s, w, has = self.table[row].tolist()
        if w == 0:
            return None
        statistics = np.frombuffer(self._piece(1, row), "<f4").reshape(3, n) if has else None
        return total, statistics, np.frombuffer(self._piece(2, row), f"<f{w}").reshape(s, n)


class MiniTrial:
    """A trial: ``journal`` is a list of ``(kind, header)``; ``steps`` are ``MiniStep`` by number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = [(b.kind, b.header) for b in read_file(folder / "journal.stepscope").values()]
        catalog = {}
        for block in read_file(folder / "catalog.stepscope").values():
            packed = zstandard.ZstdDecompressor().decompress(block.payload)
            assert hashlib.blake2b(packed, digest_size=16).digest() == block.header["digest"]
            catalog[block.header["digest"]] = msgpack.unpackb(packed)
        details = read_file(folder / "detail.stepscope")
        blocks = read_file(folder / "steps.stepscope").values()
        self.steps = {b.header["number"]: MiniStep(b, catalog, details) for b in blocks}

    def columns(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """Statistics, and aggregates with samples, by step and row."""
        found = {}
        for block in read_file(self.folder / "columns.stepscope").values():
            header, frames, at = block.header, block.behind_arrays(), 0
            values = []
            for index, length in enumerate(block.array("lengths").tolist()):
                dtype, lines = ("<f4", header["batch"]) if index % 2 else ("<f8", 11)
                shape = (lines, header["steps"])
                values.append(unframe(frames[at : at + length], dtype, shape, lines * header["steps"] > 1))
                at += length
            for column, number in enumerate(block.array("numbers").tolist()):
                for row in range(header["rows"]):
                    found[number, row] = values[2 * row][:, column], values[2 * row + 1][:, column]
        return found
