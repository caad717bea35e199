from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.interval import INTERVALS, Interval
from candlesync.simulator.bars import Bar, Kline, aggregate, bar_of, decimal_text, flat, parse_decimal, row_of, tiles

TRADED = Bar(60_000, 119_999, 5, 9, 4, 8, 100, 700, 3, 60, 400, 41)
LATER = Bar(120_000, 179_999, 8, 12, 7, 7, 50, 400, 2, 10, 90, 44)


@given(st.integers(min_value=0, max_value=10**18))
def test_a_number_survives_its_text(value: int) -> None:
    assert parse_decimal(decimal_text(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.00000001", 1), ("28080.00000000", 2808 * 10**9), ("7", 7 * 10**8), ("0.1", 10**7), ("1.000000005", 10**8)],
)
def test_decimal_texts(text: str, value: int) -> None:
    assert parse_decimal(text) == value


@pytest.mark.parametrize("text", ["", "1e5", "-1", "1.2.3", "NaN", "1.x"])
def test_what_is_not_a_plain_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        parse_decimal(text)


def test_a_row_is_the_bar_in_twelve_fields() -> None:
    row = row_of(TRADED)
    assert len(row) == 12
    assert bar_of(row, 41) == TRADED
    assert Kline(row, 41, closed=True).last_trade == 43
    assert Kline(row_of(flat(0, 59_999, 5)), -1, closed=True).last_trade == -1


def test_aggregation_adds_up() -> None:
    assert aggregate([TRADED, LATER], 60_000, 179_999) == Bar(60_000, 179_999, 5, 12, 4, 7, 150, 1100, 5, 70, 490, 41)


def test_parts_without_trades_count_only_when_there_are_no_others() -> None:
    empty = flat(0, 59_999, 99)
    assert aggregate([empty, TRADED], 0, 119_999).high == 9
    assert aggregate([empty, empty], 0, 119_999) == flat(0, 119_999, 99)


def test_which_intervals_tile_which() -> None:
    assert all(tiles(interval, interval) for interval in INTERVALS)
    assert tiles(Interval.D1, Interval.MO1)
    assert tiles(Interval.H8, Interval.W1)
    assert not tiles(Interval.M3, Interval.M5)
    assert not tiles(Interval.D3, Interval.W1)
    assert not tiles(Interval.H1, Interval.M1)
