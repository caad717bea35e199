"""The frames of live candles on the wire, under real Hypercorn: written past it, and never into what it writes."""

from __future__ import annotations

import math
import os
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.lowlevel
import trustme
from hypercorn.trio import serve as hypercorn_serve

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.edge import connection
from candlesync.edge.connection import BoundedServer
from candlesync.edge.line import SEND_BUFFER, Line
from candlesync.hub import Topic
from candlesync.server import hypercorn_config
from candlesync.web import base
from tests.builders import candle, forming, minute, then
from tests.edge.clients import CLOSE, PATIENCE, PING, PONG, TEXT, Http2, Raw, frames_of, handshake, opened
from tests.edge.test_server import eventually, still_serves
from tests.stalls import again_if_disturbed
from tests.web.builders import Port, Web, frame, on_a_port

ONE = "/ws/candles/BTCUSDT?replay=0"
SMALL = 4096
"""Bytes of a kernel's buffer: the least that it gives is soon full."""


def publish(topic: Topic, count: int = 0) -> None:
    """Another trade, or so many minutes more."""
    tail = topic.replica.tail
    assert tail is not None
    last = (tail.open_time - minute(0)) // 60_000
    trades = tail.trades + 1
    if not count:
        topic.publish(then(topic.replica, forming(minute(last + tail.closed), trades=trades)))
        return
    made = [candle(minute(last + number), trades=trades) for number in range(count + 1)]
    topic.publish(then(topic.replica, *made[tail.closed :]))


async def storm(topic: Topic, random: Random, *, pause: float = 0.0) -> None:
    """Commits, small and large, for ever."""
    while True:
        publish(topic, random.choice([0, 0, 0, 0, 1, 10, 40]))
        await trio.sleep(pause * random.random())


@asynccontextmanager
async def storming(topic: Topic, random: Random, *, pause: float = 0.0) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(storm, topic, random, pause=pause))
        yield
        nursery.cancel_scope.cancel()


class Parts:
    """How often the hub's frames were taken whole, in part, and not at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole = self.part = self.none = 0
        offer = Line.offer

        def note(line: Line, frames: bytes) -> int:
            taken = offer(line, frames)
            self.whole += taken == len(frames)
            self.part += 0 < taken < len(frames)
            self.none += taken == 0
            return taken

        monkeypatch.setattr(Line, "offer", note)


@pytest.fixture(name="parts")
def _parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


@pytest.fixture(name="patient")
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings follow each other so fast here that nobody could answer in time."""
    monkeypatch.setattr(connection, "SILENCE", math.inf)


def check_order(raw: Raw) -> None:
    """Each candle's revisions ascend, and positions do."""
    seen: dict[int, int] = {}
    at = 0
    for message in raw.messages:
        assert message["rev"] > seen.get(message["time"], 0)
        seen[message["time"]] = message["rev"]
        if "position" in message:
            revision = int(message["position"].rpartition("-")[2])
            assert revision > at
            at = revision


# --- the direct way


async def test_a_live_candle_goes_past_the_framework() -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port, opened(port, ONE) as raw:
        await eventually(lambda: topic._parked)
        for number in range(50):
            publish(topic)
            assert topic.written == number + 1, "when publish returns it is on the socket"
        await raw.read_until(b'"position":"life0-51"')
        assert [message["rev"] for message in raw.messages] == list(range(2, 52))
        assert raw.frames[-1][0] == TEXT


async def test_what_went_past_the_framework_is_counted() -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port, opened(port, "/ws/candles/BTCUSDT?replay=5") as raw:
        await eventually(lambda: topic._parked)
        publish(topic, 3)
        await raw.read_until(b'"position":"life0-2"')
        assert "candlesync_messages_sent_total 8.0" in (await web.get("/metrics")).body.decode()


