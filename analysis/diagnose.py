"""Says what is wrong with a recorded training run, where, since when, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stepscope.analysis.changes import changes
from stepscope.analysis.finding import Finding
from stepscope.analysis.merge import merge
from stepscope.analysis.probed import ProbeResult, findings_of_probes
from stepscope.analysis.registry import make_rules
from stepscope.analysis.rule import Rule
from stepscope.analysis.section import until_now
from stepscope.analysis.view import View
from stepscope.store import Trial
from stepscope.store.errors import DamagedError

Settings = Mapping[str, Mapping[str, Any]]


def diagnose(
    trial: Trial,
    *,
    rules: Iterable[str] | None = None,
    settings: Settings | None = None,
    probed: Iterable[ProbeResult] = (),
) -> tuple[Finding, ...]:
    """Look for everything that the rules know in a recording, finished or still running.

    >>> for finding in diagnose(open_trial("runs/demo/bugged")):                    # doctest: +SKIP
    ...     print(finding.level, finding.node, finding.summary)

    Args:
        trial: the recording.
        rules: the names of the rules to apply; all of ``rule_names()`` unless given.
        settings: for a rule's name, other values than the defaults of its thresholds, for example
            ``{"dead-units": {"zero_share": 0.999}}``.
        probed: what ``stepscope.recorder.probe`` said of the model: leaks over the batch and over time, and inputs
            without effect, which an extra forward pass shows more surely than a recording.

    Returns:
        The findings, worst and most explaining first; what one explains is under it as its ``consequences``.

    Raises:
        UnknownNameError: there is no rule, or no setting of it, of this name.
    """
    with np.errstate(all="ignore"):  # NaN and infinity are what a broken run is made of: no news for the terminal
        view = View(until_now(trial))
        wanted = make_rules(rules, settings)
        found = [finding for rule in wanted for finding in _apply(rule, view)]
        found += changes(view, _apply, wanted, found)
        return merge([*found, *findings_of_probes(probed, view, found)], view)


def _apply(rule: Rule, view: View) -> list[Finding]:
    """What a rule finds; nothing where the recording is too damaged for it (``trial.problems`` tells).

    A rule that fails does not take the others with it, but says so. What it says twice, of two losses of one target for
    example, is said once.
    """
    try:
        return list({(found.node, found.summary): found for found in rule.check(view)}.values())
    except DamagedError:
        return []
    except Exception as error:
        text = f"The rule {rule.name} failed on this recording ({type(error).__name__}: {error})."
        cause, remedy = "A fault in the rule.", "Report it, with the recording if you can."
        return [rule.finding(view, "", "info", text, confidence=0.0, causes=cause, remedy=remedy)]
