"""Candles, the comparison of what they say, and the flat ones that stand for outages."""

from __future__ import annotations

import msgspec
import pytest

from candlesync.core.candle import LAST_TIME, Series, fill_after, same_values
from candlesync.core.interval import INTERVALS, Interval
from tests.builders import candle, flat, minute


def test_a_fill_is_flat_at_the_close_before_it() -> None:
    before = candle(minute(0), "28079.99000000")
    assert fill_after(before, minute(1), minute(2)) == flat(minute(1), "28079.99000000")


def test_a_fill_has_the_decimals_of_what_stands_before_it() -> None:
    before = candle(volume="3", quote_volume="1.5", taker_base_volume="0.123456789", taker_quote_volume="12.00")
    fill = fill_after(before, minute(1), minute(2))
    volumes = (fill.volume, fill.quote_volume, fill.taker_base_volume, fill.taker_quote_volume)
    assert volumes == ("0", "0.0", "0.000000000", "0.00")


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_a_fill_ends_where_the_next_candle_opens(interval: Interval) -> None:
    start = interval.floor(minute(0))
    fill = fill_after(candle(start, interval=interval), interval.next(start), interval.next(start, 2))
    assert (fill.open_time, fill.close_time + 1) == (interval.next(start), interval.next(start, 2))


def test_a_fill_of_a_fill_is_the_same_but_for_its_time() -> None:
    first = fill_after(candle(minute(0)), minute(1), minute(2))
    second = fill_after(first, minute(2), minute(3))
    assert second == msgspec.structs.replace(first, open_time=minute(2), close_time=minute(3) - 1)


@pytest.mark.parametrize("field", [field for field in candle().__struct_fields__ if field != "unused"])
def test_each_field_but_the_unused_one_counts(field: str) -> None:
    one = candle()
    value = getattr(one, field)
    changed = msgspec.structs.replace(one, **{field: value + "1" if isinstance(value, str) else value + 1})
    assert not same_values(one, changed)


def test_the_unused_field_does_not_count() -> None:
    assert same_values(candle(unused="0"), candle(unused="7887.63551305"))


def test_a_series_is_a_key_and_has_a_name() -> None:
    assert str(Series("BTCUSDT", Interval.MO1)) == "BTCUSDT 1M"
    assert {Series("BTCUSDT", Interval.M1): 1}[Series("BTCUSDT", Interval("1m"))] == 1
    assert Series("BTCUSDT", Interval.M1) != Series("BTCUSDT", Interval.MO1)


def test_times_are_such_as_thirteen_or_fourteen_digits_write() -> None:
    assert int("9" * 14) + 1 == LAST_TIME
