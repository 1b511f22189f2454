"""The rule ``rare-updates``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stepscope.analysis.changing import steps_between_changes
from stepscope.analysis.finding import Finding
from stepscope.analysis.optimizers import held_by
from stepscope.analysis.parameters import learning, listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View, evidence

_FEWEST, _MOSTLY = 40, 0.7


@dataclass(frozen=True)
class RareUpdates(Rule):
    """The weights change only once in many steps, though gradients are computed in all of them.

    Symptom: the loss falls in stairs, and slowly: hundreds of batches are worth a few steps.

    How it is measured: the recorded weights are the same, bit for bit, as at the recorded step before, in most pairs of
    steps, and yet change again and again. Of several optimizers the parameters of each are looked at.

    Causes: gradients that are added up over too many batches; ``step()`` under a condition that rarely holds; a scaler
    of mixed precision that skips steps because gradients overflow.

    Remedy: step more often; look at the condition, and at what the scaler says.

    Attributes:
        hardly: the share of the recorded steps in which the parameters of an optimizer change, beside another one that
            steps in most of them. Source: of ours; critics are trained five times as often as generators (WGAN).
        many: the steps between two changes from which on it is worth knowing. Source: 8 small batches are often added
            up for a large one, to save memory.
    """

    name = "rare-updates"
    about = "optimizer"
    causes = "Gradients added up over too many batches, a condition around step(), or a loss scaler that skips steps."
    remedy = "Step more often; look at the condition around step(), and at the loss scale."
    hardly: float = 0.1
    many: int = 12

    def check(self, view: View) -> Iterable[Finding]:
        nodes = learning(view)
        between = steps_between_changes(view, nodes)
        if between is None or between < self.many:
            yield from self._of_a_part(view, nodes)
            return
        summary = (
            f"The weights change only once in about {between} steps, though gradients are computed in all of them: "
            f"too many batches are added up before step(), or it is skipped."
        )
        shown = [evidence(view.history(nodes[0]), "norm", "changes now and then")]
        yield self.finding(view, nodes[0], "warning", summary, shown, step=view.began, nodes=nodes[1:], confidence=0.8)

    def _of_a_part(self, view: View, nodes: list[str]) -> Iterable[Finding]:
        """What one of several optimizers holds, and hardly ever moves, although it has gradients."""
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        holders = held_by(view)
        for node in nodes:
            groups[holders.get(node, ())].append(node)
        shares = {names: _share_of_changes(view, group) for names, group in groups.items() if names}
        if not any(share > _MOSTLY for share in shares.values()):
            return
        for names, share in shares.items():
            if 0 < share < self.hardly:
                group = groups[names]
                summary = (
                    f"What {' and '.join(names)} holds ({listed(group)}) is hardly ever updated: it changes between "
                    f"{share:.0%} of the recorded steps, although it has gradients, and others are trained in most."
                )
                yield self.finding(
                    view, group[0], "warning", summary, [evidence(view.history(group[0]), "norm", "hardly changes")],
                    step=view.began, nodes=group[1:], confidence=0.8,
                    causes="A step() under a condition that hardly ever holds, such as a threshold for the loss.",
                    remedy="Train both parts in every step, or one of them so many times as often.",
                )  # fmt: skip


def _share_of_changes(view: View, nodes: list[str]) -> float:
    """The share of neighbouring recorded steps between which any of these parameters changed."""
    histories = [view.history(node) for node in nodes]
    if len(histories[0]) < _FEWEST or any(not np.array_equal(one.steps, histories[0].steps) for one in histories):
        return 0.0
    return float(np.logical_or.reduce([history.is_changed for history in histories]).mean())
