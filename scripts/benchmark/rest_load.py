"""REST requests, one after the other on a few connections that are kept: as many as the server answers."""

from __future__ import annotations

import re
import select
import socket
import time
from dataclasses import dataclass

_BUFFER = 2**18
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class _Connection:
    socket: socket.socket
    left: int = 0
    """Bytes of the present answer that are still to come; 0 before its head."""


@dataclass(frozen=True)
class Answered:
    """What came of it."""

    requests: int
    seconds: float
    size: int
    """Bytes of the last answer, head and body."""


def load(port: int, path: str, connections: int, seconds: float) -> Answered:
    """Ask for so long, then wait for the answers under way. Raises `OSError`, or `RuntimeError` for a bad answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode("ascii")
    opened: dict[int, _Connection] = {}
    buffer = bytearray(_BUFFER)
    with select.epoll() as poll:
        try:
            for _ in range(connections):
                connection = socket.create_connection(("127.0.0.1", port), timeout=10.0)
                opened[connection.fileno()] = _Connection(connection)
                poll.register(connection, select.EPOLLIN)
            begin = time.monotonic()
            for one in opened.values():
                one.socket.sendall(request)
            answers, size, busy = 0, 0, len(opened)
            while busy:
                for descriptor, _ in poll.poll(10.0) or _silent():
                    one = opened[descriptor]
                    received = one.socket.recv_into(buffer)
                    if not one.left:
                        one.left = size = _size(buffer[:received])
                    one.left -= received
                    if one.left:
                        continue
                    answers += 1
                    if time.monotonic() - begin < seconds:
                        one.socket.sendall(request)
                    else:
                        busy -= 1
            return Answered(answers, time.monotonic() - begin, size)
        finally:
            for one in opened.values():
                one.socket.close()


def _size(begin: bytearray) -> int:
    """Bytes of an answer, from its first piece, which has always held its head."""
    head, end, _ = begin.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if not end or length is None or not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"an answer that begins {bytes(head[:200])!r}")
    return len(head) + len(end) + int(length[1])


def _silent() -> list[tuple[int, int]]:
    raise RuntimeError("no answer within 10 s")
