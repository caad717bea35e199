"""The parts of ``scripts/bench`` that would measure something else in silence, were they wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from scripts.benchmark.delivery import lags
from scripts.benchmark.valkey import Listener


def _candle(update: int) -> bytes:
    return b'{"symbol":"BTCUSDT","volume":%d.76847000}' % update


def test_a_lag_ends_when_a_client_has_read_the_update_or_a_later_one() -> None:
    updates = [(1_000_000_000, 1), (2_000_000_000, 2), (3_000_000_000, 3)]
    client = [(1_500_000_000, _candle(1)), (5_000_000_000, _candle(3))]
    assert lags(updates, client) == [0.5, 2.0, 3.0]


def test_what_a_client_never_got_has_no_lag() -> None:
    assert lags([(1_000_000_000, 1), (2_000_000_000, 2)], [(1_250_000_000, _candle(1))]) == [0.25]
    assert lags([(1_000_000_000, 1)], []) == []


@pytest.fixture
def announcer() -> Iterator[tuple[Listener, socket.socket]]:
    """A listener, and the other end of its connection."""

    def subscribe() -> None:
        connections.append(server.accept()[0])
        connections[0].recv(100)
        connections[0].sendall(b"*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n")

    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=subscribe)
        thread.start()
        listener = Listener(server.getsockname()[1])
        thread.join()
        with listener.socket, connections[0]:
            listener.socket.setblocking(True)
            yield listener, connections[0]


def _said(*messages: bytes) -> bytes:
    head = b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$2\r\nch\r\n"
    return b"".join(b"%b$%d\r\n%b\r\n" % (head, len(message), message) for message in messages)


@pytest.mark.parametrize("size", [1, 41, 1000])
def test_a_listener_hears_whole_messages_in_whatever_pieces_they_come(
    announcer: tuple[Listener, socket.socket], size: int
) -> None:
    listener, connection = announcer
    messages = [b"one", b"", b"\r\n*4\r\n"]
    said, heard = _said(*messages), list[bytes]()
    for at in range(0, len(said), size):
        connection.sendall(said[at : at + size])
        listener.chunks.append(listener.receive())
        heard += [message for _, message in listener.messages()]
    assert heard == messages


def test_a_listener_knows_when_a_message_came_however_late_it_is_read(
    announcer: tuple[Listener, socket.socket],
) -> None:
    listener, connection = announcer
    before = came_at = 0
    for _ in range(20):  # Linux begins to stamp a moment after it was asked to
        before = time.monotonic_ns()
        connection.sendall(_said(b"one"))
        time.sleep(0.05)  # the kernel's clock is real
        came_at, _ = listener.receive()
        if came_at - before < 40_000_000:
            break
    assert -1_000_000 < came_at - before < 40_000_000
