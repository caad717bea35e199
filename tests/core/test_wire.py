"""The bytes of the client contract."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.entry import Entry
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.position import Position, parse_position
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


def test_columns_are_the_same_decimals_by_kind() -> None:
    entries = [Entry(candle(T0), 3), Entry(flat(T0 + 60_000, "1.0"), 3), Entry(forming(T0 + 120_000, trades=7), 4)]
    entries[0].pack()  # one that was never sent is written for it
    assert wire.columns(entries) == [
        [b"1700000040", b"1700000100", b"1700000160"],
        [b"37000.00000000", b"1.0", b"37000.00000000"],
        [b"37100.00000000", b"1.0", b"37100.00000000"],
        [b"36900.00000000", b"1.0", b"36900.00000000"],
        [b"37012.31000000", b"1.0", b"37012.31000000"],
        [b"10.50000000", b"0.00000000", b"7.50000000"],
    ]
    assert wire.columns([]) == [[]] * 6


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
    wire.encode(BTC, entry)
    text = entry.text
    assert text is not None
    wire.history(BTC, [entry])
    wire.catch_up(BTC, [entry, entry], POSITION)
    wire.encode(BTC, entry)
    assert entry.text is text


# --- frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65534, 65535, 65536, 65537, 200_000])
def test_a_frame_is_what_a_websocket_library_makes(size: int) -> None:
    text = "".join(chr(ord("a") + number % 26) for number in range(size))
    assert wire.frame(text.encode()) == Connection(ConnectionType.SERVER).send(TextMessage(text))


@given(st.text())
def test_a_websocket_library_reads_the_message_from_its_frame(text: str) -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(wire.frame(text.encode()))
    (event,) = client.events()
    assert isinstance(event, TextMessage)
    assert (event.data, event.message_finished, event.frame_finished) == (text, True, True)


@given(
    st.lists(
        st.integers(0, 40).flatmap(lambda size: st.binary(min_size=size, max_size=size))
        | st.integers(wire.BATCH - 20, wire.BATCH + 20).map(bytes),
        max_size=60,
    )
)
def test_batches_hold_all_in_order_and_as_much_as_fits(messages: list[bytes]) -> None:
    batches = list(wire.batches(messages))
    assert b"".join(frames for _, frames in batches) == b"".join(map(wire.frame, messages))
    assert sum(count for count, _ in batches) == len(messages)
    at = 0
    for count, frames in batches:
        assert count >= 1
        assert frames == b"".join(map(wire.frame, messages[at : at + count]))
        assert len(frames) <= wire.BATCH or count == 1, "a message too long goes alone"
        at += count
        if at < len(messages):
            assert len(frames) + len(wire.frame(messages[at])) > wire.BATCH, "one more would have fitted"


def test_a_batch_is_filled_to_the_last_byte() -> None:
    assert wire.BATCH == 16_384
    half, rest = bytes(wire.BATCH // 2 - 4), bytes(wire.BATCH // 2 - 4)
    assert len(wire.frame(half) + wire.frame(rest)) == wire.BATCH
    assert [count for count, _ in wire.batches([half, rest] * 2)] == [2, 2]
    assert [count for count, _ in wire.batches([half, rest + b"."])] == [1, 1]


def test_of_nothing_there_is_no_batch() -> None:
    assert list(wire.batches([])) == []
