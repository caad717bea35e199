"""Many WebSocket clients in one loop that does nothing but read and note when.

What was read is cut into messages and judged when the measured time is over, so the loop costs a fraction of what it
costs any server to send.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from . import market
from .processes import UpstreamProcess
from .upstream import Order, Sent
from .websocket import PING, PONG, TEXT, Frames, accept, masked_frame

_CHUNK = 65536
_PATIENCE = 5.0
"""Seconds after the last update left in which it must have reached every client."""
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
        self._frames = Frames()

    def messages(self) -> list[tuple[int, bytes]]:
        """The messages among what was read and when each was whole; pings are answered."""
        found = []
        for read_at, data in self.chunks:
            for opcode, payload in self._frames.feed(data):
                if opcode == TEXT:
                    found.append((read_at, payload))
                elif opcode == PING:
                    self.socket.sendall(masked_frame(PONG, payload))
        self.chunks.clear()
        return found

    def holds(self, update: int) -> bool:
        """Whether what was read ends at the update or after it."""
        # The last two: a message may have come in two pieces.
        last = market.last_update_of(b"".join(data for _, data in self.chunks[-2:]))
        return last is not None and last >= update


class Crowd:
    """Clients, and whatever else is read with them; a context that closes them."""

    def __init__(self, ports: Sequence[int], path: str | Sequence[str], others: Sequence[Reader] = ()) -> None:
        """Connect a client to each port, in this order; ``others`` are connected already.

        ``path`` is the same for all, or one for each.

        Raises `OSError`, or `RuntimeError` for an answer that is no handshake.
        """
        self._poll = select.epoll()
        self._clients: list[Client] = []
        self._readers: dict[int, Reader] = {}
        doors = list(zip(ports, [path] * len(ports) if isinstance(path, str) else path, strict=True))
        try:
            for reader in others:
                self._add(reader)
            for begin in range(0, len(doors), _AT_ONCE):
                for connection, key in [_open(*door) for door in doors[begin : begin + _AT_ONCE]]:
                    client = Client(connection)
                    self._clients.append(client)
                    self._add(client)
                    _finish_handshake(client, key)
                    connection.setblocking(False)
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

    def hear(self, upstream: UpstreamProcess, order: Order) -> Sent:
        """Have updates sent, and read until every client has the last one, or the patience is over.

        What was read is kept for `messages`, to be asked for when nothing is measured any more.
        """
        self._poll.register(upstream.output, select.EPOLLIN)
        upstream.order(order)
        while not self._read(upstream.output.fileno(), -1):
            pass
        self._poll.unregister(upstream.output)
        sent = upstream.report()
        deadline = time.monotonic() + _PATIENCE
        behind = self._clients
        while time.monotonic() < deadline:
            behind = [client for client in behind if not client.is_lost and not client.holds(sent.last)]
            if not behind:
                break
            self._read(-1, 0.05)
        return sent

    def messages(self) -> list[list[tuple[int, bytes]]]:
        """What each client has got since this was last asked, and when it had been read."""
        return [client.messages() for client in self._clients]

    def _add(self, reader: Reader) -> None:
        self._readers[reader.socket.fileno()] = reader
        self._poll.register(reader.socket, select.EPOLLIN)

    def _read(self, watched: int, timeout: float) -> bool:
        """Read what has come; whether there was something at ``watched``."""
        readers = self._readers
        found = False
        for descriptor, _ in self._poll.poll(timeout):
            if descriptor == watched:
                found = True
                continue
            reader = readers[descriptor]
            try:
                chunk = reader.receive()
            except ConnectionError:
                chunk = 0, b""
            if chunk[1]:
                reader.chunks.append(chunk)
            else:
                reader.is_lost = True
                self._poll.unregister(descriptor)
        return found


def _open(port: int, path: str) -> tuple[socket.socket, bytes]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    key = base64.b64encode(os.urandom(16))
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode('ascii')}\r\n\r\n"
    )
    connection.sendall(request.encode("ascii"))
    return connection, key


def _finish_handshake(client: Client, key: bytes) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = client.socket.recv(_CHUNK)
        if not data:
            break
        answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b" 101 " not in head.partition(b"\r\n")[0] or accept(key) not in head:
        raise RuntimeError(f"no WebSocket handshake: {head[:200]!r}")
    if rest:
        client.chunks.append((time.monotonic_ns(), rest))
