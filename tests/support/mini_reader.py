"""A reader of recordings written from FORMAT.md alone: it shares no code with the package."""

from __future__ import annotations

import hashlib
import struct
import zlib
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zstandard

KINDS = {1: "trial", 2: "network", 3: "scalars", 4: "note", 5: "message", 6: "end", 7: "resumed", 8: "restart"}
KINDS |= {16: "layout", 17: "graph", 32: "step", 33: "detail", 34: "columns"}
MARKER = b"\xf5\x53\x73\x42"
unzip = zstandard.ZstdDecompressor().decompress


class Block:
    """A block of a file: its kind, header and payload; ``behind`` is what comes behind its arrays."""

    def __init__(self, kind: str, header: dict[str, Any], payload: bytes) -> None:
        self.kind, self.header, self.payload = kind, header, payload
        self.entries = {name: entry for name, *entry in header.get("arrays", [])}
        self.behind = payload[max((entry[2] + entry[3] for entry in self.entries.values()), default=0) :]

    def array(self, name: str) -> np.ndarray:
        dtype, shape, offset, length, shuffled = self.entries[name]
        return unframe([self.payload[offset : offset + length]], dtype, shape, shuffled)


def unframe(frames: list[bytes], dtype: str, shape: Any, shuffled: bool) -> np.ndarray:
    data = np.frombuffer(b"".join(map(unzip, frames)), np.uint8)
    data = data.reshape(np.dtype(dtype).itemsize, -1).T if shuffled else data
    return np.frombuffer(data.tobytes(), dtype).reshape(shape)


def read_file(path: Path) -> dict[int, Block]:
    """All undamaged blocks of a file, by offset."""
    data = path.read_bytes()
    version, crc = struct.unpack_from("<HxI", data, 9)
    assert data[:9] == b"STEPSCOPE" and version in (1, 2) and zlib.crc32(data[:12]) == crc
    blocks, at = {}, data.find(MARKER, 16)
    while 0 <= at <= len(data) - 24:
        kind, version, h, p, crc = struct.unpack_from("<BxHIQI", data, at + 4)
        start, end, header = at + 24 + h, at + 24 + h + p, data[at + 24 : at + 24 + h]
        whole = end <= len(data) and zlib.crc32(data[at : at + 20] + header) == crc and version == 1
        if whole:
            blocks[at] = Block(KINDS.get(kind, "?"), msgpack.unpackb(header, strict_map_key=False), data[start:end])
        at = data.find(MARKER, end if whole else at + 1)
    return blocks


