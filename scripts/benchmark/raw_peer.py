"""The floor: one plain ``socket.send`` of a ready frame for each client; ``python -m benchmark.raw_peer PORT``.

It reads the same upstream, makes each message and its frame once, and hands it to the kernel for one client after the
other. It is no server: it reads nothing that a client says, and drops one whose socket is full. Nothing that is
written in Python and has a socket for each client can deliver for less.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from .peer_candle import candle_in, message_of, stream_url
from .websocket import PING, PONG, TEXT, Frames, accept, frame, masked_frame

_CHUNK = 65536
_BACKLOG = 1024


def follow() -> socket.socket:
    """The connection to Binance's stream."""
    url = urlsplit(stream_url())
    stream = socket.create_connection((url.hostname, url.port))
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    stream.sendall(
        f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode("ascii")
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # a byte at a time: a frame may stand right behind it
        head += stream.recv(1)
    return stream


def broadcast(clients: dict[int, socket.socket], data: bytes) -> None:
    """Send it to every client; one that does not take it is dropped."""
    lost = []
    for descriptor, client in clients.items():
        try:
            sent = client.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            lost.append(descriptor)
    for descriptor in lost:
        clients.pop(descriptor).close()


def greet(client: socket.socket) -> bool:
    """Answer a client's request; whether it is a WebSocket now."""
    client.setblocking(True)
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        data = client.recv(_CHUNK)
        if not data:
            break
        request += data
    fields = (line.partition(b":") for line in request.split(b"\r\n")[1:])
    headers = {name.lower(): value.strip() for name, _, value in fields}
    key = headers.get(b"sec-websocket-key")
    if key is None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        client.close()
        return False
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    client.sendall(head + b"Sec-WebSocket-Accept: " + accept(key) + b"\r\n\r\n")
    client.setblocking(False)
    return True


def main() -> None:
    """Serve until it is killed."""
    clients: dict[int, socket.socket] = {}
    frames = Frames()
    with follow() as stream, socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=_BACKLOG) as server:
        poll = select.epoll()
        poll.register(stream, select.EPOLLIN)
        poll.register(server, select.EPOLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == stream.fileno():
                    data = stream.recv(_CHUNK)
                    if not data:
                        return
                    hand_on(stream, frames.feed(data), clients)
                elif descriptor == server.fileno():
                    client, _ = server.accept()
                    if greet(client):
                        clients[client.fileno()] = client
                        poll.register(client, select.EPOLLRDHUP)
                elif descriptor in clients:  # it has hung up
                    clients.pop(descriptor).close()


def hand_on(stream: socket.socket, read: Sequence[tuple[int, bytes]], clients: dict[int, socket.socket]) -> None:
    """What Binance's stream has brought, to every client."""
    for opcode, payload in read:
        if opcode == TEXT:
            broadcast(clients, frame(TEXT, message_of(candle_in(payload)).encode("ascii")))
        elif opcode == PING:
            stream.sendall(masked_frame(PONG, payload))


if __name__ == "__main__":
    main()
