"""The words of a connection, and how it opens and ends: real sockets, since that is where it breaks."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing
import trio_websocket
import wsproto.utilities

from candlesync.binance.stream import (
    LONGEST_BAN,
    Failure,
    Roster,
    StreamSettings,
    combined_url,
    failure_of,
    fitting,
    stream_name,
)
from candlesync.binance.venue import USDM
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.websocket import ENDS, Connection, open_websocket
from tests.stalls import within

BTC = Series("BTCUSDT", Interval.M1)
ETH = Series("ETHUSDT", Interval.M5)
MONTH = Series("BTCUSDT", Interval.MO1)
FOREIGN = Series("币安人生USDT", Interval.M1)
"""Listed by Binance in 2025: the first symbol beyond ASCII."""


def many(count: int) -> list[Series]:
    return [Series(f"S{number:04}USDT", interval) for number in range(count) for interval in INTERVALS][:count]


def test_a_stream_is_the_symbol_in_lower_case_and_the_interval_as_it_is() -> None:
    assert stream_name(BTC) == "btcusdt@kline_1m"
    assert stream_name(MONTH) == "btcusdt@kline_1M"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("wss://stream.binance.com:9443", "wss://stream.binance.com:9443/stream?streams="),
        ("wss://stream.binance.com:9443/", "wss://stream.binance.com:9443/stream?streams="),
        ("ws://127.0.0.1:8000/a/proxy/", "ws://127.0.0.1:8000/a/proxy/stream?streams="),
    ],
)
def test_the_url_carries_all_streams(base: str, url: str) -> None:
    assert combined_url(base, [BTC, ETH]) == f"{url}btcusdt@kline_1m/ethusdt@kline_5m"


def test_a_url_is_ascii_and_a_message_says_it_as_it_is() -> None:
    assert combined_url("ws://x", [FOREIGN]) == (
        "ws://x/stream?streams=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@kline_1m"
    )
    text = fitting("SUBSCRIBE", [FOREIGN, ETH], 4000).text(7)
    assert json.loads(text) == {
        "method": "SUBSCRIBE",
        "params": ["币安人生usdt@kline_1m", "ethusdt@kline_5m"],
        "id": 7,
    }


@pytest.mark.parametrize("url", ["http://x", "stream.binance.com:9443", "wss://", "ws://x:99999", "ws://x/?streams=a"])
def test_a_stream_url_that_cannot_work_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"stream URL|[Pp]ort"):
        StreamSettings(stream_url=url)


def test_limits_that_cannot_work_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        StreamSettings(symbols_per_connection=65)
    with pytest.raises(ValueError, match="1 to 1024"):
        StreamSettings(url_streams=0)
    with pytest.raises(ValueError, match="messages per second 6: 1 to 5"):
        StreamSettings(messages_per_second=6)
    assert StreamSettings(venue=USDM, messages_per_second=10).messages_per_second == 10
    with pytest.raises(ValueError, match="connection attempts 301: 1 to 300"):
        StreamSettings(connection_attempts=301)
    with pytest.raises(ValueError, match="nothing is left of it"):
        StreamSettings(lifetime=60.0)
    assert StreamSettings().lifetime + StreamSettings().handover_timeout < 86_400
    with pytest.raises(ValueError, match="at least 1"):
        StreamSettings(symbol_queue_size=0)
    assert StreamSettings(symbols_per_connection=64).symbols_per_connection * len(INTERVALS) == 1024


@pytest.mark.parametrize("message_bytes", [1, 100, 4000, 100_000])
def test_requests_fit_their_bytes_and_leave_nothing_out(message_bytes: int) -> None:
    series = [*many(200), FOREIGN]
    left = list(series)
    while left:
        request = fitting("UNSUBSCRIBE", left, message_bytes)
        assert len(request.series) == 1 or len(request.text(10**9).encode()) <= message_bytes
        assert list(request.series) == left[: len(request.series)]
        del left[: len(request.series)]
    assert len(fitting("SUBSCRIBE", many(200), 4000).series) > 100  # many in one, or 3 a second would be slow


def test_what_is_too_much_goes_before_what_is_missing_comes() -> None:
    roster = Roster(set(many(1024)))
    assert len(roster.connect(100)) == 100
    while request := roster.request(4000):
        assert request.method == "SUBSCRIBE"
        roster.ask(request)
        roster.grant(request)
    assert len(roster.carried) == 1024
    first, *_ = many(1024)
    roster.wanted.remove(first)
    roster.wanted.add(BTC)
    request = roster.request(4000)
    assert request is not None
    assert request.method == "UNSUBSCRIBE"
    assert request.series == (first,)
    roster.ask(request)
    assert first not in roster.carried
    roster.wanted.add(first)  # before the answer: it has to be asked for again
    assert roster.arrivals(set()) == sorted(roster.wanted - {first, BTC}, key=stream_name)
    roster.wanted.remove(first)
    roster.grant(request)
    request = roster.request(4000)
    assert request is not None
    assert request.method == "SUBSCRIBE"
    assert request.series == (BTC,)


@pytest.mark.parametrize(
    ("status", "headers", "words", "retry_after"),
    [
        (429, [(b"retry-after", b"7")], "too many connections", 7.0),
        (418, [(b"Retry-After", b"180")], "banned", 180.0),
        (429, [], "too many connections", None),
        (429, [(b"retry-after", b"Wed, 21 Oct 2015 07:28:00 GMT")], "too many connections", None),
        (418, [(b"retry-after", b"9" * 400)], "banned", LONGEST_BAN),
        (403, [], "firewall", None),
        (451, [], "does not serve this location", None),
        (503, [], "refused (HTTP 503)", None),
    ],
)
def test_a_refusal_is_said_in_clear_words(
    status: int, headers: list[tuple[bytes, bytes]], words: str, retry_after: float | None
) -> None:
    refusal = trio_websocket.ConnectionRejected(status, tuple(headers), b"")
    closed = trio_websocket.ConnectionClosed(trio_websocket.CloseReason(1006, None))
    failure = failure_of(BaseExceptionGroup("", [closed, ExceptionGroup("", [refusal])]))
    assert words in failure.reason
    assert f"(HTTP {status})" in failure.reason
    assert (failure.status, failure.retry_after) == (status, retry_after)


def test_other_failures_are_said_in_words_too() -> None:
    closed = trio_websocket.ConnectionClosed(trio_websocket.CloseReason(1008, "Too many requests"))
    assert failure_of(closed) == Failure("closed (code 1008 POLICY_VIOLATION: 'Too many requests')")
    assert failure_of(OSError("no such host")) == Failure("no such host")
    assert failure_of(trio_websocket.ConnectionTimeout()) == Failure("ConnectionTimeout")
    assert failure_of(trio_websocket.ConnectionClosed(None)) == Failure("closed")


Serve = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """A TCP server on a port of its own; gives its URL."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/stream?streams=btcusdt@kline_1m"
        nursery.cancel_scope.cancel()


