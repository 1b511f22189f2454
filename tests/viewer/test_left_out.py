"""What is missing of a step because the recording was kept small, or the writer was behind, is said where one looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stepscope.analysis import diagnose
from stepscope.store import Group, TrialWriter, open_group
from stepscope.store.room import Limits
from stepscope.viewer.resolve import resolve
from stepscope.viewer.selection import Selection
from stepscope.viewer.views.inspector import inspector
from stepscope.viewer.views.moment import Moment, moment
from stepscope.viewer.views.neurons import neuron_table
from support.synthetic import Synthetic

SYNTHETIC = Synthetic(blocks=1, width=24, iterations=1, kinds=("train",))
RECORDS = [SYNTHETIC.record(index) for index in range(5)]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Group:
    folder = tmp_path_factory.mktemp("group")
    with TrialWriter(folder, replace(SYNTHETIC.info(), trial="limited"), limits=Limits(trial=500_000)) as writer:
        for number in range(30):
            writer.write_step(replace(RECORDS[number % 5], number=number))
    with TrialWriter(folder, replace(SYNTHETIC.info(), trial="behind"), precision="bf16") as writer:
        rows = len(RECORDS[0].tensors)
        neurons: tuple[Any, ...] = (None,) * (rows - 1)
        writer.write_step(RECORDS[0])
        writer.write_step(
            replace(RECORDS[1], neurons=(*neurons, RECORDS[1].neurons[-1]), dropped=tuple(range(rows - 1)))
        )
    return open_group(folder)


def at(group: Group, **wish: Any) -> Moment:
    found = moment(resolve(Selection(node="model.head", iteration=0, **wish), group).selection, group)
    assert found is not None
    return found


def words(markup: Any) -> str:
    return markup if isinstance(markup, str) else " ".join(words(child) for child in markup[2:])


def shown(now: Moment) -> tuple[str, str]:
    tensor = now.tensor()
    assert tensor is not None
    return words(inspector(now, tensor)), neuron_table(tensor, None).caption


def test_thinned_steps_say_so(trials: Group) -> None:
    states = {number: trials["limited"].step(number).detail_state for number in range(30)}
    thinned = next(number for number, state in states.items() if state == "thinned")
    for text in shown(at(trials, trial="limited", step=thinned)):
        assert "left out to keep the recording within its limit of bytes" in text
    assert states[0] == "full"
    for text in shown(at(trials, trial="limited", step=0)):
        assert "left out" not in text


def test_dropped_steps_say_so(trials: Group) -> None:
    for text in shown(at(trials, trial="behind", step=10)):
        assert "The writer was behind at this step: neurons and samples of" in text and "were dropped" in text


def test_rounded_values_say_so(trials: Group) -> None:
    _, caption = shown(at(trials, trial="behind", step=0))
    assert caption.endswith("; raw values to 3 digits (bf16)")


def test_findings_of_a_thinned_trial(trials: Group) -> None:
    assert not [finding for finding in diagnose(trials["limited"]) if finding.level == "error"]
