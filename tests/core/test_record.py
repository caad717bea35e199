from __future__ import annotations

import pytest

from candlesync.core.candle import Series
from candlesync.core.histogram import MOMENTS, SPELLS
from candlesync.core.interval import Interval
from candlesync.core.record import NOBODY, Record, Waiting
from candlesync.core.sync import Statistics
from tests.builders import BTC

ETH, SOL = Series("ETHUSDT", Interval.M1), Series("SOLUSDT", Interval.M1)


def test_nothing_has_happened_at_first() -> None:
    record = Record([BTC])
    assert record.healing.found == 0
    assert [each.count for each in (record.frame_delays, record.close_delays, record.backfills)] == [0, 0, 0]
    assert (record.frame_delays.bounds, record.close_delays.bounds) == (MOMENTS, MOMENTS)
    assert record.backfills.bounds == SPELLS
    assert dict(record.counts()) == {None: Statistics()}


def test_what_is_still_counted_is_told_apart_for_the_pinned_series_only() -> None:
    record = Record([BTC, SOL])
    for gaps, series in enumerate((BTC, ETH, SOL, Series("XRPUSDT", Interval.M1)), 1):
        record.begin(series, Statistics(gaps=gaps))
    assert {series: statistics.gaps for series, statistics in record.counts()} == {BTC: 1, SOL: 3, None: 2 + 4}


def test_delays_are_those_of_the_oldest_that_waits() -> None:
    waiting = NOBODY.and_frame(3.0, closes=False).and_frame(4.0, closes=True).and_frame(5.0, closes=True)
    assert waiting == Waiting(3.0, 4.0)
    with pytest.raises(AttributeError):
        waiting.since = 1.0  # type: ignore[misc]  # that is what is tried
    assert waiting.and_all(Waiting(2.0)) == Waiting(2.0, 4.0)
    assert waiting.and_all(NOBODY) == NOBODY.and_all(waiting) == waiting
    record = Record()
    for each in (NOBODY, waiting, Waiting(8.0)):
        record.shown(each, 10.0)
    assert (record.frame_delays.count, record.frame_delays.sum) == (2, 7.0 + 2.0)
    assert (record.close_delays.count, record.close_delays.sum) == (1, 6.0)


def test_what_was_counted_stays_when_its_synchronizer_ends() -> None:
    record = Record([BTC])
    for _ in range(3):
        for series in (BTC, ETH, SOL):
            statistics = Statistics(corrections=1)
            record.begin(series, statistics)
            statistics.gaps += 2
            record.end(series, statistics)
            record.end(series, statistics)
    counts = dict(record.counts())
    assert set(counts) == {BTC, None}
    assert (counts[BTC].gaps, counts[BTC].corrections) == (6, 3)
    assert (counts[None].gaps, counts[None].corrections) == (12, 6)


def test_the_end_of_one_does_not_end_the_one_that_took_its_place() -> None:
    record = Record()
    first, second = Statistics(gaps=1), Statistics(gaps=10)
    record.begin(BTC, first)
    record.begin(BTC, second)
    record.end(BTC, first)
    second.gaps += 1
    assert dict(record.counts())[None].gaps == 12
