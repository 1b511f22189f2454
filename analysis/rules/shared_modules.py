"""The rule ``shared-modules``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence


@dataclass(frozen=True)
class SharedModules(Rule):
    """Entries of a list of modules that are one and the same module.

    Symptom: the model has far fewer parameters than meant, and is as weak as a smaller one.

    How it is measured: a parameter has several names that differ in one number only, ``blocks.0.weight`` and
    ``blocks.1.weight``. Where one call of it gets what another one gave, they were meant as a stack of layers; heads
    beside each other share their weights on purpose, and are worth knowing only. Embeddings that are tied to an output
    layer have names that differ in words.

    Causes: ``[block] * 6`` instead of ``[Block() for _ in range(6)]``; a default argument that holds a module.

    Remedy: make a module for each entry, or copy it (``copy.deepcopy``).

    Source: no threshold.
    """

    name = "shared-modules"
    causes = "[block] * n, or appending one module several times, where n modules are meant."
    remedy = "Make one for each entry: nn.ModuleList([Block() for _ in range(n)]), or copy.deepcopy(block)."

    def check(self, view: View) -> Iterable[Finding]:
        groups: dict[tuple[str, ...], None] = {}
        for module in view.trial.network:
            for info in module.parameters:
                if entries := _entries(info.names):
                    groups[entries] = None
        for entries in groups:
            if not any(path in view.modules for path in entries[1:]):  # else two modules share a weight: they are tied
                yield self._finding(view, entries)

    def _finding(self, view: View, entries: tuple[str, ...]) -> Finding:
        inside = [node for node in view.nodes if node == entries[0] or node.startswith(f"{entries[0]}.")]
        calls = [place for node in inside for place in view.flow.of_node(node)]
        stacked = any(
            other != place and other.node == place.node and other in view.flow.downstream([place])
            for place in calls
            for other in view.flow.of_node(place.node)
        )
        summary = (
            f"{listed(entries)} are one and the same module: {len(entries)} entries of a list share the same parameters"
            + (", although each gets what the one before gave." if stacked else ".")
        )
        node = entries[0] if entries[0] in view.nodes else (inside or [""])[0]
        history = view.history(node)
        shown = [evidence(history, "std", "made by the same weights")] if len(history) else []
        return self.finding(view, node, "warning" if stacked else "info", summary, shown, confidence=0.85)


def _entries(names: tuple[str, ...]) -> tuple[str, ...]:
    """The paths of the list's entries, if the names of a parameter differ in one number only."""
    parts = [name.split(".") for name in names]
    if len(parts) < 2 or len({len(part) for part in parts}) > 1:
        return ()
    differing = [place for place, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
    if len(differing) != 1 or not all(part[differing[0]].isdigit() for part in parts):
        return ()
    return tuple(".".join(part[: differing[0] + 1]) for part in parts)
