"""A selection survives the address bar and the browser's store, and nonsense does no harm."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stepscope.viewer.selection import VIEWS, Selection, from_json, from_query, to_json, to_query

names = st.text(min_size=1, max_size=12).filter(lambda text: max(text) < "\ud800" or max(text) > "\udfff")
selections = st.builds(
    Selection,
    trial=names,
    compare=names,
    view=st.sampled_from(VIEWS),
    kind=names,
    step=st.none() | st.integers(0, 2**40),
    iteration=st.none() | st.integers(0, 1000),
    node=names,
    role=names,
    lag=st.integers(0, 9),
    opened=st.none() | st.lists(names, max_size=3).map(tuple),
    pinned=st.lists(names, max_size=3).map(tuple),
    log=st.none() | st.booleans(),
    follow=st.booleans(),
)


@given(selections)
def test_the_address_keeps_everything(selection: Selection) -> None:
    assert from_query("?" + to_query(selection)) == selection


@given(selections)
def test_the_store_keeps_everything(selection: Selection) -> None:
    assert from_json(to_json(selection)) == selection


def test_a_fresh_selection_has_an_empty_address() -> None:
    assert to_query(Selection()) == ""
    assert from_query("") == from_json(None) == Selection()


junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text())


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Selection)]), junk))
def test_nonsense_becomes_a_selection(data: dict[str, Any]) -> None:
    selection = from_json(data)
    assert selection.view in VIEWS
    assert selection.step is None or isinstance(selection.step, int)
    assert isinstance(selection.node, str)
    to_query(selection)
