"""Recorded markets, replayed through simulator, service and charts: every closed candle equals the file's."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.interval import MINUTE, Interval
from candlesync.inspection import InspectionSettings
from candlesync.simulator.faults import Drop, Missing, Refuse
from candlesync.simulator.settings import KlineFile, SimulatorSettings
from tests.builders import shared_data
from tests.chart import Chart
from tests.whole.charts import by_position, stays
from tests.whole.world import World, open_world

PATIENT = InspectionSettings(silence=60.0)
"""These markets are updated every 20 s, which must not look like silence."""

Row = tuple[int, list[str]]


def rows_of(paths: Iterable[Path]) -> list[Row]:
    """Open time and the texts of the file, whatever the simulator makes of it."""
    rows = []
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
        for line in io.StringIO(text):
            fields = line.strip().split(",")
            rows.append((int(fields[0]), fields))
    return rows


def files(symbol: str, interval: str, *days: str) -> list[Path]:
    return [shared_data() / "archive" / f"{symbol}-{interval}-{day}.zip" for day in days]


def market(paths: Iterable[tuple[str, str, Path]], start: int) -> SimulatorSettings:
    klines = tuple(KlineFile(symbol=symbol, interval=Interval(interval), path=path) for symbol, interval, path in paths)
    return SimulatorSettings(klines=klines, start=start, minute_seconds=60.0, update_ms=20_000)


async def until(world: World, time: int) -> None:
    """Until the market's time."""
    await trio.sleep((time - world.exchange.now()) / MINUTE * world.minute)


def assert_equal_to_file(chart: Chart, rows: list[Row]) -> None:
    recorded = dict(rows)
    compared = 0
    for time, candle in chart.candles.items():
        if candle["closed"] and not candle.get("filled"):
            shown = [candle[name] for name in ("open", "high", "low", "close", "volume")]
            assert shown == recorded[time * 1000][1:6]
            compared += 1
    assert compared > 900
    assert chart.wrong == []


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
async def test_two_days_of_minutes_equal_the_archive_digit_for_digit(symbol: str, autojump_clock: MockClock) -> None:
    paths = files(symbol, "1m", "2024-06-01", "2024-06-02")
    rows = rows_of(paths)
    chart = Chart()
    start = rows[1000][0]
    simulated = market([(symbol, "1m", path) for path in paths], start)
    async with open_world(simulated, Settings(symbols=(symbol,), inspection=PATIENT)) as world:
        await world.until_live(symbol)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays, world, chart, symbol)
            for hour in range(1, 9):
                await until(world, start + hour * 60 * MINUTE)
                world.exchange.add_fault(Drop(close_frame=False))
                world.exchange.add_fault(Refuse(seconds=100 + 40 * hour))
            await until(world, start + 10 * 60 * MINUTE)
            nursery.cancel_scope.cancel()
    assert len(chart.candles) > 1500
    assert_equal_to_file(chart, rows)


async def test_the_outage_of_2023_03_24_is_filled_and_marked_and_everything_else_equals_the_archive(
    autojump_clock: MockClock,
) -> None:
    days = ("2023-03-23", "2023-03-24")
    outage = range(1_679_661_600, 1_679_666_400, 60)  # 12:40 to 13:59
    charts = {"BTCUSDT": Chart(), "ETHUSDT": Chart()}
    simulated = market(
        [(symbol, "1m", path) for symbol in charts for path in files(symbol, "1m", *days)], 1_679_659_200_000
    )
    settings = Settings(symbols=tuple(charts), inspection=PATIENT)
    async with open_world(simulated, settings) as world, trio.open_nursery() as nursery:
        for symbol, chart in charts.items():
            await world.until_live(symbol)
            nursery.start_soon(stays, world, chart, symbol)
        # A drop while the exchange is down changes nothing: what stood before is confirmed, nothing is made up.
        await until(world, 1_679_663_000_000)
        world.exchange.add_fault(Drop())
        await trio.sleep(120)
        assert all(chart.newest == outage[0] - 60 for chart in charts.values())
        await until(world, 1_679_670_000_000)
        for symbol, chart in charts.items():
            late = Chart()
            await world.load(late, symbol)
            for shown in (chart, late):
                assert [time for time, candle in shown.candles.items() if candle.get("filled")] == list(outage)
                before = shown.candles[outage[0] - 60]["close"]
                for time in outage:
                    candle = shown.candles[time]
                    assert {candle[name] for name in ("open", "high", "low", "close")} == {before}
                assert_equal_to_file(shown, rows_of(files(symbol, "1m", *days)))
        nursery.cancel_scope.cancel()


