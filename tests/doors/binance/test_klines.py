"""The rows of klines: a range over the replica and what lies before it is what one list of rows would say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.archive import Archive
from candlesync.core.candle import Candle, Series, fill_after
from candlesync.core.interval import MINUTE, Interval
from candlesync.core.replica import Commit
from candlesync.doors.binance.klines import rows_of
from candlesync.doors.binance.parameters import KlineQuestion
from candlesync.doors.binance.rows import NewestRows, rows_body
from candlesync.hub import Topic
from tests.builders import BTC, candle, minute, minutes
from tests.history import Exchange

FIRST, LAST = -2_500, 40
"""The minutes of the exchange; the store has the newest of them."""
HOLES = st.lists(st.tuples(st.integers(FIRST, LAST - 1), st.sampled_from([1, 2, 70, 1_400])), max_size=4)
OFF_GRID = st.sets(st.integers(FIRST, -200), max_size=3)
TIMES = st.none() | st.builds(
    lambda number, shift: minute(number) + shift,
    st.integers(FIRST - 5, LAST + 5),
    st.sampled_from([0, 0, 0, 1, -1, 31]),
)
LIMITS = st.sampled_from([1, 2, 40, 500, 1000])


def question(start: int | None = None, end: int | None = None, limit: int = 500) -> KlineQuestion:
    return KlineQuestion("BTCUSDT", Interval.M1, start, end, limit, is_utc=True)


def model(rows: Sequence[int], start: int | None, end: int | None, limit: int) -> list[int]:
    """Binance's rule for a list of open times."""
    found = [time for time in rows if (start is None or time >= start) and (end is None or time <= end)]
    return found[:limit] if start is not None else found[-limit:]


def stored(exchange: Exchange, history: int) -> Topic:
    """The newest minutes of an exchange in a store, outages filled."""
    topic = Topic(BTC, history)
    candles: list[Candle] = []
    there = set(exchange.times)
    for number in range(LAST - history + 1, LAST + 1):
        time = minute(number)
        if time in there:
            candles.append(candle(time, closed=number != LAST))
        elif candles:
            candles.append(fill_after(candles[-1], time, time + MINUTE))
    topic.publish(Commit("life0", 1, tuple(candles), begins=True))
    return topic


@settings(max_examples=150, deadline=None)
@given(
    HOLES,
    OFF_GRID,
    st.integers(2, 120),
    st.lists(st.tuples(TIMES, TIMES, LIMITS), min_size=1, max_size=4),
)
def test_a_range_is_what_one_list_of_rows_says(
    holes: list[tuple[int, int]],
    off_grid: set[int],
    history: int,
    asked: list[tuple[int | None, int | None, int]],
) -> None:
    missing = [first + number for first, length in holes for number in range(length) if first + number < LAST]
    exchange = Exchange(FIRST, LAST, missing=missing)
    exchange.times = sorted({*exchange.times, *(minute(number) + 14_789 for number in off_grid)})

    async def main() -> None:
        archive = Archive(exchange)
        topic = stored(exchange, history)
        async with trio.open_nursery() as nursery:
            await nursery.start(archive.run)
            for start, end, limit in asked:
                rows = await rows_of(topic, question(start, end, limit), archive)
                assert [row.open_time for row in rows] == model(exchange.times, start, end, limit)
                assert not any(row.candle.filled for row in rows)
                # Only the newest row of all may be forming.
                assert [row.open_time for row in rows if not row.candle.closed] in ([], [minute(LAST)])
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_what_the_store_drops_meanwhile_is_not_missing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    exchange = Exchange(FIRST, LAST + 60)
    exchange.delay = 2.0
    archive = Archive(exchange)
    await nursery.start(archive.run)
    topic = stored(exchange, 50)

    async def go_on() -> None:
        for number in range(LAST, LAST + 60):
            await trio.sleep(0.1)
            revision = topic.replica.revision + 1
            more = (candle(minute(number)), candle(minute(number + 1), closed=False))
            topic.publish(Commit("life0", revision, more))

    nursery.start_soon(go_on)
    rows = await rows_of(topic, question(limit=200), archive)
    assert [row.open_time for row in rows] == [minute(number) for number in range(LAST - 199, LAST + 1)]
    first = topic.replica.first
    assert first is not None
    assert first.open_time > minute(LAST - 49), "it has dropped some"


async def test_a_row_has_binances_twelve_fields_digit_for_digit() -> None:
    given: dict[str, Any] = {
        "open": "0.00000100",
        "high": "123456789.10000000",
        "low": "0.00000001",
        "close": "1",
        "volume": "00.10",
        "close_time": minute(0) + 41_646,
        "quote_volume": "7.70000000",
        "trades": 0,
        "taker_base_volume": "0.00000000",
        "taker_quote_volume": "3.30000000",
        "unused": "17.5",
    }
    topic = Topic(BTC, 10)
    topic.publish(Commit("life0", 1, (candle(minute(0), **given), candle(minute(1), closed=False)), begins=True))
    body = rows_body(topic.replica.newest(2), Interval.M1)
    rows = msgspec.json.decode(body)
    assert rows[0] == [minute(0), *given.values()]
    assert rows[1][0] == minute(1)
    assert rows[1][6] == minute(2) - 1
    in_microseconds = msgspec.json.decode(rows_body(topic.replica.newest(2), Interval.M1, in_microseconds=True))
    assert in_microseconds[1][0] == minute(1) * 1000
    assert in_microseconds[1][6] == minute(2) * 1000 - 1
    assert in_microseconds[0][6] == given["close_time"] * 1000
    assert rows_body([], Interval.M1) == b"[]"


async def test_the_newest_rows_are_written_anew_as_far_as_they_have_changed() -> None:
    topic = Topic(BTC, 60)
    topic.publish(Commit("life0", 1, (*minutes(0, 58), candle(minute(59), closed=False)), begins=True))
    newest = NewestRows()

    def check(count: int) -> None:
        entries = topic.replica.newest(count)
        assert newest.body(BTC, entries) == rows_body(entries, Interval.M1)

    def publish(*candles: Candle) -> None:
        topic.publish(Commit("life0", topic.replica.revision + 1, candles))

    for count in (1, 49, 50, 60, 60):
        check(count)
    publish(candle(minute(59), "1.00000000", closed=False))
    check(60)
    publish(candle(minute(3), "2.00000000"))
    check(60)
    check(50)
    publish(candle(minute(59), "3.00000000"), candle(minute(60), closed=False))
    check(60)
    topic.publish(Commit("life1", 1, tuple(minutes(0, 59)), begins=True, replaces="life0"))
    check(60)
    assert newest.body(Series("ETHUSDT", Interval.M1), topic.replica.newest(60)[:59])
