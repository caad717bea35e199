"""What stands in Redis, byte by byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.candle import Candle, Series
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
"""Texts that an integer would give back as they are, and texts that it would not."""


@pytest.mark.parametrize("text", ODD)
def test_every_text_is_kept_digit_for_digit(text: str) -> None:
    made = candle(close=text, volume=text, unused=text)
    assert decode_candle(encode_candle(made, 7)) == (made, 7)


decimals = st.one_of(
    st.decimals(min_value=0, max_value=10**14, places=8).map(lambda number: f"{number:f}"),
    st.decimals(min_value=0, max_value=10**6, places=3).map(lambda number: f"{number:f}"),
    st.text(max_size=24),
    st.sampled_from(ODD),
)
candles = st.builds(
    Candle,
    open_time=st.integers(0, 2**52),
    close_time=st.integers(0, 2**52),
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
    assert decode_snapshot(None) is None
    whole = Snapshot("life0", 3, 2, tuple((made, 3) for made in minutes(0, 1)))
    assert decode_snapshot([b"1", b"life0", b"3", b"2", values]) == whole
    with pytest.raises(ValueError, match="format 2, of another version"):
        decode_snapshot([b"2"])
    for junk in ([b"1", b"life0", b"x", b"2", values], [b"1", b"life0", b"3", b"2", [b"junk"]], [], b"", 7, [b"1"]):
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            decode_snapshot(junk)


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
