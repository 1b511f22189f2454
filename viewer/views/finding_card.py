"""One finding in full: what, where and since when, the line of code, the evidence, causes, remedy, consequences."""

from __future__ import annotations

from collections.abc import Sequence

from stepscope.analysis import Finding
from stepscope.store import Trial
from stepscope.viewer.markup import Markup, el, note
from stepscope.viewer.numbers import count
from stepscope.viewer.views.code_line import code_line
from stepscope.viewer.views.evidence import charts

SIGNS = {"error": "error", "warning": "warning", "info": "note"}
_MOST_NAMES = 8
_MOST_CONSEQUENCES = 6
_MOST_OTHERS = 30


def place(finding: Finding) -> dict[str, object]:
    """What a click on a finding changes in the selection: to where it can be seen."""
    act: dict[str, object] = {"node": finding.node, "view": "inspect", "lag": 0}
    if finding.step is not None:
        act |= {"step": finding.step, "kind": "", "follow": False}
    if finding.iteration is not None and finding.iteration >= 0:
        act["iteration"] = finding.iteration
    mine = next((item for item in finding.evidence if item.node == finding.node), None)
    if mine is not None:
        act |= {"quantity": mine.quantity, "statistic": mine.statistic, "role": mine.role or ""}
    return act


def card(trial: Trial, finding: Finding, others: Sequence[Finding] = ()) -> Markup:
    """A finding in full.

    Args:
        others: findings of the same rule, of which only the places are told.
    """
    head = el(
        "div.top",
        el(f"span.mark.{finding.level}", SIGNS[finding.level]),
        el("b", finding.rule.replace("-", " ")),
        el("span.when", _when(finding)),
        el("button.link", "look there", title=_there(finding), act=place(finding)),
    )
    return el(
        f"section.card.{finding.level}",
        head,
        el("button.link.name", finding.node, title=_there(finding), act=place(finding)) if finding.node else None,
        el("p", finding.summary),
        code_line(finding.source),
        _paragraph("What to try. ", finding.remedy),
        _paragraph("Usual causes. ", finding.causes),
        el("div.evidence", *charts(trial, finding)),
        _others(others),
        _further(finding),
        _consequences(finding),
    )


def _there(finding: Finding) -> str:
    where = [f"step {count(finding.step)}"] if finding.step is not None else []
    return "Show in the network: " + ", ".join([finding.node, *where] if finding.node else where or ["the last step"])


def _paragraph(title: str, text: str) -> Markup | None:
    return el("p", el("b", title), text) if text else None


def _when(finding: Finding) -> str:
    since = "" if finding.step is None else f"since step {count(finding.step)}, "
    return f"{since}{finding.confidence:.0%} sure"


def _others(others: Sequence[Finding]) -> Markup | None:
    if not others:
        return None
    more = note(f"and {len(others) - _MOST_OTHERS} more") if len(others) > _MOST_OTHERS else None
    lines = map(_told, others[:_MOST_OTHERS])
    return el("details.consequences", el("summary", f"{len(others)} more of the same"), *lines, more)


def _further(finding: Finding) -> Markup | None:
    if not finding.nodes:
        return None
    names = finding.nodes[:_MOST_NAMES]
    links = [el("button.link.tensor", name, act={**place(finding), "node": name, "role": ""}) for name in names]
    more = note(f"and {len(finding.nodes) - _MOST_NAMES} more") if len(finding.nodes) > _MOST_NAMES else None
    return el("div.neighbours", el("div", el("span.label", "also concerned"), *links, more))


def _consequences(finding: Finding) -> Markup | None:
    found = finding.consequences
    if not found:
        return None
    more = note(f"and {len(found) - _MOST_CONSEQUENCES} more") if len(found) > _MOST_CONSEQUENCES else None
    lines = map(_told, found[:_MOST_CONSEQUENCES])
    return el("div.consequences", el("span.label", "what follows from it"), *lines, more)


def _told(finding: Finding) -> Markup:
    """Another finding on one line: a link to its place, and its sentence."""
    since = "" if finding.step is None else f", step {count(finding.step)}"
    link = el("button.link.tensor", finding.node or "the trial", title=_there(finding), act=place(finding))
    return el("p", link, el("span.when", since), f" {finding.summary}")
