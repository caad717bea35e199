"""A client's connection: every send of it ends, its client is there or it ends, and an error of it ends nothing else.

Why Hypercorn's own is not enough: see ``edge.server``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from math import inf
from typing import Any, ClassVar, Protocol

import structlog
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer

from candlesync.edge.admission import Admission
from candlesync.edge.frames import PIECE, Frames, Unlimited
from candlesync.edge.line import Line

SILENCE = 1.5
"""A client that was not heard of for so many ping intervals, when the next ping is due, is gone."""

_log = structlog.get_logger(__name__)

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Pinged(Protocol):
    """A WebSocket whose client is pinged."""

    closed: bool
    """Whether it has ended."""

    async def ping(self) -> None:
        """Send a ping."""
        ...


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
        self._pinged: set[Pinged] = set()
        """The WebSockets of this connection: one, or several over HTTP/2."""
        self._ping_at = inf
        self._reading = trio.CancelScope()
        self.reader: trio.lowlevel.Task | None = None
        """The task that reads what the client sends."""

    async def run(self) -> None:
        """Serve the connection, as Hypercorn does; an error of it ends here, and nobody else's connection."""
        try:
            with self._scope:
                CONNECTION.set(self)
                if self.admission is None:
                    await super().run()
                else:
                    await self.admission.serve(self.stream, super().run)
        except ConnectionAbortedError:
            pass  # the client's fault, as ``edge.websocket`` says: with a line for each, clients would fill the log
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

    def ping(self, stream: Pinged) -> None:
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


CONNECTION: ContextVar[BoundedServer] = ContextVar("connection")
"""That of the task which serves it: Hypercorn tells its streams only how to send."""


def _first(error: BaseException) -> str:
    """The first error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)
