"""Recorded candles come out as they went in, and everything made of them agrees with what else was recorded."""

from __future__ import annotations

import csv
import gzip
import zipfile
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from candlesync.core.interval import HOUR, Interval
from candlesync.simulator.bars import Row, bar_of
from candlesync.simulator.files import read_rows
from candlesync.simulator.market import Market
from candlesync.simulator.recorded import Recorded
from candlesync.simulator.series import Series
from candlesync.simulator.settings import KlineFile, SimulatorSettings
from tests.simulator.support import MINUTE, OUTAGE_BEGINS, OUTAGE_ENDS, archive, shared

AROUND_OUTAGE = ("2023-03-23", "2023-03-24", "2023-03-25")
NEW_YEAR = ("2022-12-31", "2023-01-01")


def market(*files: KlineFile) -> Market:
    return Market(SimulatorSettings(symbols=(), klines=files))


def rows_of(files: tuple[KlineFile, ...]) -> list[Row]:
    return [row for file in files for row in read_rows(file.path)]


def all_rows(series: Series) -> list[Row]:
    return [kline.row for kline in series.page(0, None, 10**6)]


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_an_archive_is_served_digit_for_digit(symbol: str) -> None:
    files = archive(symbol, "1m", "2024-06-01", "2024-06-02", "2024-06-03")
    texts: list[str] = []
    for file in files:
        with zipfile.ZipFile(file.path) as zipped:
            texts += zipped.read(zipped.namelist()[0]).decode().split()
    assert len(texts) == 4320
    rows = all_rows(market(*files).series(symbol, Interval.M1))
    assert [",".join(map(str, row)) for row in rows] == texts


@pytest.mark.parametrize(
    ("symbol", "days"), [("BTCUSDT", AROUND_OUTAGE), ("ETHUSDT", AROUND_OUTAGE), ("BTCUSDT", NEW_YEAR)]
)
@pytest.mark.parametrize("interval", ["15m", "1h"])
def test_minutes_aggregate_to_the_recorded_longer_candles(symbol: str, days: tuple[str, ...], interval: str) -> None:
    this = market(*archive(symbol, "1m", *days))
    assert all_rows(this.series(symbol, Interval(interval))) == rows_of(archive(symbol, interval, *days))


def test_a_file_of_a_longer_interval_is_served_as_it_is() -> None:
    hours = archive("BTCUSDT", "1h", *AROUND_OUTAGE)
    this = market(*archive("BTCUSDT", "1m", AROUND_OUTAGE[1]), *hours)
    assert all_rows(this.series("BTCUSDT", Interval.H1)) == rows_of(hours)
    assert len(all_rows(this.series("BTCUSDT", Interval.H4))) == 18
    assert len(all_rows(this.series("BTCUSDT", Interval.D1))) == 3


def test_an_outage_does_not_exist() -> None:
    this = market(*archive("BTCUSDT", "1m", *AROUND_OUTAGE))
    minute, quarter = this.series("BTCUSDT", Interval.M1), this.series("BTCUSDT", Interval.M15)

    before = minute.page(None, None, 2, now=OUTAGE_BEGINS)
    assert [kline.closed for kline in before] == [True, False]
    assert before[-1].row.close_time == OUTAGE_BEGINS - OUTAGE_BEGINS % MINUTE + MINUTE - 1
    for now in (OUTAGE_BEGINS + 1, OUTAGE_BEGINS + HOUR, OUTAGE_ENDS - 1):
        for series in (minute, quarter):
            newest = series.page(None, None, 1, now=now)[0]
            assert newest.closed
            assert newest.row.close_time == OUTAGE_BEGINS
    assert minute.current(OUTAGE_BEGINS + HOUR) is None
    first = minute.page(None, None, 2, now=OUTAGE_ENDS)[-1]
    assert first.row.open_time == OUTAGE_ENDS
    assert first.row.open == "28079.99000000"
    assert not first.closed
    assert first.row.trades, "its open differs from the close before it, so it is only seen with its first trade"

    seconds = this.series("BTCUSDT", Interval.S1).page(None, None, 3, now=OUTAGE_ENDS + 500)
    assert [kline.row.close_time for kline in seconds] == [OUTAGE_BEGINS - 647, OUTAGE_BEGINS, OUTAGE_ENDS + 999]
    following = minute.first_from(OUTAGE_BEGINS)
    assert following is not None
    assert following.row.open_time == OUTAGE_ENDS


