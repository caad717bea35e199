"""Many questions at once, questions that are cancelled, and real connections."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
import trio
from trio.testing import MockClock

from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings, open_client
from candlesync.errors import (
    UnreadableAnswer,
    UpstreamUnavailable,
)
from tests.binance.answers import SERIES, Binance, rest_of, row


async def test_so_many_requests_at_once_and_no_more(autojump_clock: MockClock) -> None:
    binance = Binance(minutes=1)
    binance.delay = 1
    rest = rest_of(binance, RestSettings(concurrency=3))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(rest.klines, SERIES)
    assert binance.most_at_once == 3
    assert trio.current_time() == 4
    took = dict(rest.statistics().latencies.cumulative())
    assert (took[0.5], took[1.0]) == (0, 10)


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the task it was made in has taken ``steps`` steps: the next await raises `Cancelled`."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.steps = steps
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


async def test_cancelled_at_any_await_the_counters_come_back(autojump_clock: MockClock) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        body = json.dumps([row(0)]).encode()
        for part in (body[:10], body[10:]):
            await trio.sleep(1)
            yield part

    async def slow(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=slowly())

    for steps in range(100):
        binance = Binance(httpx.Response(429), httpx.Response(503), slow, minutes=1)
        rest = rest_of(binance, RestSettings(concurrency=1))
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, steps)
            if steps == 0:
                scope.cancel()
            trio.lowlevel.add_instrument(instrument)
            try:
                await rest.klines(SERIES)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        budget = rest.budget.statistics()
        assert (budget.in_flight, budget.waiting) == (0, 0)
        assert budget.used == binance.used  # an answer that was not waited for counts as well
        binance.first.clear()
        assert len(await rest.klines(SERIES)) == 1  # the one place is free again
        if not scope.cancelled_caught:
            break
    assert not scope.cancelled_caught
    assert steps > 10


async def test_an_answer_cut_short_on_a_real_connection() -> None:
    body = json.dumps([row(0)]).encode()
    answers = [b"%d\r\n\r\n" % (len(body) + 1) + body, b"%d\r\n\r\n" % len(body) + body]

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + answers.pop(0))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        settings = RestSettings(base_url=f"http://127.0.0.1:{port}", backoff_first=0.01)
        async with open_client(settings) as client:
            rest = Rest(client, None, settings)
            assert len(await rest.klines(SERIES)) == 1
        nursery.cancel_scope.cancel()
    assert rest.statistics().failures == {"connection": 1}


async def test_a_flood_on_a_real_connection_leaves_nothing_behind() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"400\r\n" + b"x" * 1024 + b"\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        settings = RestSettings(base_url=f"http://127.0.0.1:{port}", attempts=1, klines_bytes=10_000)
        async with open_client(settings) as client:
            # A generator of httpx's that was left unfinished would be a ResourceWarning, and the test's failure.
            with pytest.raises(UnreadableAnswer, match="more than 10000 bytes"):
                await Rest(client, None, settings).klines(SERIES)
        nursery.cancel_scope.cancel()


async def test_nobody_listens() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    settings = RestSettings(base_url=f"http://127.0.0.1:{port}", attempts=2, backoff_first=0.01)
    async with open_client(settings) as client:
        with pytest.raises(UpstreamUnavailable, match="connection failed"):
            await Rest(client, None, settings).klines(SERIES)
