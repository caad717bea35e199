"""The audit of a whole service: what Binance changes in closed candles reaches every client, at a bounded price."""

from __future__ import annotations

from collections import Counter

import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from candlesync.binance.weight import WeightSettings
from candlesync.config import Settings
from candlesync.core.audit import AuditSettings
from candlesync.core.interval import MINUTE, Interval
from candlesync.inspection import InspectionSettings
from candlesync.simulator.faults import DelayedClose, Drop, Refuse, RestBanned, Rewritten
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.symbols import DEFAULT_SYMBOLS, SymbolSpec
from tests.chart import Chart
from tests.whole.charts import by_position, stays
from tests.whole.world import World, open_world

REAL_TIME = SimulatorSettings(minute_seconds=60.0, update_ms=10_000)
PATIENT = InspectionSettings(silence=1e6)
"""Nothing but the audit asks REST about a series that is whole."""


async def counted(world: World, name: str) -> float:
    """A metric of the audit."""
    text = await (await world.get("/metrics")).get_data(as_text=True)
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == f"candlesync_audit_{name}"]
    return sum(sample.value for sample in family.samples)


def many(count: int) -> tuple[SymbolSpec, ...]:
    """So many busy symbols, listed lately."""
    return tuple(
        SymbolSpec(name=f"S{number}USDT", profile=DEFAULT_SYMBOLS[0].profile, listed_before=200)
        for number in range(count)
    )


async def test_what_changes_after_the_close_is_corrected_on_open_sockets_and_over_REST(  # noqa: N802 - REST is a name
    autojump_clock: MockClock,
) -> None:
    settings = Settings(symbols=("BTCUSDT", "ETHUSDT"), inspection=PATIENT)
    charts = {"BTCUSDT": Chart(), "ETHUSDT": Chart()}
    async with open_world(REAL_TIME, settings) as world, trio.open_nursery() as nursery:
        for symbol in charts:
            await world.until_live(symbol)
        closes = Interval.M1.floor(world.exchange.now())
        # The stream shows them closed in one way, and REST in another from the first moment on.
        times = (closes + MINUTE, closes + 3 * MINUTE, closes + 4 * MINUTE)
        world.exchange.add_fault(Rewritten(symbol="BTCUSDT", open_times=times))
        world.exchange.add_fault(DelayedClose(symbol="ETHUSDT", by_ms=3_000, seconds=240))
        for symbol, chart in charts.items():
            nursery.start_soon(stays, world, chart, symbol)
        await trio.sleep(7 * 60)
        for symbol, chart in charts.items():
            assert chart.compare(world.truth(chart, symbol)) == []
            loaded = Chart()
            await world.load(loaded, symbol)
            assert loaded.compare(world.truth(loaded, symbol)) == []
        assert await counted(world, "corrections") == 3
        assert await counted(world, "differences") == 3
        assert await counted(world, "failures") == 0
        nursery.cancel_scope.cancel()


async def test_history_that_is_rewritten_is_corrected_when_the_whole_series_is_compared(
    autojump_clock: MockClock,
) -> None:
    settings = Settings(
        symbols=("BTCUSDT",),
        intervals=(Interval.M1, Interval.H1, Interval.MO1),
        inspection=PATIENT,
        audit=AuditSettings(whole_every=600.0),
    )
    stayed, away = Chart(), Chart()
    charts = {"1m": Chart(), "1h": Chart(Interval.H1), "1M": Chart(Interval.MO1)}
    async with open_world(REAL_TIME, settings) as world, trio.open_nursery() as nursery:
        for interval, chart in charts.items():
            await world.until_live("BTCUSDT", interval)
            nursery.start_soon(stays, world, chart)
        nursery.start_soon(stays, world, stayed)
        await world.load(away)
        now = world.exchange.now()
        for chart in charts.values():
            shown = chart.interval
            tail = shown.floor(now)
            times = tuple(shown.next(tail, -back) for back in (1, 2, 10, 700))
            world.exchange.add_fault(Rewritten(interval=shown, open_times=times))
        await trio.sleep(25 * 60)
        for chart in (*charts.values(), stayed):
            assert chart.compare(world.truth(chart)) == []
        # Who was away is sent what was corrected meanwhile.
        with trio.move_on_after(10):
            await world.follow(away, query=by_position(away))
        assert away.compare(world.truth(away)) == []
        assert await counted(world, "corrections") == 11, "a market of 500 days has no month 700 before this one"
        assert await counted(world, "whole") >= 6
        nursery.cancel_scope.cancel()


