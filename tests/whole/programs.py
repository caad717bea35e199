"""Programs as a user starts them, and clients as people write them: real processes and real sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx
import trio
import trio_websocket

from tests.chart import Chart
from tests.ports import free_port

REPOSITORY = Path(__file__).parent.parent.parent
PYTHON = (sys.executable, "-m")
ADDRESS = re.compile(rb"http://(127\.0\.0\.1:\d+)")

HANDSHAKE = 6.0
"""Seconds for a WebSocket's handshake: a server lets a position wait for 5. (trio-websocket never notices when the
connection ends in the middle of it.)"""
PATIENCE = 60.0
"""Seconds to wait for what takes a moment, where the moment is not what is tested: a machine may stand still."""


class Program:
    """A process that serves at an address."""

    def __init__(self, process: trio.Process, host: str, said: bytearray) -> None:
        self.process = process
        self.host = host
        self.said = said
        """All that it has written, on either output."""

    async def end(self, signum: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; the exit status, and after how many seconds."""
        started = time.monotonic()
        self.process.send_signal(signum)
        with trio.fail_after(PATIENCE):
            status = await self.process.wait()
        return status, time.monotonic() - started

    async def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def run_program(
    arguments: Sequence[str], *, host: str = "", program: Sequence[str] = PYTHON, **environment: str
) -> AsyncIterator[Program]:
    """Run a program until the block ends, from when it has named its address on either output.

    One that says nothing is told its ``host``, and has started when it answers there.
    """
    process = await trio.lowlevel.open_process(
        [*program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
        env=os.environ | environment,
        start_new_session=True,
    )
    said = bytearray()
    named, silent = trio.Event(), trio.Event()  # it is silent when nobody has its output any more

    async def listen() -> None:
        assert process.stdout is not None
        async for chunk in process.stdout:
            said.extend(chunk)
            if ADDRESS.search(said):
                named.set()
        silent.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            is_up = False
            with trio.move_on_after(PATIENCE):
                is_up = await _comes_up(process, partial(until_healthy, host) if host else named.wait)
            assert is_up, f"it did not start, or ended at once ({process.returncode}): {said.decode()}"
            found = ADDRESS.search(said)
            yield Program(process, host or (found[1].decode() if found else ""), said)
            if process.returncode is not None:
                _kill_all(process)  # what it has left behind has its output
                with trio.move_on_after(PATIENCE):  # for its last words
                    await silent.wait()
            nursery.cancel_scope.cancel()
    finally:
        _kill_all(process)
        with trio.CancelScope(shield=True):
            await process.wait()
        sys.stderr.write(f"--- {' '.join(arguments)}\n{said.decode(errors='replace')}\n")  # for pytest to show
        assert b"Traceback" not in said, said.decode()


async def _comes_up(process: trio.Process, ready: Callable[[], Awaitable[None]]) -> bool:
    """Wait until it is ready; false if it ends before."""
    is_ready = False
    async with trio.open_nursery() as nursery:

        async def wait_for_end() -> None:
            await process.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_end)
        await ready()
        is_ready = True
        nursery.cancel_scope.cancel()
    return is_ready


def _kill_all(process: trio.Process) -> None:
    """It and its workers, if it has some."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def simulator(minute: float, *arguments: str) -> Any:
    return run_program(["candlesync.simulator", "--bind", "127.0.0.1:0", "--minute", str(minute), *arguments])


def server(binance: Program, *arguments: str, bind: str = "127.0.0.1:0") -> Any:
    urls = ["--rest-url", f"http://{binance.host}", "--stream-url", f"ws://{binance.host}"]
    return run_program(["candlesync", "serve", *arguments, "--bind", bind, *urls])


def free_host() -> str:
    """An address that nobody listens at now."""
    return f"127.0.0.1:{free_port()}"


def open_client() -> httpx.AsyncClient:
    # Nothing here speaks TLS, and a context for it takes longer than the request.
    return httpx.AsyncClient(verify=False, timeout=PATIENCE)  # noqa: S501 - see above


async def until_healthy(host: str) -> None:
    """Until a server answers."""
    async with open_client() as client:
        while True:
            with suppress(httpx.TransportError):
                if (await client.get(f"http://{host}/health", timeout=5)).status_code == 200:
                    return
            await trio.sleep(0.05)


async def break_something(binance: Program, **fault: object) -> None:
    async with open_client() as client:
        answer = await client.post(f"http://{binance.host}/control/faults", json=fault)
        assert answer.is_success, answer.text


async def market_time(binance: Program) -> int:
    """The market's, in milliseconds."""
    async with open_client() as client:
        state = (await client.get(f"http://{binance.host}/control/state")).json()
    now: int = state["now"]
    return now


