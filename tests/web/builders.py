"""The web layer over real topics, and the clients that its tests look at it with.

The application, the hub, its topics and replicas, the sockets and the metrics are the real ones. Only who starts series
is a stand-in: `Series on demand` are answered from what the test has put into the hub, or refused as the test says.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any, cast

import httpx
import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import pytest
import structlog.testing
import trio
import trio.testing
import trio_websocket
from hypercorn.trio import serve as hypercorn_serve
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from candlesync.archive import Archive, Klines
from candlesync.binance.pace import ConnectionPace
from candlesync.binance.pool import FeedPool
from candlesync.binance.public_paths import public_api
from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings
from candlesync.binance.stream import StreamSettings
from candlesync.binance.symbols import Symbols
from candlesync.binance.venue import SPOT, Venue
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.record import Record
from candlesync.core.replica import Commit
from candlesync.core.sync import State
from candlesync.doors.binance.departures import Departures
from candlesync.doors.binance.klines import Klines as BinanceKlines
from candlesync.doors.binance.metrics import passing_metrics, stream_metrics
from candlesync.doors.binance.passing import Passing
from candlesync.doors.binance.rest import BinanceRest
from candlesync.doors.binance.streams import stream_routes
from candlesync.doors.forms import FORMS
from candlesync.doors.udf.routes import udf_routes
from candlesync.edge.line import SEND_BUFFER
from candlesync.edge.server import install
from candlesync.errors import CandlesyncError, UnknownSymbol
from candlesync.hub import Hub, Topic
from candlesync.server import hypercorn_config
from candlesync.supervisor import Supervisor, SupervisorSettings, asked_by
from candlesync.symbol import SymbolTask
from candlesync.web.access import Access, AccessSettings
from candlesync.web.app import create_app
from candlesync.web.connections import Connections
from candlesync.web.live import Sockets
from candlesync.web.metrics import Metrics
from candlesync.web.metrics_clients import client_metrics, request_metrics
from candlesync.web.metrics_upstream import archive_metrics, upstream_metrics
from candlesync.web.requests import Requests
from candlesync.web.stopping import Stopping
from tests.builders import BTC, minutes
from tests.scopes import http_scope, websocket_scope

LIFE = "life0"


@pytest.fixture(autouse=True)
def clean_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does leaves an error or a traceback in the log: ours, Quart's, Hypercorn's or Trio's."""
    with structlog.testing.capture_logs() as events:
        yield
    assert not [event for event in events if event["log_level"] in {"error", "critical"} or "exc_info" in event]
    assert not [
        record.getMessage() for record in caplog.get_records("call") if record.levelname in {"ERROR", "CRITICAL"}
    ]


