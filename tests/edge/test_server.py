"""Our connections under real Hypercorn, over real sockets: what a client does to its own, it does to no other."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import structlog.testing
import trio

from candlesync.edge.connection import BoundedServer
from candlesync.edge.line import Line
from candlesync.hub import Topic
from candlesync.server import hypercorn_config
from tests.builders import candle, minute
from tests.edge.clients import PATIENCE
from tests.stalls import Stalls, again_if_disturbed, stalls, within
from tests.web.builders import Port, Web, commit, frame, on_a_port, read_all, upgrade
from tests.whole.programs import REPOSITORY

SUBSCRIBE = '{"op":"subscribe","symbol":"BTCUSDT","replay":1000}'


@pytest.fixture(name="measured")
def _measured() -> Iterator[Stalls]:
    with stalls() as measured:
        yield measured


async def eventually(holds: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait until something holds; the test fails when it does not in time."""
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - nothing sets an event for what a server has let go of
            await trio.sleep(0.005)


async def still_serves(port: Port, topic: Topic) -> None:
    """The server answers others, over REST and WebSocket."""
    stream = await port.connect()
    async with stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await read_all(stream)).endswith(b'{"status":"alive"}')
    async with port.websocket("/ws/candles/BTCUSDT?replay=1") as socket:
        message = json.loads(await socket.get_message())
        assert message["rev"] == topic.replica.newest(1)[0].revision


async def opened(port: Port, path: str = "/ws/candles", *, receive_buffer: int | None = None) -> trio.SocketStream:
    """A raw WebSocket connection whose handshake was answered."""
    stream = await port.connect(receive_buffer=receive_buffer)
    await stream.send_all(upgrade(path))
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some(1)  # no byte of the first message, so that nothing is lost
    assert received.startswith(b"HTTP/1.1 101 ")
    return stream


def thousand(web: Web) -> Topic:
    """A series of which a replay is 200 KB."""
    return web.topic([candle(minute(number)) for number in range(1000)])


async def stuck(port: Port, web: Web) -> trio.SocketStream:
    """A client that has asked for 200 KB and reads none of it: its server waits in a send."""
    stream = await opened(port, receive_buffer=4096)
    await stream.send_all(frame(SUBSCRIBE))
    (session,) = web.sockets.open
    sent = -1
    while sent != session.sent or not Line._waiting:
        sent = session.sent
        await trio.sleep(0.05)
    return stream


# --- bytes that are no HTTP and no WebSocket

BYTES = {
    "noise": bytes(range(256)),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a path of 100 KB": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET ?x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a path that is not ASCII": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a host that is no name": b"GET /health HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n",
    "a host too long": b"GET /health HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\nConnection: close\r\n\r\n",
    "a bad length": b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
    "a bad chunk": b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/2 and noise": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(100)),
    "a handshake without a key": upgrade("/ws/candles").replace(b"Sec-WebSocket-Key", b"X-Key"),
    "a handshake of another version": upgrade("/ws/candles").replace(b"Version: 13", b"Version: 8"),
    "a handshake with no path": upgrade("?x"),
    "a handshake and a frame at once": upgrade("/ws/candles") + frame('{"op":"ping"}'),
    "a handshake and noise at once": upgrade("/ws/candles") + bytes(range(256)),
}


@pytest.mark.parametrize("name", BYTES)
async def test_bytes_that_make_no_sense_harm_nobody(name: str) -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port, port.websocket("/ws/candles/BTCUSDT?replay=0") as other:
        stream = await port.connect()
        async with stream:
            await stream.send_all(BYTES[name])
            with trio.move_on_after(0.05):
                await stream.receive_some()
        await still_serves(port, topic)
        commit(topic, candle(minute(10)))
        assert json.loads(await other.get_message())["rev"] == 2
        await eventually(lambda: len(web.sockets.open) <= 1)


FRAMES = {
    "not masked": b"\x81\x02hi",
    "a reserved opcode": frame(b"hi", opcode=3),
    "no UTF-8": frame(b"\xff\xff"),
    "a ping too long": frame(b"a" * 200, opcode=9),
    "a continuation of nothing": frame(b"a", opcode=0),
    "a bad close": frame(b"\x00", opcode=8),
    "a close with a code that nobody may send": frame(struct.pack(">H", 1005), opcode=8),
    "a close and more": frame(b"", opcode=8) + frame('{"op":"ping"}') + frame(b"", opcode=9),
    "noise": bytes(range(256)),
    "a frame of 2**63 bytes": b"\x81\xff" + b"\xff" * 8 + b"abcd",
    "a message of 70 KB": frame("a" * 70_000),
    "half a frame": frame("hello")[:5],
}