def opened(url: str, max_message_size: int = 2**20) -> AbstractAsyncContextManager[Connection]:
    return open_websocket(url, message_queue_size=64, max_message_size=max_message_size)


async def failure_from(serve: Serve, *, scheme: str = "ws") -> Failure:
    """What opening a connection to the server, and reading from it, ends with."""
    async with listening(serve) as url:
        failure = None
        with within(3):  # found by itself, not by a timeout
            try:
                with trio.fail_after(20):
                    async with opened(url.replace("ws:", f"{scheme}:")) as connection:
                        while True:
                            await connection.get_message()
            except* ENDS as group:
                failure = failure_of(group)
        assert failure is not None
    gc.collect()  # a socket left open would be a ResourceWarning, and warnings are errors
    return failure


async def accepted(stream: trio.abc.Stream) -> None:
    """The server's half of a handshake, by hand."""
    async with trio.open_nursery() as nursery:
        request = await trio_websocket.wrap_server_stream(nursery, stream)
        await request.accept()
        nursery.cancel_scope.cancel()


async def test_frames_and_pings_pass_over_a_real_socket() -> None:
    asked: list[tuple[str, Iterable[tuple[bytes, bytes]]]] = []

    async def echo(request: trio_websocket.WebSocketRequest) -> None:
        asked.append((request.path, request.headers))
        connection = await request.accept()
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                await connection.send_message(await connection.get_message())

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, echo, "127.0.0.1", 0, None)
        async with opened(f"ws://127.0.0.1:{server.port}/prefix/stream?streams=btcusdt@kline_1m") as connection:
            await connection.send_message("hello")
            assert await connection.get_message() == "hello"
            await connection.ping()
        nursery.cancel_scope.cancel()
    assert [path for path, _ in asked] == ["/prefix/stream?streams=btcusdt@kline_1m"]


