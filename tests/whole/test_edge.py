"""The edge as a user starts it: live candles go the direct way, and hundreds of stuck clients change nothing."""

from __future__ import annotations

import resource
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio

from tests.chart import Chart
from tests.edge.clients import Raw, handshake
from tests.stalls import stalls
from tests.web.builders import frame
from tests.whole.programs import (
    PATIENCE,
    Program,
    follow,
    free_host,
    load,
    open_client,
    run_program,
    server,
    simulator,
    truth,
)

COMMANDS = ["serve", "hypercorn"]


@asynccontextmanager
async def started(command: str, binance: Program) -> AsyncIterator[Program]:
    """A server for BTCUSDT, under our own command or under Hypercorn's."""
    if command == "serve":
        async with server(binance, "BTCUSDT") as program:
            yield program
        return
    host = free_host()
    async with run_program(
        ["hypercorn", "-c", "hypercorn.toml", "-b", host, "candlesync.asgi:app"],
        host=host,
        CANDLESYNC_SYMBOLS="BTCUSDT",
        CANDLESYNC_REST_URL=f"http://{binance.host}",
        CANDLESYNC_STREAM_URL=f"ws://{binance.host}",
    ) as program:
        yield program


async def counted(host: str, name: str) -> float:
    """A counter of ``/metrics``."""
    async with open_client() as client:
        text = (await client.get(f"http://{host}/metrics")).text
    (value,) = [line.split()[-1] for line in text.splitlines() if line.startswith(f"{name}_total ")]
    return float(value)


@pytest.mark.parametrize("command", COMMANDS)
async def test_live_candles_go_the_direct_way(command: str) -> None:
    """All of them but the first few, or the seam with Hypercorn is broken."""
    charts = [Chart() for _ in range(5)]
    async with simulator(0.5) as binance, started(command, binance) as program:
        for chart in charts:
            await load(chart, program.host)
        assert await counted(program.host, "candlesync_messages_direct") == 0
        async with trio.open_nursery() as nursery:
            for chart in charts:
                query = f"&position={chart.position}"
                nursery.start_soon(partial(follow, chart, program.host, query, handshake=PATIENCE))
            with trio.fail_after(PATIENCE):
                while min(chart.messages for chart in charts) < 20:  # noqa: ASYNC110 - as an outsider
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        direct = await counted(program.host, "candlesync_messages_direct")
        sent = await counted(program.host, "candlesync_messages_sent")
        received = sum(chart.messages for chart in charts)
        assert direct > 0.5 * received
        assert received <= sent
        for chart in charts:
            assert chart.compare(await truth(binance, chart)) == []


@pytest.mark.parametrize("command", COMMANDS)
async def test_hundreds_of_clients_that_read_nothing_do_not_keep_a_server_alive(command: str) -> None:
    """Ten of them have asked for more than the kernel takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4000)), hard))  # the server inherits it
    chart, codes = Chart(), list[int]()
    ask = frame('{"op":"subscribe","symbol":"BTCUSDT","replay":1000}') * 30
    try:
        async with simulator(0.5) as binance, started(command, binance) as program, AsyncExitStack() as stack:
            measured = stack.enter_context(stalls())
            await load(chart, program.host)
            for number in range(330):
                raw = await connected(program.host, "/ws/candles" if number % 33 == 0 else "/ws/candles/BTCUSDT")
                stack.push_async_callback(trio.aclose_forcefully, raw.stream)
                if number % 33 == 0:
                    await raw.stream.send_all(ask)

            async def watch() -> None:
                codes.append(await follow(chart, program.host, f"&position={chart.position}", handshake=PATIENCE))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                with trio.fail_after(PATIENCE):
                    while chart.messages <= 10:  # noqa: ASYNC110 - as an outsider
                        await trio.sleep(0.05)
                ended = time.monotonic()
                status, seconds = await program.end()
            assert status == 0
            # The grace time, and half of it more under Hypercorn's own command.
            measured.check("from SIGTERM to the end", ended, seconds, 10 if command == "serve" else 7.5)
            assert codes == [1012]
            assert chart.compare(await truth(binance, chart)) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connected(host: str, path: str) -> Raw:
    """A client with a small buffer, which reads nothing after the answer to its handshake."""
    connection = trio.socket.socket()
    connection.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    name, _, port = host.rpartition(":")
    await connection.connect((name, int(port)))
    return await handshake(trio.SocketStream(connection), path)
