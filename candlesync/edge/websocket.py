"""A WebSocket under Hypercorn: the handshake as RFC 6455 has it, a close after a broken rule, and pings that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast

from hypercorn.protocol.events import Body, Data, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import WebsocketScope
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Ping
from wsproto.extensions import Extension

from candlesync.edge.connection import BoundedServer
from candlesync.edge.frames import TOO_MANY, CountedConnection

LINE = "candlesync.line"
"""The extension's name in an ASGI scope; its value is a `Line`."""
_CLOSE = b"\x88"
"""How a close frame begins (RFC 6455, section 5.2)."""


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


def no_extensions(_offered: str | Sequence[str], _known: Sequence[Extension]) -> None:
    """Accept none of the extensions that a client offers.

    Compressing takes 148 µs a message (design, section 6), and memory for each client; a candle has 200 bytes.
    """
