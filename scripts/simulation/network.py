"""The way between the service and the exchange: streams in memory that can be cut, and a witness of what passes.

The service opens its WebSockets with its own `open_websocket`; only the TCP connection below them is replaced. The
`Witness` notes what the service has been shown, and when: it is what the checks go by where the design says "asked for
after the subscription" or "the stream never showed it".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.memory import serve_stream
from candlesync.simulator.rest import Answer
from candlesync.websocket import Connection, leaves_of, open_websocket

from .wire import Wire


class _Kline(msgspec.Struct, rename={"time": "t", "symbol": "s", "interval": "i", "closed": "x"}):
    time: int
    symbol: str
    interval: str
    closed: bool


class _Data(msgspec.Struct):
    k: _Kline | None = None


class _Frame(msgspec.Struct):
    data: _Data | None = None


_read_frame = msgspec.json.Decoder(_Frame).decode
_read_rows = msgspec.json.Decoder(list[list[Any]]).decode


class RestAnswer(msgspec.Struct, frozen=True):
    """A readable answer with rows, as the service got it."""

    asked: float
    answered: float
    start: int | None
    times: tuple[int, ...]
    """Open times; all but the last are final."""


class Lack(NamedTuple):
    """An answer that lacks a minute; without its rows, as there are many of them."""

    asked: float
    answered: float


class Witness:
    """What the service was shown of each series."""

    def __init__(self) -> None:
        self._open: dict[str, dict[object, float]] = defaultdict(dict)
        """The open connections for a symbol, and since when: while one takes over from another there are two."""
        self.answers: dict[Series, RestAnswer] = {}
        """The newest with rows."""
        self.lacked: dict[tuple[Series, int], list[Lack]] = defaultdict(list)
        """Of the minutes to be watched: the answers that showed later ones and not them."""
        self.shown: dict[Series, dict[int, bool]] = defaultdict(dict)
        """Open times that the stream has shown, and whether as closed; the newest 3,000."""
        self.closed: dict[Series, tuple[int, float]] = {}
        """The newest closed candle that the stream has shown, and when."""
        self.frames = 0
        self.watched: dict[Series, set[int]] = defaultdict(set)
        """Open times that REST may lack."""

    def connected_since(self, symbol: str) -> float | None:
        """Since when there has been a connection for a symbol; `None` while there is none."""
        return min(self._open[symbol].values(), default=None)

    @contextmanager
    def sees_connection(self, symbols: Sequence[str]) -> Iterator[None]:
        """A connection for these symbols is open for the block.

        When the service leaves one while it has another, that is a planned change: there has been a connection since
        the first began. One that was lost passes nothing on.
        """
        connection = object()
        for symbol in symbols:
            self._open[symbol][connection] = trio.current_time()
        is_left = False
        try:
            yield
        except BaseException as error:
            is_left = all(isinstance(leaf, trio.Cancelled) for leaf in leaves_of(error))
            raise
        finally:
            for symbol in symbols:
                since, others = self._open[symbol].pop(connection), self._open[symbol]
                if is_left:
                    others |= {other: min(began, since) for other, began in others.items()}

    def has_shown(self, series: Series, open_time: int) -> bool | None:
        """Whether the stream has shown a candle as closed (`True`), or as forming only (`False`), to who keeps it."""
        return self.shown[series].get(open_time)

    def lacking(self, series: Series, open_time: int) -> list[Lack]:
        """The answers to who keeps the series that showed later candles, and not this one, which is watched."""
        return self.lacked[series, open_time]

    def saw_frame(self, message: str | bytes) -> None:
        """The service has read a message of a stream."""
        self.frames += 1
        try:
            frame = _read_frame(message)
            kline = frame.data.k if frame.data is not None else None
            if kline is None:
                return
            series = Series(kline.symbol, Interval(kline.interval))
        except (msgspec.DecodeError, ValueError):
            return  # garbage
        shown = self.shown[series]
        shown[kline.time] = kline.closed or shown.get(kline.time, False)
        if len(shown) > 3_000:
            del shown[next(iter(shown))]
        if kline.closed and kline.time >= self.closed.get(series, (0, 0.0))[0]:
            self.closed[series] = kline.time, trio.current_time()

    def saw_answer(self, query: dict[str, str], answer: Answer, asked: float) -> None:
        """REST has answered a request for candles."""
        if answer.status != 200:
            return
        try:
            series = Series(query["symbol"], Interval(query["interval"]))
            rows = _read_rows(answer.body)
            times = tuple(int(row[0]) for row in rows)
            if any(len(row) != 12 or not isinstance(row[1], str) for row in rows):
                return
        except (msgspec.DecodeError, KeyError, ValueError, TypeError, IndexError):
            return
        if not times:
            return
        start = int(query["startTime"]) if "startTime" in query else None
        seen = RestAnswer(asked, trio.current_time(), start, times)
        if "endTime" not in query:
            self.answers[series] = seen
        first = times[0] if start is None else start
        for time in self.watched[series]:
            if first <= time < times[-1] and time not in times:
                self.lacked[series, time].append(Lack(seen.asked, seen.answered))


class WatchedExchange(Exchange):
    """The simulated exchange, with a witness of its answers."""

    witness: Witness

    async def answer(self, path: str, query: Sequence[tuple[str, str]]) -> Answer:
        """See `Exchange.answer`."""
        asked = trio.current_time()
        answer = await super().answer(path, query)
        if path == "/api/v3/klines":
            self.witness.saw_answer(dict(query), answer, asked)
        return answer


class ExchangeTransport(httpx.AsyncBaseTransport):
    """The way to the exchange's REST, for the service's own HTTP client: without a web framework in between."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        if request.method != "GET" or request.url.path not in self._exchange.rest_paths:
            return httpx.Response(404)
        query = parse_qsl(request.url.query.decode("ascii"), keep_blank_values=True)
        answer = await self._ask(request.url.path, query)
        await trio.lowlevel.checkpoint()  # an answer that nothing held back comes no sooner than the next step
        headers = {**answer.headers, "Content-Type": "application/json;charset=UTF-8"}
        return httpx.Response(answer.status, headers=headers, content=answer.body)

    async def _ask(self, path: str, query: Sequence[tuple[str, str]]) -> Answer:
        return await self._exchange.answer(path, query)


