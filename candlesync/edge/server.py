"""Hypercorn's connections, with an end to every send and a word of warning before the end of all.

What Hypercorn 0.18 does, and what is done about it here (all tried, see ``tests/edge/test_server.py``):

- It shields ``send_all`` without a deadline (``hypercorn/trio/tcp_server.py``): a client that stops reading holds its
  task for ever, and the whole process after SIGTERM. Here all goes through a `Line`, which ends such a connection.
- It pings, and never looks for an answer. Here a client that is silent is gone (`edge.connection`).
- It tells a handler that its client has left by a message in a bounded queue, which a handler that waits for a send
  never reads, and tells nothing after a handshake that it refused itself. Here the handlers of a connection that has
  ended are cancelled.
- It tells the handler of an answer with ``Connection: close`` that the client has left before it closes, and Quart
  cancels the handler, which was about to close. Here closing is not cancelled.
- It lets an error of one connection end the server with all of its connections; a handshake with a frame right behind
  it did that. Here such an error ends its own connection.
- It answers data that comes before a WebSocket's handshake is done, and says nothing when it ends the connection of one
  that was refused: see `edge.websocket`.
- It waits for applications that take nothing any more: see `edge.inbox`.
- It takes as many frames as come, and requests that two may read in two ways: see `edge.frames`, `edge.http1` and
  `edge.http2`.

`install` makes Hypercorn use it, under our own ``serve`` and under the ``hypercorn`` command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import hypercorn.trio.tcp_server
from hypercorn.config import Config
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import AppWrapper, LifespanState
from hypercorn.typing import Event as IOEvent
from wsproto.connection import Connection

from candlesync.edge.admission import Admission, Places
from candlesync.edge.connection import CONNECTION, BoundedServer
from candlesync.edge.frames import CountedConnection, Unlimited
from candlesync.edge.http1 import StrictRequests
from candlesync.edge.http2 import BoundedBuffer, StrictHttp2
from candlesync.edge.inbox import InboxTasks
from candlesync.edge.line import SEND_BUFFER, Line
from candlesync.edge.websocket import StrictStream, no_extensions


def new_stream(*arguments: Any) -> WSStream:
    """The WebSocket of a connection of ours; one of another server in this process is Hypercorn's own."""
    connection = CONNECTION.get(None)
    return WSStream(*arguments) if connection is None else StrictStream(connection, *arguments)


def new_connection(*arguments: Any) -> Connection:
    """wsproto's side of a WebSocket of ours, or of another server's, as with `new_stream`."""
    if CONNECTION.get(None) is None:
        return Connection(*arguments)
    return CountedConnection(BoundedServer.new_frames(), *arguments)


def new_http2(*arguments: Any) -> H2Protocol:
    """HTTP/2 on a connection of ours, or of another server's, as with `new_stream`."""
    if CONNECTION.get(None) is None:
        return H2Protocol(*arguments)
    return StrictHttp2(BoundedServer.new_frames(), *arguments)


def new_http1(*arguments: Any) -> H11Protocol:
    """HTTP/1.1 on a connection of ours, or of another server's, as with `new_stream`."""
    return H11Protocol(*arguments) if CONNECTION.get(None) is None else StrictRequests(*arguments)


def new_buffer(event_class: type[IOEvent]) -> StreamBuffer:
    """The buffer of a stream of a connection of ours, or Hypercorn's own, as with `new_stream`."""
    return StreamBuffer(event_class) if CONNECTION.get(None) is None else BoundedBuffer(event_class)


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
