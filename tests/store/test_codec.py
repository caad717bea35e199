"""What stands in Redis, byte by byte."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core import wire
from candlesync.core.candle import DECIMAL, Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Snapshot
from candlesync.store.codec import (
    ANNOUNCED,
    Announcement,
    Keys,
    decode_candle,
    decode_position,
    decode_snapshot,
    encode_candle,
    encode_commit,
)
from tests.builders import BTC, candle, flat, forming, minute, minutes
from tests.store.contract import begin, follow

ODD = [
    *("0", "1", "0.00000000", "0.00000001", "00.00000001", "01.00000000", "1.0000000", "1.000000000", ".00000001"),
    *("-1.00000000", "+1.00000000", "1E-7", "1e-00000007", "", ".", "12345678", "1234567.9", "1_0.00000000"),
    *("٣.00000000", "1.0000000٣", "²1.00000000", " 1.00000000", "1.0000000 ", "9" * 11 + ".99999999"),
    *("9" * 12 + ".99999999", "9" * 30 + ".99999999", "0" * 11 + ".00000000", "1.-0000000", "1.00000-00"),
]
"""Texts that an integer would give back as they are, and texts that it would not; and some that are no decimals."""
is_decimal = re.compile(DECIMAL).fullmatch


@pytest.mark.parametrize("text", ODD)
def test_every_decimal_is_kept_digit_for_digit_and_nothing_else(text: str) -> None:
    made = candle(close=text, volume=text, unused=text)
    encoded = encode_candle(made, 7)
    if is_decimal(text):
        assert decode_candle(encoded) == (made, 7)
    else:
        with pytest.raises(ValueError, match="Expected"):
            decode_candle(encoded)


def test_both_of_them_were_tried() -> None:
    assert 5 < sum(is_decimal(text) is not None for text in ODD) < len(ODD) - 10


decimals = st.one_of(
    st.decimals(min_value=0, max_value=10**14, places=8).map(lambda number: f"{number:f}"),
    st.decimals(min_value=0, max_value=10**6, places=3).map(lambda number: f"{number:f}"),
    st.from_regex(DECIMAL, fullmatch=True),
    st.sampled_from([text for text in ODD if is_decimal(text)]),
)
candles = st.builds(
    Candle,
    open_time=st.integers(0, 2**45),
    close_time=st.integers(2**45, 2**46),
    trades=st.integers(0, 2**60),
    closed=st.booleans(),
    filled=st.booleans(),
    **dict.fromkeys(
        ("open", "high", "low", "close", "volume", "quote_volume", "taker_base_volume", "taker_quote_volume", "unused"),
        decimals,
    ),
)


@given(candles, st.integers(0, 2**52))
def test_every_candle_is_kept_with_its_revision(made: Candle, revision: int) -> None:
    assert decode_candle(encode_candle(made, revision)) == (made, revision)


def test_a_usual_candle_is_small() -> None:
    assert len(encode_candle(candle(), 1000)) < 90


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x90", msgspec.msgpack.encode([2, 1, 1, 1]), b"\xc1"])
def test_other_bytes_are_no_candle(junk: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's own words
        decode_candle(junk)


def announced_of(announcement: bytes) -> Announcement:
    return msgspec.msgpack.decode(announcement, type=Announcement)


def test_a_small_commit_is_announced_whole_and_a_large_one_by_name() -> None:
    for commit in (
        follow(2, candle(), flat(minute(1)), forming(minute(2))),
        begin(*minutes(1, ANNOUNCED), life="life1", replaces="life0"),
        follow(3),
    ):
        announced = announced_of(encode_commit(BTC, commit, "id-1")[1])
        assert announced.commit() == (commit if commit.candles else None)
        assert (announced.interval, announced.id) == ("1m", "id-1")
    large = begin(*minutes(0, ANNOUNCED), replaces="life9")
    terms, announcement, values = encode_commit(BTC, large, "id-2")
    announced = announced_of(announcement)
    assert announced.commit() is None
    assert (announced.life, announced.revision, announced.begins, announced.replaces) == ("life0", 1, True, "life9")
    assert [decode_candle(value) for value in values] == [(made, 1) for made in large.candles]
    assert terms


@pytest.mark.parametrize("interval", list(Interval), ids=str)
def test_the_script_is_told_the_calendar(interval: Interval) -> None:
    first = interval.floor(minute(0))
    times = [interval.next(first, step) for step in range(30)]
    commit = follow(2, *(candle(time, interval=interval) for time in times), candle(times[-1] + 1))
    terms = msgspec.msgpack.decode(encode_commit(Series("BTCUSDT", interval), commit, "")[0])
    may_begin, predecessors, ordinals = terms[5:]
    assert may_begin is True
    assert predecessors[1:30] == times[:29]
    assert predecessors[30] not in times, "what lies off the grid follows nothing"
    assert ordinals[:30] == list(range(ordinals[0], ordinals[0] + 30))


def test_a_snapshot_is_decoded_whole_or_not_at_all() -> None:
    values = [encode_candle(made, 3) for made in minutes(0, 1)]
    assert decode_snapshot(BTC, None) is None
    whole = Snapshot("life0", 3, 2, tuple((made, 3) for made in minutes(0, 1)))
    assert decode_snapshot(BTC, [b"1", b"life0", b"3", b"2", values]) == whole
    with pytest.raises(ValueError, match="format 2, of another version"):
        decode_snapshot(BTC, [b"2"])
    for junk in (
        *([b"1", b"life0", b"x", b"2", values], [b"1", b"life0", b"3", b"2", [b"junk"]], [], b"", 7, [b"1"]),
        *([b"1", life, b"3", b"2", values] for life in (b"", b"Life", "é".encode(), b"\xff", b"a\n", b"a" * 33)),
        *([b"1", b"life0", revision, b"2", values] for revision in (b"-3", b"+3", b" 3", b"1_0", b"9" * 19, b"1e3")),
        [b"1", b"life0", b"3", b"-1", values],
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            decode_snapshot(BTC, junk)


OF_NO_SERIES: dict[str, tuple[list[Candle], str]] = {
    "nothing": ([], "no candles"),
    "a gap": ([candle(minute(0)), candle(minute(2))], "does not follow"),
    "twice the same": ([candle(minute(0)), candle(minute(0))], "does not follow"),
    "back in time": ([candle(minute(1)), candle(minute(0))], "does not follow"),
    "off the grid": ([candle(minute(0) + 1), candle(minute(1) + 1)], "not an open time"),
    "a forming one before the last": ([forming(minute(0)), candle(minute(1))], "follows a forming"),
    "changed later than the series": ([candle(minute(0))], "revision 3 of 2"),
}


@pytest.mark.parametrize("name", OF_NO_SERIES)
def test_candles_that_are_no_continuous_series_are_not_taken_for_one(name: str) -> None:
    made, message = OF_NO_SERIES[name]
    values = [encode_candle(each, 3) for each in made]
    with pytest.raises(ValueError, match=message):
        decode_snapshot(BTC, [b"1", b"life0", b"2" if "later" in name else b"3", b"2", values])


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=30) | st.binary(),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
good = st.lists(candles, min_size=1, max_size=1).map(lambda made: msgspec.msgpack.decode(encode_candle(made[0], 3)))


@given(st.binary() | junk.map(msgspec.msgpack.encode), st.integers(0, 13), good, junk)
def test_no_bytes_are_anything_but_a_candle_that_can_be_shown_or_an_error(
    noise: bytes, at: int, fields: list[object], value: object
) -> None:
    """Noise of any kind; and candles of which one field is replaced by anything."""
    for encoded in (noise, msgspec.msgpack.encode([*fields[:at], value, *fields[at + 1 :]])):
        try:
            made, revision = decode_candle(encoded)
        except ValueError:
            continue
        shown = json.loads(wire.encode(BTC, Entry(made, revision)), parse_float=str, parse_int=str)
        assert shown["close"] == made.close
        entry = Entry(made, revision)
        entry.pack()
        assert entry.candle == made


def test_a_position_is_decoded_or_refused() -> None:
    assert decode_position(None) is None
    assert decode_position([b"1", b"life0", b"3"]) == Position("life0", 3)
    with pytest.raises(ValueError, match="format 2, of another version"):
        decode_position([b"2"])
    for junk in ([b"1", b"life0", b"x"], [b"1"], [], b"", 7):
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            decode_position(junk)


def test_keys_are_of_one_slot_a_symbol() -> None:
    keys = Keys("candlesync", 0)
    assert keys.lease("BTCUSDT") == "candlesync:{BTCUSDT}:lease"
    assert keys.fence("BTCUSDT") == "candlesync:{BTCUSDT}:fence"
    assert keys.meta(BTC) == "candlesync:{BTCUSDT}:1m:meta"
    assert keys.candles(BTC) == "candlesync:{BTCUSDT}:1m:candles"
    assert keys.channel("BTCUSDT") == "candlesync@0:{BTCUSDT}"
    assert keys.symbol(b"candlesync@0:{BTCUSDT}") == "BTCUSDT"
    assert keys.assembly == "candlesync@0:{nodes}"
    assert keys.pattern == "candlesync@0:{*}"
    assert Keys("a*[b]?\\", 3).pattern == "a\\*\\[b\\]\\?\\\\@3:{*}"
    for prefix in ("", "a{b", "}"):
        with pytest.raises(ValueError, match="prefix"):
            Keys(prefix, 0)
