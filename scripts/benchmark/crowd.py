"""Many WebSocket clients in one loop that does nothing but read and note when.

What was read is cut into messages, inflated and judged when the measured time is over, so the loop costs a fraction of
what it costs any server to send.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from . import market
from .processes import UpstreamProcess
from .upstream import Order, Sent
from .websocket import DEFLATE_OFFER, PING, PONG, TEXT, Frames, accept, agreed_deflate, masked_frame

_CHUNK = 65536
_PATIENCE = 20.0
"""Seconds in which every client must have got what was sent; thousands of clients of a slow server need some."""
_SUBSCRIBED_WITHIN = 120.0
"""Seconds; thousands of subscriptions are no part of what is measured."""
_QUIET = 0.05
"""Seconds in which nothing came: time to look at what did, when nobody waits to be read."""
_LOOK = 0.5
"""Seconds from one look to the next where there is no such quiet: a server pings thousands of clients all the time."""
_AT_ONCE = 50
"""Handshakes under way at a time: less than any server's backlog."""


class Reader:
    """A connection that is only read."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.chunks: list[tuple[int, bytes]] = []
        """What was read and when (CLOCK_MONOTONIC, nanoseconds), since it was last cut."""
        self.is_lost = False
        """Whether the server has closed it."""

    def receive(self) -> tuple[int, bytes]:
        """What has come, and when it was read. Raises `OSError`."""
        data = self.socket.recv(_CHUNK)
        return time.monotonic_ns(), data


class Client(Reader):
    """One of them."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.is_deflated = False
        """Whether permessage-deflate was agreed on."""
        self._frames = Frames()
        self._messages: list[tuple[int, bytes]] = []
        self._updates: dict[str, int] = {}
        self._size = 0

    def finish_handshake(self, key: bytes) -> None:
        """Read the server's answer to the handshake. Raises `RuntimeError` for one that is none, and `OSError`."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.socket.recv(_CHUNK)
            if not data:
                break
            answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0] or accept(key) not in head:
            raise RuntimeError(f"no WebSocket handshake: {head[:200]!r}")
        inflater = agreed_deflate(head)
        self.is_deflated = inflater is not None
        self._frames = Frames(inflater)
        if rest:
            self.chunks.append((time.monotonic_ns(), rest))

    def cut(self) -> None:
        """Cut what was read into messages; pings are answered. Raises `ValueError` or `zlib.error`."""
        for read_at, data in self.chunks:
            self._size += len(data)
            for opcode, payload in self._frames.feed(data):
                if opcode == TEXT:
                    self._messages.append((read_at, payload))
                    update = market.update_of(payload)
                    if update is not None:
                        self._updates[market.symbol_of(payload)] = update
                elif opcode == PING:
                    with suppress(ConnectionError):  # a server that has gone is seen when it is read
                        self.socket.sendall(masked_frame(PONG, payload))
        self.chunks.clear()

    def messages(self) -> list[tuple[int, bytes]]:
        """What it has got since this was last asked, and when each was whole."""
        self.cut()
        found, self._messages, self._size = self._messages, [], 0
        return found

    @property
    def message_count(self) -> int:
        """How many messages were cut since `messages` was last asked."""
        return len(self._messages)

    @property
    def size(self) -> int:
        """Bytes that were cut since `messages` was last asked, frames' heads included."""
        return self._size

    def holds(self, update: int, symbols: Sequence[str]) -> bool:
        """Whether what was cut ends at the update or after it, for each symbol; without them, for its only one."""
        held = self._updates
        return all(held.get(symbol, -1) >= update for symbol in symbols or held) and bool(held)