class Network:
    """Opens the service's connections to the exchange."""

    def __init__(self, exchange: WatchedExchange, witness: Witness) -> None:
        self._exchange = exchange
        self._witness = witness
        self._wires: dict[Wire, None] = {}
        self._down_until = 0.0

    def go_down(self, seconds: float) -> None:
        """Let no connection be opened for a while."""
        self._down_until = trio.current_time() + seconds

    def cut(self, symbol: str | None) -> None:
        """Make the connections that carry a symbol (all of them) half-open."""
        for wire in self._wires:
            if symbol is None or symbol in wire.symbols:
                wire.cut()

    @asynccontextmanager
    async def connect(self, url: str, *, message_queue_size: int, max_message_size: int) -> AsyncIterator[Connection]:
        """Open a WebSocket; in the shape of `candlesync.websocket.Connect`."""
        names = urlsplit(url).query.removeprefix("streams=").split("/")
        symbols = sorted({name.partition("@")[0].upper() for name in names})
        wires: list[Wire] = []

        async def open_transport(host: str, port: int, tls: bool) -> trio.abc.Stream:  # noqa: ARG001 - there is one way
            await trio.lowlevel.checkpoint()
            if trio.current_time() < self._down_until or not self._exchange.running:
                raise OSError("no route to host")
            wire = Wire(symbols)
            wires.append(wire)
            self._wires[wire] = None
            self._exchange.start_soon(serve_stream, self._exchange, wire.server_end)
            return wire.client_end

        try:
            async with open_websocket(
                url,
                message_queue_size=message_queue_size,
                max_message_size=max_message_size,
                open_transport=open_transport,
            ) as connection:
                with self._witness.sees_connection(symbols):
                    yield _Watched(connection, self._witness)
        finally:
            for wire in wires:
                self._wires.pop(wire, None)


class _Watched:
    """A connection, with a witness of what is read from it."""

    def __init__(self, connection: Connection, witness: Witness) -> None:
        self._connection = connection
        self._witness = witness
        self.send_message = connection.send_message
        self.ping = connection.ping

    async def get_message(self) -> str | bytes:
        message = await self._connection.get_message()
        self._witness.saw_frame(message)
        return message
