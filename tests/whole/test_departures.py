"""A program that speaks Binance, and servers that share a Redis: whatever ends them, it sees every close, in order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from math import inf

import trio
import trio_websocket

from candlesync.doors.binance.shared_departures import REPEATED
from tests.whole.nodes import MINUTE, Deployment, deploy
from tests.whole.programs import HANDSHAKE, PATIENCE

PATH = "/binance/ws/btcusdt@kline_1m"
REPEATED_CLOSES = REPEATED / MINUTE + 4
"""Closes that a process may repeat whose end was a kill: a machine as busy as in CI tells them later."""


class Bot:
    """Connects again whenever its connection ends; it has no position to give."""

    def __init__(self) -> None:
        self.closes: list[int] = []
        self.connections: list[int] = []
        """Where in the closes each connection began."""

    async def follow(self, host: Callable[[], str], number: int = 0) -> None:
        """For ever, at whichever host is named; away while none is."""
        while True:
            if name := host():
                with suppress(OSError):
                    await self._follow(name, f"{PATH}?bot={number}")
            await trio.sleep(0.05)

    async def come_and_go(self, host: str, number: int, times: int) -> None:
        """So many times, breaking off after three closes, at the first update of a minute: no close is on its way."""
        for _ in range(times):
            await self._follow(host, f"{PATH}?bot={number}", closes=3)
            await trio.sleep(0.3)

    def check(self, *repeated: float) -> None:
        """Nothing is missing, and each connection after the first goes on in order, with so many closes again."""
        assert sorted(set(self.closes)) == list(range(self.closes[0], max(self.closes) + 1))
        begins = [*self.connections, len(self.closes)]
        for begin, end in pairwise(begins):
            mine = self.closes[begin:end]
            assert mine == sorted(set(mine)), "in order"
        assert len(self.connections) == 1 + len(repeated), self.connections
        for begin, most in zip(self.connections[1:], repeated, strict=True):
            seen, first = max(self.closes[:begin]), self.closes[begin]
            assert seen - most < first <= seen + 1, (self.connections, self.closes)

    async def _follow(self, host: str, resource: str, closes: float = inf) -> None:
        name, _, port = host.rpartition(":")
        try:
            async with await trio.open_tcp_stream(name, int(port)) as stream, trio.open_nursery() as nursery:
                with trio.fail_after(HANDSHAKE):
                    socket = await trio_websocket.wrap_client_stream(nursery, stream, host, resource)
                self.connections.append(len(self.closes))
                try:
                    is_done = False
                    while not is_done:
                        bar = json.loads(await socket.get_message())["k"]
                        if bar["x"]:
                            self.closes.append(bar["t"] // 60_000)
                        else:
                            is_done = len(self.closes) >= self.connections[-1] + closes
                except trio_websocket.ConnectionClosed:
                    pass
                nursery.cancel_scope.cancel()
        except* (trio_websocket.HandshakeError, OSError, trio.TooSlowError):
            pass


class Open:
    """Which of the nodes is open to bots: none while it has only begun, or they would come to an old tail."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.name = ""

    def __call__(self) -> str:
        return self._deployment.nodes[self.name].host if self.name else ""


@asynccontextmanager
async def following(bots: list[Bot]) -> AsyncIterator[tuple[Deployment, Open]]:
    """Two nodes, and bots at the one that is open."""
    async with deploy() as deployment:
        await deployment.start_all("blue", "green")
        is_open = Open(deployment)
        async with trio.open_nursery() as nursery:
            for number, bot in enumerate(bots):
                nursery.start_soon(bot.follow, is_open, number)
            yield deployment, is_open
            nursery.cancel_scope.cancel()


async def test_servers_that_end_in_order_repeat_nothing_and_one_that_is_killed_the_last_moment() -> None:
    bots = [Bot() for _ in range(5)]

    async def until(more: int) -> None:
        counts = [len(bot.closes) + more for bot in bots]
        with trio.fail_after(PATIENCE):
            while any(len(bot.closes) < count for bot, count in zip(bots, counts, strict=True)):  # noqa: ASYNC110 - lists
                await trio.sleep(0.02)

    async def again() -> None:
        await deployment.start("green", "BTCUSDT")
        await deployment.until_live()
        is_open.name = "green"
        await until(4)

    async with following(bots) as (deployment, is_open):
        is_open.name = "blue"
        await until(4)
        is_open.name = "green"  # whose client comes back goes to another node
        await deployment.nodes["blue"].end()
        await until(4)
        is_open.name = ""  # and now there is none
        await deployment.nodes["green"].end()
        await again()
        await trio.sleep(REPEATED)  # what it was sent all at once would come all again
        is_open.name = ""
        await deployment.nodes["green"].kill()
        await again()
    for bot in bots:
        bot.check(0, 0, REPEATED_CLOSES)


async def test_workers_behind_one_address_know_each_others_streams() -> None:
    bots = [Bot() for _ in range(8)]
    async with deploy() as deployment:
        master = await deployment.start_workers(2, "BTCUSDT")
        await deployment.until_live()
        async with trio.open_nursery() as nursery:
            for number, bot in enumerate(bots):
                nursery.start_soon(bot.come_and_go, master.host, number, 4)
    for bot in bots:
        bot.check(0, 0, 0)
