"""Pages of history: their places on the grid, and what stands in them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.candle import Candle
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.page import LENGTH, ROWS, Page, assemble, page_before
from tests.builders import T0, candle, flat, minute

INTERVAL = st.sampled_from(INTERVALS)


@given(INTERVAL, st.integers(0, 2_000), st.integers(0, 700))
def test_pages_follow_each_other_without_gap_and_do_not_depend_on_the_question(
    interval: Interval, back: int, other: int
) -> None:
    joint = interval.floor(T0)
    if interval is Interval.MO1:
        back %= 600
    end = interval.next(joint, -back)
    page = page_before(interval, end, joint)
    assert page.first < end <= page.end
    assert interval.steps(page.first, page.end) == LENGTH
    assert interval.steps(page.first, joint) is not None, "it begins with an open time"
    assert page_before(interval, page.end, joint) == page
    assert page_before(interval, interval.next(page.first), interval.next(joint, other)) == page
    if interval is not Interval.MO1:
        assert page_before(interval, page.first, joint).end == page.first


def test_a_page_and_its_two_neighbours_fit_into_one_answer_of_binance() -> None:
    assert LENGTH + 2 == ROWS == 1000


def test_three_days_have_the_phase_of_the_series() -> None:
    joint = T0 // 86_400_000 * 86_400_000
    for shift in range(3):
        day = joint + shift * 86_400_000
        assert (page_before(Interval.D3, day, day).first - day) % (3 * 86_400_000) == 0


PAGE = Page(minute(0), minute(10))


def shown(rows: Sequence[Candle], page: Page = PAGE) -> list[tuple[int, bool]]:
    return [((made.open_time - T0) // 60_000, made.filled) for made in assemble(Interval.M1, page, rows, minute(1000))]


def test_rows_of_the_page_are_closed_and_what_they_lack_is_filled() -> None:
    rows = [candle(minute(number)) for number in (-1, 0, 1, 4, 5, 6, 7, 8, 9)] + [candle(minute(10), closed=False)]
    rows[8] = msgspec.structs.replace(rows[8], closed=False)
    made = assemble(Interval.M1, PAGE, rows, minute(1000))
    assert [one.open_time for one in made] == [minute(number) for number in range(10)]
    assert all(one.closed for one in made)
    assert [one for one in made if one.filled] == [flat(minute(2)), flat(minute(3))]


def test_an_outage_at_an_end_of_the_page_is_filled_as_far_as_the_page_goes() -> None:
    before, after = [candle(minute(-5))], [candle(minute(15))]
    everything = [(number, True) for number in range(10)]
    assert shown(before + after) == everything
    assert shown([*before, candle(minute(3)), *after]) == [(number, number != 3) for number in range(10)]
    assert shown([candle(minute(4)), *after]) == [(number, number != 4) for number in range(4, 10)], "a listing"
    assert shown([candle(minute(-3)), candle(minute(0)), candle(minute(10))])[0] == (0, False)


def test_rows_off_the_grid_are_left_out() -> None:
    rows = [candle(minute(0)), candle(minute(1) + 1_000), candle(minute(2)), candle(minute(10))]
    assert shown(rows)[:3] == [(0, False), (1, True), (2, False)]


@given(st.sets(st.integers(-20, 30)))
def test_a_page_is_continuous_whatever_is_missing(numbers: set[int]) -> None:
    rows = [candle(minute(number)) for number in sorted(numbers)]
    made = shown(rows)
    there = [number for number, _ in made]
    assert there == list(range(there[0], there[-1] + 1)) if there else True
    assert {number for number, filled in made if not filled} == numbers & set(range(10))
    if rows and min(numbers) <= 0 and max(numbers) >= 10:
        assert there == list(range(10))
