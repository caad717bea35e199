from __future__ import annotations

import time
from itertools import pairwise

import pytest

from candlesync.core.interval import DAY, HOUR, INTERVALS, MINUTE, Interval
from candlesync.simulator.bars import aggregate, bar_of, tiles
from candlesync.simulator.market import Market
from candlesync.simulator.series import Series
from candlesync.simulator.settings import SimulatorSettings
from tests.simulator.support import START

NOW = START + 5 * HOUR + 7 * MINUTE + 12_345
LONGER = [interval for interval in INTERVALS if tiles(Interval.M1, interval)]


def market() -> Market:
    return Market(SimulatorSettings())


def series(interval: Interval) -> Series:
    return market().series("BTCUSDT", interval)


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_open_times_follow_the_calendar(interval: Interval) -> None:
    page = series(interval).page(None, None, 300, now=NOW)
    times = [kline.row.open_time for kline in page]
    assert times[-1] == interval.floor(NOW)
    assert all(interval.next(one) == other for one, other in pairwise(times))
    assert all(interval.is_open_time(time) for time in times)
    assert [kline.closed for kline in page] == [True] * (len(page) - 1) + [False]


@pytest.mark.parametrize("interval", LONGER, ids=str)
def test_minutes_make_up_every_longer_candle(interval: Interval) -> None:
    this = market()
    minutes = this.series("ETHUSDT", Interval.M1)
    for kline in this.series("ETHUSDT", interval).page(None, None, 2, now=NOW):
        row = kline.row
        parts = minutes.page(row.open_time, min(row.close_time, NOW), 60 * 24 * 31, now=NOW)
        whole = [bar_of(part.row, part.first_trade) for part in parts]
        assert aggregate(whole, row.open_time, row.close_time) == bar_of(row, kline.first_trade)


def test_seconds_make_up_the_minutes() -> None:
    this = market()
    for minute in this.series("QUIETBTC", Interval.M1).finals(START, START + HOUR):
        seconds = this.series("QUIETBTC", Interval.S1).finals(minute.row.open_time, minute.row.open_time + MINUTE)
        assert len(seconds) == 60
        parts = [bar_of(second.row, second.first_trade) for second in seconds]
        assert aggregate(parts, minute.row.open_time, minute.row.close_time) == bar_of(minute.row, minute.first_trade)


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_a_candle_grows_and_a_late_observer_sees_the_same(interval: Interval) -> None:
    this, late = series(interval), series(interval)
    moments = [NOW + step * 400 for step in range(200)]
    seen = [this.current(now) for now in moments]
    assert [late.current(now) for now in reversed(moments)] == seen[::-1]
    for before, after in pairwise(seen):
        assert before is not None
        assert after is not None
        if before.row.open_time < after.row.open_time:
            continue
        one, other = bar_of(before.row, before.first_trade), bar_of(after.row, after.first_trade)
        assert (one.open, one.close_time) == (other.open, other.close_time)
        assert one.trades <= other.trades
        assert one.volume <= other.volume
        assert one.high <= other.high
        assert one.low >= other.low


def test_the_last_moment_of_a_candle_is_its_final_state() -> None:
    for interval in (Interval.S1, Interval.M1, Interval.M15, Interval.D1):
        this = series(interval)
        final = this.final(interval.floor(NOW))
        assert final is not None
        last = this.current(final.row.close_time)
        assert last is not None
        assert not last.closed
        assert last.row == final.row
        assert this.final(interval.floor(NOW) + 1) is None


def test_pages_are_those_of_the_rest_api() -> None:
    this = series(Interval.M1)

    def opens(start: int | None, end: int | None, limit: int, without: tuple[int, ...] = ()) -> list[int]:
        page = this.page(start, end, limit, now=NOW, without=without)
        return [(kline.row.open_time - START) // MINUTE for kline in page]

    assert opens(None, None, 3) == [305, 306, 307]
    assert opens(START, None, 3) == [0, 1, 2]
    assert opens(START + 1, None, 2) == [1, 2]
    assert opens(None, START + 10 * MINUTE, 3) == [8, 9, 10]
    assert opens(None, START + 10 * MINUTE - 1, 3) == [7, 8, 9]
    assert opens(START, START + MINUTE, 500) == [0, 1]
    assert opens(START, START + 10 * MINUTE, 3) == [0, 1, 2]
    assert opens(NOW + MINUTE, None, 5) == []
    assert opens(START, START - 1, 5) == []
    assert opens(START, None, 3, (START + MINUTE,)) == [0, 2, 3]
    assert opens(None, None, 3, (START + 306 * MINUTE,)) == [304, 305, 307]


def test_a_young_listing_has_few_candles() -> None:
    this = market()
    assert len(this.series("YOUNGUSDT", Interval.M1).page(None, None, 1000, now=START - 1)) == 700
    assert len(this.series("YOUNGUSDT", Interval.M1).page(0, None, 1000, now=START - 1)) == 700
    assert len(this.series("YOUNGUSDT", Interval.H1).page(0, None, 1000, now=START - 1)) == 12
    assert len(this.series("YOUNGUSDT", Interval.S1).page(0, None, 60, now=START - 1)) == 60
    assert this.series("YOUNGUSDT", Interval.M1).current(START - DAY) is None


@pytest.mark.parametrize("interval", LONGER, ids=str)
def test_the_first_candle_is_found_from_both_sides(interval: Interval) -> None:
    this = market().series("YOUNGUSDT", interval)
    forward, backward = this.page(0, None, 50_000, now=START - 1), this.page(None, None, 50_000, now=START - 1)
    assert forward == backward == this.finals(this.first, START)[: len(forward) - 1] + forward[-1:]
    assert forward[0].row.open_time == interval.floor(START - 700 * MINUTE)
    assert sum(kline.row.trades for kline in forward) == sum(
        kline.row.trades for kline in market().series("YOUNGUSDT", Interval.M1).page(0, None, 1000, now=START - 1)
    )


def test_two_symbols_are_ready_in_well_under_two_seconds() -> None:
    begin = time.process_time()
    this = market()
    for symbol in ("BTCUSDT", "ETHUSDT"):
        for interval in INTERVALS:
            this.series(symbol, interval).page(None, None, 1000, now=NOW)
    assert time.process_time() - begin < 10.0, "two seconds, and more where coverage is measured"
