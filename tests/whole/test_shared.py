"""Several nodes, one store, virtual time: whatever becomes of nodes and store, every chart shows the truth."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.simulator.faults import Drop
from candlesync.simulator.settings import SimulatorSettings
from candlesync.supervisor import SupervisorSettings
from tests.chart import Chart
from tests.whole.shared_world import SharedWorld, open_shared_world

MARKET = SimulatorSettings(minute_seconds=1.0)
BTC = Settings(symbols=("BTCUSDT",))


async def kill_the_owner(world: SharedWorld) -> None:
    world.owner().kill()


async def stop_the_owner(world: SharedWorld) -> None:
    owner = world.owner()
    await owner.stop()
    await trio.sleep(0.2)
    assert world.owner() is not owner, "it gave its symbol up at once"


async def kill_a_follower(world: SharedWorld) -> None:
    world.other().kill()


async def freeze_the_owner(world: SharedWorld) -> None:
    owner = world.owner()
    owner.store.frozen = True
    await trio.sleep(6)
    assert world.owner() is not owner
    owner.store.frozen = False
    await trio.sleep(2)
    assert world.owner() is not owner
    assert owner.owned == set()


async def cut_off_the_owner(world: SharedWorld) -> None:
    owner = world.owner()
    owner.store.cut_off = True
    await trio.sleep(5)
    assert owner.state() is not State.LIVE
    assert world.owner() is not owner
    await trio.sleep(20)
    assert owner.owned == set(), "it has let go of its Binance connection"
    owner.store.cut_off = False


async def cut_off_a_follower(world: SharedWorld) -> None:
    follower = world.other()
    follower.store.cut_off = True
    await trio.sleep(5)
    assert follower.state() is not State.LIVE
    follower.store.cut_off = False


async def take_the_store_away(world: SharedWorld) -> None:
    owner = world.owner()
    world.server.down = True
    await trio.sleep(4)
    assert {node.state() for node in world.nodes} <= {State.SYNCING, State.STALE}
    assert (await world.nodes[0].get("/candles/BTCUSDT/1m")).status_code == 200
    world.server.down = False
    await trio.sleep(3)
    assert world.owner() is owner, "a store that is away for a moment costs nobody its symbols"


async def take_the_store_away_for_long(world: SharedWorld) -> None:
    world.server.down = True
    await trio.sleep(40)
    world.server.down = False


async def wipe_the_store(world: SharedWorld) -> None:
    world.server.wipe()


async def put_an_old_store_in_place(world: SharedWorld) -> None:
    saved = world.server.snapshot()
    await trio.sleep(7 * world.minute)
    world.server.rollback(saved)


async def put_an_old_store_in_place_and_kill_the_owner(world: SharedWorld) -> None:
    saved = world.server.snapshot()
    await trio.sleep(7 * world.minute)
    owner = world.owner()
    world.server.rollback(saved)
    owner.kill()


async def wipe_the_store_while_the_feed_is_lost(world: SharedWorld) -> None:
    world.exchange.add_fault(Drop())
    world.server.wipe()


async def lose_answers(world: SharedWorld) -> None:
    for node in world.nodes:
        node.store.lose_answers = {"commit"}
    await trio.sleep(3 * world.minute)
    for node in world.nodes:
        node.store.lose_answers = {"renew", "read", "position"}
    await trio.sleep(1)
    for node in world.nodes:
        node.store.lose_answers = set()


async def miss_announcements(world: SharedWorld) -> None:
    for node in world.nodes:
        node.store.misses = {"committed", "moved"}
    await trio.sleep(5 * world.minute)
    for node in world.nodes:
        node.store.misses = set()


async def delay_announcements(world: SharedWorld) -> None:
    for node in world.nodes:
        node.store.announcement_delay = 0.4
        node.store.latency = 0.1
    await trio.sleep(10 * world.minute)
    for node in world.nodes:
        node.store.announcement_delay = node.store.latency = 0.0


async def another_joins_and_the_first_leaves(world: SharedWorld) -> None:
    await world.start()
    await trio.sleep(3)
    await world.nodes[0].stop()


STORIES: list[Callable[[SharedWorld], Awaitable[None]]] = [
    kill_the_owner,
    stop_the_owner,
    kill_a_follower,
    freeze_the_owner,
    cut_off_the_owner,
    cut_off_a_follower,
    take_the_store_away,
    take_the_store_away_for_long,
    wipe_the_store,
    put_an_old_store_in_place,
    put_an_old_store_in_place_and_kill_the_owner,
    wipe_the_store_while_the_feed_is_lost,
    lose_answers,
    miss_announcements,
    delay_announcements,
    another_joins_and_the_first_leaves,
]


def start_charts(world: SharedWorld, nursery: trio.Nursery, random: Random) -> list[Chart]:
    """Twelve charts; half of them go from node to node, the others stay where they are, on all three nodes."""
    charts = [Chart() for _ in range(12)]
    for number, chart in enumerate(charts):
        if number % 2:
            nursery.start_soon(world.roams, chart, random)
        else:
            nursery.start_soon(world.remains, world.nodes[number % 3], chart)
    return charts


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_whatever_becomes_of_nodes_and_store_every_chart_shows_the_truth(
    story: Callable[[SharedWorld], Awaitable[None]], autojump_clock: MockClock
) -> None:
    random = Random(1)
    async with open_shared_world(MARKET, BTC, nodes=3) as world:
        await world.until_live()
        async with trio.open_nursery() as nursery:
            charts = start_charts(world, nursery, random)
            await trio.sleep(5)
            await story(world)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        await world.check(charts)
        assert all(chart.messages > 20 for chart in charts)


SEEDS = int(os.environ.get("CANDLESYNC_SEQUENCES", "4"))
"""More of them look harder."""


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_one_thing_after_the_other_happens_to_nodes_and_store(seed: int, autojump_clock: MockClock) -> None:
    random = Random(seed)
    async with open_shared_world(MARKET, BTC, nodes=3) as world:
        await world.until_live()
        async with trio.open_nursery() as nursery:
            charts = start_charts(world, nursery, random)
            for story in random.sample(STORIES, 6):
                while len(world.nodes) < 3:
                    await world.start()
                await trio.sleep(random.uniform(0, 8))
                with trio.fail_after(60):
                    while not world.has_owner():  # noqa: ASYNC110 - as an outsider waits
                        await trio.sleep(0.1)
                await story(world)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        await world.check(charts)


async def test_each_node_says_who_owns_what(autojump_clock: MockClock) -> None:
    settings = Settings(symbols=("BTCUSDT", "ETHUSDT"), node_name="blue")
    async with open_shared_world(MARKET, settings, nodes=2) as world:
        await world.until_live("BTCUSDT")
        await world.until_live("ETHUSDT")
        await trio.sleep(1)  # a beat or two: each tells the others at the next
        assert {len(node.owned) for node in world.nodes} == {1}, "they share"
        for node in world.nodes:
            ready = await (await node.get("/ready")).get_json()
            assert ready == {
                "status": "ready",
                "series": {},
                "node": "blue",
                "owners": {"BTCUSDT": "blue", "ETHUSDT": "blue"},
            }
            metrics = (await (await node.get("/metrics")).get_data()).decode()
            assert "\ncandlesync_nodes 2.0\n" in metrics
            assert "\ncandlesync_symbols_owned 1.0\n" in metrics
            assert "\ncandlesync_lease_claims_total 1.0\n" in metrics
            assert "\ncandlesync_lease_losses_total 0.0\n" in metrics


async def test_what_only_a_client_of_the_follower_wants_is_started_by_the_owner(autojump_clock: MockClock) -> None:
    async with open_shared_world(MARKET, BTC, nodes=2) as world:
        await world.until_live()
        owner, follower = world.owner(), world.other()
        answer = await follower.get("/candles/BTCUSDT/5m?limit=10")
        assert answer.status_code == 200
        assert answer.headers["Candlesync-State"] in {"syncing", "live"}, "the owner has only just begun it"
        assert len(await answer.get_json()) == 10
        await follower.until_live(interval="5m")
        assert Series("BTCUSDT", Interval.M5) in {topic.series for topic in owner.service.hub}
        # And a symbol of which nobody is the owner yet.
        answer = await follower.get("/candles/ETHUSDT/1m?limit=10")
        assert answer.status_code == 200
        assert world.owner("ETHUSDT") is follower


async def test_a_series_that_no_client_of_any_node_wants_is_let_go(autojump_clock: MockClock) -> None:
    settings = Settings(symbols=("BTCUSDT",), supervisor=SupervisorSettings(idle=30.0))
    async with open_shared_world(SimulatorSettings(minute_seconds=60.0), settings, nodes=2) as world:
        await world.until_live()
        owner, follower = world.owner(), world.other()
        series = Series("BTCUSDT", Interval.M5)
        for _ in range(10):
            await follower.get("/candles/BTCUSDT/5m")
            await trio.sleep(20)
        assert owner.service.hub.get(series) is not None, "the follower's clients want it"
        await trio.sleep(120)
        assert [node.service.hub.get(series) for node in world.nodes] == [None, None]
