"""Clients that mean harm, over real sockets. A chart beside each of them gets each candle in time."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.web.connections import Frames
from tests.builders import candle, minute
from tests.edge.clients import PATIENCE, PING, Http2, Raw, frames_of, handshake
from tests.edge.test_server import eventually
from tests.stalls import again_if_disturbed
from tests.web.builders import Port, Web, commit, frame, on_a_port, read_all, upgrade

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SLOWEST = 0.25
"""Seconds after which a chart has a candle, whatever another client does: before frames were counted it was 0.9 and
more, with nothing else on the machine; now it is 0.03."""


def http2_frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Chart:
    """A client that keeps to the rules; each candle that is committed has to reach it soon."""

    def __init__(self, web: Web) -> None:
        self.topic = web.topic()
        self.slowest = 0.0
        self.candles = 0
        self.stop = trio.Event()

    async def run(self, port: Port, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with port.websocket("/ws/candles/BTCUSDT?replay=0") as client:
            task_status.started()
            while not self.stop.is_set():
                began = time.perf_counter()
                await trio.sleep(0.005)
                commit(self.topic, candle(minute(10 + self.candles)))
                with trio.fail_after(PATIENCE):
                    message = json.loads(await client.get_message())
                self.candles += 1
                assert (message["time"] * 1000, message["rev"]) == (minute(9 + self.candles), self.candles + 1)
                self.slowest = max(self.slowest, time.perf_counter() - began - 0.005)


@asynccontextmanager
async def attacked(web: Web | None = None, **settings: Any) -> AsyncIterator[tuple[Web, Port]]:
    """A server with a chart, which must have had its candles in time when the block is left."""
    web = web or Web()
    chart = Chart(web)
    async with on_a_port(web, **settings) as port, trio.open_nursery() as nursery:
        await nursery.start(chart.run, port)
        yield web, port
        seen = chart.candles
        await eventually(lambda: chart.candles > seen + 1)
        chart.stop.set()
    assert chart.slowest < SLOWEST


async def flood(stream: trio.SocketStream, piece: bytes) -> bytes:
    """Send one thing again and again, and read all, until the server ends the connection; what it sent."""
    received = bytearray()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            received.extend(await read_all(stream))
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        block = piece * (1 + 16_384 // len(piece))
        try:
            while True:
                await stream.send_all(block)
        except trio.BrokenResourceError:
            pass
    return bytes(received)


# --- frames that are no message

FLOODS = {
    "pings": frame(b"", PING),
    "full pings": frame(b"a" * 125, PING),
    "pongs": frame(b"", 10),
    "empty pieces": b"\x00\x80" + bytes(4),
    "pieces of a byte": b"\x00\x81" + bytes(4) + b"a",
}


@pytest.mark.parametrize("name", FLOODS)
@again_if_disturbed
async def test_a_flood_of_frames_ends_its_websocket_and_holds_up_nobody(name: str) -> None:
    async with attacked() as (web, port), await port.connect() as stream:
        await handshake(stream, "/ws/candles/BTCUSDT?replay=0")
        if "pieces" in name:
            await stream.send_all(b"\x01\x80" + bytes(4))
        received = await flood(stream, FLOODS[name])
        # Its pongs and candles, and a close at the end if the client got so far.
        frames, _ = frames_of(received)
        closes = [payload for opcode, payload in frames if opcode == 8]
        assert closes in ([], [(4429).to_bytes(2, "big") + b"too_many"])
        assert sum(opcode == 10 for opcode, _ in frames) <= 1100
        await eventually(lambda: len(web.sockets.open) == 1)
        assert web.connections.refused["frame_rate"] == 1


async def test_who_sends_a_little_too_many_gets_a_close_that_says_so() -> None:
    web = Web(message_rate=1.0)
    web.topic()
    async with on_a_port(web) as port, await port.connect() as stream:
        raw = await handshake(stream, "/ws/candles")
        await stream.send_all(frame(b"", PING) * 22)
        await raw.read_all()
        assert [opcode for opcode, _ in raw.frames].count(10) == 20
        assert raw.end() == (4429, "too_many")


async def test_pieces_and_pings_in_moderation_are_served() -> None:
    text = b'{"op":"ping","id":1}'
    pieces = [frame(text[:1])] + [frame(text[at : at + 1], 0) for at in range(1, len(text))]
    first = bytes([pieces[0][0] & 0x7F]) + pieces[0][1:]
    middle = [bytes([piece[0] & 0x7F]) + piece[1:] for piece in pieces[1:-1]]
    async with attacked() as (_, port), await port.connect() as stream:
        raw = await handshake(stream, "/ws/candles")
        for _ in range(30):
            await stream.send_all(first + frame(b"x", PING) + b"".join(middle) + pieces[-1])
        while len(raw.messages) < 30:
            await raw.read()
        assert {message["op"] for message in raw.messages} == {"pong"}
        assert sum(opcode == 10 for opcode, _ in raw.frames) == 30


def test_frames_come_back_with_time(autojump_clock: MockClock) -> None:
    async def main() -> None:
        web = Web(message_rate=2.0)
        frames = web.connections.new_frames()
        assert isinstance(frames, Frames)
        assert [frames.take() for _ in range(41)] == [True] * 40 + [False]
        await trio.sleep(1)
        assert [frames.take() for _ in range(3)] == [True, True, False]
        assert web.connections.refused == {"frame_rate": 2}
        unlimited = Web(message_rate=0.0).connections.new_frames()
        assert all(unlimited.take() for _ in range(3000))

    trio.run(main, clock=autojump_clock)


HTTP2_FLOODS = {
    "settings": http2_frame(4),
    "settings that change something": http2_frame(4, b"\x00\x04\x00\x00\xff\xff"),
    "pings": http2_frame(6, bytes(8)),
    "room": http2_frame(8, b"\x00\x00\x00\x01"),
    "priorities": http2_frame(2, b"\x00\x00\x00\x01\x01", stream=3),
    "frames of no known kind": http2_frame(0x77),
}


@pytest.mark.parametrize("name", HTTP2_FLOODS)
@again_if_disturbed
async def test_a_flood_over_http_2_ends_its_connection_and_holds_up_nobody(name: str) -> None:
    async with attacked() as (web, port), await port.connect() as stream:
        await stream.send_all(PREFACE + http2_frame(4))
        received = await flood(stream, HTTP2_FLOODS[name])
        assert len(received) < 64 * 1024
        assert web.connections.refused["frame_rate"] == 1


@again_if_disturbed
async def test_streams_that_are_reset_as_soon_as_they_begin_end_their_connection() -> None:
    """CVE-2023-44487, "rapid reset"."""
    async with attacked() as (web, port), await port.connect() as stream:
        client = Http2(stream)
        client.connection.initiate_connection()
        begun = 0
        try:
            for _ in range(3000):
                number = client.connection.get_next_available_stream_id()
                client.connection.send_headers(
                    number,
                    ((":method", "GET"), (":scheme", "http"), (":path", "/symbols"), (":authority", "x")),
                    end_stream=True,
                )
                client.connection.reset_stream(number)
                await client.flush()
                begun += 1
        except trio.BrokenResourceError:
            pass
        else:
            await read_all(stream)
        assert begun > 900
        await eventually(lambda: web.connections.open == 1)
        await eventually(lambda: trio.lowlevel.current_statistics().tasks_living < 100)


@pytest.mark.parametrize(
    "headers",
    [
        ((":method", "CONNECT"), (":authority", "x")),
        ((":method", "GET"), (":scheme", "http"), (":path", b"/\xff\xfe"), (":authority", "x")),
    ],
    ids=["no path", "a path that is not ASCII"],
)
async def test_a_request_over_http_2_that_cannot_be_read_ends_its_stream_alone(headers: Any) -> None:
    async with attacked() as (_, port), await port.connect() as stream:
        client = Http2(stream)
        client.connection.initiate_connection()
        client.connection.config.validate_outbound_headers = False
        client.connection.send_headers(1, headers, end_stream=True)
        await client.flush()
        with trio.fail_after(PATIENCE):
            while not client.is_over:
                await client.read()
        assert client.status == ""
        client.is_over = False
        client.connection.send_headers(
            3, ((":method", "GET"), (":scheme", "http"), (":path", "/health"), (":authority", "x")), end_stream=True
        )
        await client.flush()
        await client.read_until(b"alive")


async def test_a_body_whose_request_is_answered_harms_no_other_stream() -> None:
    async with attacked() as (_, port), await port.connect() as stream:
        client = Http2(stream)
        client.connection.initiate_connection()
        client.connection.send_headers(
            1, ((":method", "POST"), (":scheme", "http"), (":path", "/health"), (":authority", "x"))
        )
        await client.flush()
        await client.read_until(b"method_not_allowed")
        for _ in range(40):
            client.connection.send_data(1, b"a" * 1000)
        client.connection.send_headers(
            3, ((":method", "GET"), (":scheme", "http"), (":path", "/health"), (":authority", "x")), end_stream=True
        )
        client.is_over = False
        await client.flush()
        await client.read_until(b"alive")


# --- requests that two may read in two ways

HOST = "Host: x\r\n"
SECOND = "GET /symbols HTTP/1.1\r\n" + HOST + "\r\n"
REFUSED = {
    "two ways to say how long it is": (400, f"POST /health HTTP/1.1\r\n{HOST}Content-Length: 5\r\n", "0\r\n\r\n"),
    "the same the other way round": (400, f"POST /health HTTP/1.1\r\nContent-Length: 0\r\n{HOST}", "0\r\n\r\n"),
    "chunks in HTTP/1.0": (400, "POST /health HTTP/1.0\r\nConnection: keep-alive\r\n", "0\r\n\r\n"),
}


async def answers_to(port: Port, request: bytes) -> bytes:
    async with await port.connect() as stream:
        await stream.send_all(request)
        return await read_all(stream)


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_whose_end_is_not_certain_is_refused_with_all_that_follows(name: str) -> None:
    status, head, body = REFUSED[name]
    async with attacked() as (_, port):
        received = await answers_to(port, f"{head}Transfer-Encoding: chunked\r\n\r\n{body}{SECOND}".encode())
        assert received.startswith(f"HTTP/1.1 {status} ".encode())
        assert received.count(b"HTTP/1.1 ") == 1, "the second one is not answered"


@pytest.mark.parametrize("version", ["2.0", "9.9", "0.9"])
async def test_a_version_that_there_is_not_is_refused(version: str) -> None:
    async with attacked() as (_, port):
        received = await answers_to(port, f"GET /health HTTP/{version}\r\n{HOST}\r\n".encode())
        assert received.startswith(b"HTTP/1.1 505 ")


async def test_an_upgrade_to_http_2_is_not_made_so_that_nobody_leads_a_proxy_astray() -> None:
    request = (
        f"GET /health HTTP/1.1\r\n{HOST}Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    async with attacked() as (_, port):
        received = await answers_to(port, request.encode())
        assert received.startswith(b"HTTP/1.1 200 ")
        assert received.endswith(b'{"status":"alive"}')


async def test_http_2_begins_with_the_first_byte_or_not_at_all() -> None:
    async with attacked() as (_, port):
        received = await answers_to(port, f"GET /health HTTP/1.1\r\n{HOST}\r\n".encode() + PREFACE + http2_frame(4))
        assert received.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 505 " in received


HANDSHAKES = {
    "a body": upgrade("/ws/candles", "Content-Length: 5"),
    "a body in chunks": upgrade("/ws/candles", "Transfer-Encoding: chunked"),
    "a subprotocol that is not ASCII": upgrade("/ws/candles", "Sec-WebSocket-Protocol: \xff"),
    "a connection that is not ASCII": upgrade("/ws/candles").replace(b": Upgrade", b": Upgrade, \xff"),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_that_makes_no_sense_is_answered_and_not_logged(name: str) -> None:
    async with attacked() as (_, port):
        received = await answers_to(port, HANDSHAKES[name])
        assert received.startswith(b"HTTP/1.1 400 ")


# --- those who take their time


async def test_who_sends_a_request_byte_by_byte_is_not_waited_for() -> None:
    async with attacked(keep_alive_timeout=0.4) as (web, port), trio.open_nursery() as nursery:

        async def dribble() -> None:
            async with await port.connect() as stream:
                began = trio.current_time()
                try:
                    for byte in b"GET /health HTTP/1.1\r\nX: " + b"a" * 1000:
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.05)
                except trio.BrokenResourceError:
                    pass
                assert trio.current_time() - began < PATIENCE / 2

        for _ in range(20):
            nursery.start_soon(dribble)
        await eventually(lambda: web.connections.open == 21)
        await eventually(lambda: web.connections.open == 1)


async def test_headers_without_end_are_refused() -> None:
    async with attacked() as (_, port):
        for request in (
            b"GET /health HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
            b"GET /health HTTP/1.1\r\nX: " + b"a" * 60_000,
        ):
            async with await port.connect() as stream:
                await stream.send_all(request)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 431 ")


async def test_subscribing_as_fast_as_can_be_holds_up_nobody() -> None:
    async with attacked(Web(message_rate=10.0, max_subscriptions=50)) as (web, port), await port.connect() as stream:
        raw: Raw = await handshake(stream, "/ws/candles")
        pair = frame('{"op":"subscribe","symbol":"btcusdt"}') + frame('{"op":"unsubscribe","symbol":"BTCUSDT"}')
        received = await flood(stream, pair)
        raw.received = received
        assert {message.get("op", "candle") for message in raw.messages} <= {
            *("subscribed", "unsubscribed", "state", "candle", "error")
        }
        await eventually(lambda: len(web.sockets.open) == 1)
        topic = next(iter(web.hub))
        await eventually(lambda: len(topic.subscribers) == 1)


@pytest.mark.parametrize("length", ["Content-Length: 15000000", "Transfer-Encoding: chunked"])
async def test_a_long_body_is_not_kept_while_its_request_waits(length: str) -> None:
    web = Web()
    web.topic()
    async with on_a_port(web) as port, await port.connect() as stream:
        web.supervisor.delay = PATIENCE
        await stream.send_all(f"GET /candles/BTCUSDT/1m HTTP/1.1\r\n{HOST}{length}\r\n\r\n".encode())
        await eventually(lambda: web.supervisor.asked)
        tracemalloc.start()
        block = b"a" * 100_000
        for _ in range(40):
            await stream.send_all(b"186a0\r\n" + block + b"\r\n" if "chunked" in length else block)
        await trio.sleep(0.05)
        kept, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < 1_000_000
        assert most < 2_000_000
        await stream.send_eof()