def symbols_over(
    listed: Iterable[str | dict[str, Any]], status: int = 200, venue: Venue = SPOT
) -> tuple[Symbols, Rest]:
    """Binance's list of symbols, answered by a small REST of our own, and that REST's client.

    A symbol is a name, or all that is listed of it. Its time is Trio's, after 2023-11-14 22:13:20.
    """
    infos = [
        {"symbol": info, "status": "TRADING", "baseAsset": info[:3], "quoteAsset": info[3:]}
        if isinstance(info, str)
        else info
        for info in listed
    ]

    async def binance(request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        path, named = request.url.path.rpartition("/v")[2].partition("/")[2], request.url.params.get("symbol")
        if path == "time":
            return httpx.Response(status, json={"serverTime": 1_700_000_000_000 + int(trio.current_time() * 1000)})
        if status == 200 and named is not None and named not in {info["symbol"] for info in infos}:
            return httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."})
        answer = {"symbols": infos} if path == "exchangeInfo" else {"path": path}
        return httpx.Response(status, json=answer, headers={"X-MBX-USED-WEIGHT-1M": "1"})

    client = httpx.AsyncClient(transport=httpx.MockTransport(binance), base_url="http://binance")
    rest = Rest(client, WeightBudget(WeightSettings(spread=0)), RestSettings(venue=venue, attempts=1))
    return Symbols(rest), rest


class StandIn(Supervisor):
    """Who follows series, without following any: `ensure` gives the topic that the test made, or raises."""

    def __init__(self, hub: Hub, symbols: Symbols, pinned: Iterable[Series]) -> None:
        super().__init__(pinned, hub=hub, symbols=symbols, new_task=_no_task, settings=SupervisorSettings())
        self.hub = hub
        self.refusals: dict[str, CandlesyncError] = {}
        """What is raised for a symbol."""
        self.delay = 0.0
        """Seconds that a series takes to start."""
        self.asked: list[Series] = []
        self.asked_by: list[str] = []
        """On behalf of which address."""

    def at_once(self, series: Series) -> Topic | None:
        topic = None if self.delay or series.symbol in self.refusals else super().at_once(series)
        if topic is not None:
            self.asked.append(series)
        return topic

    async def ensure(self, series: Series) -> Topic:
        self.asked.append(series)
        self.asked_by.append(asked_by.get())
        await trio.sleep(self.delay)
        if series.symbol in self.refusals:
            error = self.refusals[series.symbol]
            raise error.with_traceback(None)
        topic = self.hub.get(series)
        if topic is None:
            raise UnknownSymbol(f"Binance does not list {series.symbol}")
        topic.touch()
        return topic


def _no_task(_symbol: str, _intervals: object) -> SymbolTask:
    raise AssertionError("no task is started for a series of the web tests")


class NothingOlder:
    """Binance's history of a series that begins with what the store has."""

    def __init__(self) -> None:
        self.budget = WeightBudget(WeightSettings(spread=0))

    async def klines(self, series: Series, **_question: Any) -> tuple[Candle, ...]:  # noqa: ARG002 - whatever is asked
        await trio.lowlevel.checkpoint()
        return ()


class Web:
    """The application with its parts."""

    def __init__(
        self,
        *,
        history: int = 1000,
        pinned: Sequence[Series] = (),
        max_subscriptions: int = 500,
        message_rate: float = 50.0,
        access: AccessSettings | None = None,
        listed: Sequence[str | dict[str, Any]] = ("BTCUSDT", "ETHUSDT"),
        binance_status: int = 200,
        max_connections: int = 10_000,
        klines: Klines | None = None,
        venue: Venue = SPOT,
    ) -> None:
        self.hub = Hub(history)
        self.last_scope: dict[str, Any] = {}
        """Of the last request that was `asked`."""
        symbols, rest = symbols_over(listed, binance_status, venue)
        self.supervisor = StandIn(self.hub, symbols, pinned)
        self.stopping = Stopping()
        self.sockets = Sockets(self.supervisor, self.stopping, max_subscriptions, message_rate)
        settings = access or AccessSettings()
        self.access = Access(settings, FORMS)
        self.requests = Requests(FORMS)
        self.connections = Connections(max_connections, settings.connections or inf, settings.callers, message_rate)
        stream = StreamSettings(stream_url="ws://binance.test")
        self.feeds = FeedPool(stream, ConnectionPace(stream))
        self.record = Record(pinned)
        self.archive = Archive(klines or NothingOlder())
        self.passing = Passing(rest)
        departures = Departures()
        sources = [
            partial(upstream_metrics, rest, self.feeds),
            partial(archive_metrics, self.archive),
            partial(client_metrics, self.hub, self.supervisor, self.sockets, self.access, self.connections),
            partial(request_metrics, self.requests),
            partial(passing_metrics, self.passing),
            partial(stream_metrics, self.sockets, departures),
        ]
        registry: CollectorRegistry = Metrics(self.hub, self.supervisor, self.record, sources).registry()
        binance = BinanceKlines(public_api(rest.venue), self.supervisor, symbols, self.archive, self.passing)
        self.app: QuartTrio = create_app(
            self.supervisor,
            symbols,
            self.sockets,
            registry,
            self.stopping,
            archive=self.archive,
            access=self.access,
            requests=self.requests,
            doors=(
                stream_routes(rest.venue, self.supervisor, self.sockets, departures),
                BinanceRest(binance, self.passing).routes(),
                udf_routes(self.supervisor, symbols, self.archive, rest),
            ),
        )

    def topic(
        self, candles: Sequence[Candle] | None = None, *, series: Series = BTC, state: State = State.LIVE
    ) -> Topic:
        """A series that is followed; ten closed minutes when no candles are given."""
        topic = self.hub.open(series)
        topic.publish(Commit(LIFE, 1, tuple(minutes(0, 9) if candles is None else candles), begins=True))
        topic.set_state(state)
        return topic

    async def asked(
        self,
        path: str = "/health",
        *headers: tuple[str, str],
        client: str | None = "192.0.2.1",
        method: str = "GET",
    ) -> Answer:
        """A request as a server passes it on, from an address."""
        scope = http_scope(path, [(name.lower().encode(), value.encode()) for name, value in headers], method=method)
        scope["client"] = None if client is None else (client, 1)
        self.last_scope = scope
        sent: list[dict[str, Any]] = []
        to_app, from_client = trio.open_memory_channel[dict[str, Any]](1)
        await to_app.send({"type": "http.request", "body": b"", "more_body": False})

        async def keep(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        async with self._reading():
            await cast("Any", self.app)(scope, from_client.receive, keep)
        start, *bodies = sent
        pairs = [(name.decode(), value.decode()) for name, value in start["headers"]]
        return Answer(start["status"], pairs, b"".join(body["body"] for body in bodies))

    async def get(self, path: str, **headers: str) -> Answer:
        """``GET``, with the headers ``If_None_Match=…`` and so on."""
        return await self.request("GET", path, **headers)

    async def request(self, method: str, path: str, **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        client = cast("Any", self.app.test_client())  # its protocol has no optional arguments
        async with self._reading():
            response = await client.open(path, method=method, headers=names)
        return Answer(response.status_code, response.headers.items(), await response.get_data(as_text=False))

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        """Have the archive read and questions passed on, unless somebody has it already."""
        if self.archive.is_open:
            yield
            return
        async with trio.open_nursery() as nursery:
            await nursery.start(self.archive.run)
            await nursery.start(self.passing.run)
            yield
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def socket(
        self, path: str, *headers: tuple[str, str], capacity: float = inf, client: str = "127.0.0.1"
    ) -> AsyncIterator[Socket]:
        """A WebSocket client; ``capacity`` messages of the server's find room before it waits."""
        socket = Socket(path, capacity)
        socket.scope["client"] = (client, 1)
        socket.scope["headers"] += [(name.lower().encode(), value.encode()) for name, value in headers]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, socket)
            try:
                yield socket
            finally:
                await socket.leave()

    async def _serve(self, socket: Socket) -> None:
        await cast("Any", self.app)(socket.scope, socket.asgi_receive, socket.asgi_send)
        socket.ended.set()


class Answer:
    """An HTTP answer."""

    def __init__(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = httpx.Headers(list(headers))
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code, of an answer in the one form of errors."""
        value = self.json
        assert list(value) == ["error"], value
        assert list(value["error"]) == ["code", "message"], value
        assert value["error"]["message"]
        return str(value["error"]["code"])


class Socket:
    """A WebSocket client that speaks ASGI with the application: virtual time, no bytes, any version of Quart."""

    def __init__(self, path: str, capacity: float) -> None:
        self.scope = websocket_scope(path)
        self._to_server, self._from_client = trio.open_memory_channel[dict[str, Any]](10)
        self._to_client, self._from_server = trio.open_memory_channel[str | bytes](capacity)
        self.accepted = trio.Event()
        self.closed = trio.Event()
        """Set when the server has closed, or refused."""
        self.ended = trio.Event()
        """Set when the server has nothing left to do with this socket."""
        self.close: tuple[int, str] | None = None
        """Code and reason, once the server has closed."""
        self.refusal: Answer | None = None
        """The HTTP answer of a refused upgrade."""
        self._left = False

    async def send(self, message: object) -> None:
        """Send JSON, or a text or bytes as they are."""
        kind = "bytes" if isinstance(message, bytes) else "text"
        data = message if isinstance(message, str | bytes) else json.dumps(message)
        await self._to_server.send({"type": "websocket.receive", "text": None, "bytes": None, kind: data})

    async def receive(self) -> Any:
        """The next message, read as JSON; fails the test when none comes within a minute, or when it is closed."""
        return json.loads(await self.receive_text())

    async def receive_text(self) -> str:
        with trio.fail_after(60):
            message = await self._from_server.receive()
        assert isinstance(message, str)
        return message

    async def take(self, count: int) -> list[Any]:
        """The next ``count`` messages."""
        return [await self.receive() for _ in range(count)]

    async def rest(self) -> list[Any]:
        """Everything that is on its way, until nothing happens any more."""
        messages = []
        while True:
            await trio.testing.wait_all_tasks_blocked()
            try:
                messages.append(json.loads(self._from_server.receive_nowait()))
            except (trio.WouldBlock, trio.EndOfChannel):
                return messages

    async def until_closed(self) -> tuple[int, str]:
        """Wait for the server's close; its code and reason."""
        with trio.fail_after(60):
            await self.closed.wait()
        assert self.close is not None, f"refused with {self.refusal and self.refusal.body!r}"
        return self.close

    async def until_refused(self) -> Answer:
        """Wait for the server's refusal of the upgrade."""
        with trio.fail_after(60):
            await self.closed.wait()
        assert self.refusal is not None, f"closed with {self.close}"
        assert not self.accepted.is_set()
        return self.refusal

    async def leave(self) -> None:
        """Go away, as a connection that is gone does."""
        if not self._left:
            self._left = True
            self._from_server.close()
            await self._to_server.send({"type": "websocket.disconnect", "code": 1006})

    async def asgi_receive(self) -> dict[str, Any]:
        return await self._from_client.receive()

    async def asgi_send(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.accept":
                self.accepted.set()
            case "websocket.send":
                text, data = message.get("text"), message.get("bytes")
                try:
                    await self._to_client.send(str(text) if data is None else data)
                except trio.BrokenResourceError:
                    await trio.lowlevel.checkpoint()  # Hypercorn drops what is sent to one who has left
            case "websocket.close":
                self.close = (message["code"], message.get("reason") or "")
                self.closed.set()
                self._to_client.close()
            case "websocket.http.response.start":
                headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
                self.refusal = Answer(message["status"], headers, b"")
            case "websocket.http.response.body":
                assert self.refusal is not None
                self.refusal.body += message["body"]
                if not message.get("more_body"):
                    self.closed.set()
                    self._to_client.close()
            case other:
                raise AssertionError(other)


def commit(topic: Topic, *candles: Candle, begins: bool = False, life: str | None = None) -> list[Entry]:
    """Publish the next commit of a series, as the synchronizer does."""
    replica = topic.replica
    if life is not None:
        return topic.publish(Commit(life, 1, candles, begins=True, replaces=replica.life))
    return topic.publish(Commit(replica.life, replica.revision + 1, candles, begins))


@asynccontextmanager
async def on_a_port(
    web: Web, *, grace: float = 2.0, send_timeout: float = 30.0, send_buffer: int = SEND_BUFFER, **settings: object
) -> AsyncIterator[Port]:
    """The application under real Hypercorn, with our connections, on a free port.

    ``send_buffer`` is what the kernel keeps of what a client does not read. ``settings`` are Hypercorn's.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in SEAMS:
            patch.setattr(module, name, getattr(module, name))  # so that it is as before afterwards
        install(
            send_timeout=send_timeout,
            grace=grace,
            on_termination=web.stopping.set,
            places=web.connections,
            send_buffer=send_buffer,
        )
        async with trio.open_nursery() as around:
            await around.start(web.sockets.turn.run)
            await around.start(web.archive.run)
            await around.start(web.passing.run)
            listener = socket.create_server(("127.0.0.1", 0))
            port = Port(listener.getsockname()[1])
            config = hypercorn_config([f"fd://{listener.detach()}"], grace)
            for name, value in settings.items():
                setattr(config, name, value)
            run = partial(hypercorn_serve, cast("Any", web.app), config, shutdown_trigger=port.stop.wait)
            async with trio.open_nursery() as nursery:
                await nursery.start(run)
                try:
                    yield port
                finally:
                    port.stop.set()
            around.cancel_scope.cancel()


SEAMS = (
    (hypercorn.trio.run, "TCPServer"),
    (hypercorn.trio.run, "WorkerContext"),
    (hypercorn.trio.run, "Lifespan"),
    (hypercorn.trio.tcp_server, "TaskGroup"),
    (hypercorn.protocol, "H11Protocol"),
    (hypercorn.protocol, "H2Protocol"),
    (hypercorn.protocol.h11, "WSStream"),
    (hypercorn.protocol.h2, "WSStream"),
    (hypercorn.protocol.h2, "StreamBuffer"),
    (hypercorn.protocol.ws_stream, "server_extensions_handshake"),
    (hypercorn.protocol.ws_stream, "Connection"),
)
"""What `install` replaces."""


class Port:
    """Where a server listens."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.stop = trio.Event()
        """Set to make the server go down."""

    async def connect(self, *, receive_buffer: int | None = None) -> trio.SocketStream:
        """A raw connection; with a small buffer it is soon full."""
        connection = trio.socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await connection.connect(("127.0.0.1", self.number))
        except OSError:
            connection.close()
            raise
        return trio.SocketStream(connection)

    @asynccontextmanager
    async def websocket(self, path: str) -> AsyncIterator[Any]:
        """A WebSocket client that keeps to the rules."""
        with trio.fail_after(10):
            async with trio_websocket.open_websocket("127.0.0.1", self.number, path, use_ssl=False) as client:
                yield client


def upgrade(path: str, *headers: str) -> bytes:
    """A client's handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def frame(payload: bytes | str, opcode: int = 1) -> bytes:
    """A client's frame: FIN, masked with zeros."""
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + bytes(4) + data


async def read_all(stream: trio.SocketStream, *, seconds: float = 60.0) -> bytes:
    """Everything until the server closes the connection; fails the test when it does not."""
    received = bytearray()
    with trio.fail_after(seconds):
        try:
            async for data in stream:
                received += data
        except trio.BrokenResourceError:
            pass
    return bytes(received)