class Crowd:
    """Clients, and whatever else is read with them; a context that closes them."""

    def __init__(
        self,
        ports: Sequence[int],
        path: str | Sequence[str],
        others: Sequence[Reader] = (),
        *,
        symbols: Sequence[str] = (),
        offers_deflate: bool = False,
    ) -> None:
        """Connect a client to each port, in this order; ``others`` are connected already.

        ``path`` is the same for all, or one for each. ``symbols`` are those of which each client is to be sent the
        updates; without them, it is one symbol for each, whichever. Raises `OSError`, or `RuntimeError` for an answer
        that is no handshake.
        """
        self._poll = select.epoll()
        self._clients: list[Client] = []
        self._readers: dict[int, Reader] = {}
        self._symbols = symbols
        doors = list(zip(ports, [path] * len(ports) if isinstance(path, str) else path, strict=True))
        try:
            for reader in others:
                self._add(reader)
            for begin in range(0, len(doors), _AT_ONCE):
                some = doors[begin : begin + _AT_ONCE]
                for connection, key in [_open(*door, offers_deflate=offers_deflate) for door in some]:
                    client = Client(connection)
                    self._clients.append(client)
                    self._add(client)
                    client.finish_handshake(key)
                    connection.setblocking(False)
                # Thousands take longer than a server waits for an answer to its ping.
                self._read(0)
                self._cut()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, as a browser's tab does that is closed."""
        for reader in self._readers.values():
            reader.socket.close()
        self._poll.close()

    @property
    def lost(self) -> int:
        """Clients that the server has closed."""
        return sum(client.is_lost for client in self._clients)

    @property
    def deflated(self) -> int:
        """Clients with which the server agreed on permessage-deflate."""
        return sum(client.is_deflated for client in self._clients)

    @property
    def size(self) -> int:
        """Bytes of all that clients were sent since `messages` was last asked, as far as it was looked at."""
        return sum(client.size for client in self._clients)

    def subscribe(self, requests: Sequence[bytes], answers: int) -> None:
        """Have each client say this, and read until it has got so many messages.

        Raises `OSError`, or `RuntimeError` when one does not.
        """
        said = b"".join(masked_frame(TEXT, request) for request in requests)
        for client in self._clients:
            client.socket.setblocking(True)
            client.socket.sendall(said)
            client.socket.setblocking(False)
            self._read(0)
        if not self._read_until(lambda client: client.message_count >= answers, _SUBSCRIBED_WITHIN):
            raise RuntimeError("subscriptions were not answered")
        self.messages()

    def hear(self, upstream: UpstreamProcess, order: Order) -> Sent:
        """Have updates sent, and read until every client has the last one, or the patience is over.

        What was read is kept for `messages`, to be asked for when nothing is measured any more.
        """
        told = upstream.output.fileno()
        self._poll.register(told, select.EPOLLIN)
        upstream.order(order)
        while told not in self._read(-1):
            pass
        self._poll.unregister(told)
        sent = upstream.report()
        self._read_until(lambda client: client.holds(sent.last, self._symbols))
        return sent

    def messages(self) -> list[list[tuple[int, bytes]]]:
        """What each client has got since this was last asked, and when it had been read."""
        return [client.messages() for client in self._clients]

    def _add(self, reader: Reader) -> None:
        self._readers[reader.socket.fileno()] = reader
        self._poll.register(reader.socket, select.EPOLLIN)

    def _read_until(self, is_done: Callable[[Client], bool], patience: float = _PATIENCE) -> bool:
        """Read until it is so for each client that is not lost; whether it is before the patience is over."""
        looked = begin = time.monotonic()
        while time.monotonic() < begin + patience:
            if self._read(_QUIET) and time.monotonic() < looked + _LOOK:
                continue
            self._cut()
            looked = time.monotonic()
            if all(client.is_lost or is_done(client) for client in self._clients):
                return True
        return False

    def _cut(self) -> None:
        for client in self._clients:
            if client.chunks:
                client.cut()

    def _read(self, timeout: float) -> list[int]:
        """Read what has come, waiting so long for the first; where there was something."""
        readers = self._readers
        ready = [descriptor for descriptor, _ in self._poll.poll(timeout)]
        for descriptor in ready:
            reader = readers.get(descriptor)
            if reader is None:
                continue  # the caller's own
            try:
                chunk = reader.receive()
            except ConnectionError:
                chunk = 0, b""
            if chunk[1]:
                reader.chunks.append(chunk)
            else:
                reader.is_lost = True
                self._poll.unregister(descriptor)
        return ready


def _open(port: int, path: str, *, offers_deflate: bool) -> tuple[socket.socket, bytes]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30.0)
    key = base64.b64encode(os.urandom(16))
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode('ascii')}\r\n"
    )
    if offers_deflate:
        request += f"Sec-WebSocket-Extensions: {DEFLATE_OFFER.decode('ascii')}\r\n"
    connection.sendall(request.encode("ascii") + b"\r\n")
    return connection, key
