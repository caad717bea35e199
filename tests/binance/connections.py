# ruff: noqa: ARG002 - a hook and a transport have the arguments that they have
"""A small Binance in memory, whose connections do what a test says, and a feed that runs against it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from urllib.parse import unquote

import trio
import trio.testing
import trio_websocket

from candlesync.binance.feed import Feed
from candlesync.binance.pace import ConnectionPace
from candlesync.binance.stream import StreamSettings, stream_name
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import INTERVALS, MINUTE, Interval
from candlesync.websocket import open_websocket

BTC = Series("BTCUSDT", Interval.M1)
BTC5 = Series("BTCUSDT", Interval.M5)
ETH = Series("ETHUSDT", Interval.M1)
SETTINGS = StreamSettings(stream_url="ws://binance.test")


FIRST = 1700000040000
"""The minute of 2023-11-14 22:14."""
SHUTDOWN = '{"e":"serverShutdown","E":1700000041000}'


def kline(series: Series, *, trades: int = 1, closed: bool = False, minute: int = 0) -> str:
    """A frame as Binance documents it, for a minute after `FIRST`."""
    open_time = FIRST + minute * MINUTE
    bar = {
        "t": open_time, "T": open_time + MINUTE - 1, "s": series.symbol, "i": str(series.interval), "f": 1, "L": trades,
        "o": "37012.31000000", "c": "37012.32000000", "h": "37012.33000000", "l": "37012.30000000", "v": "1.00000000",
        "n": trades, "x": closed, "q": "37012.31000000", "V": "0.50000000", "Q": "18506.15500000", "B": "0",
    }  # fmt: skip
    data = {"e": "kline", "E": 1700000041000, "s": series.symbol, "k": bar}
    return json.dumps({"stream": stream_name(series), "data": data})


def many(count: int) -> list[Series]:
    return [Series(f"S{number:03}USDT", interval) for number in range(count) for interval in INTERVALS][:count]


@dataclass(frozen=True)
class Told:
    kind: str
    series: Series
    at: float
    """Seconds since the sink was made."""
    detail: Any = None


class Recorder:
    """A sink that keeps what it is told, and holds the feed to the order that it promises."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.live: set[Series] = set()
        self._start = trio.current_time()

    def stream_connected(self, series: Series) -> None:
        assert series not in self.live
        self.live.add(series)
        self._note("connected", series)

    def stream_frame(self, series: Series, candle: Candle) -> None:
        assert series in self.live
        self._note("frame", series, candle)

    def stream_lost(self, series: Series, reason: str) -> None:
        self.live.remove(series)
        self._note("lost", series, reason)

    def _note(self, kind: str, series: Series, detail: object = None) -> None:
        self.told.append(Told(kind, series, trio.current_time() - self._start, detail))

    def kinds(self, series: Series) -> list[str]:
        return [told.kind for told in self.told if told.series == series]

    def times(self, kind: str) -> list[float]:
        return [told.at for told in self.told if told.kind == kind]

    def reasons(self) -> list[str]:
        return [told.detail for told in self.told if told.kind == "lost"]


class ClientHalf(trio.abc.Stream):
    """The feed's end of a connection in memory: says whether it was closed."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self._below = below
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._below.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self._below.aclose()


class Served:
    """One connection, from the server's side."""

    def __init__(self, stream: trio.abc.Stream, socket: trio_websocket.WebSocketConnection) -> None:
        self.stream = stream
        self.socket = socket
        self.requests: list[tuple[float, dict[str, Any]]] = []

    @property
    def streams(self) -> list[str]:
        """Those of the URL."""
        return unquote(str(self.socket.path).partition("?streams=")[2]).split("/")

    async def send(self, *messages: str | bytes) -> None:
        for message in messages:
            await self.socket.send_message(message)
        await trio.testing.wait_all_tasks_blocked()

    async def cut(self) -> None:
        """End it as a dying network does, without a close."""
        await self.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()


Serve = Callable[[trio.abc.Stream], Awaitable[None]]
Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


def granting(asked: dict[str, Any]) -> dict[str, Any] | None:
    return {"result": None, "id": asked["id"]}


