"""What the project exists for: whatever breaks between Binance and the chart, the chart shows the truth."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import MINUTE, Interval
from candlesync.core.sync import State
from candlesync.simulator.faults import (
    Deaf,
    DelayedClose,
    Drop,
    Duplicates,
    Fault,
    Garbage,
    HideClose,
    Late,
    Missing,
    Refuse,
    RestBanned,
    RestBehind,
    RestDown,
    RestGarbage,
    RestLimited,
    Shutdown,
    Silent,
)
from candlesync.simulator.settings import SimulatorSettings
from tests.chart import Chart
from tests.whole.charts import by_position, by_time, resumes, stays
from tests.whole.world import World, open_world

BTC = Settings(symbols=("BTCUSDT",))
REAL_TIME = SimulatorSettings(minute_seconds=60.0)


async def look(world: World, charts: list[Chart], symbol: str = "BTCUSDT") -> None:
    """At the end: every chart shows the truth, and is up to date."""
    await world.until_live(symbol)
    await trio.sleep(3 * world.minute)
    for chart in charts:
        # A chart that comes and goes may be away just now.
        if world.exchange.now() // 1000 - chart.newest > 60:
            with trio.move_on_after(world.minute / 2):
                await world.follow(chart, symbol, f"&position={chart.position}")
        truth = world.truth(chart, symbol)
        assert chart.compare(truth) == []
        assert chart.newest * 1000 >= truth[-1][0], "the chart is behind"
        assert chart.messages > 0


async def suffer(world: World, *faults: Fault, minutes: float) -> None:
    """Let faults happen, and some time pass."""
    for fault in faults:
        world.exchange.add_fault(fault)
    await trio.sleep(minutes * world.minute)


STORIES: dict[str, list[Fault]] = {
    "a drop": [Drop()],
    "a drop without a close frame": [Drop(close_frame=False)],
    "dropped for several minutes": [Drop(), Refuse(seconds=300)],
    "dropped while a candle closes": [HideClose()],
    "handshakes that hang": [Drop(), Refuse(hang=True, seconds=120)],
    "silence": [Silent(seconds=400)],
    "acknowledged and never sent": [Deaf(seconds=20), Drop()],
    "duplicates": [Duplicates(times=3, seconds=400)],
    "late old frames": [Late(seconds=600)],
    "late closes": [DelayedClose(by_ms=5_000, seconds=400)],
    "garbage frames": [Garbage(seconds=300)],
    "garbage instead of frames": [Garbage(replace=True, seconds=150)],
    "told of a shutdown": [Shutdown(seconds=30)],
    "told of a shutdown amid late and repeated frames": [
        Late(seconds=400),
        Duplicates(seconds=400),
        Shutdown(seconds=30),
    ],
    "told of a shutdown to a silent server": [Silent(seconds=60), Shutdown(seconds=30)],
    "told of a shutdown while REST is down": [RestDown(seconds=600), Shutdown(seconds=30)],
    "told of a shutdown by a server that ends at once": [Shutdown(seconds=0.01)],
    "REST down over a drop": [Drop(), RestDown(seconds=300)],
    "REST hanging over a drop": [Drop(), RestDown(hang=True, seconds=200)],
    "REST behind by more than a minute": [RestBehind(by_ms=90_000, seconds=600), Drop()],
    "REST far behind over a long drop": [RestBehind(by_ms=400_000, seconds=900), Drop(), Refuse(seconds=240)],
    "REST answers 429": [RestLimited(seconds=200), Drop()],
    "REST answers 429 without saying for how long": [RestLimited(retry_after=None, seconds=100), Drop()],
    "REST bans us": [RestBanned(retry_after=150, seconds=60), Drop()],
    "REST answers garbage": [RestGarbage(seconds=200), Drop()],
    "REST behind a hidden close": [RestBehind(by_ms=90_000, seconds=300), HideClose()],
}


@pytest.mark.parametrize("story", STORIES)
async def test_no_chart_shows_anything_but_the_truth(story: str, autojump_clock: MockClock) -> None:
    charts = [Chart() for _ in range(3)]
    async with open_world(REAL_TIME, BTC) as world:
        await world.until_live()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays, world, charts[0])
            nursery.start_soon(resumes, world, charts[1], Random(story), by_position)
            nursery.start_soon(resumes, world, charts[2], Random(story + "2"), by_time)
            await suffer(world, minutes=3.3)
            await suffer(world, *STORIES[story], minutes=18)
            await look(world, charts)
            nursery.cancel_scope.cancel()


async def test_everything_at_once_with_fifty_charts_and_minutes_of_a_quarter_of_a_second(
    autojump_clock: MockClock,
) -> None:
    random = Random(7)
    charts = [Chart() for _ in range(50)]
    async with open_world(SimulatorSettings(minute_seconds=0.25), BTC) as world:
        await world.until_live()
        async with trio.open_nursery() as nursery:
            for chart in charts[:10]:
                nursery.start_soon(stays, world, chart)
            for chart in charts[10:]:
                nursery.start_soon(resumes, world, chart, random, by_position)
            await suffer(world, minutes=5)
            await suffer(world, Drop(), Refuse(seconds=1.0), minutes=20)
            await suffer(world, HideClose(), minutes=20)
            await suffer(world, Duplicates(seconds=2), Late(seconds=2), minutes=12)
            await suffer(world, RestBehind(by_ms=150_000, seconds=3), Drop(), minutes=20)
            await suffer(world, RestLimited(retry_after=1, seconds=2), Drop(close_frame=False), minutes=30)
            await look(world, charts)
            nursery.cancel_scope.cancel()


async def test_a_gap_longer_than_the_history_begins_the_series_again(autojump_clock: MockClock) -> None:
    stayed, came_back = Chart(), Chart()
    async with open_world(SimulatorSettings(minute_seconds=1.0), BTC) as world:
        await world.until_live()
        await world.load(came_back)
        async with trio.open_nursery() as nursery:
            closed: list[int] = []

            async def stay() -> None:
                await world.load(stayed)
                closed.append(await world.follow(stayed))

            nursery.start_soon(stay)
            await suffer(world, Drop(), Refuse(seconds=1_100), minutes=1_150)
            await world.until_live()
            # Both are told to load again: nothing that they could be sent would join.
            assert closed == [4410]
            assert await world.follow(came_back, query=f"&position={came_back.position}") == 4410
            for chart in (stayed, came_back):
                assert chart.wrong == []
                await world.load(chart)
                assert len(chart.candles) == 1000
                assert chart.compare(world.truth(chart)) == []
            nursery.cancel_scope.cancel()


async def test_a_minute_that_REST_lacks_for_a_while_is_filled_and_then_corrected(  # noqa: N802 - REST is a name
    autojump_clock: MockClock,
) -> None:
    chart = Chart()
    async with open_world(REAL_TIME, BTC) as world:
        await world.until_live()
        lost = Interval.M1.floor(world.exchange.now()) + 3 * MINUTE
        lacking = (lost, lost + MINUTE)
        world.exchange.add_fault(Missing(open_times=lacking, stream=True, seconds=600))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays, world, chart)
            await trio.sleep(480)
            before = chart.candles[lost // 1000 - 60]
            for time in lacking:
                shown = chart.candles[time // 1000]
                assert shown["filled"]
                assert shown["closed"]
                assert [shown[name] for name in ("open", "high", "low", "close")] == [before["close"]] * 4
                assert float(shown["volume"]) == 0
            await trio.sleep(600)
            assert "filled" not in chart.candles[lost // 1000]
            await look(world, [chart])
            nursery.cancel_scope.cancel()


async def test_a_minute_that_only_the_stream_shows_is_not_an_outage(autojump_clock: MockClock) -> None:
    chart = Chart()
    async with open_world(REAL_TIME, BTC) as world:
        await world.until_live()
        shown = Interval.M1.floor(world.exchange.now()) + 2 * MINUTE
        world.exchange.add_fault(Missing(open_times=(shown,), seconds=900))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays, world, chart)
            # Its close is hidden: the stream has shown it forming, and REST does not have it.
            await trio.sleep((shown - world.exchange.now()) / 1000 + 30)
            world.exchange.add_fault(HideClose())
            await trio.sleep(300)
            assert not chart.candles[shown // 1000].get("filled")
            assert chart.wrong == []
            nursery.cancel_scope.cancel()


async def test_a_feed_that_stays_silent_is_not_called_live_however_often_it_connects(
    autojump_clock: MockClock,
) -> None:
    async with open_world(REAL_TIME, BTC) as world:
        await world.until_live()
        topic = world.service.hub.get(Series("BTCUSDT", Interval.M1))
        assert topic is not None
        world.exchange.add_fault(Silent(seconds=300))
        await trio.sleep(20)
        for _ in range(270):
            await trio.sleep(1)
            assert topic.state is not State.LIVE
        assert (await world.get("/ready")).status_code == 503
        await trio.sleep(40)
        assert topic.state is State.LIVE
        assert (await world.get("/ready")).status_code == 200
