"""Connections that are replaced before they end: the whole service, over many of them, without one question to REST."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from candlesync.binance.stream import StreamSettings
from candlesync.config import Settings
from candlesync.core.audit import AuditSettings
from candlesync.core.interval import Interval
from candlesync.simulator.faults import DelayedClose, Drop, Shutdown
from candlesync.simulator.settings import SimulatorSettings
from tests.asgi import open_socket
from tests.chart import Chart
from tests.whole.charts import stays
from tests.whole.world import World, open_world

KLINES = "/api/v3/klines"
SHORT_DAYS = SimulatorSettings(minute_seconds=60.0, update_ms=6_000, connection_seconds=1_200.0)
"""An exchange that ends connections after 20 minutes instead of a day."""


def follow(*symbols: str, intervals: tuple[Interval, ...] = (Interval.M1,), sharing: int = 1) -> Settings:
    stream = StreamSettings(lifetime=1_150.0, lifetime_spread=400.0, symbols_per_connection=sharing)
    # Without an audit: it puts questions of its own.
    return Settings(symbols=symbols, intervals=intervals, stream=stream, audit=AuditSettings(share=0))


class Watched:
    """All states that a client of these series is told, and what REST was asked meanwhile."""

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._pinned = settings.pinned
        self.states: dict[str, list[str]] = {str(series): [] for series in settings.pinned}
        self.asked = self._questions()

    async def run(self) -> None:
        """Look, until cancelled."""
        async with open_socket(self._world.service.app, "/ws/candles") as socket:
            for series in self._pinned:
                ask = {"op": "subscribe", "symbol": series.symbol, "interval": str(series.interval), "replay": 0}
                await socket.send(json.dumps(ask))
            while True:
                message = json.loads(await socket.receive())
                if message.get("op") == "state":
                    self.states[f"{message['symbol']} {message['interval']}"].append(message["state"])

    @property
    def questions(self) -> int:
        """Since it was made."""
        return self._questions() - self.asked

    @property
    def renewals(self) -> int:
        return sum(feed.renewals for feed in self._world.service._feeds.statistics().feeds)

    def _questions(self) -> int:
        rest = self._world.exchange.tally.rest
        return rest[KLINES][200] if KLINES in rest else 0


async def until_all_live(world: World, settings: Settings) -> None:
    for series in settings.pinned:
        await world.until_live(series.symbol, str(series.interval))
    await trio.sleep(60)


@pytest.mark.parametrize("sharing", [1, 4], ids=["own", "shared"])
async def test_planned_changes_cost_no_question_and_no_series_leaves_live(
    sharing: int, autojump_clock: MockClock
) -> None:
    settings = follow("BTCUSDT", "ETHUSDT", intervals=(Interval.M1, Interval.M5), sharing=sharing)
    charts = {series: Chart(series.interval) for series in settings.pinned}
    async with open_world(SHORT_DAYS, settings) as world:
        await until_all_live(world, settings)
        watched = Watched(world, settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.run)
            for series, chart in charts.items():
                nursery.start_soon(stays, world, chart, series.symbol)
            for _ in range(2):  # each connection is replaced in its time, and once more out of it
                await trio.sleep(1_200)
                world.exchange.add_fault(Shutdown(seconds=20))
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        feeds = world.service._feeds.statistics().feeds
        assert sum(feed.failures for feed in feeds) == 0
        assert all(feed.renewals >= 3 for feed in feeds)
        assert watched.questions == 0
        assert watched.states == {str(series): ["live"] for series in settings.pinned}
        for series, chart in charts.items():
            truth = world.truth(chart, series.symbol)
            assert chart.compare(truth) == []
            assert chart.newest * 1000 >= truth[-1][0]
            assert world.exchange.now() // 1000 - chart.newest < 600


async def test_a_pair_that_is_silent_for_minutes_is_handed_over_too(autojump_clock: MockClock) -> None:
    settings = follow("QUIETBTC")
    async with open_world(SHORT_DAYS, settings) as world:
        await until_all_live(world, settings)
        watched = Watched(world, settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.run)
            await trio.sleep(4_000)
            nursery.cancel_scope.cancel()
        (feed,) = world.service._feeds.statistics().feeds
        assert feed.failures == 0
        assert feed.renewals >= 3
        # It is `syncing` now and then all the same: minutes without a trade show no close, and are asked for.
        assert "stale" not in watched.states["QUIETBTC 1m"]


async def test_a_change_while_closes_are_late_loses_none(autojump_clock: MockClock) -> None:
    settings = follow("BTCUSDT")
    chart = Chart()
    async with open_world(SHORT_DAYS, settings) as world:
        await until_all_live(world, settings)
        watched = Watched(world, settings)
        world.exchange.add_fault(DelayedClose(by_ms=1_500))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.run)
            nursery.start_soon(stays, world, chart)
            for offset in range(20):  # at all moments of a minute
                await trio.sleep(120 - world.exchange.now() / 1000 % 60 + offset * 3)
                world.exchange.add_fault(Shutdown(seconds=20))
            await trio.sleep(150)
            nursery.cancel_scope.cancel()
        assert watched.renewals >= 20
        assert chart.compare(world.truth(chart)) == []


async def test_when_the_old_connection_ends_too_early_rest_is_asked_as_ever(autojump_clock: MockClock) -> None:
    settings = follow("BTCUSDT")
    chart = Chart()
    async with open_world(SHORT_DAYS, settings) as world:
        await until_all_live(world, settings)
        watched = Watched(world, settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.run)
            nursery.start_soon(stays, world, chart)
            await trio.sleep(120)
            world.exchange.add_fault(Shutdown(seconds=0.05))
            await trio.sleep(0.2)
            world.exchange.add_fault(Drop())
            await trio.sleep(120)
            nursery.cancel_scope.cancel()
        assert watched.questions > 0
        states = watched.states["BTCUSDT 1m"]
        assert states[0] == states[-1] == "live"
        assert "syncing" in states
        assert chart.compare(world.truth(chart)) == []


async def test_renewals_are_in_the_metrics(autojump_clock: MockClock) -> None:
    settings = follow("BTCUSDT")
    async with open_world(SHORT_DAYS, settings) as world:
        await until_all_live(world, settings)
        world.exchange.add_fault(Shutdown(seconds=20))
        await trio.sleep(30)
        metrics = await (await world.get("/metrics")).get_data(as_text=True)
        assert "candlesync_stream_renewals_total 1.0" in metrics
        assert "candlesync_stream_connection_failures_total 0.0" in metrics