def ignoring(asked: dict[str, Any]) -> dict[str, Any] | None:
    return None


def refusing(status: int, *headers: tuple[bytes, bytes]) -> Serve:
    """Serve an HTTP refusal of the handshake."""

    async def serve(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            with suppress(trio_websocket.ConnectionClosed):
                await request.reject(status, extra_headers=list(headers), body=b"no")
            nursery.cancel_scope.cancel()

    return serve


async def silent(stream: trio.abc.Stream) -> None:
    """Accept the bytes, and never answer."""
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass


async def deaf(stream: trio.abc.Stream) -> None:
    """Finish the handshake, and never answer anything after it: no ping either."""
    async with trio.open_nursery() as nursery:
        request = await trio_websocket.wrap_server_stream(nursery, stream)
        await request.accept()
        nursery.cancel_scope.cancel()
    await silent(stream)


async def closing(stream: trio.abc.Stream) -> None:
    """Close in mid-handshake."""
    await stream.receive_some()
    await stream.aclose()


async def babbling(stream: trio.abc.Stream) -> None:
    """Answer the handshake with something else."""
    await stream.receive_some()
    await stream.send_all(b"220 smtp.example.com ESMTP\r\n\r\n")
    await silent(stream)


async def UNRESOLVED(stream: trio.abc.Stream) -> None:  # noqa: N802 - a step of its own, never called
    """The name lookup never ends."""
    raise AssertionError


Step = Serve | OSError | None
"""What one attempt gets; `None` is to be served."""


class Exchange:
    """A Binance in memory. ``script`` says what the first attempts get, in order; all later ones are served."""

    def __init__(self, nursery: trio.Nursery, script: Iterable[Step], answer: Answer) -> None:
        self._nursery = nursery
        self._script = list(script)
        self._start = trio.current_time()
        self.attempts: list[float] = []
        """When each began, in seconds since the exchange was made."""
        self.halves: list[ClientHalf] = []
        self.served: list[Served] = []
        self.answer = answer
        """What a request gets."""

    async def transport(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        self.attempts.append(trio.current_time() - self._start)
        step = self._script.pop(0) if self._script else None
        if isinstance(step, OSError):
            raise step
        if step is UNRESOLVED:
            await trio.sleep_forever()
        client, server = trio.testing.memory_stream_pair()
        half = ClientHalf(client)
        self.halves.append(half)
        self._nursery.start_soon(step or self.serve, server)
        return half

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            served = Served(stream, await request.accept())
            self.served.append(served)
            with suppress(trio_websocket.ConnectionClosed):
                while True:
                    asked = json.loads(await served.socket.get_message())
                    served.requests.append((trio.current_time() - self._start, asked))
                    if (answer := self.answer(asked)) is not None:
                        await served.socket.send_message(json.dumps(answer))


class Run:
    """A feed that runs, its exchange and its sink."""

    def __init__(self, exchange: Exchange, settings: StreamSettings, pace: ConnectionPace, seed: int = 3) -> None:
        self.exchange = exchange
        self.sink = Recorder()
        connect = partial(open_websocket, open_transport=exchange.transport)
        self.feed = Feed(settings, pace, self.sink, name="test", connect=connect, random=Random(seed))

    @property
    def served(self) -> Served:
        """The newest connection."""
        return self.exchange.served[-1]


@asynccontextmanager
async def running(
    *follow: Series,
    settings: StreamSettings = SETTINGS,
    script: Iterable[Step] = (),
    answer: Answer = granting,
    pace: ConnectionPace | None = None,
    seed: int = 3,
) -> AsyncIterator[Run]:
    """A feed, begun and settled. In the end, nothing may be open and each connected must have its lost."""
    async with trio.open_nursery() as servers:
        run = Run(Exchange(servers, script, answer), settings, pace or ConnectionPace(settings), seed)
        for series in follow:
            run.feed.follow(series)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.feed.run)
            await trio.testing.wait_all_tasks_blocked()
            yield run
            nursery.cancel_scope.cancel()
        assert all(half.closed for half in run.exchange.halves)
        assert run.sink.live == set()
        assert not run.feed.statistics().connected
        servers.cancel_scope.cancel()


Clock = trio.testing.MockClock
