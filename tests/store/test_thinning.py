"""Which steps lose detail: raw values before the statistics of neurons, and what is kept is sparser the older it is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stepscope.store.left_out import Thinning
from stepscope.store.thinning import Kept, Plan, may_go, thin_out


def steps(count: int, *, kind: str = "train", raw: int = 10, neurons: int = 5) -> list[Kept]:
    return [Kept(10 * i, kind, 0, i, raw, neurons) for i in range(count)]


def kept_raw(count: int, plan: Plan) -> list[int]:
    return [i for i in range(count) if plan.get((0, i), Thinning.NOTHING) == Thinning.NOTHING]


def test_nothing_goes_if_nothing_is_needed() -> None:
    assert thin_out(steps(10), 0) == ({}, 0)


def test_old_steps_become_sparse() -> None:
    plan, freed = thin_out(steps(100), 850)
    kept = kept_raw(100, plan)
    assert freed >= 850 and kept[0] == 0 and kept[-1] == 99
    gaps = [after - before for before, after in pairwise(kept)]
    assert max(gaps[:4]) > 2 * max(gaps[-4:])  # older ones are further apart
    assert len(kept) > 5


def test_statistics_of_neurons_outlive_raw_values() -> None:
    plan, _ = thin_out(steps(100), 1000)
    assert set(plan.values()) == {Thinning.RAW, Thinning.NEURONS}
    only_raw = sum(level == Thinning.RAW for level in plan.values())
    assert 2 * len(kept_raw(100, plan)) < only_raw + len(kept_raw(100, plan))


def test_the_first_the_last_and_noted_steps_keep_everything() -> None:
    plan, freed = thin_out(steps(50), 10**9, noted=[250])
    assert kept_raw(50, plan) == [0, 25, 49]
    assert set(plan.values()) == {Thinning.NEURONS}
    assert freed == may_go(steps(50), [250]) == 47 * 15


def test_each_kind_for_itself() -> None:
    rare = [Kept(5000 + i, "rare", 1, i, 10, 5) for i in range(3)]
    plan, _ = thin_out([*steps(50), *rare], 400)
    assert (1, 0) not in plan and (1, 2) not in plan


def test_steps_without_any_detail() -> None:
    assert thin_out(steps(5, raw=0, neurons=0), 100) == ({}, 0)
    assert thin_out([], 100) == ({}, 0)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 50), st.integers(0, 50)), max_size=40),
    st.integers(0, 2000),
)
def test_what_is_freed_is_what_was_asked_for_if_there_is_that_much(
    found: list[tuple[int, int, int]], needed: int
) -> None:
    own = [Kept(number, "train", 0, i, raw, neurons) for i, (number, raw, neurons) in enumerate(found)]
    plan, freed = thin_out(own, needed)
    sizes = {step.place: step for step in own}
    gone = sum(
        sizes[place].raw + (sizes[place].neurons if level == Thinning.NEURONS else 0) for place, level in plan.items()
    )
    assert gone == freed
    assert freed >= min(needed, may_go(own))
    assert freed - 50 < needed or not needed
