"""The face: what ``diagnose`` takes and gives, how findings are ordered and put under their causes."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stepscope.analysis import LEVELS, RULES, diagnose, rule_names
from stepscope.analysis.explains import EXPLAINS
from stepscope.recorder import Every, Recorder
from stepscope.store import Trial, open_trial
from stepscope.store.errors import UnknownNameError
from support.short_runs import blob_batches, curve_batches, descend, findings, mlp, record


def sick(folder: Path) -> Trial:
    """A net whose last activation is wrong for its targets."""
    model = mlp(6, 16, 2, last=(nn.ReLU(),))
    return record(folder, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, steps=20)


def test_findings_are_plain_values(tmp_path: Path) -> None:
    found = diagnose(sick(tmp_path))
    assert found[0].rule == "unreachable-targets"
    assert found[0].source is not None and found[0].source.text
    assert json.loads(json.dumps([asdict(finding) for finding in found]))[0]["node"] == "model.3"
    for finding in found:
        assert 0 <= finding.confidence <= 1 and finding.level in LEVELS
        assert finding.causes and finding.remedy and finding.summary.endswith(".")


def test_evidence_can_be_drawn(tmp_path: Path) -> None:
    trial = sick(tmp_path)
    for finding in diagnose(trial):
        for shown in finding.evidence:
            series = trial.series(
                shown.node,
                statistic=shown.statistic,
                quantity=shown.quantity,
                role=shown.role,
                iteration=shown.iteration,
            )
            assert len(series.steps) and shown.first_step <= shown.last_step


def test_only_the_rules_that_were_asked_for(tmp_path: Path) -> None:
    trial = sick(tmp_path)
    assert {finding.rule for finding in diagnose(trial, rules=["unreachable-targets"])} == {"unreachable-targets"}
    assert diagnose(trial, rules=[]) == ()


def test_thresholds_can_be_set(tmp_path: Path) -> None:
    trial = sick(tmp_path)
    settings = {"unreachable-targets": {"share": 1.1}}
    assert diagnose(trial, rules=["unreachable-targets"], settings=settings) == ()


def test_unknown_rules_and_settings_are_told_with_near_names(tmp_path: Path) -> None:
    trial = sick(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'dead-units'"):
        diagnose(trial, rules=["dead-unit"])
    with pytest.raises(UnknownNameError, match="setting of the rule 'dead-units'"):
        diagnose(trial, settings={"dead-units": {"shares": 0.1}})


def test_a_rule_that_fails_says_so_and_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rule: object, view: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(RULES["non-finite"], "check", fail)
    found = diagnose(sick(tmp_path))
    assert found[0].rule == "unreachable-targets"
    assert "by accident" in next(finding.summary for finding in found if finding.rule == "non-finite")


def test_infinity_is_no_news_for_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings of numpy's are errors here, so that the rule would be told to have failed."""
    trial, seen = sick(tmp_path), []

    def check(rule: object, view: object) -> list[object]:
        seen.append(np.subtract(np.array([np.inf]), np.inf))
        return []

    monkeypatch.setattr(RULES["dead-units"], "check", check)
    assert diagnose(trial, rules=["dead-units"]) == () and len(seen) == 1


def test_a_trial_that_is_not_finite_from_the_first_step_on(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    with torch.no_grad():
        model[2].bias[0] = float("nan")
    found = findings(record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, steps=6))
    assert [finding.rule for finding in found] == ["non-finite"]
    assert found[0].node == "model.2.bias" and found[0].step == 0


def test_a_trial_that_only_evaluates(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.5))

    def evaluate(loss: torch.Tensor, optimizer: object) -> None:
        del optimizer

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return F.mse_loss(model(x), y)

    assert findings(record(tmp_path, model, loss, curve_batches, train=evaluate, steps=4)) == []


def test_a_trial_without_steps_has_no_findings(tmp_path: Path) -> None:
    model = mlp(6, 4, 2)
    assert diagnose(record(tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, steps=0)) == ()


def test_consequences_are_under_their_cause(tmp_path: Path) -> None:
    model = mlp(8, 32, 4)
    with torch.no_grad():
        model[0].weight.mul_(40)
    trial = record(tmp_path, model, lambda x, y: F.cross_entropy(model(x), y), blob_batches, steps=12)
    roots = diagnose(trial)
    assert roots[0].rule == "weight-scale" and roots[0].node == "model.0.weight"
    assert "loss-start" in {finding.rule for finding in roots[0].walk()}
    assert "loss-start" not in {finding.rule for finding in roots}


def test_what_a_net_learns_in_place_of_targets_out_of_reach_is_no_overfitting_of_its_own(tmp_path: Path) -> None:
    """As in the demo: the evaluation worsens while a net fits what its last activation lets it."""
    model = mlp(6, 128, 128, 2, last=(nn.ReLU(),))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, fresh = torch.randn(12, 6), torch.randn(256, 6)
    y, fresh_y = torch.randn(12, 2) + 0.7, torch.randn(256, 2) + 0.7
    with Recorder(tmp_path, trial="trial", schedule=Every(1), strict=True) as recorder:
        recorder.watch(model, optimizer)
        for number in range(60):
            with recorder.step():
                descend(F.mse_loss(model(x), y), optimizer)
            if number % 5 == 4:
                with recorder.step(kind="validation") as step, torch.no_grad():
                    step.record("loss", F.mse_loss(model(fresh), fresh_y), type="loss")
    roots = diagnose(open_trial(tmp_path / "trial"))
    assert roots[0].rule == "unreachable-targets"
    assert "overfitting" in {finding.rule for finding in roots[0].walk()}
    assert "overfitting" not in {finding.rule for finding in roots}


def test_what_follows_a_non_finite_value_is_not_told_on_its_own(tmp_path: Path) -> None:
    model = mlp(6, 16, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=30.0)
    trial = record(
        tmp_path, model, lambda x, y: F.mse_loss(model(x), y), curve_batches, optimizer=optimizer, steps=25
    )  # fmt: skip
    roots = diagnose(trial)
    everything = {finding.rule for root in roots for finding in root.walk()}
    assert "non-finite" in everything
    assert roots[0].level == "error" and roots[0].rule != "non-finite"


def test_every_rule_has_its_page_and_its_place_among_the_causes() -> None:
    assert set(EXPLAINS) == set(rule_names())
    for explained in EXPLAINS.values():
        assert set(explained) <= set(rule_names())
    for name, rule in RULES.items():
        page = rule.__doc__ or ""
        for part in ("Symptom:", "How it is measured:", "Causes:", "Remedy:", "ource: "):
            assert part in page, (name, part)
        assert rule.causes and rule.remedy
        for setting in fields(rule):
            assert re.search(rf"^ {{8}}(\w+, )*{setting.name}(, \w+)*: .", page, re.MULTILINE), (name, setting.name)
