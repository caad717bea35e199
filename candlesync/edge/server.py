"""Hypercorn's connections, with an end to every send and a word of warning before the end of all.

What Hypercorn 0.18 does, and what is done about it here (all tried, see ``tests/edge/test_server.py``):

- It shields ``send_all`` without a deadline (``hypercorn/trio/tcp_server.py``): a client that stops reading holds its
  task for ever, and the whole process after SIGTERM. Here all goes through a `Line`, which ends such a connection.
- It pings, and never looks for an answer. Here a client that is silent is gone.
- It tells a handler that its client has left by a message in a bounded queue, which a handler that waits for a send
  never reads, and tells nothing after a handshake that it refused itself. Here the handlers of a connection that has
  ended are cancelled.
- It tells the handler of an answer with ``Connection: close`` that the client has left before it closes, and Quart
  cancels the handler, which was about to close. Here closing is not cancelled.
- It lets an error of one connection end the server with all of its connections; a handshake with a frame right behind
  it did that. Here such an error ends its own connection.
- It waits for applications that take nothing any more: see `edge.inbox`.
- It takes as many frames as come, and requests that two may read in two ways: see `edge.frames`, `edge.http1` and
  `edge.http2`.

`install` makes Hypercorn use it, under our own ``serve`` and under the ``hypercorn`` command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from http import HTTPStatus
from math import inf
from typing import Any, ClassVar, cast

import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, Data, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BufferCompleteError, H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import AppWrapper, LifespanState, WebsocketScope
from hypercorn.typing import Event as IOEvent
from wsproto.connection import Connection, ConnectionState
from wsproto.events import CloseConnection, Ping
from wsproto.extensions import Extension

from candlesync.edge.admission import Admission, Places
from candlesync.edge.frames import PIECE, TOO_MANY, CountedConnection, Frames, Unlimited
from candlesync.edge.http1 import StrictRequests
from candlesync.edge.http2 import StrictHttp2
from candlesync.edge.inbox import InboxTasks
from candlesync.edge.line import SEND_BUFFER, Line

_log = structlog.get_logger(__name__)

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class BoundedServer(TCPServer):
    """One client's connection."""

    admission: ClassVar[Admission | None] = None
    """Who decides which connections are served; `None`: all are."""
    new_frames: ClassVar[Callable[[], Frames]] = Unlimited
    """Makes what counts the frames of one WebSocket, or of one connection of HTTP/2."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scope = trio.CancelScope()
        """Around all that is done for the client. Hypercorn's own nursery cannot be cancelled: what it should catch
        then would go on to the server."""
        self.line = Line(self.stream, self.cut, self._ping_now)
        """All that is sent goes through it."""
        self._pinged: set[StrictStream] = set()
        """The WebSockets of this connection: one, or several over HTTP/2."""
        self._ping_at = inf
        self._reading = trio.CancelScope()
        self.reader: trio.lowlevel.Task | None = None
        """The task that reads what the client sends."""

    async def run(self) -> None:
        """Serve the connection, as Hypercorn does; an error of it ends here, and nobody else's connection."""
        try:
            with self._scope:
                _CONNECTION.set(self)
                if self.admission is None:
                    await super().run()
                else:
                    await self.admission.serve(self.stream, super().run)
        except ConnectionAbortedError:
            pass  # the client's fault, as `StrictStream` says: with a line for each, clients would fill the log
        except Exception as error:  # noqa: BLE001 - it would end the server
            _log.warning("connection failed", error=_first(error))
        finally:
            self.line.shut()
            await trio.aclose_forcefully(self.stream)

    def cut(self) -> None:
        """End the connection without a word, and all that is done for it."""
        self._scope.cancel()

    async def protocol_send(self, event: Event) -> None:
        """Send, as Hypercorn does, but in bounded time, and at once where the socket takes it."""
        if isinstance(event, RawData):
            await self.line.send(event.data)
        elif isinstance(event, Closed):
            # Shielded: the handler that closes is told of the end before it, and would leave the connection open.
            with trio.CancelScope(shield=True):
                await self._close()
            self.cut()
        else:
            # Shielded: Quart cancels the handler of an answer that was sent, which is about to start the timeout of the
            # connection, idle from now on. Without it the connection stays for ever, and holds up the server's end.
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)

    # Whatever closes the socket comes through one of these two, or `run`. From then on its number may be somebody
    # else's, and a line that is shut writes to none.

    async def _close(self) -> None:
        self.line.shut()
        await super()._close()

    async def _initiate_server_close(self) -> None:
        self.line.shut()
        await super()._initiate_server_close()

    def ping(self, stream: StrictStream) -> None:
        """Ping a WebSocket's client from now on, and cut it off when it is silent all the same."""
        self._pinged.add(stream)
        self._ping_now()

    def _ping_now(self) -> None:
        self._ping_at = self._reading.deadline = trio.current_time()

    async def _read_data(self) -> None:
        self.reader = trio.lowlevel.current_task()
        # The task that reads sends the pings, too: one that only sleeps in between would cost each client some KiB.
        while True:
            data: bytes | bytearray | None = None
            read_until = trio.current_time() + (self.config.read_timeout or inf)
            self._reading = trio.CancelScope(deadline=min(self._ping_at, read_until))
            try:
                with self._reading:
                    data = await self.stream.receive_some(MAX_RECV)
            except _GONE:
                break
            if data is not None:
                await self._take(bytes(data))
                # Nobody is silent while we deal with what it has said, and do not read on.
                self.line.hear()
            now = trio.current_time()
            if now >= self._ping_at:
                await self._ping(now)
            if data == b"" or (data is None and now >= read_until):
                break
        self.cut()

    async def _take(self, data: bytes) -> None:
        """Have it dealt with, a piece at a time: everybody else has a turn between two."""
        await self.protocol.handle(RawData(data[:PIECE]))
        for at in range(PIECE, len(data), PIECE):
            await trio.lowlevel.checkpoint()
            await self.protocol.handle(RawData(data[at : at + PIECE]))

    async def _ping(self, now: float) -> None:
        """Ping all WebSockets, and say when to do so again."""
        interval = self.config.websocket_ping_interval or inf
        late, self._ping_at = now - self._ping_at, inf
        self._pinged = {stream for stream in self._pinged if not stream.closed}
        # A process that was held up itself has heard nobody, and judges nobody.
        if late < interval / 4 and now - self.line.heard_at > SILENCE * interval:
            for stream in self._pinged:
                stream.closed = True  # or the handler's end would be told, as an internal error (1011)
            self.cut()
        if self._pinged:
            self.line.ping()
        for stream in list(self._pinged):
            await stream.ping()
        # Only now: behind other bytes a ping may have waited long, and its client has all the interval to answer. Not
        # later than that, if another stream has asked for a ping meanwhile.
        self._ping_at = min(self._ping_at, trio.current_time() + interval)


