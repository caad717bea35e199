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


def test_bounds_stay_as_they_are() -> None:
    """They are labels of the metrics, by which rules and dashboards may ask for a bucket."""
    assert MOMENTS[-6:] == (0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
    assert SPELLS[:7] == (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
    assert SPELLS[7:] == (2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
    assert LENGTHS == (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 1000.0)
    assert [round(moment * 1e6) for moment in MOMENTS[:-5]] == [
        *(20, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000),
    ]