@pytest.mark.parametrize("name", FRAMES)
async def test_frames_that_make_no_sense_harm_nobody(name: str) -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port, port.websocket("/ws/candles/BTCUSDT?replay=0") as other:
        async with await opened(port, "/ws/candles/BTCUSDT") as stream:
            await stream.send_all(FRAMES[name])
            with trio.move_on_after(0.05):
                await stream.receive_some()
        await eventually(lambda: len(topic.subscribers) == 1)
        await still_serves(port, topic)
        commit(topic, candle(minute(10)))
        assert json.loads(await other.get_message())["rev"] == 2


@pytest.mark.parametrize("size", [66_000, 70_000, 200_000])
async def test_a_message_that_is_too_long_closes_with_1009(size: int) -> None:
    web = Web()
    with structlog.testing.capture_logs() as events:
        async with on_a_port(web) as port, await opened(port) as stream:
            await stream.send_all(frame("a" * size))
            assert struct.pack(">H", 1009) in await read_all(stream)
            await eventually(lambda: not web.sockets.open)
    assert events == [], "it is the client's matter alone"


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; server_max_window_bits=-1",
        "permessage-deflate; client_max_window_bits=" + "9" * 5000,
        ";;,=;",
        "unknown",
        "permessage-deflate; client_max_window_bits",
    ],
)
async def test_extensions_are_declined_whatever_is_offered(offer: str) -> None:
    web = Web()
    web.topic()
    async with on_a_port(web) as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(upgrade("/ws/candles/BTCUSDT?replay=1", f"Sec-WebSocket-Extensions: {offer}"))
            received = b""
            with trio.fail_after(PATIENCE):
                while b'"rev":1' not in received:
                    received += await stream.receive_some()
        assert b"extensions" not in received.lower()


async def test_an_error_of_one_connection_ends_that_one_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web()
    topic = web.topic()

    async def fail(_self: BoundedServer) -> None:
        raise ValueError("a bug of the protocol")

    async with on_a_port(web) as port:
        with monkeypatch.context() as patch, structlog.testing.capture_logs() as events:
            patch.setattr(BoundedServer, "_read_data", fail)
            async with await port.connect() as stream:
                assert await read_all(stream) == b""
        assert [(event["event"], event["log_level"]) for event in events] == [("connection failed", "warning")]
        assert "a bug of the protocol" in events[0]["error"]
        await still_serves(port, topic)


# --- clients that leave


