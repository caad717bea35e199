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
from dataclasses import dataclass, field
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


@dataclass
class Client:
    """One of them."""

    socket: socket.socket
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    """What was read and when (CLOCK_MONOTONIC, nanoseconds), since it was last cut."""
    frames: Frames = field(default_factory=Frames)
    is_lost: bool = False
    """Whether the server has closed it."""

    def messages(self) -> list[tuple[int, bytes]]:
        """The messages among what was read and when each was whole; pings are answered."""
        found = []
        for read_at, data in self.chunks:
            for opcode, payload in self.frames.feed(data):
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
    """The clients of one server; a context that closes them."""

    def __init__(self, port: int, path: str, count: int) -> None:
        """Connect them all. Raises `OSError`, or `RuntimeError` for an answer that is no handshake."""
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}
        try:
            for begin in range(0, count, _AT_ONCE):
                opening = [_open(port, path) for _ in range(min(_AT_ONCE, count - begin))]
                for connection, key in opening:
                    client = Client(connection)
                    self._clients[connection.fileno()] = client
                    _finish_handshake(client, key)
                    connection.setblocking(False)
                    self._poll.register(connection, select.EPOLLIN)
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
        for client in self._clients.values():
            client.socket.close()
        self._poll.close()

    @property
    def lost(self) -> int:
        """Clients that the server has closed."""
        return sum(client.is_lost for client in self._clients.values())

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
        behind = list(self._clients.values())
        while time.monotonic() < deadline:
            behind = [client for client in behind if not client.is_lost and not client.holds(sent.last)]
            if not behind:
                break
            self._read(-1, 0.05)
        return sent

    def messages(self) -> list[list[tuple[int, bytes]]]:
        """What each client has got since this was last asked, and when it had been read."""
        return [client.messages() for client in self._clients.values()]

    def _read(self, watched: int, timeout: float) -> bool:
        """Read what has come; whether there was something at ``watched``."""
        clients, now = self._clients, time.monotonic_ns
        found = False
        for descriptor, _ in self._poll.poll(timeout):
            if descriptor == watched:
                found = True
                continue
            client = clients[descriptor]
            try:
                data = client.socket.recv(_CHUNK)
            except ConnectionError:
                data = b""
            if data:
                client.chunks.append((now(), data))
            else:
                client.is_lost = True
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
