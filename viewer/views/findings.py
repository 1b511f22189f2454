"""The findings of a trial: short in the left panel, in full with their evidence on a page of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from stepscope.analysis import Finding, rule_names
from stepscope.store import Trial
from stepscope.viewer.markup import Markup, el, note
from stepscope.viewer.names import apart
from stepscope.viewer.numbers import count
from stepscope.viewer.views.failure import failure
from stepscope.viewer.views.finding_card import SIGNS, card, place

_IN_PANEL = 6
_ON_PAGE = 40
_ALIKE = 3
"""So many findings of one rule are told as one, with the places of the others."""

Told = tuple[Finding, tuple[Finding, ...]]
"""A finding, and others of the same rule that are told with it."""


def told(findings: Sequence[Finding]) -> list[Told]:
    """The findings in their order; three or more of one rule and level become one."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.rule, finding.level), []).append(finding)
    groups: list[Told] = []
    for finding in findings:
        first, *rest = alike[finding.rule, finding.level]
        if len(rest) + 1 < _ALIKE:
            groups.append((finding, ()))
        elif finding is first:
            groups.append((finding, tuple(rest)))
    return groups


def marks(findings: Sequence[Finding]) -> dict[str, tuple[str, str]]:
    """What the graph marks: the level and the sentence of each node's worst finding; notes are left out."""
    found: dict[str, tuple[str, str]] = {}
    for finding in findings:
        if finding.node and finding.level != "info":
            found.setdefault(finding.node, (finding.level, finding.summary))
    return found


def panel(trial: Trial, findings: Sequence[Finding]) -> Markup:
    """The worst findings, worst first."""
    if not findings:
        return el("div.findings", el("h3", "Findings"), _calm(trial))
    groups = told(findings)
    entries = list(chain.from_iterable(_entries(*group) for group in groups[:_IN_PANEL]))
    more = len(groups) - _IN_PANEL
    text = f"and {more} more" if more > 0 else "evidence and causes"
    rest = el("button.link", text, act={"view": "findings"})
    return el("div.findings", el("h3", f"Findings ({len(findings)})"), *entries, rest)


def _entries(finding: Finding, others: Sequence[Finding]) -> list[Markup]:
    entries = [_entry(finding)]
    if others:
        names = apart([finding.node, *(other.node for other in others)])[1:]
        places = (_place(other, name) for other, name in zip(others[:_IN_PANEL], names, strict=False))
        entries.append(el("div.alike", el("span.label", "the same at"), *places))
    if len(others) > _IN_PANEL:
        entries.append(note(f"and {len(others) - _IN_PANEL} more"))
    return entries


def _place(finding: Finding, name: str) -> Markup:
    label = el("span.tensor", el("bdi", name or "the whole trial"))
    return el("button.entry", label, title=finding.summary, act=place(finding))


def _entry(finding: Finding) -> Markup:
    """Its line of code, and what to try, are seen as long as the finding's node is selected."""
    step = "" if finding.step is None else f"step {count(finding.step)}"
    head = el("div.top", el(f"span.mark.{finding.level}", SIGNS[finding.level]), el("span.when", step))
    return el(
        f"button.finding.{finding.level}",
        head,
        el("div.tensor", el("bdi", finding.node)) if finding.node else None,
        el("div.text", finding.summary),
        _line(finding),
        el("div.remedy", el("b", "What to try. "), finding.remedy) if finding.remedy else None,
        title=f"{finding.summary}\n\n{finding.remedy}",
        act=place(finding),
    )


def _line(finding: Finding) -> Markup | None:
    """Not always the line that made its node, which the inspector shows."""
    source = finding.source
    if source is None:
        return None
    return el("div.line", el("span.when", f"{source.file.rpartition('/')[2]}:{source.line}"), el("code", source.text))


def page(trial: Trial, findings: Sequence[Finding], beside: Sequence[Markup | None] = ()) -> Markup:
    """Every finding with its evidence, what usually causes it, what to try, and what follows.

    Args:
        beside: sections that stand beside the findings.
    """
    groups = told(findings)
    cards = [card(trial, finding, others) for finding, others in groups[:_ON_PAGE]]
    broken = failure(trial)
    if not cards:
        cards = [_all_calm(trial, failed=broken is not None)]
    more = note(f"and {len(groups) - _ON_PAGE} more") if len(groups) > _ON_PAGE else None
    heading = el("div.heading", el("h2", f"Findings in {trial.name}"), _summary(trial, findings))
    return el("div.page.first", el("div.cards", heading, broken, *cards, more), el("div.beside", *beside, _rules()))


def _summary(trial: Trial, findings: Sequence[Finding]) -> Markup | None:
    """How many of each level, over how many steps."""
    if not findings:
        return None
    levels = [finding.level for finding in findings]
    parts = [_number(levels.count(level), SIGNS[level]) for level in SIGNS if level in levels]
    order = ", the gravest first" if len(findings) > 1 else ""
    return note(f"{', '.join(parts)} in {count(len(trial.steps))} recorded steps{order}.")


def _number(amount: int, what: str) -> str:
    return f"{amount} {what}" if amount == 1 else f"{amount} {what}s"


def _calm(trial: Trial) -> Markup:
    steps = f"{count(len(trial.steps))} recorded steps"
    if trial.problems:
        return note(f"The recording is damaged: of its {steps}, some or all could not be judged.")
    return note(f"Nothing suspicious in {steps}: {len(rule_names())} rules found nothing.")


def _all_calm(trial: Trial, *, failed: bool) -> Markup:
    look = el("button.link", "Look at the network all the same", act={"view": "inspect"})
    damaged = bool(trial.problems)
    title = "Nothing suspicious"
    title += " in what can be read" if damaged else " in the numbers before it ended" if failed else ""
    return el("section.card" if failed or damaged else "section.card.calm", el("b", title), _calm(trial), look)


def _rules() -> Markup:
    names = rule_names()
    listed = ", ".join(name.replace("-", " ") for name in names)
    return el("details", el("summary", f"What the {len(names)} rules look for"), note(f"{listed}."))