async def test_a_client_that_vanishes_in_mid_handshake() -> None:
    web = Web()
    topic = web.topic()
    handshake = upgrade("/ws/candles/BTCUSDT")
    async with on_a_port(web) as port:
        for end in (0, 1, len(handshake) // 2, len(handshake) - 1):
            async with await port.connect() as stream:
                await stream.send_all(handshake[:end])
        web.supervisor.delay = 0.2
        for _ in range(3):
            async with await port.connect() as stream:
                await stream.send_all(handshake)
                await trio.sleep(0.05)  # the series is starting
        await trio.sleep(0.3)  # or nothing has been opened yet that could be left
        await eventually(lambda: not topic.subscribers and not web.sockets.open)
        web.supervisor.delay = 0
        await still_serves(port, topic)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_without_a_close_leaves_nothing(reset: bool) -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port:
        stream = await opened(port, "/ws/candles/BTCUSDT")
        assert len(topic.subscribers) == 1
        if reset:
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await eventually(lambda: not topic.subscribers and not web.sockets.open)


async def test_a_client_that_floods_and_reads_nothing_leaves_nothing_when_it_leaves() -> None:
    """More messages than all queues on the way hold: the handler waits in a send and reads no more of them."""
    web = Web()
    topic = thousand(web)
    async with on_a_port(web, send_buffer=4096) as port:
        stream = await stuck(port, web)
        with trio.move_on_after(0.1):
            await stream.send_all(frame('{"op":"ping"}') * 100_000)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await eventually(lambda: not topic.subscribers and not web.sockets.open)
        await still_serves(port, topic)


# --- clients that do not read


@again_if_disturbed
async def test_a_client_that_does_not_read_is_cut_off_after_the_send_timeout_and_holds_up_nobody() -> None:
    web = Web()
    topic = thousand(web)
    started = trio.current_time()
    async with on_a_port(web, send_timeout=0.5, send_buffer=4096) as port, await stuck(port, web):
        with within(1.5):
            with within(0.4):  # others are served meanwhile
                await still_serves(port, topic)
            await eventually(lambda: not web.sockets.open)
        assert trio.current_time() - started > 0.5
        await eventually(lambda: not topic.subscribers and not Line._waiting)


async def test_a_client_that_is_cut_off_is_reset_and_the_kernel_keeps_nothing_for_it() -> None:
    web = Web()
    thousand(web)
    async with on_a_port(web, send_timeout=0.5, send_buffer=4096) as port:
        stream = await stuck(port, web)
        await eventually(lambda: not web.sockets.open)
        # What was under way, and then no proper end, for which the kernel would wait.
        with trio.fail_after(PATIENCE):
            reset = False
            try:
                async for _ in stream:
                    pass
            except trio.BrokenResourceError:
                reset = True
        assert reset
        await trio.aclose_forcefully(stream)


async def test_what_the_server_holds_for_a_client_that_floods_is_bounded() -> None:
    """What the queues between Hypercorn, Quart and the session do not take stays in the client's own buffers."""
    web = Web()
    thousand(web)
    async with on_a_port(web, send_buffer=4096) as port:
        stream = await stuck(port, web)
        sent = 0
        message = frame("x" * 60_000)
        with trio.move_on_after(0.5):
            while sent < 60_000_000:
                await stream.send_all(message)
                sent += len(message)
        assert sent < 30_000_000
        await trio.aclose_forcefully(stream)


@again_if_disturbed
async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    web = Web()
    thousand(web)
    async with (
        on_a_port(web, send_timeout=0.5, send_buffer=4096) as port,
        await opened(port, "/ws/candles/BTCUSDT?replay=1000", receive_buffer=4096) as stream,
    ):
        received = b""
        with trio.move_on_after(1.2):
            while True:
                received += await stream.receive_some(1024)
                await trio.sleep(0.02)
        assert len(web.sockets.open) == 1
        assert 5_000 < len(received) < 100_000


# --- going down


@again_if_disturbed
async def test_the_application_is_told_at_once_and_its_clients_get_1012(measured: Stalls) -> None:
    web = Web()
    web.topic()
    async with (
        on_a_port(web, grace=5) as port,
        await opened(port, "/ws/candles/BTCUSDT?replay=0") as idle,
        await opened(port) as many,
    ):
        stopped = time.monotonic()
        with within(1):
            port.stop.set()
            for stream in (idle, many):
                assert (await read_all(stream)).endswith(struct.pack(">H", 1012) + b"going_down")
        assert web.stopping.is_set()
        with pytest.raises(ConnectionRefusedError):
            await port.connect()
    measured.check("and nobody waits for the rest of the grace time", stopped, time.monotonic() - stopped, 2)


@again_if_disturbed
async def test_a_client_that_does_not_read_holds_the_end_up_for_half_the_grace_time_at_most(
    measured: Stalls,
) -> None:
    web = Web()
    topic = thousand(web)
    async with on_a_port(web, grace=1.0, send_buffer=4096) as port:
        stream = await stuck(port, web)
        stopped = time.monotonic()
        port.stop.set()
    measured.check("the end", stopped, time.monotonic() - stopped, 1.0)
    assert not topic.subscribers
    await trio.aclose_forcefully(stream)


async def kept_alive(port: Port) -> trio.SocketStream:
    """A connection whose first request was answered, and that waits for a second one."""
    stream = await port.connect()
    await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while b"alive" not in received:
        received += await stream.receive_some()
    return stream


@again_if_disturbed
async def test_clients_that_come_all_at_once_find_a_place_to_wait() -> None:
    async with on_a_port(Web()) as port:
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.socket()) for _ in range(300)]
            for client in clients:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port.number))
            # No await since: the server has accepted nobody. A connection for which there is no place is not made.
            _, made, _ = select.select([], clients, [], 0.2)
        assert len(made) == len(clients)


