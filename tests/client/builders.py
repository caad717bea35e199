"""The real application in this process, as a feed's server in virtual time: the test breaks it, and starts it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from urllib.parse import urlencode

import msgspec
import trio

from candlesync.client.candles import Candle
from candlesync.client.feed import Feed, _beside
from candlesync.client.server import Answer, Broken, Talk, refusal
from candlesync.core import candle as core
from candlesync.core.replica import Commit
from candlesync.core.sync import State
from candlesync.errors import FeedError
from tests.builders import BTC, minute, minutes
from tests.history import Exchange
from tests.web.builders import Socket, Web, commit


def second(number: int) -> int:
    """The open time of a minute of `tests.builders`, in UNIX seconds."""
    return minute(number) // 1000


def times(first: int, last: int) -> list[int]:
    """Those of minutes, both ends included."""
    return [second(number) for number in range(first, last + 1)]


def whole(candles: Sequence[Candle]) -> bool:
    """Whether none is missing between two."""
    return all(after.time == before.time + 60 for before, after in pairwise(candles))


class Served:
    """A server with ten closed minutes of BTCUSDT, and what its clients meet."""

    def __init__(self, candles: Sequence[core.Candle] | None = None) -> None:
        self.is_down = False
        """Nobody answers."""
        self.refusals: list[FeedError] = []
        """Answers to the next loads."""
        self.loads: list[dict[str, int]] = []
        self.opened: list[float] = []
        """When WebSockets were asked for."""
        self.on_message: Callable[[bytes], bytes] = lambda message: message
        """Changes what a client hears, or raises `Broken`."""
        self._sockets: set[trio.CancelScope] = set()
        self._breaking = Broken("the connection broke")
        self._life = 0
        self.start(minutes(0, 9) if candles is None else candles)

    def start(self, candles: Sequence[core.Candle], *, older: int = -3_500) -> None:
        """Begin, or begin again with another life, with these candles. Binance has those from minute ``older`` on."""
        self._life += 1
        self.web = Web(klines=Exchange(older, 5_000))
        self.topic = self.web.hub.open(BTC)
        self.topic.publish(Commit(f"life{self._life}", 1, tuple(candles), begins=True))
        self.topic.set_state(State.LIVE)

    def commit(self, *candles: core.Candle) -> None:
        """Publish the next commit."""
        commit(self.topic, *candles)

    def cut(self, broken: Broken | None = None) -> None:
        """Break all connections."""
        self._breaking = broken or Broken("the connection broke")
        for scope in self._sockets:
            scope.cancel()

    async def load(self, symbol: str, interval: str, **query: int) -> Answer:
        await trio.sleep(0.01)
        self.loads.append(query)
        if self.is_down:
            raise FeedError("no_answer", "nobody is there")
        if self.refusals:
            raise self.refusals.pop(0)
        answer = await self.web.get(f"/candles/{symbol}/{interval}?{urlencode(query)}")
        if answer.status != 200:
            raise refusal(answer.status, answer.body, answer.headers.get("Retry-After", ""))
        candles = msgspec.json.decode(answer.body, type=list[Candle])
        return Answer(candles, answer.headers.get("Candlesync-Position", ""))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Talk]:
        self.opened.append(trio.current_time())
        await trio.sleep(0.01)
        if self.is_down:
            raise Broken("nobody is there")
        failures: list[Exception] = []
        with trio.CancelScope() as scope:
            self._sockets.add(scope)
            try:
                async with self.web.socket("/ws/candles") as socket:
                    try:
                        yield _Talk(self, socket)
                    except (Broken, FeedError) as error:
                        failures.append(error)  # raised below, as it is and not in the socket's group
            finally:
                self._sockets.discard(scope)
        if scope.cancelled_caught:
            failures.append(self._breaking)
        if failures:
            raise failures[0]

    @asynccontextmanager
    async def followed(self, symbol: str = "btcusdt", **settings: object) -> AsyncIterator[Feed]:
        """A feed that follows it."""
        feed = Feed(self, symbol, **settings)  # type: ignore[arg-type] # as the test names them
        async with _beside(feed):
            yield feed


class _Talk:
    def __init__(self, served: Served, socket: Socket) -> None:
        self._served = served
        self._socket = socket

    async def say(self, message: dict[str, object]) -> None:
        await self._socket.send(message)

    async def hear(self) -> bytes:
        try:
            text = await self._socket._from_server.receive()
        except trio.EndOfChannel:
            code, reason = await self._socket.until_closed()
            raise Broken(reason, code=code) from None
        return self._served.on_message(text.encode() if isinstance(text, str) else text)
