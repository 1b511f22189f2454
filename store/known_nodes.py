"""The nodes that a trial has so far."""

from __future__ import annotations

from stepscope.store.contents import Contents
from stepscope.store.nodes import Node, collect_nodes


class KnownNodes:
    """The nodes that the catalog has, without those of superseded steps only; collected anew when there are others.

    Attributes:
        nodes: all of them, in data-flow order; by_name: each by its name.
    """

    def __init__(self, contents: Contents) -> None:
        self.nodes: tuple[Node, ...] = ()
        self.by_name: dict[str, Node] = {}
        self._contents = contents
        self._version = -1
        self._digests: frozenset[bytes] = frozenset()

    def bring_up_to(self, version: int) -> None:
        """Look again, if the contents have another version now than at the last look."""
        if version == self._version:
            return
        self._version = version
        digests = self._contents.catalog.digests - self._contents.index.left_behind()
        if digests != self._digests:
            self._digests = digests
            self._collect()

    def _collect(self) -> None:
        catalog = self._contents.catalog
        layouts = [layout.tensors for layout in catalog.layouts(self._digests)]
        self.nodes = collect_nodes(catalog.graphs(self._digests), layouts)
        self.by_name = {node.name: node for node in self.nodes}
