"""The exchange on a real socket: Hypercorn's connections, accepted by us.

``hypercorn.trio.serve`` would do but for two things that a simulator of failures needs. A fault breaks TCP connections,
without a close frame, which no ASGI application can; and the process ends at once when it is told to, while
Hypercorn waits for clients, and for ever for one that does not read (its sends are shielded from cancellation).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope
from hypercorn.utils import wrap_app

from candlesync.simulator.app import ABORT, create_app
from candlesync.simulator.exchange import Exchange

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing the socket resets the connection."""

_LONGEST_REQUEST = 2**17
"""Bytes of a request's head: the URL of a connection may name 1,024 streams."""


async def serve(
    exchange: Exchange,
    listeners: list[trio.SocketListener],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve REST, streams and control calls on ``listeners`` (of ``trio.open_tcp_listeners``) until cancelled.

    The exchange is run by its owner. Connections that are open at the end are broken, and the listeners closed.
    """
    config = Config()
    config.h11_max_incomplete_size = _LONGEST_REQUEST
    config.websocket_ping_interval = exchange.settings.ping_seconds
    app = create_app(exchange)
    context = WorkerContext(None)
    connections: dict[_Connection, None] = {}

    async def connected(stream: trio.SocketStream) -> None:
        connection = _Connection(app, config, context, stream)
        connections[connection] = None
        try:
            await connection.run()
        finally:
            del connections[connection]

    async with trio.open_nursery() as nursery:
        try:
            task_status.started()
            await trio.serve_listeners(connected, listeners, handler_nursery=nursery)
        finally:
            for connection in connections:
                connection.abort()


class _Connection(TCPServer):
    """A connection of Hypercorn's that lends the application the means to break it."""

    def __init__(self, app: ASGIFramework, config: Config, context: WorkerContext, stream: trio.SocketStream) -> None:
        wrapped = wrap_app(_lend(app, self.abort), config.wsgi_max_body_size, "asgi")
        super().__init__(wrapped, config, context, ConnectionState({}), stream)  # type: ignore[arg-type] # TLS or not

    def abort(self) -> None:
        """Reset the TCP connection."""
        connection: trio.socket.SocketType = self.stream.socket
        if connection.fileno() != -1:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.close()


def _lend(app: ASGIFramework, abort: Callable[[], None]) -> ASGIFramework:
    async def lending(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "websocket":
            scope["extensions"][ABORT] = {"now": abort}
        await app(scope, receive, send)

    return lending
