"""Opening a WebSocket as a client, in our own way on top of ``trio_websocket.wrap_client_stream``.

``trio_websocket.open_websocket`` (0.12.2, tried): its connect timeout does not end an attempt whose server never
answers the handshake; an attempt whose server closes in mid-handshake waits for the whole timeout, and a refusal
without a length loses its status; and its socket is left unclosed each time, as it is whenever the server closes. Here
the transport has one owner, who closes it whatever happens, and an end during the handshake is an error at once.

A connection is never closed with a goodbye: the close handshake would make us wait for a server that may be dead, and
trio-websocket's reader dies of a ping that arrives while it is under way. The transport is closed, and that is all.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Final, Protocol
from urllib.parse import urlsplit

import h11
import trio
import trio_websocket
import wsproto.utilities


class Connection(Protocol):
    """What is needed of a ``trio_websocket.WebSocketConnection``. Each method raises its ``ConnectionClosed``."""

    async def get_message(self) -> str | bytes: ...

    async def send_message(self, message: str) -> None: ...

    async def ping(self) -> None: ...


class Connect(Protocol):
    """What opens a connection, in the shape of ``trio_websocket.open_websocket_url``; `open_websocket` is ours.

    Entering it opens; leaving it closes. It raises what `ENDS` lists, alone or in groups. The caller keeps the time.
    """

    def __call__(
        self, url: str, *, message_queue_size: int, max_message_size: int
    ) -> AbstractAsyncContextManager[Connection]: ...


OpenTransport = Callable[[str, int, bool], Awaitable[trio.abc.Stream]]
"""Host, port and whether to use TLS, to a byte stream. Raises `OSError`."""


async def open_transport(host: str, port: int, tls: bool) -> trio.abc.Stream:
    """A TCP stream to the host, with TLS and a checked certificate if asked for. Raises `OSError`."""
    if tls:
        return await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=_ssl_context())
    return await trio.open_tcp_stream(host, port)


@cache
def _ssl_context() -> ssl.SSLContext:
    # Reading the certificates takes tens of milliseconds, in which the loop stands still: once, not per connection.
    return ssl.create_default_context()


@asynccontextmanager
async def open_websocket(
    url: str,
    *,
    message_queue_size: int,
    max_message_size: int,
    headers: Sequence[tuple[bytes, bytes]] = (),
    open_transport: OpenTransport = open_transport,
) -> AsyncIterator[Connection]:
    """Open a WebSocket; a `Connect`. Whatever happens, the transport is closed when it is left.

    ``open_transport`` may give any byte stream: one half of ``trio.testing.memory_stream_pair`` in virtual time.
    """
    parts = urlsplit(url)
    tls = parts.scheme == "wss"
    port = parts.port or (443 if tls else 80)
    transport = _Transport(await open_transport(parts.hostname or "", port, tls))
    try:
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery,
                # Any trio Stream does ("wrap an arbitrary stream"); only the annotation is narrower.
                transport,  # type: ignore[arg-type]
                parts.netloc.rpartition("@")[2],
                f"{parts.path}?{parts.query}",
                message_queue_size=message_queue_size,
                max_message_size=max_message_size,
                extra_headers=list(headers),
            )
            transport.opened = True
            yield connection
            nursery.cancel_scope.cancel()
    finally:
        # Shielded because a `Cancelled` from here would replace the error in flight; a forceful close does not wait.
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(transport.below)


class _Transport(trio.abc.Stream):
    """The bytes below a connection. Makes an end during the handshake an error, which trio-websocket does not."""

    _HEAD = 2**16
    """Bytes kept of an answer to the handshake, to read its status from; h11 refuses longer headers itself."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self.below = below
        self.opened = False
        """Whether the handshake is over; until then an end of the stream is a `HandshakeError`."""
        self._answer = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self.below.send_all(data)
        except trio.BrokenResourceError as error:
            if self.opened:
                raise
            raise _broken_handshake(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self.below.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            if self.opened:
                raise
            raise _broken_handshake(error) from error
        if not self.opened:
            self._answer += data[: self._HEAD - len(self._answer)]
            if not data:
                raise _cut_handshake(self._answer)
        return data

    async def aclose(self) -> None:
        await self.below.aclose()


def _broken_handshake(error: trio.BrokenResourceError) -> trio_websocket.HandshakeError:
    # trio puts the error of the system or of TLS (a wrong certificate) behind its own.
    return trio_websocket.HandshakeError(f"broken during the handshake: {error.__cause__ or error}")


def _cut_handshake(answer: bytes) -> trio_websocket.HandshakeError:
    """The error for an answer that ended early. A refusal whose body ends with the connection is one, too."""
    head, end, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    words = status.split()
    if not end or len(words) < 2 or not words[1].isdigit() or words[1] == b"101":
        return trio_websocket.HandshakeError("closed by the other side during the handshake")
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines))
    return trio_websocket.ConnectionRejected(int(words[1]), headers, body)


TRANSPORT_ENDS: Final = (OSError, trio.BrokenResourceError)
"""How opening the transport fails. Once a connection is open, trio-websocket makes these `ConnectionClosed`."""

ENDS: Final = (
    trio_websocket.HandshakeError,
    trio_websocket.ConnectionClosed,
    # trio-websocket's reader dies of these when the answer is no handshake, and of a ping in the middle of a close
    # handshake, if a `Connect` makes one (both tried).
    h11.ProtocolError,
    wsproto.utilities.ProtocolError,
    *TRANSPORT_ENDS,
)
"""What the end of a connection, or a failure to open one, raises."""


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """An exception, or those within a group."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves_of(one)
    else:
        yield error