async def test_the_weight_that_the_audit_takes_keeps_to_its_share_and_every_series_has_its_turn(
    autojump_clock: MockClock,
) -> None:
    """12 symbols, two intervals: 16 closes a minute. A limit of 180 leaves the audit 18 a minute, 9 questions."""
    symbols = many(12)
    simulated = SimulatorSettings(minute_seconds=60.0, update_ms=60_000, symbols=symbols, weight_limit=180)
    settings = Settings(
        symbols=tuple(spec.name for spec in symbols),
        intervals=(Interval.M1, Interval.M3),
        inspection=PATIENT,
        weight=WeightSettings(limit=180),
    )
    async with open_world(simulated, settings) as world:
        for spec in symbols:
            await world.until_live(spec.name)
            await world.until_live(spec.name, "3m")
        await trio.sleep(60 - trio.current_time() % 60)
        begin = len(world.exchange.tally.answers)
        closes = Interval.M1.floor(world.exchange.now())
        world.exchange.add_fault(Rewritten(open_times=tuple(closes + number * MINUTE for number in range(3))))
        skipped = await counted(world, "skipped")
        await trio.sleep(15 * 60)
        asked = list(world.exchange.tally.answers)[begin:]
        assert {answer.status for answer in asked} == {200}
        assert max(Counter(answer.time // 60 for answer in asked).values()) <= 9
        assert max(Counter(int(answer.time) for answer in asked).values()) <= 1, "never many at once"
        assert len(asked) >= 15 * 9 * 0.9, "there is more to ask than it may"
        assert await counted(world, "skipped") == skipped, "only while the series began"
        assert await counted(world, "corrections") == 12 * 3, "late, and all of it"


async def ages(world: World) -> dict[tuple[str, str], float]:
    text = await (await world.get("/metrics")).get_data(as_text=True)
    return {
        (sample.labels["symbol"], sample.labels["interval"]): sample.value
        for family in text_string_to_metric_families(text)
        if family.name == "candlesync_audit_age_seconds"
        for sample in family.samples
    }


async def test_while_a_series_is_not_live_nobody_but_the_sync_asks_about_it(autojump_clock: MockClock) -> None:
    settings = Settings(symbols=("BTCUSDT",), inspection=PATIENT)
    async with open_world(REAL_TIME, settings) as world:
        await world.until_live()
        await trio.sleep(120)
        world.exchange.add_fault(Drop())
        world.exchange.add_fault(Refuse(seconds=1200))
        await trio.sleep(1)
        asked = len(world.exchange.tally.answers)
        await trio.sleep(1100)
        assert len(world.exchange.tally.answers) == asked
        assert len(await ages(world)) == 1


async def test_a_ban_is_kept_to_and_the_audit_goes_on_after_it(autojump_clock: MockClock) -> None:
    settings = Settings(symbols=("BTCUSDT", "ETHUSDT"), inspection=PATIENT)
    chart = Chart()
    async with open_world(REAL_TIME, settings) as world, trio.open_nursery() as nursery:
        for symbol in settings.symbols:
            await world.until_live(symbol)
        nursery.start_soon(stays, world, chart)
        await trio.sleep(60)
        closes = Interval.M1.floor(world.exchange.now())
        world.exchange.add_fault(RestBanned(retry_after=1800, seconds=1790))
        world.exchange.add_fault(Rewritten(open_times=(closes,)))
        await trio.sleep(1700)
        assert world.exchange.tally.rest["/api/v3/klines"][418] == 1, "told once, nobody asks"
        assert (await world.get("/ready")).status_code == 200, "what is live stays live"
        assert chart.compare(world.truth(chart)) != []
        await trio.sleep(300)
        assert chart.compare(world.truth(chart)) == []
        assert await counted(world, "skipped") >= 1
        nursery.cancel_scope.cancel()
