"""The bytes of the client contract."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.position import Position, parse_position
from candlesync.core.replica import Entry
from tests.builders import BTC, T0, candle, flat, forming

POSITION = Position("life0", 1234)


def encoded(entry: Entry, series: Series = BTC) -> str:
    return wire.encode(series, entry).decode()


def test_a_forming_candle_byte_for_byte() -> None:
    assert encoded(Entry(forming(T0, "37012.31000000"), 1234)) == (
        '{"symbol":"BTCUSDT","interval":"1m","time":1700000040,"open":37000.00000000,"high":37100.00000000'
        ',"low":36900.00000000,"close":37012.31000000,"volume":10.50000000,"closed":false,"rev":1234}'
    )


def test_a_closed_candle_byte_for_byte() -> None:
    assert encoded(Entry(candle(T0, "37012.31000000"), 1)) == (
        '{"symbol":"BTCUSDT","interval":"1m","time":1700000040,"open":37000.00000000,"high":37100.00000000'
        ',"low":36900.00000000,"close":37012.31000000,"volume":10.50000000,"closed":true,"rev":1}'
    )


def test_a_filled_candle_says_so_after_closed_and_only_it() -> None:
    assert encoded(Entry(flat(T0, "37012.31000000"), 7)) == (
        '{"symbol":"BTCUSDT","interval":"1m","time":1700000040,"open":37012.31000000,"high":37012.31000000'
        ',"low":37012.31000000,"close":37012.31000000,"volume":0.00000000,"closed":true,"filled":true,"rev":7}'
    )
    assert "filled" not in encoded(Entry(candle(T0), 7))


def test_a_position_ends_the_message() -> None:
    plain = wire.encode(BTC, Entry(candle(T0), 1))
    assert wire.with_position(plain, POSITION) == plain[:-1] + b',"position":"life0-1234"}'


def test_rev_is_the_candle_s_own_and_not_the_position_s() -> None:
    message = json.loads(wire.catch_up(BTC, [Entry(candle(T0), 3)], POSITION)[0])
    assert message["rev"] == 3
    assert parse_position(message["position"]) == POSITION


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_time_is_the_open_time_in_seconds(interval: Interval) -> None:
    series = Series("ETHBTC", interval)
    message = json.loads(encoded(Entry(candle(T0, interval=interval), 1), series))
    assert (message["symbol"], message["interval"]) == ("ETHBTC", str(interval))
    assert message["time"] == T0 // 1000
    assert isinstance(message["time"], int)


@given(
    digits=st.lists(
        st.decimals(min_value=0, allow_nan=False, allow_infinity=False, places=8).map(lambda value: f"{value:f}"),
        min_size=5,
        max_size=5,
    )
)
def test_digits_go_through_untouched(digits: list[str]) -> None:
    names = ("open", "high", "low", "close", "volume")
    given_candle = msgspec.structs.replace(candle(T0), **dict(zip(names, digits, strict=True)))
    # Read back with the digits kept: any float on the way would change some of them.
    message = json.loads(encoded(Entry(given_candle, 1)), parse_float=str, parse_int=str)
    assert [message[name] for name in names] == digits


@pytest.mark.parametrize(
    "text", ["0.00000001", "0.1000", "92233720368.54775807", "1", "12345678901234567890.123456789"]
)
def test_digits_that_a_float_would_lose(text: str) -> None:
    message = encoded(Entry(candle(T0, text), 1))
    assert f',"close":{text},' in message
    assert json.loads(message, parse_float=Decimal)["close"] == Decimal(text)


def test_a_history_is_an_array_of_the_same_objects_in_the_order_given() -> None:
    entries = [Entry(candle(T0), 1), Entry(forming(T0 + 60_000), 2)]
    assert wire.history(BTC, entries) == b"[" + b",".join(wire.encode(BTC, entry) for entry in entries) + b"]"
    assert wire.history(BTC, []) == b"[]"


def test_of_a_catch_up_only_the_last_message_has_a_position() -> None:
    entries = [Entry(candle(T0 + number * 60_000), number) for number in range(3)]
    messages = wire.catch_up(BTC, entries, POSITION)
    assert messages[:2] == [wire.encode(BTC, entry) for entry in entries[:2]]
    assert messages[2] == wire.with_position(wire.encode(BTC, entries[2]), POSITION)
    assert wire.catch_up(BTC, [], POSITION) == []


def test_the_bytes_are_made_once_whoever_reads_them() -> None:
    entry = Entry(candle(T0), 1)
    first = wire.encode(BTC, entry)
    assert wire.encode(BTC, entry) is first
    assert wire.catch_up(BTC, [entry, entry], POSITION)[0] is first
