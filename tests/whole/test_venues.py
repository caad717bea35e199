"""The whole service on each of Binance's venues, and where one of its hosts does not serve this location."""

from __future__ import annotations

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from candlesync.binance.rest_client import RestSettings
from candlesync.binance.stream import StreamSettings
from candlesync.binance.venue import SPOT, USDM, Venue
from candlesync.binance.weight import WeightSettings
from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.simulator.faults import Drop
from candlesync.simulator.settings import SimulatorSettings
from tests.asgi import SocketClosed, open_socket
from tests.chart import Chart
from tests.whole.charts import stays
from tests.whole.world import World, open_world

SPOT_HOSTS = ("api.binance.com", "stream.binance.com")


def settings_of(venue: Venue, **more: str) -> Settings:
    return Settings(
        symbols=("BTCUSDT",),
        rest=RestSettings(venue=venue, base_url=more.get("rest", "")),
        stream=StreamSettings(venue=venue, stream_url=more.get("stream", "")),
        weight=WeightSettings(limit=venue.weight_limit),
    )


async def follow_over_a_drop(world: World) -> Chart:
    """A chart that stays, over some minutes and a lost connection; up to date and true in the end."""
    chart = Chart()
    await world.until_live()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stays, world, chart)
        await trio.sleep(2.5 * world.minute)
        world.exchange.add_fault(Drop())
        await trio.sleep(2 * world.minute)
        nursery.cancel_scope.cancel()
    assert chart.compare(world.truth(chart)) == []
    assert chart.newest * 1000 >= world.truth(chart)[-1][0]
    return chart


async def test_futures(autojump_clock: MockClock) -> None:
    simulated = SimulatorSettings(venue="usdm", minute_seconds=60.0)
    async with open_world(simulated, settings_of(USDM)) as world:
        await follow_over_a_drop(world)
        assert set(world.network.hosts) == {("https", "fapi.binance.com"), ("wss", "fstream.binance.com")}
        assert set(world.exchange.tally.rest) == {"/fapi/v1/klines"}
        listed = await (await world.get("/symbols")).get_json()
        assert listed["intervals"][:2] == ["1m", "3m"]
        assert {"symbol": "BTCUSDT", "status": "TRADING", "base": "BTC", "quote": "USDT"} in listed["symbols"]
        metrics = await (await world.get("/metrics")).get_data(as_text=True)
        assert "candlesync_rest_weight_limit 2400.0" in metrics
        assert 'candlesync_host{host="fstream.binance.com",kind="stream"} 1.0' in metrics
        answer = await world.get("/candles/BTCUSDT/1s")
        assert (answer.status_code, (await answer.get_json())["error"]["code"]) == (400, "bad_interval")
        async with open_socket(world.service.app, "/ws/candles/BTCUSDT?interval=1s") as socket:
            with pytest.raises(SocketClosed) as closed:
                await socket.receive()
        assert (closed.value.code, closed.value.reason) == (4400, "bad_interval")
        assert (await world.get("/candles/BTCUSDT/1h")).status_code == 200


async def test_the_old_path_of_futures_streams_is_never_taken_for_a_feed(autojump_clock: MockClock) -> None:
    """It connects, acknowledges and sends nothing: the series is not live for long, and says so."""
    simulated = SimulatorSettings(venue="usdm", minute_seconds=60.0)
    async with open_world(simulated, settings_of(USDM, stream="wss://fstream.binance.com")) as world:
        await trio.sleep(60)
        topic = world.service.hub.get(Series("BTCUSDT", Interval.M1))
        assert topic is not None
        assert topic.state is State.SYNCING
        assert world.exchange.tally.frames == 0


async def test_where_spot_is_blocked_its_market_data_hosts_serve_the_same(autojump_clock: MockClock) -> None:
    simulated = SimulatorSettings(minute_seconds=60.0)
    with structlog.testing.capture_logs() as logs:
        async with open_world(simulated, settings_of(SPOT), blocked=SPOT_HOSTS) as world:
            await world.until_live(seconds=5)
            await follow_over_a_drop(world)
            assert world.network.hosts.count(("https", "api.binance.com")) == 1
            assert world.network.hosts.count(("wss", "stream.binance.com")) == 1
            metrics = await (await world.get("/metrics")).get_data(as_text=True)
    for kind, host in (("rest", "data-api.binance.vision"), ("stream", "data-stream.binance.vision")):
        assert f'candlesync_host{{host="{host}",kind="{kind}"}} 1.0' in metrics
    assert 'candlesync_rest_failures_total{kind="location"} 1.0' in metrics
    assert sum("location refused" in log["event"] for log in logs) == 2


@pytest.mark.parametrize("blocked", SPOT_HOSTS)
async def test_rest_and_streams_each_go_where_they_are_served(blocked: str, autojump_clock: MockClock) -> None:
    async with open_world(SimulatorSettings(minute_seconds=60.0), settings_of(SPOT), blocked=[blocked]) as world:
        await world.until_live(seconds=5)
        other = next(host for host in SPOT_HOSTS if host != blocked)
        assert {host for _, host in world.network.hosts} > {other}
        assert sum("vision" in host for host in dict.fromkeys(host for _, host in world.network.hosts)) == 1


async def test_who_names_the_hosts_is_sent_to_no_other(autojump_clock: MockClock) -> None:
    named = settings_of(SPOT, rest="https://api.binance.com", stream="wss://stream.binance.com:9443")
    async with open_world(SimulatorSettings(minute_seconds=60.0), named, blocked=SPOT_HOSTS) as world:
        await trio.sleep(300)
        assert {host for _, host in world.network.hosts} == set(SPOT_HOSTS)
        answer = await world.get("/candles/BTCUSDT/1m")
        assert answer.status_code == 503
        assert "https://data-api.binance.vision" in (await answer.get_json())["error"]["message"]