async def test_a_client_that_offers_compression_gets_plain_frames() -> None:
    web = Web()
    topic = web.topic()
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    async with on_a_port(web) as port, opened(port, "/ws/candles/BTCUSDT?replay=5", offer) as raw:
        await eventually(lambda: topic._parked)
        publish(topic, 3)
        await raw.read_until(b'"position":"life0-2"')
        assert topic.written == 3
        assert len(raw.messages) == 8


async def test_many_series_on_one_socket() -> None:
    web = Web(listed=[f"S{number}USDT" for number in range(20)])
    topics = [web.topic(series=Series(f"S{number}USDT", Interval.M1)) for number in range(20)]
    async with on_a_port(web) as port, opened(port, "/ws/candles") as raw:
        for topic in topics:
            await raw.send(f'{{"op":"subscribe","symbol":"{topic.series.symbol}","replay":0}}')
        await eventually(lambda: all(topic._parked for topic in topics))
        for _ in range(10):
            for topic in topics:
                publish(topic)
            await raw.read_until(f'"position":"life0-{topics[-1].replica.revision}"'.encode())
        await raw.send('{"op":"ping","id":"last"}')
        await raw.read_until(b'"last"')
        for topic in topics:
            assert topic.written == 10
            revisions = [
                each["rev"] for each in raw.messages if each.get("symbol") == topic.series.symbol if "rev" in each
            ]
            assert revisions == list(range(2, 12))


async def test_answers_and_candles_keep_their_order(parts: Parts) -> None:
    """An unsubscribed series says nothing after the answer, also if its last candle was begun before."""
    web = Web()
    topic = web.topic()
    random = Random(5)
    async with (
        on_a_port(web, send_buffer=SMALL) as port,
        opened(port, "/ws/candles", receive_buffer=SMALL) as raw,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(storm, topic, random, pause=0.002))
        nursery.start_soon(raw.read_all, random)
        for number in range(40):
            await raw.send(f'{{"op":"subscribe","symbol":"BTCUSDT","replay":1,"id":{number}}}')
            await trio.sleep(random.uniform(0, 0.02))
            await raw.send(f'{{"op":"unsubscribe","symbol":"BTCUSDT","id":{number + 1000}}}')
            await trio.sleep(random.uniform(0, 0.01))
        with trio.fail_after(PATIENCE):
            while b'"id":1039' not in raw.received:  # noqa: ASYNC110 - as a client looks
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    is_subscribed = False
    for message in raw.messages:
        match message.get("op"):
            case "subscribed":
                is_subscribed = True
            case "unsubscribed":
                is_subscribed = False
            case None:
                assert is_subscribed
    assert parts.whole + parts.part > 0


# --- frames and Hypercorn's own


@pytest.mark.usefixtures("patient")
async def test_no_ping_lands_inside_a_frame(parts: Parts) -> None:
    web = Web(history=1_000_000)  # however far the client falls behind
    topic = web.topic()
    random = Random(1)
    async with (
        on_a_port(web, send_buffer=SMALL, websocket_ping_interval=0.01) as port,
        opened(port, ONE, receive_buffer=SMALL) as raw,
    ):

        async def answer() -> None:
            while True:
                await raw.send(b"", PONG)
                await raw.send(b"here", PING)
                await trio.sleep(0.004)

        def is_enough() -> bool:
            if min(parts.part, parts.whole) <= 5:
                return False
            kinds = Counter(opcode for opcode, _ in raw.frames)
            return min(kinds[PING], kinds[PONG], kinds[TEXT] / 5) > 10 and (PONG, b"here") in raw.frames

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(2 * PATIENCE):
                # How many writes are cut is the kernel's matter, and how fast they come the machine's.
                while not is_enough():
                    await eventually(lambda: topic._parked)
                    async with storming(topic, random, pause=0.004):
                        cut = parts.part + parts.none
                        while parts.part + parts.none == cut:  # noqa: ASYNC110 - it reads nothing until one is cut
                            await trio.sleep(0.001)
                        for _ in range(random.randint(0, 20)):
                            await raw.read(random.randint(1, 2000))
                            if random.random() < 0.3:
                                await trio.sleep(random.uniform(0, 0.01))
                    publish(topic)
                    await raw.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
            nursery.cancel_scope.cancel()
        assert not raw.is_over
        publish(topic)
        await raw.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
        check_order(raw)
        assert raw.messages[-1]["position"] == f"life0-{topic.replica.revision}"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", ["close", "too long", "binary", "going down", "half"])
