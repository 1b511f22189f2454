"""What strikes the eye at a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepscope.analysis.overview import continued, look_at
from stepscope.store import Trial, open_trial
from support.synthetic import write_trial


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    path = tmp_path_factory.mktemp("overview")
    return open_trial(write_trial(path, trial="sick", steps=6, nan_from=20))


def test_a_healthy_step_has_nothing_to_say_but_its_loose_ends(sick: Trial) -> None:
    seen = look_at(sick, sick.step(10), 0)
    assert seen.non_finite == () and seen.non_finite_total == 0
    assert "unused mask" in {entry.node for entry in seen.unconnected}


def test_the_first_non_finite_tensor_in_the_order_of_the_data_is_the_origin(sick: Trial) -> None:
    seen = look_at(sick, sick.step(30), 0)
    assert seen.non_finite[0].node == "model.blocks.1.attn"
    assert seen.non_finite[0].quantity == "value"
    assert seen.non_finite_total > len(seen.non_finite)


def test_gradients_are_compared_by_their_size_an_element(sick: Trial) -> None:
    step = sick.step(10)
    seen = look_at(sick, step, 0)
    largest = seen.largest_gradients[0]
    tensor = step.tensor(largest.node, quantity="gradient")
    elements = 1
    for size in tensor.shape:
        elements *= size
    assert largest.value == pytest.approx(tensor.statistics["norm"] / elements**0.5)
    assert seen.largest_gradients[0].value >= seen.largest_gradients[-1].value > seen.smallest_gradients[0].value


def test_what_later_iterations_use_is_no_loose_end(sick: Trial) -> None:
    step = sick.step(10)
    assert ("memory", "new") in continued(step)
    for iteration in step.iterations:
        assert "memory" not in {entry.node for entry in look_at(sick, step, iteration).unconnected}


def test_parameters_without_gradient_are_named_when_others_have_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from stepscope.recorder import Every, Recorder

    model = torch.nn.ModuleDict({"used": torch.nn.Linear(3, 1), "forgotten": torch.nn.Linear(3, 1)})
    model["frozen"] = torch.nn.Linear(3, 1).requires_grad_(False)
    with Recorder(tmp_path, trial="one", schedule=Every(1)) as recorder:
        recorder.watch(model)
        with recorder.step():
            (model["used"](torch.ones(2, 3)) + model["frozen"](torch.ones(2, 3))).sum().backward()
    trial = open_trial(tmp_path / "one")
    names = {entry.node for entry in look_at(trial, trial.step(0), 0).without_gradient}
    assert any("forgotten.weight" in name for name in names)
    assert not any("used" in name or "frozen" in name for name in names)
