"""The bytes of an event, against those that Binance sent."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from candlesync.binance.parse import Kline, parse_frame
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.doors.binance.events import encode, event_time, wrap
from tests.builders import BTC, candle, forming, minute, shared_data

UNKNOWN = ('"E":', '"f":', '"L":')


def recorded() -> Iterator[str]:
    """All candle events of the recordings, as they came: raw ones, and wrapped ones."""
    frames = shared_data() / "frames"
    yield from (frames / "btcusdt_kline_1m_20211113.jsonl").read_text().splitlines()
    with gzip.open(frames / "BINANCE-ee25be.0__2021-04-04.kline-aggTrade.txt.gz", "rt") as lines:
        for line in lines:
            frame = line[line.find("{") :].strip()
            if '"kline"' in frame:
                yield frame


def test_each_recorded_event_is_written_again_byte_for_byte_but_for_what_is_not_known() -> None:
    count, late = 0, list[int]()
    for text in recorded():
        read = parse_frame(text)
        assert isinstance(read, Kline)
        frame: dict[str, Any] = json.loads(text)
        event = frame.get("data", frame)
        written = encode(read.series, read.candle, event["E"])
        if "stream" in frame:
            written = wrap(read.series, written)
        event["k"] |= {"f": -1, "L": -1}
        assert written.decode() == json.dumps(frame, separators=(",", ":"))
        count += 1
        if read.candle.closed:
            late.append(event["E"] - event_time(read.candle, 0))
        else:
            assert event_time(read.candle, event["E"]) == event["E"]
    assert count > 200
    # What is said of a close is a little early, never late.
    assert len(late) >= 5
    assert (min(late) >= 0, max(late) < 500) == (True, True)


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_what_is_written_is_read_as_the_same(interval: Interval) -> None:
    series = Series("BTCUSDT", interval)
    for made in (candle(interval.floor(minute(0)), interval=interval), candle(interval.floor(minute(0)), closed=False)):
        event = encode(series, made, 1)
        assert parse_frame(event) == parse_frame(wrap(series, event)) == Kline(series, made, event_time=1)


def test_the_fields_are_in_binances_order() -> None:
    event = json.loads(encode(BTC, candle(), 1))
    assert "".join(event) == "eEsk"
    assert "".join(event["k"]) == "tTsifLochlvnxqVQB"


def test_an_event_time_fits_its_candle_whatever_the_clock_says() -> None:
    opening, closing = minute(0), minute(1) - 1
    assert [event_time(forming(), clock) for clock in (0, opening - 1, opening + 5, closing, closing + 1, 2**60)] == [
        *(opening, opening, opening + 5, closing, closing, closing),
    ]
    assert {event_time(candle(), clock) for clock in (0, 2**60)} == {closing + 1}
    # So it goes forward from one event to the next, at any speed of the exchange.
    assert event_time(candle(), 0) <= event_time(forming(minute(1)), 0)
