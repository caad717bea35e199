"""REST away for hours, or nothing to hear for hours: what is live goes on, nothing is lost, and nobody storms."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.audit import AuditSettings
from candlesync.core.candle import Series
from candlesync.core.interval import MINUTE, Interval
from candlesync.core.sync import Rules, State
from candlesync.hub import Topic
from candlesync.inspection import InspectionSettings
from candlesync.simulator.faults import Drop, Missing, RestBanned, RestDown
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.symbols import DEFAULT_SYMBOLS, SymbolSpec
from candlesync.simulator.walk import Profile
from tests.chart import Chart
from tests.whole.charts import stays
from tests.whole.world import World, open_world

HOUR = 3600.0
CALM = InspectionSettings(silence=1e6)
"""These markets are updated once a minute, which must not look like silence."""


def topic_of(world: World, symbol: str, interval: str = "1m") -> Topic:
    topic = world.service.hub.get(Series(symbol, Interval(interval)))
    assert topic is not None
    return topic


async def ready(world: World) -> tuple[int, dict[str, str]]:
    answer = await world.get("/ready")
    body: dict[str, Any] = await answer.get_json()
    return answer.status_code, body["series"]


@asynccontextmanager
async def two_live() -> AsyncIterator[tuple[World, Chart, Chart]]:
    """BTCUSDT and ETHUSDT, live, with a chart of each that stays."""
    simulated = SimulatorSettings(minute_seconds=60.0, update_ms=60_000)
    settings = Settings(symbols=("BTCUSDT", "ETHUSDT"), inspection=CALM)
    charts = Chart(), Chart()
    async with open_world(simulated, settings) as world, trio.open_nursery() as nursery:
        for symbol, chart in zip(settings.symbols, charts, strict=True):
            await world.until_live(symbol)
            nursery.start_soon(stays, world, chart, symbol)
        await trio.sleep(100)
        yield world, *charts
        nursery.cancel_scope.cancel()


async def test_over_a_ban_of_three_hours_the_live_go_on_and_the_others_lose_nothing(autojump_clock: MockClock) -> None:
    async with two_live() as (world, live, waiting):
        began = Interval.M1.floor(world.exchange.now())
        world.exchange.add_fault(RestBanned(retry_after=3 * 3600, seconds=3 * HOUR - 10))
        world.exchange.add_fault(Drop(symbol="ETHUSDT"))
        # REST will never show some minutes that the stream shows meanwhile: only who kept them has them.
        kept = tuple(began + number * MINUTE for number in (5, 6, 90, 170))
        world.exchange.add_fault(Missing(symbol="ETHUSDT", open_times=kept))
        await trio.sleep(3 * HOUR - 60)
        assert world.exchange.tally.rest["/api/v3/klines"][418] == 1
        assert topic_of(world, "BTCUSDT").state is State.LIVE
        assert live.compare(world.truth(live)) == []
        assert live.newest >= world.exchange.now() // 1000 - 130
        assert topic_of(world, "ETHUSDT").state is State.SYNCING
        answer = await world.get("/candles/ETHUSDT/1m")
        assert (answer.status_code, answer.headers["Candlesync-State"]) == (200, "syncing")
        status, series = await ready(world)
        assert status == 503
        ((name, why),) = series.items()
        assert name == "ETHUSDT 1m"
        assert "Binance allows no requests" in why
        seconds = float(why.rpartition(" in ")[2].removesuffix(" s"))
        assert 30 <= seconds <= 70, "when it ends is said as of now"
        await trio.sleep(90)
        assert topic_of(world, "ETHUSDT").state is State.LIVE
        assert (await ready(world))[0] == 200
        await trio.sleep(60)
        for symbol, chart in (("BTCUSDT", live), ("ETHUSDT", waiting)):
            assert chart.compare(world.truth(chart, symbol)) == []
            assert len(chart.candles) >= 1180
            assert not any(candle.get("filled") for candle in chart.candles.values())


async def test_a_series_that_closes_more_candles_meanwhile_than_it_can_hold_begins_again(
    autojump_clock: MockClock,
) -> None:
    """``1s``, a history of 100, and a ban of 400 s: what was kept does not join, and nothing is made up."""
    simulated = SimulatorSettings(minute_seconds=60.0, update_ms_1s=60_000)
    rules = Rules(history=100, page=100)
    settings = Settings(symbols=("BTCUSDT",), intervals=(Interval.S1,), inspection=CALM, rules=rules)
    chart = Chart(Interval.S1)
    async with open_world(simulated, settings) as world, trio.open_nursery() as nursery:
        await world.until_live("BTCUSDT", "1s")
        codes: list[int] = []

        async def stay() -> None:
            await world.load(chart)
            codes.append(await world.follow(chart))

        nursery.start_soon(stay)
        await trio.sleep(5)
        world.exchange.add_fault(RestBanned(retry_after=400, seconds=390))
        world.exchange.add_fault(Drop())
        await trio.sleep(395)
        (task,) = world.service.supervisor.tasks
        pending = task.synchronizers[Interval.S1].sync._pending
        assert 90 <= len(pending) <= 101, "at most as many as the history holds"
        await trio.sleep(15)
        assert topic_of(world, "BTCUSDT", "1s").state is State.LIVE
        assert codes == [4410]
        assert chart.wrong == []
        await world.load(chart)
        assert len(chart.candles) == 100
        assert chart.compare(world.truth(chart)) == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("trouble", ["ban", "down"])
async def test_all_come_back_one_after_the_other_and_those_first_that_somebody_looks_at(
    trouble: str, autojump_clock: MockClock
) -> None:
    """40 series wait for one moment; an answer takes 0.08 s, so eight at once could be a hundred a second."""
    profile = DEFAULT_SYMBOLS[0].profile
    symbols = tuple(SymbolSpec(name=f"S{number}USDT", profile=profile, listed_before=10) for number in range(40))
    simulated = SimulatorSettings(minute_seconds=60.0, update_ms=60_000, symbols=symbols)
    pinned = tuple(spec.name for spec in symbols[::5])
    settings = Settings(symbols=pinned, inspection=CALM, audit=AuditSettings(share=0.0))
    async with open_world(simulated, settings) as world:
        for spec in symbols:
            await world.service.supervisor.ensure(Series(spec.name, Interval.M1))
        topics = [topic_of(world, spec.name) for spec in symbols]
        await trio.sleep(10)
        assert all(topic.state is State.LIVE for topic in topics)
        world.exchange.add_fault(RestDown(status=None, delay=0.08))
        begin = trio.current_time()
        if trouble == "ban":
            world.exchange.add_fault(RestBanned(retry_after=300, seconds=299))
        else:
            world.exchange.add_fault(RestDown(status=503, delay=0.08, seconds=300))
        world.exchange.add_fault(Drop())
        await trio.sleep(300)
        assert not any(topic.state is State.LIVE for topic in topics)
        during = [answer for answer in world.exchange.tally.answers if answer.time > begin + 30]
        assert len(during) <= (0 if trouble == "ban" else 270 * 2.2), "nobody asks, or few do"
        end = trio.current_time()
        order: list[Topic] = []
        with trio.fail_after(40):
            while len(order) < len(topics):
                await trio.sleep(0.05)
                order += [topic for topic in topics if topic.state is State.LIVE and topic not in order]
        healed = trio.current_time() - end
        asked = [answer for answer in world.exchange.tally.answers if answer.time >= end + 0.1]
        assert {answer.status for answer in asked} <= {200, 503}
        assert 429 not in world.exchange.tally.rest["/api/v3/klines"]
        assert max(Counter(int((answer.time - end) * 2) for answer in asked).values()) <= 12, "in half a second"
        assert max(answer.used for answer in asked) <= 200
        if trouble == "ban":
            assert world.exchange.tally.rest["/api/v3/klines"][418] <= 8
            assert healed < 6
            assert {topic.series.symbol for topic in order[: len(pinned)]} == set(pinned)
        else:
            assert healed < 30


async def test_while_REST_is_down_for_hours_the_live_go_on(autojump_clock: MockClock) -> None:  # noqa: N802 - a name
    async with two_live() as (world, live, waiting):
        world.exchange.add_fault(RestDown(seconds=HOUR))
        world.exchange.add_fault(RestDown(at=trio.current_time() + HOUR, seconds=HOUR, hang=True))
        world.exchange.add_fault(Drop(symbol="ETHUSDT"))
        begin = len(world.exchange.tally.answers)
        await trio.sleep(2 * HOUR - 60)
        assert len(world.exchange.tally.answers) - begin < 2 * 3600 / 3, "a series asks now and then"
        assert topic_of(world, "BTCUSDT").state is State.LIVE
        status, series = await ready(world)
        assert status == 503
        assert list(series) == ["ETHUSDT 1m"]
        await trio.sleep(60 + 40)
        assert topic_of(world, "ETHUSDT").state is State.LIVE
        await trio.sleep(60)
        for symbol, chart in (("BTCUSDT", live), ("ETHUSDT", waiting)):
            assert chart.compare(world.truth(chart, symbol)) == []
            assert len(chart.candles) >= 1100


async def test_a_pair_without_a_trade_for_hours_stays_live_on_one_connection(autojump_clock: MockClock) -> None:
    profile = Profile(price=123_000, tick=10, lot=10**6, day_volume=400, day_trades=8)
    idle = SymbolSpec(name="IDLEBTC", profile=profile, mute_when_idle=True)
    simulated = SimulatorSettings(minute_seconds=60.0, symbols=(idle,))
    chart = Chart()
    async with open_world(simulated, Settings(symbols=("IDLEBTC",))) as world, trio.open_nursery() as nursery:
        await world.until_live("IDLEBTC")
        nursery.start_soon(stays, world, chart, "IDLEBTC")
        await trio.sleep(10)
        begin = len(world.exchange.tally.answers)
        topic = topic_of(world, "IDLEBTC")
        not_live = 0
        for _ in range(4 * 360):
            await trio.sleep(10)
            not_live += topic.state is not State.LIVE
        assert not_live <= 4, "a trade after minutes that only REST has is put in its place at once"
        assert world.exchange.tally.connections == 1
        # The silence is looked into each two minutes; the audit looks at what has closed.
        assert len(world.exchange.tally.answers) - begin <= 4 * 60 * 1.6
        assert world.exchange.now() // 1000 - chart.newest <= 180
        assert chart.compare(world.truth(chart, "IDLEBTC")) == []
        nursery.cancel_scope.cancel()