async def load(chart: Chart, host: str, symbol: str = "BTCUSDT") -> None:
    """Load a chart; the server may be away for a while."""
    with trio.fail_after(PATIENCE):
        while not await try_to_load(chart, host, symbol):  # noqa: ASYNC110 - a client's retry
            await trio.sleep(0.1)


async def try_to_load(chart: Chart, host: str, symbol: str = "BTCUSDT") -> bool:
    """Load a chart, unless the server is away or has nothing yet."""
    try:
        async with open_client() as client:
            answer = await client.get(f"http://{host}/candles/{symbol}/{chart.interval}")
    except httpx.TransportError:
        return False
    if answer.status_code == 200:
        chart.load(answer.content, answer.headers["Candlesync-Position"])
        return True
    assert answer.status_code == 503, answer.text
    return False


async def follow(
    chart: Chart, host: str, query: str = "", symbol: str = "BTCUSDT", *, handshake: float = HANDSHAKE
) -> int:
    """Follow the WebSocket until it ends; the close code, or 0 when the connection broke or could not be made.

    ``handshake``: seconds, `PATIENCE` for who does not come again.
    """
    name, _, port = host.rpartition(":")
    try:
        # Not `open_websocket_url`: cancelled in the handshake, that leaves its socket open.
        async with await trio.open_tcp_stream(name, int(port)) as stream, trio.open_nursery() as nursery:
            resource = f"/ws/candles/{symbol}?interval={chart.interval}{query}"
            with trio.fail_after(handshake):
                socket = await trio_websocket.wrap_client_stream(nursery, stream, host, resource)
            try:
                while True:
                    chart.take(await socket.get_message())
            except trio_websocket.ConnectionClosed as closed:
                nursery.cancel_scope.cancel()
                code = closed.reason.code if closed.reason is not None else 1006
                return 0 if code == 1006 else code  # "closed abnormally" is never sent: it broke
    except* (trio_websocket.HandshakeError, OSError, trio.TooSlowError):
        pass
    return 0


async def follow_a_little(chart: Chart, host: str, symbol: str = "BTCUSDT") -> int:
    """Follow from where the chart is for half a second; the close code, if it was closed."""
    with trio.move_on_after(0.5):
        return await follow(chart, host, f"&position={chart.position}", symbol)
    return 0


async def resume(chart: Chart, hosts: Sequence[str], random: Random, codes: list[int], symbol: str = "BTCUSDT") -> None:
    """Follow for ever, breaking off and coming back with the position, anywhere; load again when told to."""
    await load(chart, random.choice(hosts), symbol)
    while True:
        with trio.move_on_after(random.uniform(0.2, 3)):
            codes.append(await follow(chart, random.choice(hosts), f"&position={chart.position}", symbol))
            if codes[-1] == 4410:
                await load(chart, random.choice(hosts), symbol)
            await trio.sleep(random.uniform(0.05, 0.3))


async def truth(binance: Program, chart: Chart, symbol: str = "BTCUSDT") -> list[list[Any]]:
    """The exchange's final rows from the chart's first candle on."""
    start = next(iter(chart.candles)) * 1000
    query = f"symbol={symbol}&interval={chart.interval}&startTime={start}&endTime={2**52}"
    async with open_client() as client:
        answer = await client.get(f"http://{binance.host}/control/truth?{query}")
    rows: list[list[Any]] = answer.json()
    return rows