class MiniStep:
    """A step; rows are ``(node, role, iteration, quantity, ...)``."""

    def __init__(self, block: Block, catalog: dict[bytes, Any], details: dict[Any, Block]) -> None:
        header = self.header = block.header
        self.rows, self.graphs = [*map(tuple, catalog[header["layout"]])], [catalog[name] for name in header["graphs"]]
        self.statistics, self.aggregates, self.per_sample = map(block.array, ("statistics", "aggregates", "per_sample"))
        sizes, strides = iter(block.array("shapes").tolist()), iter(block.array("strides").tolist())
        self.shapes = [tuple(islice(sizes, rank)) for rank in block.array("ranks")]
        self.strides = [tuple(islice(strides, rank)) for rank in block.array("stride_ranks")]
        self.facts = msgpack.unpackb(block.array("facts").tobytes(), strict_map_key=False)
        self.detail = details[header.get("part", 0), header["detail"]]
        self.table, coded = self.detail.array("table"), "codings" in self.detail.entries
        self.codings = self.detail.array("codings") if coded else np.zeros((3, 3, len(self.rows)), int)
        self.pieces = dict(self._read_pages(iter(self.detail.array("frames").tolist() if coded else ())))

    def _read_pages(self, lengths: Any) -> Any:
        """What each row has in each stream: ``(stream, row), bytes``."""
        b, e, _, n, s, w, has = self.table.T
        behind, starts, counts = self.detail.behind, [0] * 7, (e - b, 3 * n * has, n * s)
        for stream, end, length, form in self.detail.array("pages").tolist():
            part, rows = (0, 1, 2, 1, 2, 1, 2)[stream], slice(starts[stream], end)
            (coding, _, literals), count = self.codings[part], counts[part]
            held = [count * (coding == 0) + literals * (coding == 3), count * (coding == 2), count * (coding == 3)]
            width = 1 if stream > 4 else int(max(w[rows])) or 4 if stream == 2 else 4
            ends = np.cumsum([0, *([next(lengths) for _ in range(form)] if form > 1 else [length])]).tolist()
            data = unframe([behind[a:z] for a, z in pairwise(ends)], f"u{width}", -1, form > 0).tobytes()
            behind, starts[stream] = behind[length:], end
            at = np.cumsum([0, *(width * held[max(0, (stream - 1) // 2)][rows])]).tolist()
            yield from (((stream, rows.start + i), data[at[i] : at[i + 1]]) for i in range(len(at) - 1))

    def _numbers(self, part: int, row: int) -> bytes:
        coding, distance, _ = self.codings[part, :, row].tolist()
        other = np.frombuffer(self._numbers(part, row - distance) if distance else b"", "<u4")
        if coding == 2:
            found = np.frombuffer(self.pieces[part + 2, row], "<u4").astype(np.int64)
            order = np.where(other >> 31, ~other, other | 1 << 31) + ((found >> 1) ^ -(found & 1))
            return np.where(order >> 31 & 1, order ^ 1 << 31, ~order).astype("<u4").tobytes()
        if coding == 3:
            choices = np.frombuffer(self.pieces[part + 4, row], "u1")
            scales = np.concatenate([[0, 0, -0.0], self.detail.array("scales"), np.zeros(256)]).astype("<f4")
            with np.errstate(all="ignore"):
                products = scales[choices] * (other.view("<f4") if distance else np.float32(0))
            numbers = np.where(choices > 2, products, scales[choices])
            numbers[choices == 0] = np.frombuffer(self.pieces.get((part, row), b""), "<f4")
            return numbers.tobytes()
        return other.tobytes() if coding == 1 else self.pieces.get((part, row), b"")

    def histogram(self, row: int) -> np.ndarray:
        counts = np.zeros(260, np.int64)
        counts[self.table[row, 0] : self.table[row, 1]] = np.frombuffer(self._numbers(0, row), "<u4")
        return counts

    def neurons(self, row: int) -> tuple[int, np.ndarray | None, np.ndarray] | None:
        """Total, statistics, raw values."""
        _, _, total, n, s, w, has = self.table[row].tolist()
        if w == 0:
            return None
        statistics = np.frombuffer(self._numbers(1, row), "<f4").reshape(3, n) if has else None
        raw = np.frombuffer(self._numbers(2, row), f"<{'u' if w == 2 else 'f'}{w}")
        return total, statistics, ((raw.astype("<u4") << 16).view("<f4") if w == 2 else raw).reshape(s, n)


class MiniTrial:
    """A trial: ``journal`` is a list of ``(kind, header)``; ``steps`` are ``MiniStep`` by number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, dict[int, MiniStep]()
        self.journal = [(b.kind, b.header) for b in read_file(folder / "journal.stepscope").values()]
        packed = [unzip(block.payload) for block in read_file(folder / "catalog.stepscope").values()]
        catalog = {hashlib.blake2b(data, digest_size=16).digest(): msgpack.unpackb(data) for data in packed}
        blocks, parts = read_file(folder / "steps.stepscope"), folder.glob("detail*.stepscope")
        found = ((int(path.name[7:-10] or 0), at, block) for path in parts for at, block in read_file(path).items())
        details = {(part, block.header.get("was", at)): block for part, at, block in found}
        for block in blocks.values():
            if block.kind == "step":
                self.steps[block.header["number"]] = MiniStep(block, catalog, details)
            elif block.kind == "restart":
                self.steps = {number: step for number, step in self.steps.items() if number < block.header["step"]}

    def columns(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """Statistics, and aggregates with samples, by step and row."""
        found = {}
        for block in read_file(self.folder / "columns.stepscope").values():
            steps, rest, values = block.header["steps"], block.behind, []
            for index, length in enumerate(block.array("lengths").tolist()):
                dtype, lines = ("<f4", block.header["batch"]) if index % 2 else ("<f8", 11)
                values.append(unframe([rest[:length]], dtype, (lines, steps), lines * steps > 1))
                rest = rest[length:]
            for column, number in enumerate(block.array("numbers").tolist()):
                pairs = enumerate(zip(values[::2], values[1::2], strict=True))
                found |= {(number, row): (one[:, column], two[:, column]) for row, (one, two) in pairs}
        return found
