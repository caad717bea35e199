"""REST requests, one after the other on a few connections, which are kept while the server keeps them: as many as it
answers.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

_BUFFER = 2**18
_HEAD = 4096
"""Bytes in which an answer's head always ends."""
_ENDS = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class _Connection:
    socket: socket.socket
    left: int = 0
    """Bytes of the present answer that are still to come; 0 before its head."""
    ends: bool = False
    """Whether the server ends the connection after the present answer, as Hypercorn does after a thousand."""


@dataclass(frozen=True)
class Answered:
    """What came of it."""

    requests: int
    seconds: float
    size: int
    """Bytes of the last answer, head and body."""


def load(
    port: int,
    path: str,
    connections: int,
    seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    status: int = 200,
) -> Answered:
    """Ask for so long, then wait for the answers under way. Raises `OSError`, or `RuntimeError` for a bad answer.

    Bad is an answer with another status, too.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n".encode("ascii")
    begins = b"HTTP/1.1 %d " % status
    opened: dict[int, _Connection] = {}
    buffer = bytearray(_BUFFER)
    with select.epoll() as poll:
        try:
            for _ in range(connections):
                _open(port, opened, poll)
            begin = time.monotonic()
            for one in opened.values():
                one.socket.sendall(request)
            answers, size, busy = 0, 0, len(opened)
            while busy:
                for descriptor, _ in poll.poll(10.0) or _silent():
                    one = opened[descriptor]
                    received = one.socket.recv_into(buffer)
                    if not one.left:
                        start = bytes(buffer[: min(received, _HEAD)])
                        one.left = size = _size(start, begins)
                        one.ends = _ENDS.search(start.partition(b"\r\n\r\n")[0]) is not None
                    one.left -= received
                    if one.left:
                        continue
                    answers += 1
                    if time.monotonic() - begin >= seconds:
                        busy -= 1
                        continue
                    if one.ends:
                        poll.unregister(descriptor)
                        opened.pop(descriptor).socket.close()
                        one = _open(port, opened, poll)
                    one.socket.sendall(request)
            return Answered(answers, time.monotonic() - begin, size)
        finally:
            for one in opened.values():
                one.socket.close()


def _open(port: int, opened: dict[int, _Connection], poll: select.epoll) -> _Connection:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    poll.register(connection, select.EPOLLIN)
    opened[connection.fileno()] = one = _Connection(connection)
    return one


def _size(begin: bytes, begins: bytes) -> int:
    """Bytes of an answer, from its first piece, which has always held its head."""
    head, end, _ = begin.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    has_body = not begins.startswith(b"HTTP/1.1 304 ")
    if not end or not head.startswith(begins) or (has_body and length is None):
        raise RuntimeError(f"an answer that begins {head[:200]!r}, where {begins!r} was to be")
    # A 304 may say how long the body would be that it does not have.
    return len(head) + len(end) + (int(length[1]) if length and has_body else 0)


def _silent() -> list[tuple[int, int]]:
    raise RuntimeError("no answer within 10 s")
