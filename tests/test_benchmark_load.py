"""The loads of ``scripts/bench`` that are processes or sockets of their own, each against a small server."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.benchmark.cores import Cores
from scripts.benchmark.market import kline_frame, symbols
from scripts.benchmark.processes import Child, UpstreamProcess
from scripts.benchmark.rest_load import load
from scripts.benchmark.upstream import Order


def test_every_symbol_shows_the_same_market_under_its_own_name() -> None:
    first, second = symbols(2)
    assert kline_frame(7, first) == kline_frame(7)
    shown, ours = (json.loads(kline_frame(7, name)) for name in (first, second))
    assert ours["stream"] == f"{second.lower()}@kline_1m"
    assert ours["data"].pop("s") == ours["data"]["k"].pop("s") == second
    del shown["data"]["s"], shown["data"]["k"]["s"]
    assert ours["data"] == shown["data"]


def test_a_flood_is_over_when_all_of_it_has_been_read(tmp_path: Path) -> None:
    names = "/".join(f"{name.lower()}@kline_1m" for name in symbols(3))
    with ExitStack() as stack:
        exchange = stack.enter_context(UpstreamProcess(tmp_path / "exchange", ("benchmark.exchange", "3")))
        url = f"ws://127.0.0.1:{exchange.port}/stream?streams={names}"
        program = [sys.executable, "-m", "benchmark.stream_peer", url]
        peer = stack.enter_context(Child(program, tmp_path / "peer"))
        assert peer.hear() == {"messages": 0}
        for order in (Order(500, 0.0), Order(0, 0.0)):
            exchange.order(order)
            sent = exchange.report()
        assert sent.last == 500
        assert sent.connections == 1
        assert sent.ended_at > sent.sent_at[0]
        # trio-websocket answers a ping when it has read what came before; the last frames may stand in its queue.
        peer.tell(Order(0, 0.0))
        assert 1500 - 64 <= peer.hear()["messages"] <= 1500
        exchange.order(Order(2, 20.0))
        assert exchange.report().first == 501


Answers = Callable[[bytes], bytes]


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], int]]:
    """Starts a server that answers each request by a function; its port."""
    with ExitStack() as stack:

        def start(answer: Answers) -> int:
            def run() -> None:
                with server.accept()[0] as connection:
                    while request := connection.recv(4096):
                        connection.sendall(answer(request))

            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=run)
            thread.start()
            stack.callback(thread.join, 10.0)
            port: int = server.getsockname()[1]
            return port

        yield start


def test_a_load_counts_answers_by_their_length(serve: Callable[[Answers], int]) -> None:
    asked = []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        return b"HTTP/1.1 200 \r\nContent-Length: 50000\r\n\r\n" + bytes(50000)

    answered = load(serve(answer), "/candles", 1, 0.05, headers={"Accept-Encoding": "gzip"})
    assert answered.requests == len(asked) > 1
    assert answered.size == 50000 + len(b"HTTP/1.1 200 \r\nContent-Length: 50000\r\n\r\n")
    assert all(b"\r\nAccept-Encoding: gzip\r\n\r\n" in request for request in asked)


def test_a_server_may_end_a_connection_that_it_said_it_would_end() -> None:
    connections = 0

    def run() -> None:
        nonlocal connections
        while True:
            connection = server.accept()[0]
            with connection:
                if not connection.recv(4096):
                    return
                connections += 1
                connection.sendall(b"HTTP/1.1 200 \r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=run)
        thread.start()
        answered = load(server.getsockname()[1], "/candles", 1, 0.05)
        socket.create_connection(server.getsockname()).close()
        thread.join(10.0)
    assert answered.requests == connections > 1


def test_a_304_has_no_body_whatever_length_it_names(serve: Callable[[Answers], int]) -> None:
    answer = b"HTTP/1.1 304 \r\nContent-Length: 50000\r\n\r\n"
    answered = load(serve(lambda _: answer), "/candles", 1, 0.05, status=304)
    assert answered.requests > 1
    assert answered.size == len(answer)


@pytest.mark.parametrize(("status", "wanted"), [(200, 304), (304, 200), (503, 200)])
def test_another_status_is_no_answer(serve: Callable[[Answers], int], status: int, wanted: int) -> None:
    answer = b"HTTP/1.1 %d \r\nContent-Length: 0\r\n\r\n" % status
    with pytest.raises(RuntimeError, match=f"begins .*{status}"):
        load(serve(lambda _: answer), "/candles", 1, 0.05, status=wanted)


def test_one_core_cannot_be_shared_out() -> None:
    assert not Cores({3}).are_apart
    assert Cores({0, 3}).are_apart