@pytest.mark.parametrize("dribbles", [False, True])
async def test_nothing_comes_after_a_close_in_a_storm(kind: str, dribbles: bool) -> None:
    web = Web(history=1_000_000)
    topic = web.topic()
    random = Random(2)
    small = SMALL if dribbles else SEND_BUFFER
    async with (
        on_a_port(web, send_buffer=small, websocket_ping_interval=0.01) as port,
        storming(topic, random, pause=0.002),
    ):
        for number in range(1 if kind == "going down" else 8):
            async with opened(port, ONE, receive_buffer=small) as raw:
                with trio.move_on_after(0.02 * number):
                    while True:
                        await raw.read(500)
                if kind == "close":
                    await raw.send(struct.pack(">H", 1000) + b"bye", CLOSE)
                elif kind == "too long":
                    await raw.send("x" * 66_000)
                elif kind == "binary":
                    await raw.send(b"x", 2)
                elif kind == "half":
                    # Two closes and what a broken client would send behind them.
                    await raw.stream.send_all(frame(b"", CLOSE) + frame(b"a", PING) + frame("{}") + frame(b"", CLOSE))
                else:
                    port.stop.set()
                await raw.read_all(random if dribbles else None)
                end = raw.end()
                assert end is not None, "there was a close"
                codes = {"close": 1000, "too long": 1009, "binary": 1003, "going down": 1012}
                if kind in codes:
                    assert end[0] == codes[kind]
                check_order(raw)
        await eventually(lambda: not topic.subscribers and not web.sockets.open)


async def test_a_number_that_is_used_again_gets_nothing_of_the_connection_before() -> None:
    """Clients come and go in a storm of frames, and others, on the same descriptors, ask for something else."""
    web = Web()
    topic = web.topic()
    random = Random(3)
    answers = 0

    async def trade() -> None:
        while True:
            publish(topic)
            await trio.sleep(0.001)

    async def come_and_go(port: Port) -> None:
        while True:
            async with opened(port, ONE, receive_buffer=SMALL) as raw:
                with trio.move_on_after(random.uniform(0, 0.05)):
                    await raw.read_all()
                if random.random() < 0.5:
                    raw.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def ask(port: Port) -> None:
        nonlocal answers
        while True:
            async with await port.connect() as stream:
                await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                received = b""
                async for data in stream:
                    received += data
                assert received.startswith(b"HTTP/1.1 200 "), received[:100]
                assert received.endswith(b'\r\n\r\n{"status":"alive"}')
                assert b"rev" not in received
                answers += 1

    async with on_a_port(web) as port, trio.open_nursery() as nursery:
        nursery.start_soon(trade)
        for _ in range(5):
            nursery.start_soon(come_and_go, port)
            nursery.start_soon(ask, port)
        await eventually(lambda: answers > 50 and topic.written > 100)
        nursery.cancel_scope.cancel()


# --- the ordinary way


async def test_another_server_is_served_the_ordinary_way() -> None:
    """Hypercorn as it comes: no line is offered."""
    web = Web()
    topic = web.topic()
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        config = hypercorn_config(["127.0.0.1:0"], 1)
        app: Any = web.app
        (address,) = await nursery.start(partial(hypercorn_serve, app, config, shutdown_trigger=stop.wait))
        port = Port(int(address.rpartition(":")[2]))
        async with opened(port, ONE) as raw:
            await eventually(lambda: web.sockets.open)
            for _ in range(20):
                publish(topic)
                await raw.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
        assert topic.written == 0
        stop.set()