@again_if_disturbed
async def test_an_idle_connection_is_closed_after_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("candlesync.server.KEEP_ALIVE", 0.2)
    async with on_a_port(Web()) as port, await kept_alive(port) as stream:
        began = trio.current_time()
        assert await read_all(stream, seconds=2) == b""
        assert trio.current_time() - began > 0.1


def test_a_program_that_asks_every_minute_keeps_its_connection() -> None:
    settled = tomllib.loads((REPOSITORY / "hypercorn.toml").read_text())
    assert settled["keep_alive_timeout"] == hypercorn_config([], 1).keep_alive_timeout > 60


@again_if_disturbed
async def test_an_idle_connection_does_not_hold_the_end_up() -> None:
    async with on_a_port(Web(), grace=10) as port, await kept_alive(port) as stream:
        port.stop.set()
        assert await read_all(stream, seconds=2) == b""


@again_if_disturbed
async def test_a_request_under_way_is_answered_before_the_end() -> None:
    web = Web()
    web.topic()
    web.supervisor.delay = 0.3
    async with on_a_port(web, grace=5) as port, await port.connect() as stream:
        await stream.send_all(b"GET /candles/BTCUSDT/1m?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.1)
        port.stop.set()
        assert b'"rev":1}]' in await read_all(stream)


# --- what only the wire shows of the web layer


async def wire(port: Port, request: str) -> tuple[bytes, bytes]:
    """Head and body of an answer, byte for byte."""
    async with await port.connect() as stream:
        await stream.send_all(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
    return head.lower(), body


async def test_head_and_304_have_no_body_on_the_wire() -> None:
    web = Web()
    web.topic()
    async with on_a_port(web) as port:
        head, body = await wire(port, "GET /candles/BTCUSDT/1m")
        assert f"content-length: {len(body)}".encode() in head
        headed, nothing = await wire(port, "HEAD /candles/BTCUSDT/1m")
        assert (headed.partition(b"date:")[0], nothing) == (head.partition(b"date:")[0], b"")
        async with await port.connect() as stream:
            request = 'GET /candles/BTCUSDT/1m HTTP/1.1\r\nHost: x\r\nIf-None-Match: "life0-1-1000"\r\n\r\n'
            await stream.send_all(request.encode() + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = await read_all(stream)
        assert received.startswith(b"HTTP/1.1 304 ")
        assert received.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200 "), "the next answer follows at once"


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/ws/candles/NOPE", 4404, "unknown_symbol"),
        ("/ws/candles/BTCUSDT?interval=2m", 4400, "bad_interval"),
        ("/ws/candles/BTCUSDT?replay=-1", 4400, "bad_parameter"),
        ("/ws/candles/BTCUSDT?position=other-1", 4410, "too_old"),
    ],
)
async def test_a_browser_sees_the_close_code_and_its_reason(path: str, code: int, reason: str) -> None:
    web = Web()
    web.topic()
    async with on_a_port(web) as port, await opened(port, path) as stream:
        received = await read_all(stream)
        assert received.endswith(struct.pack(">H", code) + reason.encode())


async def test_a_refused_upgrade_has_its_status_retry_after_and_body_on_the_wire() -> None:
    web = Web()
    web.stopping.set()
    async with on_a_port(web) as port, await port.connect() as stream:
        await stream.send_all(upgrade("/ws/candles"))
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head.lower()
        assert head.lower().count(b"connection: close") == 1
        assert json.loads(body)["error"]["code"] == "going_down"


async def test_a_conversation_over_the_wire() -> None:
    web = Web()
    topic = web.topic()
    async with on_a_port(web) as port, port.websocket("/ws/candles") as socket:
        await socket.send_message('{"op":"subscribe","symbol":"btcusdt","replay":1,"id":"é"}')
        messages: list[Any] = [json.loads(await socket.get_message()) for _ in range(3)]
        assert [message.get("op") for message in messages] == ["subscribed", "state", None]
        assert messages[0]["id"] == "é"
        commit(topic, candle(minute(10)))
        assert json.loads(await socket.get_message())["position"] == "life0-2"


async def test_a_binary_frame_closes_with_1003_on_the_wire() -> None:
    web = Web()
    async with on_a_port(web) as port, await opened(port) as stream:
        await stream.send_all(frame(b"\x00", opcode=2))
        assert struct.pack(">H", 1003) in await read_all(stream)
