"""How files become parts: every byte is in exactly one, few are small, and no byte travels often."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stepscope.store.remote import parts
from stepscope.store.remote.manifest import RemoteFile
from stepscope.store.remote.parts import new_ends

growth = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@pytest.fixture(autouse=True, scope="module")
def _small() -> object:
    before, parts.LARGEST = parts.LARGEST, 1000
    yield
    parts.LARGEST = before


@given(growth)
def test_parts_cover_the_file_and_are_few(steps: list[int]) -> None:
    ends: tuple[int, ...] = ()
    size = uploaded = 0
    for step in steps:
        size += step
        kept, added = new_ends(ends, size)
        uploaded += size - (ends[kept - 1] if kept else 0)
        ends = (*ends[:kept], *added)
        made = RemoteFile(1, ends).parts("steps.stepscope")
        assert [part.start for part in made] == [0, *ends[:-1]]
        assert ends[-1] == size == made[-1].end
        assert all(0 < part.end - part.start <= parts.LARGEST for part in made)
    assert len(ends) <= 2 * size / parts.LARGEST + 12
    assert uploaded <= size * 12


def test_one_large_addition_is_cut() -> None:
    assert new_ends((), 2500) == (0, (1000, 2000, 2500))
    assert new_ends((1000, 2000, 2500), 2600) == (3, (2600,))
    assert new_ends((1000, 2000, 2500, 2600), 2700) == (3, (2700,))
    assert new_ends((1000, 2000, 2500, 2700), 3000) == (2, (3000,))
