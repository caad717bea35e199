"""Gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.gap import Gap, gap_between
from candlesync.core.interval import INTERVALS, MINUTE, Interval
from tests.builders import T0, minute


@given(st.sampled_from(INTERVALS), st.integers(min_value=1, max_value=400))
def test_a_gap_is_what_lies_between(interval: Interval, steps: int) -> None:
    before = interval.floor(T0)
    after = interval.next(before, steps)
    gap = gap_between(interval, before, after)
    expected = [interval.next(before, step) for step in range(1, steps)]
    if gap is None:
        assert steps == 1
    else:
        assert list(gap.open_times(interval)) == expected
        assert gap.count(interval) == len(expected)
        assert all(time in gap for time in expected)
        assert before not in gap
        assert after not in gap


def test_neighbours_have_no_gap_between_them() -> None:
    assert gap_between(Interval.M1, minute(0), minute(1)) is None
    assert gap_between(Interval.M1, minute(0), minute(2)) == Gap(minute(1), minute(1))


def test_a_year_costs_what_a_minute_does() -> None:
    year = Gap(minute(0), minute(525_599))
    assert year.count(Interval.M1) == 525_600
    times = year.open_times(Interval.M1)
    assert [next(times), next(times)] == [minute(0), minute(1)]


def test_a_gap_off_the_grid_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="not on one 1m grid"):
        Gap(minute(0), minute(0) + MINUTE // 2).count(Interval.M1)
