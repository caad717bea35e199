"""Answers in gzip out of pieces that stay compressed: the same text, whatever was asked before."""

from __future__ import annotations

import gzip
import zlib
from itertools import accumulate, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.interval import DAY, INTERVALS, Interval
from candlesync.core.replica import Replica
from candlesync.web.deflate import Deflater
from tests.builders import BTC, begun, candle, forming, minute, minutes, then


def gunzipped(deflater: Deflater, replica: Replica, limit: int, before: int | None = None) -> bytes:
    entries = replica.newest(limit, before)
    return gzip.decompress(deflater.gzip(entries, wire.history(replica.series, entries)))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("form"), st.integers(1, 99)),
        st.tuples(st.just("close"), st.integers(1, 300)),
        st.tuples(st.just("correct"), st.integers(0, 399)),
        st.tuples(st.just("begin"), st.integers(1, 400)),
        st.tuples(st.just("restore"), st.just(0)),
    ),
    max_size=12,
)
RANGES = st.lists(st.tuples(st.integers(1, 400), st.none() | st.integers(1, 900)), min_size=1, max_size=4)


@given(steps=STEPS, ranges=RANGES)
def test_any_range_after_any_change_says_what_the_plain_answer_says(
    steps: list[tuple[str, int]], ranges: list[tuple[int, int | None]]
) -> None:
    replica = begun(minutes(0, 299), history=400)
    deflater = Deflater(BTC)
    for kind, number in [("form", 1), *steps]:
        tail = replica.newest(1)[0].candle
        following = (tail.open_time - minute(0)) // 60_000 + tail.closed
        match kind:
            case "form":
                replica.apply(then(replica, forming(minute(following), trades=number)))
            case "close":
                replica.apply(then(replica, *minutes(following, following + number - 1)))
            case "correct":
                entries = replica.newest(400)
                entry = entries[number % len(entries)]
                replica.apply(then(replica, candle(entry.open_time, f"{number}.5")))
            case "begin":
                replica.apply(then(replica, *minutes(following + 7, following + 7 + number), begins=True))
            case _:
                replica.restore(replica.snapshot())
        for limit, before in ranges:
            until = None if before is None else minute(before)
            entries = replica.newest(limit, until)
            if entries:
                assert gunzipped(deflater, replica, limit, until) == wire.history(BTC, entries)


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_interval(interval: Interval) -> None:
    series = Series("BTCUSDT", interval)
    times = accumulate(repeat(interval, 300), lambda time, step: step.next(time), initial=interval.floor(minute(0)))
    replica = begun([candle(time, interval=interval) for time in times], series=series)
    deflater = Deflater(series)
    for limit in (1, 2, 128, 129, 130, 300, 17):
        assert gunzipped(deflater, replica, limit) == wire.history(series, replica.newest(limit))


def test_a_series_that_begins_again_on_another_grid() -> None:
    """Where the grid of ``3d`` lies is only a guess, and any midnight will do to begin at."""
    series = Series("BTCUSDT", Interval.D3)
    deflater = Deflater(series)
    for start in (Interval.D3.floor(minute(0)), Interval.D3.floor(minute(0)) + DAY):
        times = [Interval.D3.next(start, number) for number in range(200)]
        replica = begun([candle(time, interval=Interval.D3) for time in times], series=series)
        for limit in (150, 200):
            assert gunzipped(deflater, replica, limit) == wire.history(series, replica.newest(limit))


def test_a_revision_compresses_only_what_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = begun([*minutes(0, 998), forming(minute(999))])
    deflater = Deflater(BTC)
    gunzipped(deflater, replica, 1000)
    compressed = _count_compressed(monkeypatch)
    size = len(wire.history(BTC, replica.newest(1000)))

    def share(limit: int = 1000, before: int | None = None) -> float:
        compressed.clear()
        gunzipped(deflater, replica, limit, before)
        return sum(compressed) / size

    assert share() < 0.002, "only the last candle"
    replica.apply(then(replica, forming(minute(999), trades=50)))
    assert share() < 0.002
    replica.apply(then(replica, candle(minute(999), trades=51), forming(minute(1000))))
    assert 0.002 < share() < 0.26, "the ends: one candle has come, and one has gone"
    replica.apply(then(replica, candle(minute(500), "1.5")))
    assert 0.12 < share() < 0.14, "the block of the corrected one"
    assert share(700) < 0.13, "the same blocks serve other ranges"
    assert share(1000, minute(900)) < 0.26
    assert share(700) < 0.13, "and a shorter block has not taken the place of a whole one"


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = begun(minutes(0, 4999), history=5000)
    deflater = Deflater(BTC)
    for _ in range(2):
        for last in range(1000, 5000, 500):
            gunzipped(deflater, replica, 1000, minute(last))
    gunzipped(deflater, replica, 1000)
    compressed = _count_compressed(monkeypatch)
    gunzipped(deflater, replica, 1000)
    assert sum(compressed) < 200, "the newest are kept"
    gunzipped(deflater, replica, 1000, minute(1000))
    assert sum(compressed) > 800 * 200, "and not all of a long history"


def _count_compressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what zlib is given from now on."""
    sizes: list[int] = []
    original = zlib.compressobj

    class Counting:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self._inner = original(*arguments, **named)

        def compress(self, data: bytes) -> bytes:
            sizes.append(len(data))
            return self._inner.compress(data)

        def flush(self, end: int) -> bytes:
            return self._inner.flush(end)

    monkeypatch.setattr(zlib, "compressobj", Counting)
    return sizes
