"""The exchange on real sockets, and in Quart's own test client, within this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from click.testing import CliRunner
from quart.testing.connections import WebsocketResponseError
from trio.testing import MockClock

from candlesync.simulator.__main__ import main
from candlesync.simulator.app import create_app
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.faults import Drop, Refuse
from candlesync.simulator.serving import serve
from tests.simulator.support import running, simulated

HANDSHAKE = (
    b"GET /ws/btcusdt@kline_1m HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@asynccontextmanager
async def served(exchange: Exchange) -> AsyncIterator[int]:
    """The port of an exchange that is served on loopback."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with running(exchange), trio.open_nursery() as nursery:
        await nursery.start(serve, exchange, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_until(stream: trio.SocketStream, text: bytes) -> None:
    found = b""
    with trio.fail_after(10):
        while text not in found:
            more = await stream.receive_some()
            assert more, found
            found += more


async def until_open(exchange: Exchange, connections: int) -> None:
    for _ in range(1000):
        if exchange.state()["connections"]["open"] == connections:
            return
        await trio.sleep(0.01)
    raise trio.TooSlowError


async def test_a_broken_connection_is_reset() -> None:
    exchange = simulated(minute_seconds=0.25)
    async with served(exchange) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(HANDSHAKE)
        await read_until(stream, b'"e":"kline"')
        exchange.add_fault(Drop(close_frame=False))
        with pytest.raises(trio.BrokenResourceError):
            await read_until(stream, b"more than ever comes")
        await until_open(exchange, 0)


async def test_a_closed_one_says_goodbye() -> None:
    exchange = simulated(minute_seconds=0.25)
    async with served(exchange) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(HANDSHAKE)
        await read_until(stream, b'"e":"kline"')
        exchange.add_fault(Drop())
        await read_until(stream, b"\x88\x02\x03\xe9")  # a close frame with the code 1001


async def test_pings_are_sent_but_hypercorn_does_not_tell_of_pongs() -> None:
    exchange = simulated(ping_seconds=0.05, pong_seconds=0.05, symbols=("QUIETBTC",))
    async with served(exchange) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(HANDSHAKE)
        for _ in range(10):
            await read_until(stream, b"\x89\x00")
        assert exchange.state()["connections"]["open"] == 1


async def test_a_client_that_leaves_is_forgotten() -> None:
    exchange = simulated(minute_seconds=0.25)
    async with served(exchange) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(HANDSHAKE)
            await read_until(stream, b'"e":"kline"')
            assert exchange.state()["connections"]["open"] == 1
        await until_open(exchange, 0)


async def test_a_client_that_does_not_read_does_not_hold_up_the_end() -> None:
    exchange = simulated(minute_seconds=0.05, shortest_update=0.0, most_unsent=10**6)
    async with served(exchange) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(HANDSHAKE)
        await until_open(exchange, 1)
        for session in exchange._sessions:
            for _ in range(100):
                session.say("x" * 100_000)
        await trio.sleep(0.3)
        begin = trio.current_time()
    assert trio.current_time() - begin < 3


async def test_requests_keep_their_connection() -> None:
    async with served(simulated()) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for path, status in (
            ("/api/v3/time", 200),
            ("/api/v3/klines", 400),
            ("/nothing", 404),
            ("/control/state", 200),
        ):
            assert (await client.get(path)).status_code == status
        assert (await client.post("/api/v3/klines")).status_code == 405


async def test_streams_in_the_test_client_of_quart(autojump_clock: MockClock) -> None:
    exchange = simulated()
    async with running(exchange):
        client: Any = create_app(exchange).test_client()
        async with client.websocket("/stream?streams=btcusdt@kline_1m") as websocket:
            event = json.loads(await websocket.receive())
            assert event["stream"] == "btcusdt@kline_1m"
            await websocket.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            while "result" not in event:
                event = json.loads(await websocket.receive())
            assert event["result"] == ["btcusdt@kline_1m"]
        exchange.add_fault(Refuse(status=503))
        async with client.websocket("/ws") as websocket:
            with pytest.raises(WebsocketResponseError):
                await websocket.receive()


def test_the_command_says_what_is_wrong() -> None:
    for options, message in (
        (["--klines", "BTCUSDT:1m"], "not enough values"),
        (["--klines", "BTCUSDT:2m:/nowhere.csv"], "2m"),
        (["--minute", "0"], "minute_seconds"),
        (["--bind", "nonsense"], "not enough values"),
        (["--listed-before", "soon"], "invalid literal"),
        (["--symbol", "BTCUSDT", "--listed-before", "BTCUSDT:5", "--bind", "192.0.2.1:0"], "assign requested address"),
    ):
        result = CliRunner().invoke(main, options)
        assert result.exit_code == 1
        assert message in result.output
