"""Stream connections without sockets: client and exchange in one process, under a virtual clock if need be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Protocol
from urllib.parse import urlsplit

import trio
import trio.testing
from trio_websocket import (
    ConnectionClosed,
    ConnectionTimeout,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    WebSocketRequest,
    wrap_client_stream,
    wrap_server_stream,
)
from wsproto.utilities import LocalProtocolError

from candlesync.simulator.exchange import Exchange
from candlesync.simulator.session import ClientGone


class _End(Protocol):
    def close(self) -> None: ...


class MemoryStream(Protocol):
    """Both directions of a connection in memory, each of which can be closed at once; ``trio.StapledStream`` has them,
    over the halves of ``trio.testing.memory_stream_pair`` or over others.
    """

    @property
    def send_stream(self) -> _End:
        """What goes out."""

    @property
    def receive_stream(self) -> _End:
        """What comes in."""


_HANDSHAKE_SECONDS = 60.0
"""How long a client has to say what it wants."""


@asynccontextmanager
async def connect_in_memory(
    exchange: Exchange,
    url: str,
    ssl_context: object = None,  # noqa: ARG001 - the shape is that of open_websocket_url
    *,
    subprotocols: Iterable[str] | None = None,
    extra_headers: list[tuple[bytes, bytes]] | None = None,
    message_queue_size: int = 1,
    max_message_size: int = 2**20,
    connect_timeout: float = 60,
    disconnect_timeout: float = 60,
    receive_buffer_size: int | None = 4096,
) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket to the exchange, in the call shape of ``trio_websocket.open_websocket_url``.

    The host of ``url`` does not matter. Raises what the real one does: ``ConnectionRejected`` for a refused handshake,
    ``ConnectionTimeout``, and ``HandshakeError`` while the exchange does not run.
    """
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if not exchange.running:
        raise HandshakeError
    client_end, server_end = trio.testing.memory_stream_pair()
    exchange.start_soon(serve_stream, exchange, server_end)
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(connect_timeout):
                    connection = await wrap_client_stream(
                        nursery,
                        client_end,  # type: ignore[arg-type] # annotated for sockets, made for any stream
                        parts.netloc,
                        target,
                        subprotocols=subprotocols,
                        extra_headers=extra_headers,
                        message_queue_size=message_queue_size,
                        max_message_size=max_message_size,
                        receive_buffer_size=receive_buffer_size,
                    )
            except trio.TooSlowError:
                raise ConnectionTimeout from None
            try:
                yield connection
            finally:
                await _close(connection, disconnect_timeout)
    except BaseExceptionGroup as group:
        raise _alone(group) from None
    finally:
        _break(client_end)


async def _close(connection: WebSocketConnection, timeout: float) -> None:
    try:
        with trio.fail_after(timeout):
            await connection.aclose()
    except trio.TooSlowError:
        raise DisconnectionTimeout from None


def _alone(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception that matters in what the nursery raised; the group itself if there are several."""
    _, others = group.split(trio.Cancelled)
    found: BaseException = others if others is not None else group
    while isinstance(found, BaseExceptionGroup) and (len(found.exceptions) == 1 or others is None):
        found = found.exceptions[0]
    return found


async def serve_stream(exchange: Exchange, stream: MemoryStream) -> None:
    """The exchange's end of a connection over one half of a memory stream pair, from its handshake on."""
    try:
        async with trio.open_nursery() as nursery:
            with suppress(ConnectionClosed):
                request = await _request(nursery, stream)
                status = await exchange.refusal(request.path)
                if status is None:
                    await exchange.serve(_MemoryTransport(await request.accept(), stream), request.path)
                else:
                    await request.reject(status)
            nursery.cancel_scope.cancel()
    except* LocalProtocolError:
        pass  # trio-websocket's reader: a client's ping came when our close frame was on its way
    finally:
        _break(stream)


async def _request(nursery: trio.Nursery, stream: MemoryStream) -> WebSocketRequest:
    with trio.move_on_after(_HANDSHAKE_SECONDS):
        return await wrap_server_stream(nursery, stream)  # type: ignore[arg-type] # a stream, too
    raise ConnectionClosed(None)  # nothing else ends the wait for a client that has gone


class _MemoryTransport:
    """The exchange's end of a WebSocket in memory."""

    def __init__(self, connection: WebSocketConnection, stream: MemoryStream) -> None:
        self._connection = connection
        self._stream = stream

    async def send(self, text: str) -> None:
        try:
            await self._connection.send_message(text)
        except ConnectionClosed:
            raise ClientGone from None

    async def receive(self) -> str | bytes:
        try:
            return await self._connection.get_message()
        except ConnectionClosed:
            raise ClientGone from None

    async def ping(self) -> None:
        try:
            await self._connection.ping()
        except ConnectionClosed:
            raise ClientGone from None

    async def close(self, code: int, reason: str) -> None:
        await self._connection.aclose(code, reason)

    def abort(self) -> None:
        _break(self._stream)


def _break(stream: MemoryStream) -> None:
    """Close both directions at once; the other end sees the connection broken."""
    stream.send_stream.close()
    stream.receive_stream.close()