Certificate = tuple[dict[str, Any], ssl.SSLContext]
"""What Hypercorn is told, and who believes it."""


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for part in issued.cert_chain_pems:
        part.write_to_path(folder / "cert.pem", append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return {"certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem")}, context


async def sealed(port: Port, context: ssl.SSLContext, **buffers: int) -> trio.SSLStream[trio.SocketStream]:
    stream = await port.connect(**buffers)
    return trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)


@pytest.mark.usefixtures("patient")
async def test_tls_is_served_the_ordinary_way(certificate: Certificate) -> None:
    files, context = certificate
    web = Web()
    topic = web.topic()
    random = Random(4)
    async with on_a_port(web, websocket_ping_interval=0.01, **files) as port:
        async with await sealed(port, context) as stream:
            raw = await handshake(stream, ONE)
            async with storming(topic, random, pause=0.004), trio.open_nursery() as nursery:
                nursery.start_soon(raw.read_all)
                pings = texts = 0
                while min(pings, texts / 2) <= 10:
                    await raw.send(b"", PONG)
                    await trio.sleep(0.02)
                    kinds = Counter(opcode for opcode, _ in raw.frames)
                    pings, texts = kinds[PING], kinds[TEXT]
                await raw.send(struct.pack(">H", 1000), CLOSE)
            end = raw.end()
            assert end is not None
            assert end[0] == 1000
            check_order(raw)
        assert topic.written == 0


