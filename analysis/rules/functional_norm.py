"""The rule ``functional-norm``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stepscope.analysis.finding import Finding
from stepscope.analysis.flow import Site
from stepscope.analysis.lines import sites_of
from stepscope.analysis.parameters import listed
from stepscope.analysis.rule import Rule
from stepscope.analysis.view import View

_CLASSES = ("BatchNorm", "SyncBatchNorm")


@dataclass(frozen=True)
class FunctionalNorm(Rule):
    """A call of the function ``batch_norm`` in a training that does not tell it to train: it normalises nothing.

    Symptom: a deep net learns as slowly as one without normalisation, or not at all.

    How it is measured: the recorder sees calls whose results learn, that were not told ``training=True``, and whose
    running mean is zero throughout, as at the start. Modules of torch's own pass their mode on, and are left out.

    Causes: ``F.batch_norm(x, mean, var, weight, bias)``: ``training`` is False unless it is given.

    Remedy: call it with ``training=self.training``, or use ``nn.BatchNorm1d`` and its kin.

    Source: no threshold.
    """

    name = "functional-norm"
    causes = "F.batch_norm is in evaluation mode unless it is told otherwise."
    remedy = "Call it with training=self.training, or use nn.BatchNorm1d and its kin."

    def check(self, view: View) -> Iterable[Finding]:
        modules = {path for path, module in view.modules.items() if module.module_class.startswith(_CLASSES)}
        sites = [site for site in sites_of(view, "first statistics") if not _is_of(site, modules)]
        if not sites or not view.training:
            return
        nodes = list(dict.fromkeys(place.node for site in sites for place in (*site.after, *site.before)))
        summary = (
            f"{sites[0].operation}() normalises nothing in training: it divides by its running statistics, which are "
            f"those of the start (mean 0, variance 1), since it is called without training=True ({listed(nodes)})."
        )
        yield self.finding(
            view, nodes[0], "warning", summary, step=view.began, nodes=nodes[1:], confidence=0.9,
            source=sites[0].source,
        )  # fmt: skip


def _is_of(site: Site, modules: set[str]) -> bool:
    return any(place.node in modules for place in site.after)
