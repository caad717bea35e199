from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from candlesync.core.interval import DAY, HOUR, MINUTE, Interval
from candlesync.simulator.bars import ONE, Bar, aggregate
from candlesync.simulator.symbols import DEFAULT_SYMBOLS, symbol_spec
from candlesync.simulator.walk import Profile, Walk, split
from tests.simulator.support import START


def walk(name: str = "BTCUSDT", *, seed: int = 1, minutes: int = 10 * 24 * 60) -> Walk:
    return Walk(f"{seed}/{name}", symbol_spec(name).profile, START - minutes * MINUTE)


def check(bar: Bar, profile: Profile) -> None:
    assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
    assert all(price % profile.tick == 0 for price in (bar.open, bar.high, bar.low, bar.close))
    assert bar.volume % profile.lot == bar.taker_volume % profile.lot == 0
    assert 0 <= bar.taker_volume <= bar.volume
    assert 0 <= bar.taker_quote_volume <= bar.quote_volume
    assert (bar.trades == 0) is (bar.volume == 0) is (bar.first_trade == -1)


def test_each_level_is_made_of_the_next_in_every_field() -> None:
    for spec in DEFAULT_SYMBOLS:
        source = walk(spec.name, minutes=3 * 24 * 60)
        for level, children, span in ((Interval.D1, Interval.H1, DAY), (Interval.H1, Interval.M1, HOUR)):
            for bar in source.bars(level, START - 5 * HOUR, START + DAY):
                parts = source.bars(children, bar.open_time, bar.open_time + span)
                assert aggregate(parts, bar.open_time, bar.close_time) == bar
                for part in parts:
                    check(part, spec.profile)


def test_candles_and_trade_ids_follow_each_other() -> None:
    minutes = walk("QUIETBTC").bars(Interval.M1, START - DAY, START + DAY)
    assert [bar.open_time for bar in minutes] == list(range(START - DAY, START + DAY, MINUTE))
    assert all(before.close == after.open for before, after in pairwise(minutes))
    traded = [bar for bar in minutes if bar.trades]
    assert 10 < len(traded) < 500
    assert all(before.first_trade + before.trades == after.first_trade for before, after in pairwise(traded))


def test_the_order_of_asking_does_not_matter() -> None:
    one, other = walk(), walk()
    late_first = one.bars(Interval.M1, START + DAY, START + DAY + HOUR)
    early = one.bars(Interval.M1, START - DAY, START)
    assert other.bars(Interval.M1, START - DAY, START) == early
    assert other.bars(Interval.M1, START + DAY, START + DAY + HOUR) == late_first


def test_seeds_and_symbols_differ() -> None:
    span = START, START + HOUR
    assert walk(seed=1).bars(Interval.M1, *span) != walk(seed=2).bars(Interval.M1, *span)
    assert walk("ETHUSDT").bars(Interval.M1, *span) != walk("ETHBTC").bars(Interval.M1, *span)


def test_any_name_is_a_market() -> None:
    assert symbol_spec("WHATUSDT") == symbol_spec("WHATUSDT")
    assert symbol_spec("WHATUSDT").profile != symbol_spec("EVERUSDT").profile
    assert len(walk("WHATUSDT").bars(Interval.M1, START, START + HOUR)) == 60


def test_before_its_listing_there_is_nothing() -> None:
    source = walk("YOUNGUSDT", minutes=700)
    minutes = source.bars(Interval.M1, 0, START)
    assert len(minutes) == 700
    assert minutes[0].open_time == START - 700 * MINUTE
    hours = source.bars(Interval.H1, 0, START)
    assert hours[0].open_time == Interval.H1.floor(START - 700 * MINUTE)
    assert aggregate(minutes, hours[0].open_time, START - 1) == aggregate(hours, hours[0].open_time, START - 1)


@settings(max_examples=60, deadline=None)
@given(
    trades=st.integers(4, 5000),
    lots=st.integers(0, 10**6),
    prices=st.lists(st.integers(1, 10**5), min_size=4, max_size=4).map(sorted),
    upward=st.booleans(),
    children=st.sampled_from([1, 2, 24, 60]),
    seed=st.integers(0, 1000),
)
def test_any_candle_can_be_split(
    *, trades: int, lots: int, prices: list[int], upward: bool, children: int, seed: int
) -> None:
    profile = Profile(price=ONE, tick=100, lot=1000, day_volume=1, day_trades=1)
    low, one, other, high = (price * profile.tick for price in prices)
    open_, close = (one, other) if upward else (other, one)
    volume = (trades + lots) * profile.lot
    quote = volume * (low + high + open_ + close) // (4 * ONE)
    parent = Bar(0, 60 * children - 1, open_, high, low, close, volume, quote, trades, volume, quote, 7)
    parts = split(parent, range(0, 60 * children, 60), profile, Random(seed))
    assert aggregate(parts, 0, parent.close_time) == parent
    for part in parts:
        check(part, profile)