async def test_a_server_that_closes_in_mid_handshake_is_found_out_at_once() -> None:
    async def close(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()

    assert await failure_from(close) == Failure("closed by the other side during the handshake")


async def test_a_server_that_resets_in_mid_handshake_is_found_out_at_once() -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        await stream.aclose()  # with the request unread: the system sends a reset

    assert "during the handshake" in (await failure_from(reset)).reason


async def test_a_refusal_that_ends_with_the_connection_keeps_its_status_and_headers() -> None:
    async def refuse(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 418 I'm a teapot\r\nRetry-After: 30\r\nConnection: close\r\n\r\nGo aw")
        await stream.aclose()

    assert await failure_from(refuse) == Failure("this address is banned for a while (HTTP 418)", 418, 30.0)


async def test_a_refusal_with_a_length_keeps_its_status_and_headers() -> None:
    async def refuse(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 429 No\r\nRetry-After: 5\r\nContent-Length: 2\r\n\r\nno")
        await trio.sleep_forever()

    assert await failure_from(refuse) == Failure("too many connections from this address (HTTP 429)", 429, 5.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"\x00" * 200_000,
    ],
    ids=["ssh", "wrong-key", "bare-101", "zeros"],
)
async def test_an_answer_that_is_no_handshake_is_found_out_at_once(answer: bytes) -> None:
    async def babble(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        try:
            await stream.send_all(answer)
            await trio.sleep_forever()
        except trio.BrokenResourceError:
            pass

    assert (await failure_from(babble)).reason


async def test_a_server_without_tls_is_found_out_at_once() -> None:
    async def plain(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    failure = await failure_from(plain, scheme="wss")
    assert "during the handshake" in failure.reason
    assert "SSL" in failure.reason


async def test_nobody_listening_is_said_in_words() -> None:
    async def never(stream: trio.abc.Stream) -> None:
        raise AssertionError("reached")

    async with listening(never) as url:
        pass
    with pytest.raises(ENDS) as caught:
        async with opened(url):
            pytest.fail("connected to nobody")
    assert "connect" in failure_of(caught.value).reason


async def test_a_half_closed_connection_ends_after_its_last_frame() -> None:
    server_heard: list[bytes | bytearray] = []

    async def half_close(stream: trio.abc.Stream) -> None:
        await accepted(stream)
        await stream.send_all(b"\x81\x04last")
        assert isinstance(stream, trio.SocketStream)
        await stream.send_eof()
        # Our client closes its half by itself, and does not wait for more.
        server_heard.append(await stream.receive_some())

    received: list[str | bytes] = []
    async with listening(half_close) as url:
        with trio.fail_after(5):
            with pytest.RaisesGroup(trio_websocket.ConnectionClosed) as caught:
                async with opened(url) as connection:
                    while True:
                        received.append(await connection.get_message())
            assert failure_of(caught.value) == Failure("closed (code 1006 ABNORMAL_CLOSURE)")
            await trio.testing.wait_all_tasks_blocked(0.05)
    assert received == ["last"]
    assert server_heard == [b""]


async def test_a_ping_amid_a_close_handshake_is_the_end_of_a_connection_and_no_crash() -> None:
    async def ping_late(stream: trio.abc.Stream) -> None:
        await accepted(stream)
        await stream.receive_some()  # our close
        await stream.send_all(b"\x89\x00")
        await trio.sleep_forever()

    async with listening(ping_late) as url:
        with trio.fail_after(5), pytest.RaisesGroup(wsproto.utilities.LocalProtocolError) as caught:
            async with opened(url) as connection:
                # We never close like this, but what is opened in the shape of trio-websocket may.
                assert isinstance(connection, trio_websocket.WebSocketConnection)
                await connection.aclose()
    assert isinstance(caught.value.exceptions[0], ENDS)
    assert "Pong" in failure_of(caught.value).reason


@pytest.mark.parametrize(
    "frame",
    [b"\x81\x80\x00\x00\x00\x00", b"\xf1\x04last", b"\x81\x02\xff\xfe", b"\x83\x00"],
    ids=["masked", "reserved-bits", "bad-utf8", "unknown-opcode"],
)
async def test_a_broken_frame_is_the_end_of_a_connection_and_no_crash(frame: bytes) -> None:
    async def babble(stream: trio.abc.Stream) -> None:
        await accepted(stream)
        await stream.send_all(frame)
        await trio.sleep_forever()

    assert "closed (code 100" in (await failure_from(babble)).reason


async def test_a_message_beyond_the_limit_is_the_end_of_a_connection() -> None:
    async def flood(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message("x" * 1001)
        with suppress(trio_websocket.ConnectionClosed):
            await connection.get_message()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, flood, "127.0.0.1", 0, None)
        with pytest.RaisesGroup(trio_websocket.ConnectionClosed) as caught:
            async with opened(f"ws://127.0.0.1:{server.port}/", max_message_size=1000) as connection:
                await connection.get_message()
        assert "1009" in failure_of(caught.value).reason
        nursery.cancel_scope.cancel()


async def test_a_silent_server_can_be_given_up_and_leaves_nothing_open() -> None:
    heard: list[bytes | bytearray] = []

    async def silent(stream: trio.abc.Stream) -> None:
        heard.append(await stream.receive_some())
        heard.append(await stream.receive_some())

    async with listening(silent) as url:
        with trio.move_on_after(0.1) as scope:
            async with opened(url.replace("ws://", "ws://user:secret@")):
                pytest.fail("connected without a handshake")
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked(0.05)
    gc.collect()
    assert heard[0].startswith(b"GET /stream?streams=btcusdt@kline_1m HTTP/1.1\r\n")
    assert f"\r\nHost: {url.split('/')[2]}\r\n".encode() in heard[0]
    assert b"secret" not in heard[0]
    assert heard[1] == b""


class Breaking(trio.abc.Stream):
    """Bytes that break at one of the four things that are done with them."""

    def __init__(self, below: trio.abc.Stream, at: str) -> None:
        self._below = below
        self.at = at
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._break("send")
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        self._break("send")
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._break("receive")
        return await self._below.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self._below.aclose()

    def _break(self, at: str) -> None:
        if self.at == at:
            raise trio.BrokenResourceError from ConnectionResetError("reset by peer")


@pytest.mark.parametrize("at", ["send", "receive"])
async def test_a_transport_that_breaks_is_found_out_at_once(at: str, autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()
    transport = Breaking(client, at)

    async def breaking(host: str, port: int, tls: bool) -> trio.abc.Stream:
        return transport

    connect = partial(open_websocket, message_queue_size=64, max_message_size=1000, open_transport=breaking)
    with trio.fail_after(1), pytest.RaisesGroup(trio_websocket.HandshakeError) as caught:
        async with connect("ws://binance.test/stream?streams=x"):
            pytest.fail("connected")
    assert failure_of(caught.value) == Failure("broken during the handshake: reset by peer")
    assert transport.closed

    client, server = trio.testing.memory_stream_pair()
    transport = Breaking(client, "nowhere yet")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepted, server)
        with trio.fail_after(1), pytest.RaisesGroup(trio_websocket.ConnectionClosed) as caught_open:
            async with connect("ws://binance.test/stream?streams=x") as connection:
                await trio.testing.wait_all_tasks_blocked()
                transport.at = at
                if at == "receive":
                    await server.send_all(b"\x81\x04last")
                    assert await connection.get_message() == "last"
                else:
                    await connection.send_message("x")
                await connection.get_message()
    assert failure_of(caught_open.value) == Failure("closed (code 1006 ABNORMAL_CLOSURE)")
    assert transport.closed


async def test_an_error_in_the_block_is_not_replaced_by_a_cancellation(autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()

    async def transport(host: str, port: int, tls: bool) -> trio.abc.Stream:
        assert (host, port, tls) == ("binance.test", 443, True)
        return client

    async def use(scope: trio.CancelScope) -> None:
        async with open_websocket(
            "wss://binance.test/stream?streams=x",
            message_queue_size=64,
            max_message_size=1000,
            open_transport=transport,
        ):
            scope.cancel()
            raise LookupError("ours")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepted, server)
        with pytest.RaisesGroup(LookupError, flatten_subgroups=True), trio.CancelScope() as scope:
            await use(scope)
    with pytest.raises(trio.ClosedResourceError):
        await client.send_all(b"x")
