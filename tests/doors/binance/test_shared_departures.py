"""Nodes that share a store: a client of streams goes on at whichever it comes to, whatever ended its connection."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.departure import Stop
from candlesync.doors.binance.departures import Key
from candlesync.doors.binance.shared_departures import PATIENCE, REPEATED, SharedDepartures
from candlesync.simulator.settings import SimulatorSettings
from tests.asgi import SocketClosed, SocketRefused, open_socket
from tests.shared_store import SharedMemory
from tests.whole.shared_world import Node, SharedWorld, open_shared_world

URL = "/binance/ws/btcusdt@kline_1m"
FAR = 9_000_000_000_000
"""A place that no stream has."""


@asynccontextmanager
async def open_nodes(count: int = 2) -> AsyncIterator[SharedWorld]:
    simulated = SimulatorSettings(minute_seconds=60.0)
    async with open_shared_world(simulated, Settings(symbols=("BTCUSDT",)), nodes=count) as world:
        await world.until_live()
        yield world


class Bot:
    """A program that notes what closes, and when it was told."""

    def __init__(self, path: str = URL) -> None:
        self._path = path
        self.told: list[tuple[int, float]] = []

    async def visit(self, node: Node, seconds: float) -> None:
        """Follow a node for so long, or until it dies or closes."""

        async def follow() -> None:
            with suppress(SocketClosed, SocketRefused):
                while True:
                    event = json.loads(await socket.receive())
                    if event["k"]["x"]:
                        self.told.append((event["k"]["t"] // 60_000, trio.current_time()))
            nursery.cancel_scope.cancel()

        async with open_socket(node.service.app, self._path) as socket, trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + seconds
            nursery.start_soon(follow)
            await node.dead.wait()
            nursery.cancel_scope.cancel()
        await trio.sleep(0.01)

    async def until_close(self, node: Node) -> None:
        """Follow a node until just after the next close."""
        await self.visit(node, 60.05 - (trio.current_time() - self.told[-1][1]) % 60.0)

    @property
    def closes(self) -> list[int]:
        return [minute for minute, _ in self.told]

    def check(self, world: SharedWorld, repeated: int = 0) -> None:
        """Every close since the first is there, in order, and so many come again at most."""
        first, newest = min(self.closes), max(self.closes)
        assert sorted(set(self.closes)) == list(range(first, newest + 1))
        assert world.exchange.now() // 60_000 - newest <= 2, "it is behind"
        again = {minute: count for minute, count in Counter(self.closes).items() if count > 1}
        assert len(again) <= repeated, again
        if not repeated:
            assert self.closes == sorted(self.closes)


@pytest.mark.parametrize("seed", range(1))
async def test_each_close_comes_once_wherever_a_client_goes_and_whichever_node_ends_in_order(
    seed: int, autojump_clock: MockClock
) -> None:
    random = Random(seed)
    bots = [Bot(), Bot(f"{URL}?bot=2")]
    async with open_nodes() as world:

        async def come_and_go(bot: Bot) -> None:
            while True:
                await bot.visit(random.choice(world.nodes), random.uniform(0.5, 200.0))
                await trio.sleep(random.choice([0.0, 0.0, random.uniform(0.0, 200.0)]))

        async with trio.open_nursery() as nursery:
            for bot in bots:
                nursery.start_soon(come_and_go, bot)
            for _ in range(4):
                await trio.sleep(random.uniform(100.0, 400.0))
                await world.start()
                await world.until_live()
                await world.nodes[0].stop()
            nursery.cancel_scope.cancel()
        await trio.sleep(1)  # the last one's end
        for bot in bots:
            await bot.visit(world.nodes[0], 61.0)
            bot.check(world)


@pytest.mark.parametrize("after", [0.3, REPEATED + 0.2, 30.0])
@pytest.mark.parametrize("away", [0.0, 200.0])
async def test_a_node_that_is_killed_costs_no_close_and_repeats_only_the_last_seconds(
    after: float, away: float, autojump_clock: MockClock
) -> None:
    bot = Bot()
    async with open_nodes() as world:
        first, second = world.nodes
        await bot.visit(first, 130.0)
        await bot.until_close(first)
        await bot.visit(first, after)
        first.kill()
        await trio.sleep(away)
        began = trio.current_time()
        await bot.visit(second, 70.0)
        bot.check(world, repeated=1 if after < REPEATED else 0)
        if after > REPEATED and away:
            late = [at - began for _, at in bot.told if at >= began]
            assert late[0] < (PATIENCE if away > 60 else 61), "it was not kept waiting for long"


async def test_all_nodes_are_killed_and_others_come(autojump_clock: MockClock) -> None:
    bots = [Bot(f"{URL}?bot={number}") for number in range(6)]
    async with open_nodes() as world:
        async with trio.open_nursery() as nursery:
            for bot in bots:
                nursery.start_soon(bot.visit, world.nodes[int(bot is bots[0])], 150.0)
        async with trio.open_nursery() as nursery:
            for number, bot in enumerate(bots):
                nursery.start_soon(bot.visit, world.nodes[number % 2], 100.0)
            await trio.sleep(80)
            for node in list(world.nodes):
                node.kill()
        await trio.sleep(80)
        await world.start()
        await world.start()
        await world.until_live()
        async with trio.open_nursery() as nursery:
            for number, bot in enumerate(bots):
                nursery.start_soon(bot.visit, world.nodes[number % 2], 70.0)
        for bot in bots:
            bot.check(world)


async def test_another_client_that_is_the_same_in_all_waits_a_moment_and_gets_nothing_old(
    autojump_clock: MockClock,
) -> None:
    here, there = Bot(), Bot()
    async with open_nodes() as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.visit, world.nodes[0], 200.0)
            await trio.sleep(100.0)
            began = trio.current_time()
            async with open_socket(world.nodes[1].service.app, URL) as socket:
                json.loads(await socket.receive())
                assert trio.current_time() - began < 1.5
            await there.visit(world.nodes[1], 61.0)
        assert len(there.closes) == 1
        here.check(world)


async def test_without_the_store_a_node_goes_on_with_what_it_knows_itself(autojump_clock: MockClock) -> None:
    bot = Bot()
    async with open_nodes(1) as world:
        (node,) = world.nodes
        await bot.visit(node, 100.0)
        node.store.patience = 1.0
        world.server.down = True
        await trio.sleep(5)
        began = trio.current_time()
        shared = node.service._departures
        assert shared is not None
        assert await shared.take([key(1)]) == {}
        assert trio.current_time() == began, "nobody waits for a store that does not answer"
        world.server.down = False
        await trio.sleep(70)
        await bot.visit(node, 70)
        bot.check(world)


async def test_a_store_that_hangs_keeps_a_client_waiting_for_a_moment(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    node = server.node("a")
    shared = SharedDepartures(node)
    async with trio.open_nursery() as nursery:
        await nursery.start(shared.run)
        await trio.sleep(0.1)
        node.frozen = True
        for most in (2.0, 0.0):
            began = trio.current_time()
            assert await shared.take([key(1)]) == {}
            assert trio.current_time() - began <= most
        nursery.cancel_scope.cancel()


async def test_a_store_that_has_lost_all_is_told_anew(autojump_clock: MockClock) -> None:
    bot = Bot()
    async with open_nodes() as world:
        first, second = world.nodes

        async def lose() -> None:
            await trio.sleep(100)
            world.server.departures.present.clear()
            world.server.departures.departed.clear()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            await bot.visit(first, 150.0)
            first.kill()
        await trio.sleep(100)
        await bot.visit(second, 70)
        bot.check(world)


async def test_a_place_far_ahead_is_no_place(autojump_clock: MockClock) -> None:
    bot = Bot()
    async with open_nodes() as world:
        await bot.visit(world.nodes[0], 61.0)
        await trio.sleep(1)
        departed = world.server.departures.departed
        for key, held in departed.items():
            departed[key] = [one._replace(stop=Stop(key, FAR, 1)) for one in held]
        assert departed
        await bot.visit(world.nodes[1], 61.0)
        assert len(bot.closes) == 2


# --- what it costs


def key(number: int) -> Key:
    return Key("192.0.2.1", b"bot", str(number))


async def test_departures_are_told_many_at_once_and_of_no_more_than_there_is_room_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candlesync.doors.binance.shared_departures.MOST_DEPARTURES", 5000)
    server = SharedMemory(10)
    shared = SharedDepartures(server.node("a"))
    async with trio.open_nursery() as nursery:
        await nursery.start(shared.run)
        for number in range(8000):
            shared.leave(shared.join(key(number), number), number)
        await trio.sleep(0.1)
        assert server.calls["keep_departures"] < 20
        assert len(server.departures.departed) == 5000
        assert server.departures.present == {"a": {}}
        found = await shared.take([key(number) for number in range(1000)])
        assert found == {key(number): number for number in range(1000)}
        nursery.cancel_scope.cancel()


async def test_whoever_is_cancelled_leaves_the_place_to_the_next(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    here, there = SharedDepartures(server.node("a")), SharedDepartures(server.node("b"))
    async with trio.open_nursery() as nursery:
        await nursery.start(here.run)
        await nursery.start(there.run)
        here.leave(here.join(key(1), 5), 5)
        present = there.join(key(2), 6)
        await trio.sleep(1)
        server.nodes["a"].latency = 0.4
        for seconds in (0.1, 0.3, 0.5):
            with trio.move_on_after(seconds) as scope:
                await here.take([key(1), key(2)])  # waits for the second
            assert scope.cancelled_caught
            await trio.sleep(1)
        there.leave(present, 7)
        assert await here.take([key(1), key(2)]) == {key(1): 5, key(2): 7}
        nursery.cancel_scope.cancel()
