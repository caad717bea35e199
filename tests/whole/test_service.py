"""The service as its users meet it: series on demand, every interval, many symbols, idle ones let go."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from candlesync.binance.stream import StreamSettings
from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.simulator.faults import Drop, Refuse, RestDown
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.symbols import symbol_spec
from candlesync.supervisor import SupervisorSettings
from tests.asgi import SocketRefused, open_socket
from tests.chart import Chart, read
from tests.whole.charts import stays
from tests.whole.world import open_world

REAL_TIME = SimulatorSettings(minute_seconds=60.0)


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
async def test_every_interval_is_started_on_demand_and_stays_true(
    interval: Interval, autojump_clock: MockClock
) -> None:
    chart = Chart(interval)
    async with open_world(REAL_TIME, Settings()) as world, trio.open_nursery() as nursery:
        nursery.start_soon(stays, world, chart)
        await trio.sleep(200)
        world.exchange.add_fault(Drop())
        world.exchange.add_fault(Refuse(seconds=150))
        await trio.sleep(400)
        nursery.cancel_scope.cancel()
    assert chart.compare(world.truth(chart)) == []
    assert len(chart.candles) > (1000 if interval in {Interval.S1, Interval.M1} else 16)
    assert chart.messages > 50


async def test_a_young_listing_is_a_full_answer(autojump_clock: MockClock) -> None:
    async with open_world(REAL_TIME, Settings()) as world:
        chart = Chart()
        await world.load(chart, "YOUNGUSDT")
        assert 0 < len(chart.candles) < 1000
        assert chart.compare(world.truth(chart, "YOUNGUSDT")) == []


async def test_what_Binance_does_not_list_is_unknown(autojump_clock: MockClock) -> None:  # noqa: N802 - a name
    async with open_world(REAL_TIME, Settings()) as world:
        answer = await world.get("/candles/NOSUCH/1m")
        assert answer.status_code == 404
        assert json.loads(await answer.get_data())["error"]["code"] == "unknown_symbol"
        assert len(world.service.hub) == 0


async def test_a_pinned_symbol_that_Binance_does_not_list_is_reported_and_the_others_go_on(  # noqa: N802 - a name
    autojump_clock: MockClock,
) -> None:
    async with open_world(REAL_TIME, Settings(symbols=("BTCUSDT", "NOSUCH"))) as world:
        await world.until_live()
        await trio.sleep(40)
        answer = await world.get("/ready")
        assert answer.status_code == 503
        assert list(json.loads(await answer.get_data())["series"]) == ["NOSUCH 1m"]
        assert (await world.get("/candles/BTCUSDT/1m")).status_code == 200


async def test_while_REST_is_down_a_new_series_is_answered_503_and_heals_by_itself(  # noqa: N802 - REST is a name
    autojump_clock: MockClock,
) -> None:
    async with open_world(REAL_TIME, Settings(symbols=("BTCUSDT",))) as world:
        world.exchange.add_fault(RestDown(seconds=120))
        await trio.sleep(1)
        started = trio.current_time()
        answer = await world.get("/candles/BTCUSDT/1m")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert trio.current_time() - started < 15
        async with open_socket(world.service.app, "/ws/candles/BTCUSDT") as socket:
            with pytest.raises(SocketRefused) as refused:
                await socket.receive()
        assert refused.value.status == 503
        await trio.sleep(200)
        chart = Chart()
        await world.load(chart)
        assert chart.compare(world.truth(chart)) == []


async def test_sixty_symbols_share_three_connections(autojump_clock: MockClock) -> None:
    names = tuple(f"COIN{number}USDT" for number in range(60))
    simulated = SimulatorSettings(minute_seconds=60.0, symbols=tuple(map(symbol_spec, names)), update_ms=10_000)
    settings = Settings(symbols=names, stream=StreamSettings(symbols_per_connection=20))
    async with open_world(simulated, settings) as world:
        charts = {name: Chart() for name in names}
        for name in names:
            await world.until_live(name)
        assert world.exchange.tally.connections == 3
        for name, chart in charts.items():
            await world.load(chart, name)
        async with trio.open_nursery() as nursery:
            for name, chart in charts.items():
                nursery.start_soon(world.follow, chart, name, f"&position={chart.position}")
            await trio.sleep(100)
            world.exchange.add_fault(Drop())
            await trio.sleep(200)
            nursery.cancel_scope.cancel()
        for name, chart in charts.items():
            assert chart.compare(world.truth(chart, name)) == []
            assert chart.newest * 1000 >= world.exchange.now() - 130_000


async def test_a_series_that_nobody_wants_any_more_is_let_go_and_comes_back(autojump_clock: MockClock) -> None:
    settings = Settings(symbols=("BTCUSDT",), supervisor=SupervisorSettings(idle=300))
    five = Series("ETHUSDT", Interval.M5)
    async with open_world(REAL_TIME, settings) as world:
        chart = Chart(Interval.M5)
        with trio.move_on_after(900):
            await stays(world, chart, "ETHUSDT")
        assert world.service.hub.get(five) is not None, "somebody has subscribed until now"
        await trio.sleep(500)
        assert world.service.hub.get(five) is None
        assert [task.symbol for task in world.service.supervisor.tasks] == ["BTCUSDT"]
        again = Chart(Interval.M5)
        await world.load(again, "ETHUSDT")
        assert again.compare(world.truth(again, "ETHUSDT")) == []


async def test_many_series_on_one_socket(autojump_clock: MockClock) -> None:
    wanted = [(symbol, interval) for symbol in ("BTCUSDT", "ETHUSDT") for interval in ("1m", "5m", "1h")]
    charts = {pair: Chart(Interval(pair[1])) for pair in wanted}
    states: dict[tuple[str, str], list[str]] = {pair: [] for pair in wanted}
    async with (
        open_world(REAL_TIME, Settings(symbols=("BTCUSDT",))) as world,
        open_socket(world.service.app, "/ws/candles") as socket,
    ):
        for number, (symbol, interval) in enumerate(wanted):
            subscribe = {"op": "subscribe", "symbol": symbol, "interval": interval, "id": number, "replay": 30}
            await socket.send(json.dumps(subscribe))
        answered = set()
        with trio.move_on_after(1200):
            while True:
                message = read(await socket.receive())
                if message.get("op") == "subscribed":
                    answered.add(message["id"])
                    if len(answered) == len(wanted):
                        world.exchange.add_fault(Drop())
                        world.exchange.add_fault(Refuse(seconds=200))
                elif message.get("op") == "state":
                    states[message["symbol"], message["interval"]].append(message["state"])
                else:
                    assert "op" not in message, message
                    charts[message["symbol"], message["interval"]].take(json.dumps(message))
        for (symbol, _), chart in charts.items():
            assert chart.compare(world.truth(chart, symbol)) == []
            assert len(chart.candles) >= 30
        for told in states.values():
            assert told[-3:] == ["stale", "syncing", "live"]
