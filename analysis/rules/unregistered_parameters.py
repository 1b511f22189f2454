"""The rule ``unregistered-parameters``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stepscope.analysis.finding import Finding
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step


@dataclass(frozen=True)
class UnregisteredParameters(Rule):
    """A model uses trainable parameters that belong to none of its modules, so that nothing trains or saves them.

    Symptom: a part of the net stays random; ``model.parameters()``, ``to(device)`` and ``state_dict()`` miss it.

    How it is measured: in recorded training steps, a torch function was called inside a watched module's ``forward``
    with a parameter that requires a gradient, but is in no module of the watched models and in no watched optimizer.

    Causes: modules or parameters in a plain list or dict instead of ``nn.ModuleList``, ``nn.ModuleDict`` or
    ``nn.ParameterList``; a module that is made anew in every ``forward``.

    Remedy: register them: ``self.layers = nn.ModuleList(layers)``.

    Source: no threshold.
    """

    name = "unregistered-parameters"
    causes = "Modules or parameters in a plain list or dict, or a layer that is made anew in every forward()."
    remedy = "Use nn.ModuleList, nn.ModuleDict or nn.ParameterList, and make layers in __init__."

    def check(self, view: View) -> Iterable[Finding]:
        known = [(step, _loose(step)) for step in view.training]
        found = [(step, loose) for step, loose in known if loose]
        if found and len(found) * 2 > len(known):
            yield self._finding(view, *found[0])

    def _finding(self, view: View, step: Step, loose: list[dict[str, Any]]) -> Finding:
        modules = list(dict.fromkeys(str(entry["module"]) for entry in loose))
        shapes = listed(f"{tuple(entry['shape'])} in {entry['operation']}" for entry in loose)
        summary = (
            f"{listed(modules)} uses {len(loose)} trainable parameters that belong to no module and to no optimizer "
            f"({shapes}): they do not learn."
        )
        shown = [evidence(view.history(modules[0]), "std", "what is computed with them")]
        return self.finding(
            view, modules[0], "error", summary, shown, step=step.number, nodes=modules[1:], confidence=0.95
        )


def _loose(step: Step) -> list[dict[str, Any]]:
    found = step.facts.get("loose_parameters", [])
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