async def test_minutes_at_the_edges_of_the_outage_that_appear_late_are_corrected_and_its_fills_derived_anew(
    autojump_clock: MockClock,
) -> None:
    """11:26 to 12:39 (most without a trade, the last with an early close) and 14:00 show nowhere until 14:30."""
    symbol = "ETHUSDT"
    paths = files(symbol, "1m", "2023-03-23", "2023-03-24")
    rows = dict(rows_of(paths))
    late = (*range(1_679_657_160_000, 1_679_661_600_000, MINUTE), 1_679_666_400_000)
    outage = range(1_679_661_600, 1_679_666_400, 60)
    stayed, away = Chart(), Chart()
    simulated = market([(symbol, "1m", path) for path in paths], 1_679_656_200_000)  # 11:10
    async with open_world(simulated, Settings(symbols=(symbol,), inspection=PATIENT)) as world:
        await world.until_live(symbol)
        hidden = (1_679_668_200_000 - world.exchange.now()) / 1000
        world.exchange.add_fault(Missing(open_times=late, stream=True, seconds=hidden))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays, world, stayed, symbol)
            await until(world, 1_679_667_000_000)  # 14:10
            filled = {time for time, candle in stayed.candles.items() if candle.get("filled")}
            assert filled == {*outage, *(time // 1000 for time in late)}
            before = stayed.candles[late[0] // 1000 - 60]["close"]
            assert {stayed.candles[time]["close"] for time in filled} == {before}
            await world.load(away, symbol)
            await until(world, 1_679_673_600_000)  # 16:00: a fill is asked for ever more seldom, down to once an hour
            with trio.move_on_after(5):
                await world.follow(away, symbol, by_position(away))
            nursery.cancel_scope.cancel()
    for chart in (stayed, away):
        assert [time for time, candle in chart.candles.items() if candle.get("filled")] == list(outage)
        for time in late:
            shown = [chart.candles[time // 1000][name] for name in ("open", "high", "low", "close", "volume")]
            assert shown == rows[time][1:6]
        assert {chart.candles[time]["close"] for time in outage} == {rows[late[-2]][4]} != {before}
        assert_equal_to_file(chart, list(rows.items()))


async def test_a_series_can_begin_in_the_middle_of_an_outage_and_over_one(autojump_clock: MockClock) -> None:
    days = ("2023-03-23", "2023-03-24")
    paths = files("BTCUSDT", "1m", *days)
    for start in (1_679_663_000_000, 1_679_667_000_000):
        chart = Chart()
        simulated = market([("BTCUSDT", "1m", path) for path in paths], start)
        async with open_world(simulated, Settings(symbols=("BTCUSDT",), inspection=PATIENT)) as world:
            await world.until_live()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stays, world, chart)
                await until(world, 1_679_668_000_000)
                nursery.cancel_scope.cancel()
        assert sum(bool(candle.get("filled")) for candle in chart.candles.values()) == 80
        assert_equal_to_file(chart, rows_of(paths))


async def test_three_intervals_of_a_recorded_day_equal_their_archives(autojump_clock: MockClock) -> None:
    days = ("2023-03-23", "2023-03-24", "2023-03-25")
    recorded = [
        ("BTCUSDT", interval, path) for interval in ("1m", "15m", "1h") for path in files("BTCUSDT", interval, *days)
    ]
    charts = {interval: Chart(Interval(interval)) for interval in ("15m", "1h")}
    intervals = (Interval.M1, Interval.M15, Interval.H1)
    settings = Settings(symbols=("BTCUSDT",), intervals=intervals, inspection=PATIENT)
    async with open_world(market(recorded, 1_679_650_000_000), settings) as world, trio.open_nursery() as nursery:
        for interval, chart in charts.items():
            await world.until_live("BTCUSDT", interval)
            nursery.start_soon(stays, world, chart)
        await until(world, 1_679_690_000_000)
        nursery.cancel_scope.cancel()
    for interval, chart in charts.items():
        rows = dict(rows_of(files("BTCUSDT", interval, *days)))
        assert chart.wrong == []
        for time, candle in chart.candles.items():
            if candle["closed"] and not candle.get("filled"):
                shown = [candle[name] for name in ("open", "high", "low", "close", "volume")]
                assert shown == rows[time * 1000][1:6]
        # 12:45, 13:00, 13:15, 13:30 and 13:45 have no candle of 15 minutes; each hour has one.
        assert sum(bool(candle.get("filled")) for candle in chart.candles.values()) == (5 if interval == "15m" else 1)