@pytest.mark.parametrize("way", ["websocket", "rest", "idle"])
@again_if_disturbed
async def test_a_client_under_tls_that_does_not_read_cannot_hold_up_the_end(certificate: Certificate, way: str) -> None:
    files, context = certificate
    web = Web()
    topic = web.topic([candle(minute(number)) for number in range(1000)])
    async with on_a_port(web, grace=1.0, send_buffer=SMALL, **files) as port:
        stream = await sealed(port, context, receive_buffer=SMALL)
        if way == "websocket":
            await handshake(stream, "/ws/candles/BTCUSDT?replay=1000")
        else:
            path = b"/candles/BTCUSDT/1m" if way == "rest" else b"/health"
            await stream.send_all(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        await trio.sleep(0.3)
        started = trio.current_time()
        port.stop.set()
    assert trio.current_time() - started < 1.0
    assert not topic.subscribers
    await trio.aclose_forcefully(stream)


@again_if_disturbed
async def test_a_connection_under_tls_that_is_full_cannot_hold_up_the_end(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the word with which TLS ends finds room."""
    files, context = certificate
    web = Web()
    connections: list[BoundedServer] = []

    async def run(connection: BoundedServer) -> None:
        connections.append(connection)
        await serve(connection)

    serve = BoundedServer.run
    monkeypatch.setattr(BoundedServer, "run", run)
    async with on_a_port(web, grace=1.0, send_buffer=SMALL, **files) as port:
        stream = await sealed(port, context, receive_buffer=SMALL)
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        with trio.fail_after(PATIENCE):
            while b"alive" not in received:
                received += await stream.receive_some()
        ours: Any = connections[0].stream
        with suppress(BlockingIOError):
            while True:
                os.write(ours.transport_stream.socket.fileno(), bytes(10))
        started = trio.current_time()
        port.stop.set()
    assert trio.current_time() - started < 1.0
    await trio.aclose_forcefully(stream)


async def test_http_2_is_served_the_ordinary_way() -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web, websocket_ping_interval=0.02) as port, await port.connect() as stream:
        client = Http2(stream)
        number = await client.websocket("/ws/candles/BTCUSDT?replay=2")
        assert client.status == "200"
        for count in (0, 3, 0, 40):
            publish(topic, count)
            await client.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
        assert topic.written == 0
        await client.send(number, frame(b"here", PING))
        await client.read_until(b"\x8a\x04here")
        port.stop.set()
        await client.read_until(struct.pack(">H", 1012) + b"going_down")
        frames, size = frames_of(client.received)
        assert size == len(client.received)
        assert [opcode for opcode, _ in frames].count(PING) >= 1
        assert frames[-1][0] == CLOSE


async def test_a_message_that_is_too_long_ends_its_websocket_over_http_2() -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port, await port.connect() as stream:
        client = Http2(stream)
        number = await client.websocket(ONE)
        await eventually(lambda: topic.subscribers)
        await client.send(number, frame("x" * 66_000))
        await client.read_until(struct.pack(">H", 1009))
        await eventually(lambda: not web.sockets.open)


@pytest.mark.parametrize("way", ["websocket", "rest"])
@again_if_disturbed
async def test_a_client_that_grants_no_room_over_http_2_is_gone_in_time(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It reads, and answers, and takes nothing: each send is bounded there too."""
    monkeypatch.setattr(Line, "slowest", 1_000_000.0)
    web = Web()
    topic = web.topic([candle(minute(number)) for number in range(1000)])
    async with on_a_port(web, send_timeout=0.5) as port, await port.connect() as stream:
        client = Http2(stream)
        client.grants = False
        if way == "websocket":
            await client.websocket("/ws/candles/BTCUSDT?replay=1000")
        else:
            head = ((":method", "GET"), (":scheme", "http"), (":path", "/candles/BTCUSDT/1m"), (":authority", "x"))
            await client.start(*head, end_stream=True)
        with trio.fail_after(PATIENCE):
            while not client.is_over:
                await client.read()
        await eventually(lambda: not web.sockets.open)
        await still_serves(port, topic)


async def test_what_waits_for_a_client_that_grants_a_byte_at_a_time_over_http_2_is_bounded() -> None:
    web = Web(history=1_000_000)
    topic = web.topic()
    async with on_a_port(web) as port, await port.connect() as stream, trio.open_nursery() as nursery:
        client = Http2(stream)
        client.grants = False
        number = await client.websocket(ONE)
        (session_,) = web.sockets.open

        async def read() -> None:
            while not client.is_over:
                await client.read()

        async def grant() -> None:
            while True:
                client.connection.increment_flow_control_window(1, number)
                client.connection.increment_flow_control_window(1)
                await client.flush()
                await trio.sleep(0.001)

        nursery.start_soon(read)
        nursery.start_soon(grant)
        for _ in range(300):
            publish(topic, 10)
            await trio.sleep(0.003)
        # Of 3000 candles it has got and is kept 64 KB (the window), 32 KB (the buffer), and one message.
        assert 100 < session_.sent < 600
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("whose", ["the client's", "ours"])
async def test_a_ping_over_http_2_does_not_wait_for_room_that_is_to_be_read(whose: str) -> None:
    web = Web(history=1_000_000)
    topic = web.topic()
    interval = 0.1 if whose == "ours" else 100
    async with on_a_port(web, websocket_ping_interval=interval) as port, await port.connect() as stream:
        client = Http2(stream)
        client.grants = False
        number = await client.websocket(ONE)
        while len(client.received) < 65_000:
            publish(topic, 10)
            await client.read()
        for _ in range(100):  # until the buffer is full as well
            publish(topic, 10)
            await trio.sleep(0.001)
        if whose == "the client's":
            await client.send(number, frame(b"here", PING))
        await trio.sleep(0.3)
        client.grants = True
        client.connection.increment_flow_control_window(1_000_000, number)
        client.connection.increment_flow_control_window(1_000_000)
        await client.flush()
        await client.read_until(b"\x8a\x04here" if whose == "the client's" else b"\x89\x00")
        await client.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
        frames_of(client.received)


async def test_a_client_that_asks_for_pongs_over_http_2_and_takes_none_is_cut_off() -> None:
    web = Web(history=1_000_000)
    topic = web.topic()
    async with on_a_port(web) as port, await port.connect() as stream:
        client = Http2(stream)
        client.grants = False
        number = await client.websocket(ONE)
        with trio.fail_after(PATIENCE):
            while not client.is_over:
                publish(topic, 10)
                with suppress(trio.BrokenResourceError), trio.move_on_after(0.001):
                    await client.send(number, frame(b"p" * 125, PING) * 10)
                with trio.move_on_after(0.001):
                    await client.read()
        await eventually(lambda: not web.sockets.open)


# --- silent clients


@pytest.mark.parametrize("since", [0.0, 0.4, 0.8])
@again_if_disturbed
async def test_a_client_that_is_silent_is_gone_within_two_and_a_half_ping_intervals(since: float) -> None:
    web = Web()
    web.topic()
    interval = 0.3
    async with on_a_port(web, websocket_ping_interval=interval) as port, opened(port, ONE) as raw:
        await trio.sleep(since * interval)
        await raw.send('{"op":"ping"}')
        heard = trio.current_time()
        await raw.read_all()
        assert 1.5 * interval - 0.05 < trio.current_time() - heard < 2.5 * interval + 1
        assert raw.end() is None
        assert web.sockets.open == set()


@pytest.mark.parametrize("says", ["pongs", "messages"])
@again_if_disturbed
async def test_a_client_that_says_something_stays(says: str) -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web, websocket_ping_interval=0.1) as port, opened(port, ONE) as raw:
        answered = 0
        with trio.move_on_after(1.2):
            while not raw.is_over:
                await raw.read()
                pings = [payload for opcode, payload in raw.frames if opcode == PING]
                for payload in pings[answered:]:
                    answered += 1
                    if says == "pongs":
                        await raw.send(payload, PONG)
                    else:
                        await raw.send('{"op":"ping"}')
        assert not raw.is_over
        assert 8 <= answered <= 15
        await still_serves(port, topic)


@again_if_disturbed
async def test_a_process_that_was_held_up_judges_nobody() -> None:
    """Stopped and continued, or starved: it has not heard what its clients have said meanwhile."""
    web = Web()
    web.topic()
    interval = 0.2
    async with on_a_port(web, websocket_ping_interval=interval) as port, opened(port, ONE) as raw:

        async def answer() -> None:
            answered = 0
            while not raw.is_over:
                await raw.read()
                for _ in range([opcode for opcode, _ in raw.frames].count(PING) - answered):
                    answered += 1
                    await raw.send(b"", PONG)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            for _ in range(5):
                await trio.sleep(0.05 + interval)
                time.sleep(3 * interval)  # noqa: ASYNC251 - nothing runs meanwhile
            await trio.sleep(2 * interval)
            assert not raw.is_over
            nursery.cancel_scope.cancel()


@again_if_disturbed
async def test_a_client_whose_words_wait_to_be_read_is_not_silent() -> None:
    """Its own reading is slow, and we read nothing more from it until our answers are sent: that is not its silence."""
    web = Web()
    web.topic([candle(minute(number)) for number in range(1000)])
    async with (
        on_a_port(web, websocket_ping_interval=0.1, send_buffer=SMALL) as port,
        opened(port, "/ws/candles", receive_buffer=SMALL) as raw,
        trio.open_nursery() as nursery,
    ):
        # More than the queues between us and the session hold, behind an answer of 200 KB.
        words = [
            '{"op":"subscribe","symbol":"BTCUSDT","replay":1000}',
            *(f'{{"op":"ping","id":{n}}}' for n in range(100)),
        ]
        await raw.stream.send_all(b"".join(map(frame, words)))

        async def pong() -> None:
            while True:
                await raw.send(b"", PONG)
                await trio.sleep(0.01)

        nursery.start_soon(pong)
        started = trio.current_time()
        with trio.fail_after(PATIENCE):
            while b'"id":99}' not in raw.received:
                await raw.read(1024)
                assert not raw.is_over
                await trio.sleep(0.005)
        assert trio.current_time() - started > 0.5
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("stall", [0.6, 1.62, 1.68, 1.74])
@again_if_disturbed
async def test_a_client_that_was_not_sent_its_ping_yet_is_not_silent(stall: float) -> None:
    """It waits behind what a slow client takes: there was nothing yet to answer."""
    web = Web()
    web.topic([candle(minute(number)) for number in range(1000)])
    async with (
        on_a_port(web, websocket_ping_interval=0.8, send_buffer=SMALL) as port,
        opened(port, "/ws/candles/BTCUSDT?replay=1000", receive_buffer=SMALL) as raw,
    ):
        await trio.sleep(stall)
        answered = 0
        with trio.move_on_after(1.5):
            while not raw.is_over:
                await raw.read()
                for _ in range([opcode for opcode, _ in raw.frames].count(PING) - answered):
                    answered += 1
                    await raw.send(b"", PONG)
        assert not raw.is_over
        assert len(raw.messages) == 1000


# --- slow clients


@again_if_disturbed
async def test_a_client_that_lags_for_too_long_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE", 0.5)
    web = Web(history=1_000_000)
    topic = web.topic()
    async with (
        on_a_port(web, send_buffer=SMALL) as port,
        opened(port, ONE, receive_buffer=SMALL) as raw,
        storming(topic, Random(6), pause=0.005),
    ):
        started = trio.current_time()
        with trio.fail_after(PATIENCE):
            while not raw.is_over:
                await raw.read(2048)
                await trio.sleep(0.02)
        assert trio.current_time() - started > 0.5
        assert raw.end() == (1013, "too_slow")
        check_order(raw)
        last = [message["position"] for message in raw.messages if "position" in message][-1]
        async with opened(port, f"/ws/candles/BTCUSDT?position={last}") as again:
            await again.read_until(b"position")
            assert int(again.messages[0]["rev"]) > int(last.rpartition("-")[2])


@again_if_disturbed
async def test_a_client_that_is_slow_now_and_then_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE", 0.5)
    web = Web()
    topic = web.topic()
    async with on_a_port(web, send_buffer=SMALL) as port, opened(port, ONE, receive_buffer=SMALL) as raw:
        for _ in range(6):
            for _ in range(20):
                publish(topic, 40)
                await trio.lowlevel.checkpoint()
            await trio.sleep(0.25)  # it looks away
            await raw.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
            for _ in range(10):
                publish(topic)
                await raw.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
                await trio.sleep(0.03)
        assert not raw.is_over
        check_order(raw)


@again_if_disturbed
async def test_a_client_that_takes_no_live_candles_is_reset_after_the_send_timeout() -> None:
    web = Web()
    topic = web.topic()
    async with (
        on_a_port(web, send_buffer=SMALL, send_timeout=0.5) as port,
        opened(port, ONE, receive_buffer=SMALL) as raw,
    ):
        (subscriber,) = topic.subscribers
        waited: float | None = None
        with trio.fail_after(PATIENCE):
            while web.sockets.open:
                publish(topic, 10)
                if waited is None and Line._waiting:
                    waited = trio.current_time()
                await trio.sleep(0.005)
        assert waited is not None
        assert 0.4 < trio.current_time() - waited < 1.0
        assert not topic.subscribers
        await raw.read_all()
        assert raw.end() is None
        assert subscriber.topic is topic


async def test_a_reader_of_a_byte_now_and_then_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer, of which it always takes something, and which it never would have taken."""
    web = Web()
    topic = web.topic([candle(minute(number)) for number in range(1000)])
    monkeypatch.setattr(Line, "slowest", 500_000.0)
    async with (
        on_a_port(web, send_buffer=SMALL, send_timeout=0.3) as port,
        await port.connect(receive_buffer=SMALL) as stream,
    ):
        started = trio.current_time()
        await stream.send_all(b"GET /candles/BTCUSDT/1m HTTP/1.1\r\nHost: x\r\n\r\n")
        received = 0
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    data = await stream.receive_some(1024)
                except trio.BrokenResourceError:
                    break
                if not data:
                    break
                received += len(data)
                await trio.sleep(0.02)
                if trio.current_time() - started > 2:
                    break
        assert received < 120_000
        assert not Line._waiting
        assert trio.current_time() - started < 2
        await still_serves(port, topic)
