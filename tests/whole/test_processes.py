"""Real processes and real sockets: the simulator, the server and charts, as a user starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import trio
import trio_websocket

from tests.chart import Chart

REPOSITORY = Path(__file__).parent.parent.parent
ADDRESS = re.compile(rb"http://(127\.0\.0\.1:\d+)")


class Program:
    """A process that has said at which address it serves."""

    def __init__(self, process: trio.Process, host: str) -> None:
        self.process = process
        self.host = host

    async def end(self, signum: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; the exit status, and after how many seconds."""
        started = time.monotonic()
        self.process.send_signal(signum)
        with trio.fail_after(20):
            status = await self.process.wait()
        return status, time.monotonic() - started


@asynccontextmanager
async def run_program(arguments: Sequence[str], **environment: str) -> AsyncIterator[Program]:
    """Run a program until the block ends, from when it has named its address on either output."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
        env=os.environ | environment,
    )
    said = bytearray()
    host = trio.Event()

    async def listen() -> None:
        assert process.stdout is not None
        async for chunk in process.stdout:
            said.extend(chunk)
            if ADDRESS.search(said):
                host.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with trio.move_on_after(20):
                await host.wait()
            found = ADDRESS.search(said)
            assert found, said.decode()
            yield Program(process, found[1].decode())
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        assert b"Traceback" not in said, said.decode()


def simulator(minute: float, *arguments: str) -> Any:
    return run_program(["candlesync.simulator", "--bind", "127.0.0.1:0", "--minute", str(minute), *arguments])


def server(binance: Program, *arguments: str, bind: str = "127.0.0.1:0") -> Any:
    urls = ["--rest-url", f"http://{binance.host}", "--stream-url", f"ws://{binance.host}"]
    return run_program(["candlesync", "serve", *arguments, "--bind", bind, *urls])


def open_client() -> httpx.AsyncClient:
    # Nothing here speaks TLS, and a context for it takes longer than the request.
    return httpx.AsyncClient(verify=False)  # noqa: S501 - see above


async def break_something(binance: Program, **fault: object) -> None:
    async with open_client() as client:
        answer = await client.post(f"http://{binance.host}/control/faults", json=fault)
        assert answer.is_success, answer.text


async def load(chart: Chart, host: str) -> None:
    """Load a chart; the server may be away for a while."""
    with trio.fail_after(40):
        while True:
            try:
                async with open_client() as client:
                    answer = await client.get(f"http://{host}/candles/BTCUSDT/1m", timeout=20)
            except httpx.TransportError:
                await trio.sleep(0.1)
                continue
            if answer.status_code == 200:
                chart.load(answer.content, answer.headers["Candlesync-Position"])
                return
            assert answer.status_code == 503, answer.text
            await trio.sleep(0.1)


async def follow(chart: Chart, host: str, query: str = "") -> int:
    """Follow the WebSocket until it ends; the close code, or 0 when the connection broke or could not be made."""
    name, _, port = host.rpartition(":")
    try:
        # Not `open_websocket_url`: cancelled in the handshake, that leaves its socket open.
        async with await trio.open_tcp_stream(name, int(port)) as stream, trio.open_nursery() as nursery:
            resource = f"/ws/candles/BTCUSDT{query}"
            socket = await trio_websocket.wrap_client_stream(nursery, stream, host, resource)
            try:
                while True:
                    chart.take(await socket.get_message())
            except trio_websocket.ConnectionClosed as closed:
                nursery.cancel_scope.cancel()
                return closed.reason.code if closed.reason is not None else 0
    except* (trio_websocket.HandshakeError, OSError):
        pass
    return 0


async def resume(chart: Chart, host: str, random: Random, codes: list[int]) -> None:
    """Follow for ever, breaking off and coming back with the position; load again when told to."""
    await load(chart, host)
    while True:
        with trio.move_on_after(random.uniform(0.2, 3)):
            codes.append(await follow(chart, host, f"?position={chart.position}"))
            if codes[-1] == 4410:
                await load(chart, host)
            await trio.sleep(random.uniform(0.05, 0.3))


async def truth(binance: Program, chart: Chart) -> list[list[Any]]:
    start = next(iter(chart.candles)) * 1000
    url = f"http://{binance.host}/control/truth?symbol=BTCUSDT&interval=1m&startTime={start}&endTime={2**52}"
    async with open_client() as client:
        answer = await client.get(url, timeout=20)
    rows: list[list[Any]] = answer.json()
    return rows


async def test_charts_stay_true_over_real_sockets_while_binance_breaks() -> None:
    random, codes = Random(3), list[int]()
    stayed, resumed = [Chart() for _ in range(25)], [Chart() for _ in range(25)]
    async with simulator(0.25) as binance, server(binance, "BTCUSDT", "--silence", "1.5") as candlesync:
        async with trio.open_nursery() as nursery:
            for chart in stayed:
                await load(chart, candlesync.host)
                nursery.start_soon(follow, chart, candlesync.host)
            for chart in resumed:
                nursery.start_soon(resume, chart, candlesync.host, random, codes)
            await trio.sleep(1)
            await break_something(binance, kind="drop", close_frame=False)
            await break_something(binance, kind="refuse", **{"for": 1})
            await trio.sleep(2.5)
            await break_something(binance, kind="hide_close")
            await break_something(binance, kind="duplicates", **{"for": 2})
            await break_something(binance, kind="late", **{"for": 2})
            await trio.sleep(2.5)
            await break_something(binance, kind="rest_behind", by_ms=100_000, **{"for": 2})
            await break_something(binance, kind="drop")
            await trio.sleep(3)
            await break_something(binance, kind="rest_429", retry_after=1, **{"for": 1})
            await break_something(binance, kind="drop")
            await trio.sleep(3)
            await break_something(binance, kind="silent", **{"for": 4})
            await trio.sleep(7)
            nursery.cancel_scope.cancel()
        for chart in stayed:
            assert chart.compare(await truth(binance, chart)) == []
            assert chart.messages > 50
        assert 4410 not in codes
        async with trio.open_nursery() as nursery:
            for chart in resumed:
                nursery.start_soon(follow_a_little, chart, candlesync.host)
        for chart in resumed:
            rows = await truth(binance, chart)
            assert chart.compare(rows) == []
            assert chart.newest * 1000 >= rows[-1][0] - 300_000


async def follow_a_little(chart: Chart, host: str) -> None:
    with trio.move_on_after(0.5):
        await follow(chart, host, f"?position={chart.position}")


async def test_a_server_that_is_killed_and_started_again_leaves_no_gap_in_its_charts() -> None:
    chart, codes = Chart(), list[int]()
    async with simulator(0.25) as binance:
        async with server(binance, "BTCUSDT") as candlesync:
            host = candlesync.host
            await load(chart, host)
            await follow_a_little(chart, host)
            candlesync.process.kill()
            await candlesync.process.wait()
        await trio.sleep(2)
        async with server(binance, "BTCUSDT", bind=host), trio.open_nursery() as nursery:
            # Its store was its memory: the position is of another life, and the chart is told to load again.
            assert await until_closed(chart, host) == 4410
            nursery.start_soon(resume, chart, host, Random(1), codes)
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
        assert chart.compare(await truth(binance, chart)) == []
        assert len(chart.candles) >= 1000


async def until_closed(chart: Chart, host: str) -> int:
    with trio.fail_after(20):
        while not (code := await follow(chart, host, f"?position={chart.position}")):  # noqa: ASYNC110 - a client's retry
            await trio.sleep(0.05)
    return code


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_with_clients_connected(signum: int) -> None:
    codes: list[int] = []

    async def note() -> None:
        codes.append(await follow(Chart(), candlesync.host))

    async with simulator(0.25) as binance, server(binance, "BTCUSDT") as candlesync:
        await load(Chart(), candlesync.host)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(note)
            await trio.sleep(0.7)
            status, seconds = await candlesync.end(signum)
        assert status == 0
        assert seconds < 5
        assert codes == [1012] * 5


async def test_the_demo_shows_candles_and_ends() -> None:
    async with run_program(["candlesync", "demo", "--bind", "127.0.0.1:0", "--minute", "0.5"]) as demo:
        chart = Chart()
        await load(chart, demo.host)
        with trio.move_on_after(3):
            await follow(chart, demo.host)
        assert chart.wrong == []
        assert chart.messages > 5
        status, _ = await demo.end()
        assert status == 0
