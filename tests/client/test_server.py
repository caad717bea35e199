"""The client over real sockets: connections that are killed, refusals, and servers that are none."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
import trio
import trustme

from candlesync.client import Feed, FeedError, State, follow
from candlesync.client.server import Broken, Server, refusal
from candlesync.web.access import AccessSettings, Token
from tests.builders import candle, forming, minute, minutes
from tests.client.builders import times, whole
from tests.web.builders import Web, commit, on_a_port
from tests.whole.proxy import run_proxy


async def until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not is_true():  # noqa: ASYNC110 - over sockets, as an outsider
            await trio.sleep(0.005)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The URL of who gives one answer to whatever is asked, and closes."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def opened(url: str, token: str = "") -> Exception | None:
    """What opening a WebSocket raises."""
    server = Server(url, token)
    try:
        async with server.open():
            return None
    except (Broken, FeedError) as error:
        return error
    finally:
        await server.aclose()


async def loaded(url: str, token: str = "") -> FeedError:
    """What loading raises."""
    server = Server(url, token)
    try:
        with pytest.raises(FeedError) as caught:
            await server.load("BTCUSDT", "1m", limit=5)
        return caught.value
    finally:
        await server.aclose()


async def test_connections_that_are_killed_again_and_again_cost_no_candle() -> None:
    web = Web()
    topic = web.topic([*minutes(0, 8), forming(minute(9))])
    got: list[int] = []

    async def collect(feed: Feed) -> None:
        async for one in feed.closed():
            got.append(one.time)  # noqa: PERF401 - it is looked at meanwhile

    # One in the other: the client is gone before its server.
    async with on_a_port(web) as port, run_proxy(port.number) as proxy:  # noqa: SIM117 - as said above
        async with follow("btcusdt", url=f"http://127.0.0.1:{proxy.port}/") as feed, trio.open_nursery() as nursery:
            nursery.start_soon(collect, feed)
            await until(lambda: feed.state is State.LIVE)
            for number in range(9, 60):
                commit(topic, candle(minute(number), trades=99), forming(minute(number + 1)))
                if number % 10 == 0:
                    proxy.lead_to(port.number)
                    await until(lambda: feed.state is not State.LIVE)
                if number % 10 == 5:
                    await until(lambda: feed.state is State.LIVE)
                await trio.sleep(0.005)
            await until(lambda: len(got) == 60)
            assert got == times(0, 59)
            assert whole(feed.candles)
            assert feed.tally.breaks == 5
            assert feed.tally.loads == 1
            nursery.cancel_scope.cancel()


async def test_a_server_that_dies_and_comes_back_with_another_life() -> None:
    web, again = Web(), Web()
    web.topic(minutes(0, 9))
    commit(again.topic(minutes(5, 5)), *minutes(5, 30), life="another", begins=True)
    async with on_a_port(web) as first, on_a_port(again) as second_, run_proxy(first.number) as proxy:  # noqa: SIM117 - as above
        async with follow("BTCUSDT", url=f"http://127.0.0.1:{proxy.port}") as feed:
            closed = feed.closed()
            assert [(await anext(closed)).time for _ in range(10)] == times(0, 9)
            await until(lambda: feed.state is State.LIVE)
            proxy.lead_to(second_.number)
            await until(lambda: feed.tally.breaks == 1 and feed.state is State.LIVE)
            assert [(await anext(closed)).time for _ in range(21)] == times(10, 30)
            assert [one.time for one in feed.candles] == times(0, 30)
            assert feed.tally.loads == 2


async def test_a_token_is_shown_on_both_ways() -> None:
    web = Web(access=AccessSettings(tokens=(Token("secret"),)))
    web.topic()
    async with on_a_port(web) as port:
        url = f"http://127.0.0.1:{port.number}"
        async with follow("BTCUSDT", url=url, token="secret") as feed:
            await until(lambda: feed.state is State.LIVE)
        assert (await loaded(url, "wrong")).code == "unauthorized"
        error = await opened(url)
        assert isinstance(error, FeedError)
        assert error.code == "unauthorized"
        async with follow("BTCUSDT", url=url) as feed:
            with pytest.raises(FeedError, match="token is needed"):
                await anext(feed)


async def test_a_path_before_the_servers_own() -> None:
    async with answering(http("200 OK", b"[]", "Candlesync-Position: x")) as url:
        server = Server(f"{url}/prefix/")
        answer = await server.load("BTCUSDT", "1m", limit=5)
        await server.aclose()
    assert answer.candles == []
    assert answer.position == "x"


@pytest.mark.parametrize(
    ("body", "status", "header", "code", "wait"),
    [
        (b'{"error":{"code":"too_many","message":"slowly"}}', "429 Too Many Requests", "Retry-After: 7", "too_many", 7),
        (b'{"error":{"code":"going_down","message":"later"}}', "503 Service Unavailable", "X: y", "going_down", 0),
        (b"<html>", "502 Bad Gateway", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", "bad_answer", 0),
    ],
)
async def test_refusals_say_when_to_come_again(body: bytes, status: str, header: str, code: str, wait: float) -> None:
    async with answering(http(status, body, header)) as url:
        for error in (await loaded(url), await opened(url)):
            assert isinstance(error, FeedError)
            assert (error.code, error.retry_after) == (code, wait)


async def test_what_answers_is_not_the_server() -> None:
    async with answering(http("200 OK", b"<html>")) as url:
        assert (await loaded(url)).code == "bad_answer"
        error = await opened(url)
        assert isinstance(error, FeedError)
        assert error.code == "bad_answer"
    async with answering(b"SSH-2.0\r\n") as url:
        assert (await loaded(url)).code == "no_answer"
        assert isinstance(await opened(url), Broken)


async def test_nobody_is_there() -> None:
    error = await loaded("http://127.0.0.1:1")
    assert error.code == "no_answer"
    assert "http://127.0.0.1:1" in str(error)
    assert isinstance(await opened("http://127.0.0.1:1"), Broken)
    async with answering(b"") as url:
        assert (await loaded(url)).code == "no_answer"
        assert isinstance(await opened(url), Broken)


async def test_a_certificate_is_checked_on_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            return
        await stream.send_all(http("200 OK", b"[]", "Candlesync-Position: x"))

    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1")
        (listener,) = await nursery.start(listen)
        url = f"https://127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
        assert (await loaded(url)).code == "no_answer"
        error = await opened(url)
        assert isinstance(error, Broken)
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ask", [loaded, opened])
async def test_an_answer_that_never_comes_is_not_waited_for_for_ever(
    ask: Callable[[str], Awaitable[Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candlesync.client.server.LOAD_TIMEOUT", 0.2)
    monkeypatch.setattr("candlesync.client.server.OPEN_TIMEOUT", 0.2)

    async def say_nothing(stream: trio.SocketStream) -> None:
        async with stream:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        with trio.fail_after(10):
            error = await ask(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
        assert "answer" in str(error)
        nursery.cancel_scope.cancel()


async def test_a_server_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web()
    web.topic()
    async with on_a_port(web) as port, run_proxy(port.number) as proxy:
        server = Server(f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(Broken, match="takes nothing"):  # noqa: PT012 - it is open first
            async with server.open() as talk:
                proxy.cut()
                monkeypatch.setattr("candlesync.client.server.OPEN_TIMEOUT", 0.2)
                while True:
                    await talk.say({"op": "ping", "id": "x" * 60_000})
        await server.aclose()


async def test_how_a_connection_ended_is_said() -> None:
    web = Web()
    web.topic()
    async with on_a_port(web) as port, run_proxy(port.number) as proxy:
        server = Server(f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(Broken, match="the connection broke"):  # noqa: PT012 - it is open first
            async with server.open() as talk:
                proxy.lead_to(port.number)
                await talk.hear()
        with pytest.raises(Broken, match="starting again") as caught:  # noqa: PT012 - the same
            async with server.open() as talk:
                web.stopping.set()
                await talk.hear()
        assert caught.value.code == 1012
        await server.aclose()


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8000", "ftp://host", "http://", "http://host:0", "http://host:99999", "http://host:x"),
        *("http://host/?a=b", "http://host/#x", "http://user:pass@host", "http://ex\x00ample"),
    ],
)
async def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
        async with follow("BTCUSDT", url=url):
            pass


@pytest.mark.parametrize("token", ["with\nnewline", "ö"])
async def test_tokens_that_cannot_be_sent(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Server("http://host", token)


def test_what_a_refusal_without_a_body_says() -> None:
    error = refusal(418, b"", "9" * 400)
    assert (error.code, str(error)) == ("bad_answer", "the server answered 418")
    assert error.retry_after == float("inf")


async def test_candles_of_another_series_are_refused() -> None:
    body = msgspec.json.encode([{**CANDLE, "symbol": "ETHUSDT"}])
    async with answering(http("200 OK", body, "Candlesync-Position: p")) as url:
        assert str(await loaded(url)) == f"{url} gave candles of another series"


CANDLE = {
    "symbol": "BTCUSDT",
    "interval": "1m",
    "time": 60,
    "open": 1,
    "high": 1,
    "low": 1,
    "close": 1,
    "volume": 1,
    "closed": True,
    "rev": 1,
}


@pytest.mark.parametrize("symbol", ["..", "BTC/USDT"])
async def test_a_symbol_that_can_be_none_ends_it(symbol: str) -> None:
    async with on_a_port(Web()) as port, follow(symbol, url=f"http://127.0.0.1:{port.number}") as feed:
        with trio.fail_after(30), pytest.raises(FeedError) as caught:
            await anext(feed)
        assert caught.value.code == "not_found"
