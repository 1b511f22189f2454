"""The demo: both trials are recorded, and the numbers of one step equal those computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stepscope.examples import find_the_bug as demo
from stepscope.store import Group, open_group

STEPS = 12


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Group:
    out = tmp_path_factory.mktemp("demo")
    demo.run(out, STEPS)
    return open_group(out)


def test_both_trials_are_finished(group: Group) -> None:
    assert group.names == ("bugged", "fixed")
    for name in group.names:
        assert group[name].state == "finished"
        assert group[name].problems == ()
        assert "test length 15" in group[name].kinds


def test_values_of_the_first_step_equal_those_computed_by_hand(group: Group) -> None:
    torch.manual_seed(0)
    data = torch.Generator().manual_seed(0)
    model = demo.RunningSum(activate_last=True)
    length = demo.TRAIN_LENGTHS[int(torch.randint(len(demo.TRAIN_LENGTHS), (), generator=data))]
    sequence, target = demo.make_batch(length, data)
    hidden: list[torch.Tensor] = []
    model.subnet_out.hidden_state.register_forward_hook(lambda m, i, o: hidden.append(o))
    memory = torch.zeros(demo.BATCH, demo.MEMORY)
    for numbers in sequence:
        answer, memory = model(numbers, memory)
    hidden[-1].retain_grad()
    loss = F.mse_loss(answer, target)
    loss.backward()

    trial = group["bugged"]
    step = trial.step(0)
    assert step.kind == f"length {length}"
    recorded = step.tensor("subnet_out.hidden_state")
    by_hand = hidden[-1].detach().numpy().astype(np.float64)
    assert recorded.shape == (128, 200)
    assert recorded.info.iteration == length - 1
    assert recorded.statistics["mean"] == pytest.approx(by_hand.mean(), rel=1e-6)
    assert recorded.statistics["abs_mean"] == pytest.approx(np.abs(by_hand).mean(), rel=1e-6)
    assert recorded.statistics["std"] == pytest.approx(by_hand.std(), rel=1e-6)
    assert recorded.statistics["abs_max"] == pytest.approx(np.abs(by_hand).max(), rel=1e-6)
    assert recorded.aggregates["std"]["batch_mean"] == pytest.approx(by_hand.std(1).mean(), rel=1e-5)
    assert recorded.aggregates["mean"]["batch_abs_max"] == pytest.approx(np.abs(by_hand.mean(1)).max(), rel=1e-5)
    assert recorded.neurons is not None
    assert np.array_equal(recorded.neurons.samples, by_hand[:5].astype(np.float32))
    gradient = step.tensor("subnet_out.hidden_state", quantity="gradient")
    assert hidden[-1].grad is not None
    assert gradient.statistics["norm"] == pytest.approx(float(hidden[-1].grad.double().norm()), rel=1e-6)
    assert step.tensor("loss").statistics["mean"] == pytest.approx(loss.item(), rel=1e-6)
    weight = model.subnet_out.last.weight
    assert weight.grad is not None
    recorded_weight = step.tensor("subnet_out.last.weight", quantity="gradient")
    assert recorded_weight.statistics["abs_max"] == pytest.approx(float(weight.grad.abs().max()), rel=1e-6)


def test_the_bug_is_visible_in_the_recording(group: Group) -> None:
    def smallest(trial: str) -> float:
        return group[trial].step(0).tensor("answer").statistics["min"]

    assert smallest("bugged") > -0.05 < -smallest("fixed")
    node = group["bugged"].node("subnet_out")
    assert node.operation == "leaky_relu"
    assert node.source is not None
    assert node.source.text == "x = F.leaky_relu(x)"
    assert node.source.file.endswith("find_the_bug.py")


def test_memory_is_one_node_with_initial_carried_and_new_values(group: Group) -> None:
    trial = group["fixed"]
    number = next(int(n) for n in trial.steps if len(trial.step(int(n)).iterations) > 2)
    step = trial.step(number)
    assert trial.node("memory").roles == ("initial", "new")

    def memory_vertices(iteration: int) -> set[tuple[str, int]]:
        return {(v.role, v.lag) for v in step.graph(iteration).vertices if v.node == "memory"}

    assert memory_vertices(0) == {("initial", 0), ("new", 0)}
    assert memory_vertices(1) == {("new", 1), ("new", 0)}
    assert step.graph_digest(1) == step.graph_digest(len(step.iterations) - 2)
