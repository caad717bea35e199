"""Hypercorn's connections, with an end to every send and a word of warning before the end of all.

What Hypercorn 0.18 does, and what is done about it here (all tried, see ``tests/edge/test_server.py``):

- It shields ``send_all`` without a deadline (``hypercorn/trio/tcp_server.py``): a client that stops reading holds its
  task for ever, and the whole process after SIGTERM. Here a send that takes too long ends its connection.
- It tells a handler that its client has left by a message in a bounded queue, which a handler that waits for a send
  never reads, and tells nothing after a handshake that it refused itself. Here the handlers of a connection that has
  ended are cancelled.
- It tells the handler of an answer with ``Connection: close`` that the client has left before it closes, and Quart
  cancels the handler, which was about to close. Here closing is not cancelled.
- It lets an error of one connection end the server with all of its connections; a handshake with a frame right behind
  it did that. Here such an error ends its own connection.

`install` makes Hypercorn use it, under our own ``serve`` and under the ``hypercorn`` command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, ClassVar

import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Data, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import AppWrapper, LifespanState
from wsproto.connection import ConnectionState
from wsproto.extensions import Extension
from wsproto.handshake import server_extensions_handshake

_log = structlog.get_logger(__name__)

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class BoundedServer(TCPServer):
    """One client's connection."""

    send_timeout: ClassVar[float] = 30.0
    """Seconds that one send may take. A send is at most one frame or a part of a body, so a client that reads at all,
    however slowly, is done with it long before."""
    _sends: ClassVar[set[trio.CancelScope]] = set()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scope = trio.CancelScope()
        """Around all that is done for the client. Hypercorn's own nursery cannot be cancelled: what it should catch
        then would go on to the server."""

    async def run(self) -> None:
        """Serve the connection, as Hypercorn does; an error of it ends here, and nobody else's connection."""
        try:
            with self._scope:
                await super().run()
        except Exception as error:  # noqa: BLE001 - it would end the server
            _log.warning("connection failed", error=_first(error))
        finally:
            await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        """Send, as Hypercorn does, but give up at the deadline and cut the connection."""
        if isinstance(event, Closed):
            # Shielded: the handler that closes is told of the end before it, and would leave the connection open.
            with trio.CancelScope(shield=True):
                await self._close()
            self._scope.cancel()
            return
        if not isinstance(event, RawData):
            # Shielded: Quart cancels the handler of an answer that was sent, which is about to start the timeout of the
            # connection, idle from now on. Without it the connection stays for ever, and holds up the server's end.
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)
            return
        # Shielded as in Hypercorn, and the lock with it: wsproto has made the frame, and for its compression every
        # frame made is a frame sent. So a cancellation neither cuts a frame in two nor leaves one out. But bounded.
        with trio.CancelScope(shield=True):
            async with self.send_lock:
                await self._send(event.data)

    async def _send(self, data: bytes) -> None:
        is_gone = False
        with trio.CancelScope(deadline=trio.current_time() + self.send_timeout) as scope:
            self._sends.add(scope)
            try:
                await self.stream.send_all(data)
            except _GONE:
                is_gone = True
            finally:
                self._sends.discard(scope)
        if scope.cancelled_caught or is_gone:
            await trio.aclose_forcefully(self.stream)
            self._scope.cancel()

    async def _read_data(self) -> None:
        while True:
            try:
                with trio.fail_after(self.config.read_timeout or inf):
                    data = await self.stream.receive_some(MAX_RECV)
            except (*_GONE, trio.TooSlowError):
                break
            await self.protocol.handle(RawData(bytes(data)))
            if not data:
                break
        self._scope.cancel()

    @classmethod
    def hurry(cls, seconds: float) -> None:
        """Give all sends that are under way, and those to come, so many seconds at most: the process is ending."""
        cls.send_timeout = min(cls.send_timeout, seconds)
        for scope in cls._sends:
            scope.deadline = min(scope.deadline, trio.current_time() + seconds)


class StrictStream(WSStream):
    """A WebSocket whose client has to wait for the answer to its handshake, as RFC 6455 says (section 4.1).

    Hypercorn answers early data with a 400 while the application may be accepting, and their bytes mix. And a client
    that broke a rule has the connection closed.
    """

    async def handle(self, event: StreamEvent) -> None:
        """Take an event of the client; raises `ConnectionAbortedError` for early data, which ends the connection."""
        if isinstance(event, Data) and not self.closed and not self.handshake.accepted:
            raise ConnectionAbortedError("data came before the handshake was answered")
        await super().handle(event)
        if not isinstance(event, Data) or self.state is not ASGIWebsocketState.CONNECTED:
            return
        if self.connection.state is ConnectionState.LOCAL_CLOSING:
            # Hypercorn itself has closed (1009, a message too long), without a word to the application.
            await self.send(StreamClosed(stream_id=self.stream_id))


def extensions_or_none(offered: str | Sequence[str], known: Sequence[Extension]) -> bytes | None:
    """What of the offered extensions is accepted; nothing, when the offer cannot be read (wsproto raises then)."""
    try:
        return server_extensions_handshake(offered, list(known))
    except (ValueError, IndexError):
        return None


WORKERS = "candlesync.workers"
"""Where a lifespan's state says how many workers the server has."""


class CountingLifespan(Lifespan):
    """Hypercorn's side of the lifespan, which tells the application how many workers there are."""

    def __init__(self, app: AppWrapper, config: Config, state: LifespanState) -> None:
        state[WORKERS] = config.workers
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


def install(*, send_timeout: float, grace: float, on_termination: Callable[[], None]) -> None:
    """Make Hypercorn bound every send, and call ``on_termination`` when it begins to go down.

    ``send_timeout`` and ``grace`` in seconds; sends under way when the grace time begins have half of it.
    """

    def terminate() -> None:
        BoundedServer.hurry(grace / 2)
        on_termination()

    BoundedServer.send_timeout = send_timeout
    NoticingContext.on_termination = staticmethod(terminate)
    # The seam: Hypercorn finds each of these by its name in its own module, also in each of several workers.
    vars(hypercorn.trio.run)["TCPServer"] = BoundedServer
    vars(hypercorn.trio.run)["WorkerContext"] = NoticingContext
    vars(hypercorn.trio.run)["Lifespan"] = CountingLifespan
    vars(hypercorn.protocol.h11)["WSStream"] = StrictStream
    vars(hypercorn.protocol.ws_stream)["server_extensions_handshake"] = extensions_or_none


def _first(error: BaseException) -> str:
    """The first error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return repr(error)
