"""The rule ``unregistered-parameters``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Place
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence
from stepscope.store import Step

_LEAST = 3


@dataclass(frozen=True)
class UnregisteredParameters(Rule):
    """A model uses trainable parameters that belong to none of its modules, so that nothing trains or saves them.

    Symptom: a part of the net stays random; ``model.parameters()``, ``to(device)`` and ``state_dict()`` miss it.

    How it is measured: in recorded training steps, a torch function was called inside a watched module's ``forward``
    with a parameter that requires a gradient, but is in no module of the watched models and in no watched optimizer.
    Or with a tensor that requires a gradient and is no ``nn.Parameter``, but is an attribute of a watched module, and
    never changes. One that no module keeps is worth knowing only, if it is the same, and unchanged, in all steps, and
    does not hold one entry a sample. And attributes of a module that are plain tensors of random numbers (independent,
    around zero, all different) are worth knowing; one that was computed from a parameter that is registered nowhere,
    before anything ran, is a mistake.

    Causes: modules or parameters in a plain list or dict instead of ``nn.ModuleList``, ``nn.ModuleDict`` or
    ``nn.ParameterList``; a module that is made anew in every ``forward``; ``torch.randn(..., requires_grad=True)`` in
    place of an ``nn.Parameter``.

    Remedy: register them: ``self.layers = nn.ModuleList(layers)``.

    Source: no threshold.
    """

    name = "unregistered-parameters"
    causes = "Modules or parameters in a plain list or dict, or a layer that is made anew in every forward()."
    remedy = "Use nn.ModuleList, nn.ModuleDict or nn.ParameterList, and make layers in __init__."

    def check(self, view: View) -> Iterable[Finding]:
        known = [(step, _loose(step)) for step in view.training]
        found = [(step, loose) for step, loose in known if any("tensor" not in entry for entry in loose)]
        if found and len(found) * 2 > len(known):
            yield self._finding(view, *found[0])
        yield from self._tensors(view, [loose for _, loose in known])
        yield from self._drawn(view)

    def _drawn(self, view: View) -> Iterable[Finding]:
        """Plain tensors of random numbers that a module keeps, as weights would begin."""
        used = view.flow.upstream(view.objectives)
        for module in view.trial.network if view.training else ():
            places = [place for place in view.flow.of_node(module.path) if place in used]
            made = [drawn for drawn in module.drawn if " by " in drawn]
            drawn = [drawn for drawn in module.drawn if drawn not in made]
            if made and places:
                yield self._made(view, module.path, made, places[0])
            if not drawn or not places:
                continue
            summary = (
                f"{module.path} keeps {listed(drawn)} as plain tensors of random numbers, no nn.Parameter: they "
                f"are registered nowhere, stay as they were drawn, and are neither saved nor moved to a device."
            )
            history = view.history(places[0].node, role=places[0].role)
            yield self.finding(
                view, module.path, "info", summary, [evidence(history, "std", "what is computed with them")],
                step=view.began, confidence=0.6, causes="torch.randn(...) in place of nn.Parameter(torch.randn(...)).",
                remedy="Make them nn.Parameter if they are to learn, else register_buffer(name, tensor).",
            )  # fmt: skip

    def _made(self, view: View, path: str, made: list[str], place: Place) -> Finding:
        """What was computed from a parameter as the module was made, and kept in its place."""
        summary = (
            f"{path} keeps {listed(made)}, which was made of an nn.Parameter and is none itself (no leaf): neither of "
            f"them is registered with a module, so that no optimizer gets it, and it stays as it is."
        )
        shown = [evidence(view.history(place.node, role=place.role), "std", "what is computed with it")]
        return self.finding(
            view, path, "warning", summary, shown, step=view.began, confidence=0.9,
            causes="nn.Parameter(x).squeeze(), nn.Parameter(x) + 1, or nn.Parameter(x).to(device) in __init__.",
            remedy="Shape, scale and move the tensor first; call nn.Parameter last.",
        )  # fmt: skip

    def _tensors(self, view: View, known: list[list[dict[str, Any]]]) -> Iterable[Finding]:
        """Tensors that are no parameters, the same and unchanged in all steps."""
        every: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in (entry for loose in known for entry in loose if "tensor" in entry):
            every[entry["tensor"]].append(entry)
        told: set[tuple[str, str]] = set()
        for entries in every.values():
            first = entries[0]
            name = (str(first["module"]), str(first["attribute"]))
            is_same = all(entry["version"] == first["version"] and entry["sum"] == first["sum"] for entry in entries)
            is_usual = len(entries) >= _LEAST and len(entries) * 2 > len(known)
            if is_usual and is_same and _may_learn(first) and name not in told:
                told.add(name)  # a list of them is one mistake
                yield self._of_tensor(view, first)

    def _of_tensor(self, view: View, entry: dict[str, Any]) -> Finding:
        node, shape = str(entry["module"]), tuple(entry["shape"])
        name = f"{node}.{entry['attribute']}" if node else f"A tensor {shape} that {entry['operation']} uses"
        summary = (
            f"{name} requires a gradient, but is no parameter (nn.Parameter)"
            f"{f', {shape} in ' + str(entry['operation']) if node else ''}: it is not registered with a module and in "
            f"no optimizer, and stays the same in {len(view.training)} training steps."
        )
        used = [place.node for place in view.flow.of_node(node)] if node else []
        return self.finding(
            view, node if used else next((loss.node for loss in view.objectives), ""), "error" if node else "info",
            summary, step=view.began, confidence=0.95 if node else 0.6,
            causes="torch.randn(..., requires_grad=True) in place of an nn.Parameter.",
            remedy="Make it an nn.Parameter before the optimizer is made, or add it to a parameter group of its own.",
        )  # fmt: skip

    def _finding(self, view: View, step: Step, every: list[dict[str, Any]]) -> Finding:
        loose = [entry for entry in every if "tensor" not in entry]
        modules = list(dict.fromkeys(str(entry["module"]) for entry in loose))
        shapes = listed(f"{tuple(entry['shape'])} in {entry['operation']}" for entry in loose)
        summary = (
            f"{listed(modules)} uses {len(loose)} trainable parameters of no module and no optimizer ({shapes}): "
            f"they do not learn."
        )
        shown = [evidence(view.history(modules[0]), "std", "what is computed with them")]
        return self.finding(
            view, modules[0], "error", summary, shown, step=step.number, nodes=modules[1:], confidence=0.95
        )


def _may_learn(entry: dict[str, Any]) -> bool:
    """Whether a tensor is an attribute of a module, or known to be the same, and no zeros that are to be changed."""
    return bool(entry["module"]) or bool(entry["sum"]) or (entry["sum"] == 0 and entry["shape"] in ([], [1]))


def _loose(step: Step) -> list[dict[str, Any]]:
    found = step.facts.get("loose_parameters", [])
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
