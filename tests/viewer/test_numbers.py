"""How numbers are written, and how curves are thinned."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepscope.viewer.numbers import ago, duration, short, size
from stepscope.viewer.sampling import min_max


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "0.5"), (-0.5, "−0.5"), (1234.567, "1235"), (12345.6, "12346"), (1e-4, "1e-4"),
     (1.23456e-7, "1.235e-7"), (-3.5e9, "−3.5e9"), (math.inf, "∞"), (-math.inf, "−∞"),
     (math.nan, "NaN"), (None, "NaN")],
)  # fmt: skip
def test_four_digits(value: float | None, text: str) -> None:
    assert short(value) == text


@given(st.floats(-1e300, 1e300))
def test_what_is_written_is_near_the_number(value: float) -> None:
    assert float(short(value).replace("−", "-")) == pytest.approx(value, rel=1e-3, abs=1e-300)


def test_spans_and_sizes() -> None:
    assert (size(0), size(2048), size(5 * 2**20)) == ("0 B", "2.0 kB", "5.0 MB")
    assert (ago(3), ago(200), ago(100_000)) == ("3 s ago", "3 min ago", "1 d ago")
    assert (duration(61), duration(4000)) == ("1 min 1 s", "1 h 6 min")


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_loses_no_extreme(values: list[float], points: int) -> None:
    steps = np.arange(len(values), dtype=np.int64)
    array = np.array(values)
    kept_steps, kept = min_max(steps, array, points)
    assert len(kept) <= max(points + 2, len(values) if len(values) <= points else 0)
    assert (np.diff(kept_steps) > 0).all()
    finite = array[np.isfinite(array)]
    if len(finite):
        assert np.nanmax(kept) == finite.max() and np.nanmin(kept) == finite.min()
