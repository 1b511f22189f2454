"""Only legal combinations, as near to the wish as the recording allows, and no wish forgotten."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepscope.store import Group
from stepscope.viewer.resolve import resolve
from stepscope.viewer.selection import Selection


def test_without_a_wish_the_last_training_step_is_shown(group: Group) -> None:
    resolved = resolve(Selection(trial="healthy"), group)
    step = group["healthy"].step(resolved.selection.step or 0)
    assert any(tensor.quantity == "gradient" for tensor in step.layout.tensors)
    assert resolved.selection.iteration == len(step.iterations) - 1
    assert resolved.kinds == group["healthy"].kinds


def test_without_a_wish_the_newest_trial_is_shown(group: Group) -> None:
    assert group.names == ("healthy", "sick")
    assert resolve(Selection(), group).selection.trial == "sick"


def test_an_unrecorded_step_becomes_the_nearest_and_says_so(group: Group) -> None:
    resolved = resolve(Selection(trial="healthy", step=102), group)
    assert resolved.selection.step == 100
    assert "102" in resolved.notice and "100" in resolved.notice


def test_a_step_of_the_chosen_kind(group: Group) -> None:
    resolved = resolve(Selection(trial="healthy", kind="long", step=100), group)
    assert group["healthy"].step(resolved.selection.step or 0).kind == "long"


def test_going_to_a_step_of_another_kind_lets_go_of_the_kind(group: Group) -> None:
    trial = group["healthy"]
    other = next(int(n) for n, kind in zip(trial.steps, trial.step_kinds, strict=True) if kind == "train")
    wish = Selection(trial="healthy", kind="", step=other)
    assert resolve(wish, group, changed="step").selection.step == other


def test_a_wish_that_cannot_be_fulfilled_comes_back(group: Group) -> None:
    trial = group["healthy"]
    validation = next(int(n) for n, kind in zip(trial.steps, trial.step_kinds, strict=True) if kind == "validation")
    train = next(int(n) for n, kind in zip(trial.steps, trial.step_kinds, strict=True) if kind == "train")
    wish = Selection(trial="healthy", step=validation, node="model.head", quantity="gradient")
    assert resolve(wish, group).selection.quantity == "value"
    assert resolve(wish.with_changes(step=train), group).selection.quantity == "gradient"


def test_a_carried_state_has_its_roles(group: Group) -> None:
    wish = Selection(trial="healthy", step=0, iteration=1, node="memory")
    roles = dict(resolve(wish, group).roles)
    assert set(roles.values()) == {"initial", "new", "new (previous iteration)"}
    first = resolve(wish.with_changes(iteration=0, role="initial"), group, changed="iteration")
    assert first.selection.role == "initial"


def test_an_unknown_trial_is_replaced_and_named(group: Group) -> None:
    resolved = resolve(Selection(trial="nowhere"), group)
    assert resolved.selection.trial in group.names
    assert "nowhere" in resolved.notice


def test_a_node_of_no_step_is_said_not_to_be_recorded(group: Group) -> None:
    resolved = resolve(Selection(trial="healthy", node="nobody"), group)
    assert not resolved.recorded and resolved.nearby == ()


wishes = st.builds(
    Selection,
    trial=st.sampled_from(["healthy", "sick", "", "other"]),
    compare=st.sampled_from(["healthy", "sick", "", "other"]),
    kind=st.sampled_from(["", "train", "long", "validation", "none"]),
    step=st.none() | st.integers(-5, 400),
    iteration=st.none() | st.integers(-2, 9),
    node=st.sampled_from(["", "memory", "model.head", "loss", "model.head.weight", "nobody"]),
    role=st.sampled_from(["", "initial", "new", "output"]),
    lag=st.integers(0, 2),
    quantity=st.sampled_from(["value", "gradient", "update", "exp_avg", "nonsense"]),
    sample=st.sampled_from(["all", "batch_mean", "sample:0", "sample:99", "nonsense"]),
    follow=st.booleans(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wish=wishes, changed=st.sampled_from(["", "step", "iteration", "node", "kind"]))
def test_what_is_shown_is_always_among_what_is_offered(group: Group, wish: Selection, changed: str) -> None:
    resolved = resolve(wish, group, changed=changed)
    selection = resolved.selection
    trial = group[selection.trial]
    assert selection.step in trial.steps
    assert selection.iteration in resolved.iterations
    assert selection.quantity in resolved.quantities or not resolved.recorded
    assert selection.sample in dict(resolved.samples) or not resolved.recorded
    if resolved.recorded:
        assert any(tensor.node == selection.node for tensor in trial.step(selection.step or 0).layout.tensors)
