"""The rule ``frozen-parameters``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding, Level
from stepscope.analysis.initial import as_initialised, frozen_weights
from stepscope.analysis.parameters import is_inside, listed, trainable
from stepscope.analysis.rule import Rule
from stepscope.analysis.twins import copies
from stepscope.analysis.view import View, evidence

_PROJECTION = 2
"""So many random layers may be meant, as a projection."""
_NOT_LOADED = "A checkpoint whose names are not those of the model, loaded with strict=False; or none at all."
_PRINT = "Print what load_state_dict returns (missing and unexpected keys), and load with strict=True."


@dataclass(frozen=True)
class FrozenParameters(Rule):
    """All parameters of the optimizers are frozen, or some of them.

    Symptom: the loss does not change at all; ``backward`` needed ``requires_grad_()`` on the loss to run.

    How it is measured: parameters that a watched optimizer holds and that do not require a gradient. All of them: an
    error; some: worth knowing, as freezing a part of a net is common. So are most weights of a model that are frozen
    and held by none. Frozen weights, besides, whose bound, spread and centre are exactly what an initialisation gives
    (the uniform ones of torch's layers, Xavier's, He's, the normal ones of embeddings and transformers): nothing was
    loaded into them. It is a warning if they are more than two layers in front of what learns; a random projection, or
    a random net that gives targets, may be meant.

    Causes: a net that was frozen before its new head was added, a loop that freezes too much, loaded weights; names in
    a checkpoint that are not those of the model (``module.``), and ``strict=False``.

    Remedy: ``requires_grad_(True)`` for what is to learn; give the optimizer only that. Print what ``load_state_dict``
    returns: the missing and the unexpected keys.

    Attributes:
        most: the part of a model's weights that are frozen, and in no optimizer, from which on it is told. Source: of
            ours. TrainCheck (Jiang et al. 2025) reports a case of all.
    """

    name = "frozen-parameters"
    about = "optimizer"
    causes = "A loop that freezes too much, a net that was frozen before its new head was added, or loaded weights."
    remedy = "Call requires_grad_(True) on what is to learn; give the optimizer only that."

    most: float = 0.5

    def check(self, view: View) -> Iterable[Finding]:
        held = {
            info.names[0]: info.trainable
            for module in view.trial.network
            for info in module.parameters
            if info.optimizers and not info.is_buffer
        }
        frozen = [name for name, can_learn in held.items() if not can_learn]
        if not view.steps:
            return
        as_made = list(self._as_initialised(view))
        if not frozen:
            yield from as_made or self._most(view)
            return
        everything = len(frozen) == len(held)
        what = "All" if everything else f"{len(frozen)} of {len(held)}"
        summary = (
            f"{what} parameters of the optimizer are frozen ({listed(frozen)}): requires_grad is False, they get no "
            f"gradient."
        )
        level: Level = "error" if everything else "info"
        worse = [found for found in as_made if found.level == "warning" and not everything]
        yield from worse or [
            self.finding(view, frozen[0], level, summary, step=view.steps[0].number, nodes=frozen[1:], confidence=0.95)
        ]

    def _as_initialised(self, view: View) -> Iterable[Finding]:
        """Frozen weights into which nothing was loaded."""
        copied = [copy.path for copy in copies(view)]
        given = [w for w in frozen_weights(view) if not any(is_inside(w.module.path, path) for path in copied)]
        fresh = as_initialised(view, given)
        if not fresh or 2 * sum(weight.elements for weight in fresh) < sum(weight.elements for weight in given):
            return
        nodes = [weight.node for weight in given if weight in fresh]
        is_in_front = len(nodes) > _PROJECTION and any(_is_in_front(view, weight.module.path) for weight in fresh)
        summary = (
            f"{len(nodes)} of {len(given)} frozen weights ({listed(nodes)}) are still their initial weights: bound, "
            f"spread and centre are those of a random initialisation. No pretrained weights were loaded into them."
        )
        shown = [evidence(view.history(nodes[0], training=False), "std", "that of an initialisation")]
        yield self.finding(
            view, nodes[0], "warning" if is_in_front else "info", summary, shown, step=view.steps[0].number,
            nodes=nodes[1:], confidence=0.85, causes=_NOT_LOADED, remedy=_PRINT,
        )  # fmt: skip

    def _most(self, view: View) -> Iterable[Finding]:
        """A model most of whose weights are frozen, and held by no optimizer: fine, if they were learned before."""
        copied = [copy.path for copy in copies(view)]
        sizes: dict[str, dict[str, tuple[int, bool]]] = {}
        for module in view.trial.network:
            if not any(is_inside(module.path, path) for path in copied):
                own = {p.names[0]: (math.prod(p.shape), p.trainable) for p in module.parameters if not p.is_buffer}
                sizes.setdefault(module.path.partition(".")[0], {}).update(own)
        for model, own in sizes.items():
            frozen = [name for name, (_, can_learn) in own.items() if not can_learn]
            part = sum(own[name][0] for name in frozen) / max(1, sum(size for size, _ in own.values()))
            if self.most < part < 1:
                summary = (
                    f"{part:.0%} of the weights of {model} are frozen ({listed(frozen)}): requires_grad is False. That "
                    f"is right if they were learned before; layers that start at random stay random."
                )
                step, others = view.steps[0].number, frozen[1:]
                yield self.finding(view, frozen[0], "info", summary, step=step, nodes=others, confidence=0.6)


def _is_in_front(view: View, module: str) -> bool:
    """Whether something that learns is computed from what this module gives, and nothing learns beside it.

    Adapters (LoRA) learn in the same block as the weights that they adapt, which tests leave as they were made.
    """
    block = module.rpartition(".")[0]
    if "." in block and any(is_inside(parameter.module, block) for parameter in trainable(view)):
        return False
    behind = view.flow.downstream(view.flow.of_node(module))
    learning = {view.nodes[node].module for node in {p.node for p in trainable(view)} & set(view.nodes)}
    return any(place.node in learning for place in behind if place.node != module)
