"""The catalog of a trial as a reader sees it: layouts and graphs, each stored once under its digest."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from stepscope.store import codec
from stepscope.store.block_file import BlockFile
from stepscope.store.blocks import BlockPlace
from stepscope.store.errors import DamagedError, damaged_unless
from stepscope.store.frames import decompress
from stepscope.store.layout import Layout
from stepscope.store.records import Graph


class Catalog:
    """Layouts and graphs, read when they are first asked for.

    Attributes:
        problems: what could not be read, in sentences.
    """

    def __init__(self, file: BlockFile) -> None:
        self.problems: dict[str, None] = {}
        self._file = file
        self._layout_places: dict[bytes, BlockPlace] = {}
        self._graph_places: dict[bytes, BlockPlace] = {}
        self._layouts: dict[bytes, Layout] = {}
        self._graphs: dict[bytes, Graph] = {}

    def take(self, place: BlockPlace, header: Mapping[str, Any]) -> None:
        """Take in a block.

        Raises:
            DamagedError: it makes no sense.
        """
        with damaged_unless(f"the catalog: a {place.kind}"):
            digest = codec.digest_from_plain(header["digest"])
        places = self._layout_places if place.kind == "layout" else self._graph_places
        places[digest] = place

    @property
    def digests(self) -> frozenset[bytes]:
        """Those of all layouts and graphs, whether they can be read or not."""
        return frozenset((*self._layout_places, *self._graph_places))

    def layout(self, digest: bytes) -> Layout:
        """A layout by its digest.

        Raises:
            DamagedError: it is missing, or cannot be read.
        """
        if digest not in self._layouts:
            plain = self._read(digest, self._layout_places, "layout")
            with damaged_unless("a layout"):
                self._layouts[digest] = Layout(digest, codec.layout_from_plain(plain))
        return self._layouts[digest]

    def graph(self, digest: bytes) -> Graph:
        """A graph by its digest.

        Raises:
            DamagedError: it is missing, or cannot be read.
        """
        if digest not in self._graphs:
            plain = self._read(digest, self._graph_places, "graph")
            with damaged_unless("a graph"):
                self._graphs[digest] = codec.graph_from_plain(plain)
        return self._graphs[digest]

    def layouts(self, among: Container[bytes] | None = None) -> list[Layout]:
        """All layouts that can be read, or those of these digests; what cannot be read becomes a problem."""
        found = []
        for digest in _those(self._layout_places, among):
            try:
                found.append(self.layout(digest))
            except DamagedError as error:
                self.problems[f"{self._file.name}: {error}"] = None
        return found

    def graphs(self, among: Container[bytes] | None = None) -> list[Graph]:
        """All graphs that can be read, or those of these digests; what cannot be read becomes a problem."""
        found = []
        for digest in _those(self._graph_places, among):
            try:
                found.append(self.graph(digest))
            except DamagedError as error:
                self.problems[f"{self._file.name}: {error}"] = None
        return found

    def readable(self) -> frozenset[bytes]:
        """The digests of all that can be read."""
        self.layouts(), self.graphs()
        return frozenset((*self._layouts, *self._graphs))

    def _read(self, digest: bytes, places: Mapping[bytes, BlockPlace], kind: str) -> Any:
        place = places.get(digest)
        if place is None:
            raise DamagedError(f"the {kind} {digest.hex()[:8]} is missing")
        packed = decompress(self._file.read(place.payload_offset, place.payload_length))
        if codec.digest(packed) != digest:
            raise DamagedError(f"the {kind} {digest.hex()[:8]} is not what its digest says")
        with damaged_unless(f"the {kind} {digest.hex()[:8]}"):
            return codec.unpack(packed)


def _those(digests: Iterable[bytes], among: Container[bytes] | None) -> list[bytes]:
    return [digest for digest in digests if among is None or digest in among]
