"""What is written with the help of other rows comes back bit by bit, whatever the numbers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from stepscope.store.coding_choice import CodedPart, code_part
from stepscope.store.codings import CHOICE, COPY, DIFFERENCE, PLAIN, differences, from_choices, from_differences
from stepscope.store.decoding import decode
from stepscope.store.detail_table import STATISTICS
from stepscope.store.errors import DamagedError
from stepscope.store.multiples import Scales
from stepscope.store.records import TensorInfo
from stepscope.store.streams import CHOICES_OF, DIFFERENCES_OF, no_codings

ODD = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 1.0, -1.0, 3.4e38)
ODD_WORDS = (0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FABCDEF, *np.array(ODD, np.float32).view(np.uint32).tolist())

words = st.one_of(st.sampled_from(ODD_WORDS), st.integers(0, 2**32 - 1))


def _row(quantity: str = "value", iteration: int = 0, node: str = "model", type: str = "calculated") -> TensorInfo:
    return TensorInfo(node, "output", iteration, quantity, type, "float32", "cpu", 0)  # type: ignore[arg-type]


def _decoded(coded: CodedPart, scales: Scales) -> list[bytes]:
    """All rows, as a reader gets them."""
    streams = {
        STATISTICS: dict(enumerate(coded.numbers)),
        DIFFERENCES_OF[STATISTICS]: coded.differences,
        CHOICES_OF[STATISTICS]: coded.choices,
    }
    codings = no_codings(len(coded.coding))
    distance = np.arange(len(coded.coding)) - coded.reference
    codings[STATISTICS] = np.stack([coded.coding, distance, coded.literals])
    return [
        decode(STATISTICS, row, codings, scales.values, lambda stream, own: streams[stream][own].tobytes())
        for row in range(len(coded.coding))
    ]


def _assert_comes_back(tensors: list[TensorInfo], pieces: list[NDArray[np.float32]]) -> CodedPart:
    scales = Scales()
    coded = code_part(tensors, pieces, scales)
    assert _decoded(coded, scales) == [piece.tobytes() for piece in pieces]
    return coded


@given(own=arrays.arrays(np.uint32, st.integers(0, 20), elements=words), seed=st.integers(0, 9))
def test_differences_of_any_words(own: NDArray[np.uint32], seed: int) -> None:
    reference = np.random.default_rng(seed).permutation(own)
    found = differences(own, reference)
    assert from_differences(found, reference).tobytes() == own.tobytes()
    assert not differences(own, own).any()


def test_differences_count_the_floats_between() -> None:
    ends = np.array([1.0, np.nextafter(np.float32(1), np.float32(2)), -1e-45, 0.0], np.float32).view(np.uint32)
    assert differences(ends[[0, 1, 0, 3]], ends[[0, 0, 1, 2]]).tolist() == [0, 2, 1, 4]


def test_choices_mean_what_the_format_says() -> None:
    reference = np.array([2, 2, 2, 2, np.nan], np.float32).view(np.uint32)
    literals = np.array([7], np.float32).view(np.uint32)
    found = from_choices(np.array([0, 1, 2, 3, 4], np.uint8), literals, reference, [np.float32(0.5), np.float32(1)])
    assert found.view(np.float32)[:4].tolist() == [7, 0, 0, 1] and np.isnan(found.view(np.float32)[4])
    assert found.tolist()[1:3] == [0, 1 << 31]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_rows(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 24))
    base = data.draw(arrays.arrays(np.uint32, size, elements=words)).view(np.float32)
    tensors, pieces = [], []
    for _ in range(data.draw(st.integers(0, 8))):
        quantity = data.draw(st.sampled_from(["value", "gradient"]))
        tensors.append(_row(quantity, data.draw(st.integers(-1, 3)), data.draw(st.sampled_from("ab"))))
        with np.errstate(all="ignore"):
            scaled = np.where(base > 0, base, base * data.draw(st.sampled_from(np.float32([0, -0.0, 0.01, 1, 3]))))
            near = base + np.float32(1e-6) * base
        other = data.draw(arrays.arrays(np.uint32, size, elements=words)).view(np.float32)
        pieces.append(np.array([base, scaled, near, other][data.draw(st.integers(0, 3))], np.float32))
    _assert_comes_back(tensors, pieces)


def test_what_an_activation_made_is_a_multiple() -> None:
    before = np.random.default_rng(0).normal(size=200).astype(np.float32)
    for slope in (0.0, 0.01):
        behind = np.where(before > 0, before, before * np.float32(slope)) + np.float32(0)
        coded = _assert_comes_back([_row(node="linear"), _row(node="activation")], [before, behind])
        assert coded.coding.tolist() == [PLAIN, CHOICE] and coded.literals.tolist() == [0, 0]


def test_gradients_are_multiples_of_those_behind_them() -> None:
    behind = np.random.default_rng(0).normal(size=200).astype(np.float32)
    before = behind * np.where(np.arange(200) % 3 > 0, np.float32(1), np.float32(0.01))
    coded = _assert_comes_back([_row("gradient", node="linear"), _row("gradient", node="activation")], [before, behind])
    assert coded.coding.tolist() == [CHOICE, PLAIN] and coded.literals.tolist() == [0, 0]


def test_equal_rows_are_stored_once() -> None:
    numbers = np.random.default_rng(0).normal(size=50).astype(np.float32)
    coded = _assert_comes_back([_row(node=node) for node in "abc"], [numbers, numbers + 1, numbers.copy()])
    assert coded.coding.tolist() == [PLAIN, PLAIN, COPY] and coded.reference.tolist() == [0, 1, 0]


def test_iterations_are_differences_and_one_in_eight_is_not() -> None:
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=50).astype(np.float32)
    pieces = [numbers * np.float32(1 + 1e-3 * generator.normal()) for _ in range(20)]
    coded = _assert_comes_back([_row(iteration=i) for i in range(20)], pieces)
    assert np.flatnonzero(coded.coding == PLAIN).tolist() == [0, 8, 16]
    assert set(coded.coding.tolist()) == {PLAIN, DIFFERENCE}


def test_a_long_row_of_activations_does_not_become_a_long_chain() -> None:
    numbers = np.random.default_rng(0).normal(size=200).astype(np.float32)
    pieces = [numbers * np.float32(2**-i) for i in range(60)]
    coded = _assert_comes_back([_row(node=f"scale {i}") for i in range(60)], pieces)
    assert PLAIN in coded.coding[20:]


def test_numbers_of_other_widths_are_copied_at_most() -> None:
    wide = np.arange(20, dtype=np.float64)
    narrow = np.frombuffer(np.random.default_rng(0).bytes(160), np.float64).view(np.float32)
    coded = _assert_comes_back([_row(node=node) for node in "abc"], [wide, narrow, wide.copy()])  # type: ignore[list-item]
    assert coded.coding.tolist() == [PLAIN, PLAIN, COPY] and coded.reference.tolist() == [0, 1, 0]


@pytest.mark.parametrize("distance", [1, -1, 5])
def test_a_reference_that_leads_nowhere_is_damage(distance: int) -> None:
    codings = no_codings(2)
    codings[STATISTICS, 0] = COPY
    codings[STATISTICS, 1] = distance, -distance
    with pytest.raises(DamagedError, match="refers to"):
        decode(STATISTICS, 0, codings, [], lambda stream, row: b"")


def test_a_coding_that_is_not_known_is_damage() -> None:
    codings = no_codings(1)
    codings[STATISTICS, 0] = 9
    with pytest.raises(DamagedError, match="not known"):
        decode(STATISTICS, 0, codings, [], lambda stream, row: b"")
