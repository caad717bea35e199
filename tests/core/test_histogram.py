from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.histogram import LENGTHS, MOMENTS, SPELLS, Histogram


@given(st.lists(st.floats(-1, 1e6)))
def test_each_bound_counts_what_does_not_exceed_it(values: list[float]) -> None:
    histogram = Histogram(MOMENTS)
    for value in values:
        histogram.observe(value)
    assert list(histogram.cumulative()) == [
        (bound, sum(value <= bound for value in values)) for bound in (*MOMENTS, inf)
    ]
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))


@pytest.mark.parametrize("bounds", [MOMENTS, SPELLS, LENGTHS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
