"""Mending the catalog: what cannot be read is taken out, and what other trials of the group have as well is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from stepscope.store.blocks import UNKNOWN_KIND, BlockPlace
from stepscope.store.catalog import Catalog
from stepscope.store.contents import Contents
from stepscope.store.errors import StoreError
from stepscope.store.mending.findings import Findings
from stepscope.store.mending.scan import Scan, rewrite

_KINDS = ("layout", "graph")


def mend_catalog(folder: Path, siblings: Iterable[Path], findings: Findings) -> bool:
    """Returns whether there was anything to do."""
    scan = Scan(folder, "catalog")
    kept = [(place, header) for place, header in scan.blocks if _is_readable(scan, place, header)]
    there = {header["digest"] for place, header in kept if place.kind in _KINDS}
    fetched = list(_fetch(_wanted(folder) - there, siblings, findings))
    if scan.is_whole and len(kept) == len(scan.blocks) and not fetched:
        return False
    rewrite(scan.path, (*(scan.raw(place) for place, _ in kept), *fetched))
    return True


def _is_readable(scan: Scan, place: BlockPlace, header: dict[str, Any]) -> bool:
    if place.kind == UNKNOWN_KIND:
        return True
    catalog = Catalog(scan.file)
    try:
        if place.kind not in _KINDS:
            return False
        catalog.take(place, header)
        return len(catalog.readable()) == 1
    except StoreError:
        return False


def _wanted(folder: Path) -> set[bytes]:
    """The layouts and graphs that steps refer to."""
    contents = Contents(folder)
    contents.refresh()
    wanted: set[bytes] = set()
    for number in contents.index.numbers.tolist():
        with suppress(StoreError):
            _, step = contents.header_of(number)
            wanted.update((step.layout, *step.graphs))
    return wanted


def _fetch(missing: set[bytes], siblings: Iterable[Path], findings: Findings) -> Iterator[bytes]:
    """The blocks of what is missing out of other trials: equal layouts and graphs of any two trials are equal bytes."""
    for sibling in siblings:
        if not missing:
            return
        with suppress(StoreError, OSError):
            scan = Scan(sibling, "catalog")
            for place, header in scan.blocks:
                if header.get("digest") in missing and _is_readable(scan, place, header):
                    missing = missing - {header["digest"]}
                    findings.add_rebuilt(f"a damaged {place.kind} was found in the trial {sibling.name!r} as well")
                    yield scan.raw(place)
