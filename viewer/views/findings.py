"""The findings of a trial: short in the left panel, in full with their evidence on a page of their own."""

from __future__ import annotations

from collections.abc import Sequence

from stepscope.analysis import Finding, rule_names
from stepscope.store import Trial
from stepscope.viewer.markup import Markup, el, note
from stepscope.viewer.numbers import count
from stepscope.viewer.views.evidence import charts
from stepscope.viewer.views.inspector import code_line

_IN_PANEL = 6
_ON_PAGE = 40
_SIGNS = {"error": "error", "warning": "warning", "info": "note"}


def panel(trial: Trial, findings: Sequence[Finding]) -> Markup:
    """The worst findings, worst first."""
    if not findings:
        return el("div.findings", el("h3", "Findings"), _calm(trial))
    entries = [_entry(finding) for finding in findings[:_IN_PANEL]]
    more = len(findings) - len(entries)
    rest = el("button.link", f"and {more} more" if more > 0 else "in full", act={"view": "findings"})
    return el("div.findings", el("h3", f"Findings ({len(findings)})"), *entries, rest)


def _calm(trial: Trial) -> Markup:
    steps = f"{count(len(trial.steps))} recorded steps"
    return note(f"Nothing suspicious in {steps}: {len(rule_names())} rules found nothing.")


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


def _entry(finding: Finding) -> Markup:
    step = "" if finding.step is None else f"step {count(finding.step)}"
    head = el("div.top", el(f"span.mark.{finding.level}", _SIGNS[finding.level]), el("span.when", step))
    name = el("div.tensor", finding.node) if finding.node else None
    title = f"{finding.summary}\n\n{finding.remedy}"
    return el(
        f"button.finding.{finding.level}", head, name, el("div.text", finding.summary), title=title, act=place(finding)
    )


def page(trial: Trial, findings: Sequence[Finding], beside: Sequence[Markup | None] = ()) -> Markup:
    """Every finding with its evidence, what usually causes it, what to try, and what follows.

    Args:
        beside: sections that stand beside the findings.
    """
    cards = [_card(trial, finding) for finding in findings[:_ON_PAGE]] or [_all_calm(trial)]
    more = note(f"and {len(findings) - _ON_PAGE} more") if len(findings) > _ON_PAGE else None
    return el(
        "div.page.first",
        el("div.cards", el("h2", f"Findings in {trial.name}"), *cards, more),
        el("div.beside", *beside, _rules()),
    )


def _all_calm(trial: Trial) -> Markup:
    look = el("button.link", "Look at the network all the same", act={"view": "inspect"})
    return el("section.card.calm", el("b", "Nothing suspicious"), _calm(trial), look)


def _rules() -> Markup:
    return note("What was looked for: " + ", ".join(name.replace("-", " ") for name in rule_names()) + ".")


def _card(trial: Trial, finding: Finding) -> Markup:
    head = el(
        "div.top",
        el(f"span.mark.{finding.level}", _SIGNS[finding.level]),
        el("b", finding.rule.replace("-", " ")),
        el("span.when", _when(finding)),
        el("button.link", "look there", act=place(finding)),
    )
    return el(
        f"section.card.{finding.level}",
        head,
        el("div.name", finding.node) if finding.node else None,
        el("p", finding.summary),
        code_line(finding.source),
        el("div.evidence", *charts(trial, finding)),
        _paragraph("Usual causes. ", finding.causes),
        _paragraph("What to try. ", finding.remedy),
        _others(finding),
        _consequences(finding),
    )


def _paragraph(title: str, text: str) -> Markup | None:
    return el("p", el("b", title), text) if text else None


def _when(finding: Finding) -> str:
    since = "" if finding.step is None else f"since step {count(finding.step)}, "
    return f"{since}{finding.confidence:.0%} sure"


def _others(finding: Finding) -> Markup | None:
    if not finding.nodes:
        return None
    links = [el("button.link.tensor", name, act={**place(finding), "node": name}) for name in finding.nodes[:8]]
    more = note(f"and {len(finding.nodes) - 8} more") if len(finding.nodes) > 8 else None
    return el("div.neighbours", el("div", el("span.label", "also"), *links, more))


def _consequences(finding: Finding) -> Markup | None:
    if not finding.consequences:
        return None
    lines = [el("button.link", f"{item.node}: {item.summary}", act=place(item)) for item in finding.consequences[:6]]
    more = note(f"and {len(finding.consequences) - 6} more") if len(finding.consequences) > 6 else None
    return el("div.consequences", el("span.label", "what follows from it"), *(el("div", line) for line in lines), more)