_CONNECTION: ContextVar[BoundedServer] = ContextVar("connection")
"""That of the task which serves it: Hypercorn tells its streams only how to send."""


class StrictStream(WSStream):
    """A WebSocket.

    Over HTTP/1.1 its client has to wait for the answer to its handshake, as RFC 6455 says (section 4.1): Hypercorn
    answers early data with a 400 while the application may be accepting, and their bytes mix. And the application is
    offered the connection's `Line` in its scope's extensions, to write frames past Hypercorn.

    A client that broke a rule has the connection closed. One of which nothing is heard, not even answers to pings, is
    gone.
    """

    def __init__(self, connection: BoundedServer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connection = connection
        self._send_event = self.send
        self.send = self._send

    @property
    def scope(self) -> WebsocketScope:
        """The ASGI scope, which Hypercorn makes of the request."""
        return self._scope

    @scope.setter
    def scope(self, scope: WebsocketScope) -> None:
        self._owns_connection = scope["http_version"] == "1.1"
        if self._owns_connection and self._connection.line.is_direct:
            cast("dict[str, Any]", scope["extensions"])[LINE] = self._connection.line
        self._scope = scope

    async def handle(self, event: StreamEvent) -> None:
        """Take an event of the client; raises `ConnectionAbortedError` for early data, which ends the connection."""
        is_data = isinstance(event, Body | Data) and not self.closed  # HTTP/2 has bodies
        if is_data and self._owns_connection and not self.handshake.accepted:
            raise ConnectionAbortedError("data came before the handshake was answered")
        await super().handle(event)
        if not is_data or self.state is not ASGIWebsocketState.CONNECTED:
            return
        if isinstance(self.connection, CountedConnection) and self.connection.is_flooded:
            await self._send_wsproto_event(CloseConnection(*TOO_MANY))
        if self.connection.state is ConnectionState.LOCAL_CLOSING:
            # Closed here, or by Hypercorn (1009, a message too long), without a word to the application.
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send(self, event: StreamEvent) -> None:
        # Each piece of data is one frame of wsproto's. After a close there must be none (RFC 6455, section 5.5.1).
        if isinstance(event, Data) and event.data[:1] == _CLOSE:
            self._connection.line.shut()
        if (
            self._owns_connection
            and isinstance(event, Response)
            and event.status_code != HTTPStatus.SWITCHING_PROTOCOLS
        ):
            # Hypercorn ends the connection of a WebSocket that was refused, and does not say so: a proxy would keep it
            # for its next client, and answer that one with 502.
            headers = [pair for pair in event.headers if pair[0].lower() != b"connection"]
            event = replace(event, headers=[*headers, (b"connection", b"close")])
        await self._send_event(event)

    async def _send_pings(self) -> None:
        self._connection.ping(self)

    async def ping(self) -> None:
        """Send a ping."""
        await self._send_wsproto_event(Ping())


def new_stream(*arguments: Any) -> WSStream:
    """The WebSocket of a connection of ours; one of another server in this process is Hypercorn's own."""
    connection = _CONNECTION.get(None)
    return WSStream(*arguments) if connection is None else StrictStream(connection, *arguments)


def new_connection(*arguments: Any) -> Connection:
    """wsproto's side of a WebSocket of ours, or of another server's, as with `new_stream`."""
    if _CONNECTION.get(None) is None:
        return Connection(*arguments)
    return CountedConnection(BoundedServer.new_frames(), *arguments)


def new_http2(*arguments: Any) -> H2Protocol:
    """HTTP/2 on a connection of ours, or of another server's, as with `new_stream`."""
    if _CONNECTION.get(None) is None:
        return H2Protocol(*arguments)
    return StrictHttp2(BoundedServer.new_frames(), *arguments)


def new_http1(*arguments: Any) -> H11Protocol:
    """HTTP/1.1 on a connection of ours, or of another server's, as with `new_stream`."""
    return H11Protocol(*arguments) if _CONNECTION.get(None) is None else StrictRequests(*arguments)


class BoundedBuffer(StreamBuffer):
    """What a stream of HTTP/2 has still to send. Its client may grant it no room, and read all else.

    Hypercorn's takes ever more for such a client, and waits for it for ever. Here what is too much waits, as long as a
    `Line` waits for so many bytes.
    """

    def __init__(self, event_class: type[IOEvent]) -> None:
        super().__init__(event_class)
        self._connection = _CONNECTION.get()
        self._shrunk = trio.Event()

    async def push(self, data: bytes) -> None:
        """Add to it, and wait while it holds too much; raises `BufferCompleteError` when nothing more may come."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        if trio.lowlevel.current_task() is not self._connection.reader:
            await self._connection.line.expect(len(self.buffer), self._while_full)
        elif len(self.buffer) > 2 * BUFFER_HIGH_WATER:
            # Pongs and pings. Who reads does not wait for room: it would not read that there is some. But a client that
            # asks for pongs and grants no room for them is not to be served.
            self._connection.cut()

    async def drain(self) -> None:
        """Wait until it is empty."""
        await self._connection.line.expect(len(self.buffer), super().drain)

    async def pop(self, max_length: int) -> bytes:
        """Take so many bytes from it at most."""
        data = await super().pop(max_length)
        self._note_shrunk()
        return data

    async def close(self) -> None:
        """Forget what it holds."""
        await super().close()
        self._note_shrunk()

    async def _while_full(self) -> None:
        while len(self.buffer) >= BUFFER_HIGH_WATER:
            await self._shrunk.wait()

    def _note_shrunk(self) -> None:
        self._shrunk.set()
        self._shrunk = trio.Event()


def new_buffer(event_class: type[IOEvent]) -> StreamBuffer:
    """The buffer of a stream of a connection of ours, or Hypercorn's own, as with `new_stream`."""
    return StreamBuffer(event_class) if _CONNECTION.get(None) is None else BoundedBuffer(event_class)


LINE = "candlesync.line"
"""The extension's name in an ASGI scope; its value is a `Line`."""
SILENCE = 1.5
"""A client that was not heard of for so many ping intervals, when the next ping is due, is gone."""
_CLOSE = b"\x88"
"""How a close frame begins (RFC 6455, section 5.2)."""


def no_extensions(_offered: str | Sequence[str], _known: Sequence[Extension]) -> None:
    """Accept none of the extensions that a client offers.

    Compressing takes 148 µs a message (design, section 6), and memory for each client; a candle has 200 bytes.
    """


WORKERS = "candlesync.workers"
"""Where a lifespan's state says how many workers the server has."""


class CountingLifespan(Lifespan):
    """Hypercorn's side of the lifespan, which tells the application how many workers there are.

    It is made before Hypercorn says anything: from here on what it says goes where `logging` leads, not to a stream and
    in a form of its own. A file that was asked for, and a configuration of logging, stay as they are.
    """

    def __init__(self, app: AppWrapper, config: Config, state: LifespanState) -> None:
        state[WORKERS] = config.workers
        if config.logconfig is None:
            for name in ("errorlog", "accesslog"):
                if getattr(config, name) == "-":
                    logger = logging.getLogger(f"hypercorn.{name.removesuffix('log')}")
                    logger.handlers, logger.propagate = [], True
                    logger.setLevel(config.loglevel.upper())
                    setattr(config, name, logger)
            config._log = None  # made anew of these, if it was made
        super().__init__(app, config, state)


class NoticingContext(WorkerContext):
    """Hypercorn's state of one server, which says when it begins to go down.

    An application hears of it only after the grace time (``lifespan.shutdown``), too late for a goodbye.
    """

    on_termination: ClassVar[Callable[[], None]]

    def __init__(self, max_requests: int | None) -> None:
        super().__init__(max_requests)
        self.terminated = _Noticed()


class _Noticed(EventWrapper):
    async def set(self) -> None:
        NoticingContext.on_termination()
        await super().set()


def install(
    *,
    send_timeout: float,
    grace: float,
    on_termination: Callable[[], None],
    places: Places | None = None,
    send_buffer: int = SEND_BUFFER,
) -> None:
    """Make Hypercorn bound every send, and call ``on_termination`` when it begins to go down.

    ``places`` says how many connections there may be, and frames on each; as many as come, without it.
    ``send_timeout`` and ``grace`` in seconds; sends under way when the grace time begins have half of it.
    ``send_buffer`` in bytes: what the kernel is told to hold of what a client has not taken.
    """

    def terminate() -> None:
        Line.hurry(grace / 2)
        on_termination()

    Line.configure(send_timeout, send_buffer)
    BoundedServer.admission = None if places is None else Admission(places)
    BoundedServer.new_frames = Unlimited if places is None else places.new_frames
    NoticingContext.on_termination = staticmethod(terminate)
    # The seam: Hypercorn finds each of these by its name in its own module, also in each of several workers.
    vars(hypercorn.trio.run)["TCPServer"] = BoundedServer
    vars(hypercorn.trio.run)["WorkerContext"] = NoticingContext
    vars(hypercorn.trio.run)["Lifespan"] = CountingLifespan
    vars(hypercorn.trio.tcp_server)["TaskGroup"] = InboxTasks
    vars(hypercorn.protocol)["H11Protocol"] = new_http1
    vars(hypercorn.protocol)["H2Protocol"] = new_http2
    vars(hypercorn.protocol.h11)["WSStream"] = new_stream
    vars(hypercorn.protocol.h2)["WSStream"] = new_stream
    vars(hypercorn.protocol.h2)["StreamBuffer"] = new_buffer
    vars(hypercorn.protocol.ws_stream)["server_extensions_handshake"] = no_extensions
    vars(hypercorn.protocol.ws_stream)["Connection"] = new_connection


def _first(error: BaseException) -> str:
    """The first error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)