def test_forming_candles_grow_to_the_recorded_ones() -> None:
    this = market(*archive("ETHUSDT", "1m", "2024-06-01"))
    for interval in (Interval.M1, Interval.M15, Interval.H1):
        series = this.series("ETHUSDT", interval)
        finals = series.finals(this.start, this.start + 4 * HOUR)[:4]
        for final in finals:
            span = final.row.close_time + 1 - final.row.open_time
            seen = [series.current(final.row.open_time + step * span // 50) for step in range(50)]
            seen.append(series.current(final.row.close_time))
            assert seen[0] is not None
            assert seen[0].row.open == final.row.open
            assert seen[-1] is not None
            assert seen[-1].row == final.row
            assert seen[-1].first_trade == final.first_trade
            for before, after in pairwise(kline for kline in seen if kline is not None):
                one, other = bar_of(before.row, 0), bar_of(after.row, 0)
                assert one.trades <= other.trades
                assert one.high <= other.high
                assert one.low >= other.low


def test_open_times_off_the_grid_and_more_digits_than_binance_has() -> None:
    path = shared("rest/BTCUSDT-1h_2017-08-17_2020-12-08.csv.gz")
    with gzip.open(path, "rt") as file:
        lines = list(csv.reader(file))[1:]
    lines = list({line[0]: line for line in lines}.values())  # its author wrote some forming hours too, and again
    assert len(lines) == 28_904
    this = market(KlineFile("BTCUSDT", Interval.H1, path))
    rows = all_rows(this.series("BTCUSDT", Interval.H1))
    for row, (time, *fields) in zip(rows, lines, strict=True):
        assert datetime.fromtimestamp(row.open_time / 1000, UTC).isoformat(" ", "milliseconds")[:23].startswith(time)
        assert [str(field) for field in row[1:]] == fields
    off_grid = [row for row in rows if row.open_time % HOUR]
    assert len(off_grid) == 43
    hour = this.series("BTCUSDT", Interval.H1)
    forming = hour.current(off_grid[5].open_time + 1000)
    assert forming is not None
    assert forming.row.open_time == off_grid[5].open_time
    assert len(hour.page(None, None, 1000, now=rows[-1].close_time)) == 1000


def test_the_start_is_in_the_middle_of_what_was_recorded() -> None:
    files = archive("BTCUSDT", "1m", *AROUND_OUTAGE)
    assert market(*files).start == read_rows(files[0].path)[1000].open_time
    hours = archive("BTCUSDT", "1h", AROUND_OUTAGE[0])
    assert market(*hours).start == read_rows(hours[0].path)[12].open_time


def test_minutes_of_a_recorded_quarter_hour_are_made_up_to_fit() -> None:
    files = archive("BTCUSDT", "15m", "2023-03-23")
    this = market(*files)
    row = rows_of(files)[3]
    minutes = this.series("BTCUSDT", Interval.M1).finals(row.open_time, row.close_time + 1)
    assert len(minutes) == 15
    assert sum(kline.row.trades for kline in minutes) == row.trades
    forming = this.series("BTCUSDT", Interval.M1).current(row.open_time + 90_000)
    assert forming is not None
    assert forming.row.open_time == row.open_time + MINUTE


def test_a_market_of_files_ends_with_them() -> None:
    rows = rows_of(archive("BTCUSDT", "1m", "2024-06-01"))
    series = Series(Recorded("seed", {Interval.M1: rows}), Interval.M1)
    end = rows[-1].close_time
    assert series.first_from(end) is None
    ended = series.current(end + 1)
    assert ended is None or ended.closed
    assert series.page(None, None, 1, now=end + HOUR)[0].row == rows[-1]
