"""Whatever breaks between Binance and a program that speaks Binance, it sees each close once, and in order."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.simulator.faults import (
    Drop,
    Fault,
    HideClose,
    Missing,
    Refuse,
    RestBehind,
    RestDown,
    Shutdown,
)
from candlesync.simulator.settings import SimulatorSettings
from tests.asgi import SocketClosed, open_socket
from tests.whole.world import World, open_world

STORIES: dict[str, list[Fault]] = {
    "a drop": [Drop(close_frame=False)],
    "dropped for several minutes": [Drop(), Refuse(seconds=300)],
    "dropped while a candle closes": [HideClose()],
    "told of a shutdown": [Shutdown(seconds=30)],
    "REST down over a drop": [Drop(), RestDown(seconds=300)],
    "REST behind over a long drop": [RestBehind(by_ms=200_000, seconds=600), Drop(), Refuse(seconds=200)],
}


class Bot:
    """A program that notes what closes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.closes: list[list[Any]] = []
        """As rows of Binance's REST, but for the trades' numbers."""

    async def follow(self, world: World) -> None:
        """Follow until cancelled, or until the server closes."""
        async with open_socket(world.service.app, self._path) as socket:
            with suppress(SocketClosed):
                while True:
                    event = json.loads(await socket.receive())
                    bar = event.get("data", event)["k"]
                    if bar["x"]:
                        self.closes.append([bar[name] for name in "tohlcvTqnVQ"])

    async def come_and_go(self, world: World, random: Random) -> None:
        """Follow for a while, be away for a while, and so on."""
        while True:
            with trio.move_on_after(random.uniform(1.0, 200.0)):
                await self.follow(world)
            await trio.sleep(random.uniform(0.0, 250.0))

    def check(self, world: World) -> None:
        """All that closed since the first close is there: once, in order, and digit for digit."""
        first, newest = self.closes[0][0], self.closes[-1][0]
        truth = [list(row)[:11] for row in world.exchange.truth("BTCUSDT", "1m", first, world.exchange.now())]
        assert self.closes == [row for row in truth if row[0] <= newest]
        assert truth[-1][0] - newest <= 120_000, "it is behind"


@pytest.mark.parametrize("story", STORIES)
async def test_each_close_comes_once_and_in_order(story: str, autojump_clock: MockClock) -> None:
    stays, comes_and_goes = Bot("/binance/ws/btcusdt@kline_1m"), Bot("/binance/stream?streams=btcusdt@kline_1m")
    simulated = SimulatorSettings(minute_seconds=60.0)
    async with open_world(simulated, Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays.follow, world)
            nursery.start_soon(comes_and_goes.come_and_go, world, Random(story))
            await trio.sleep(200)
            for fault in STORIES[story]:
                world.exchange.add_fault(fault)
            await trio.sleep(1080)
            await world.until_live()
            await trio.sleep(180)
            nursery.cancel_scope.cancel()
        with trio.move_on_after(1):
            await comes_and_goes.follow(world)
        stays.check(world)
        comes_and_goes.check(world)


async def test_minutes_that_binance_does_not_have_are_not_shown(autojump_clock: MockClock) -> None:
    bot = Bot("/binance/ws/btcusdt@kline_1m")
    simulated = SimulatorSettings(minute_seconds=60.0)
    async with open_world(simulated, Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bot.follow, world)
            await trio.sleep(130)
            opening = world.exchange.now() // 60_000 * 60_000 + 120_000
            lacking = (opening, opening + 60_000, opening + 120_000)
            world.exchange.add_fault(Missing(open_times=lacking, stream=True, seconds=900))
            await trio.sleep(900)
            nursery.cancel_scope.cancel()
        times = [row[0] for row in bot.closes]
        first = bot.closes[0][0]
        assert isinstance(first, int)
        assert times == [
            time for time in range(first, first + (len(times) + 3) * 60_000, 60_000) if time not in lacking
        ]
