"""The simulator as a process of its own, on real sockets and in real time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from candlesync.simulator.bars import Row
from tests.simulator.support import START, events, klines, row_of_event, shared
from tests.stalls import within

BTC = "btcusdt@kline_1m"
COMMAND = [sys.executable, "-m", "candlesync.simulator"]


class Simulator:
    """A simulator that runs as a process."""

    def __init__(self, process: trio.Process, address: str) -> None:
        self.process = process
        self.rest = f"http://{address}"
        self.streams = f"ws://{address}"

    async def fault(self, **fault: Any) -> None:
        async with httpx.AsyncClient(base_url=self.rest) as client:
            assert (await client.post("/control/faults", json=fault)).status_code == 201

    async def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            return await self.process.wait()


@asynccontextmanager
async def simulator(*options: str) -> AsyncIterator[Simulator]:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run, options)
            assert process.stdout is not None
            line = (await process.stdout.receive_some()).decode()
            address = re.search(r"http://(127\.0\.0\.1:\d+)", line)
            assert address, line
            it = Simulator(process, address[1])
            yield it
            if process.returncode is None:
                assert await it.end() == 0


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket that ends with its TCP connection.

    ``open_websocket_url`` leaves its socket to the garbage collector when the server closed first, and its reader dies
    of a ping that comes while it closes (trio-websocket 0.12).
    """
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, parts.netloc, f"{parts.path}?{parts.query}")
        nursery.cancel_scope.cancel()


async def run(options: tuple[str, ...], task_status: trio.TaskStatus[trio.Process]) -> None:
    ended = await trio.run_process(
        [*COMMAND, *options], stdout=subprocess.PIPE, capture_stderr=True, task_status=task_status
    )
    assert ended.stderr == b"", "nothing that clients or faults did is worth a word in the log"


async def test_rest_and_streams_of_a_process_agree() -> None:
    async with simulator("--minute", "0.25", "--seed", "7", "--symbol", "btcusdt") as it:
        async with connect(f"{it.streams}/ws/{BTC}") as connection:
            closed: list[Row] = []
            while len(closed) < 3:
                event = (await events(connection, 1))[0]
                if event["k"]["x"]:
                    closed.append(row_of_event(event))
        async with httpx.AsyncClient(base_url=it.rest) as client:
            assert await klines(client, startTime=closed[0].open_time, limit=3) == closed
            assert len(await klines(client, limit=1000)) == 1000
            names = [entry["symbol"] for entry in (await client.get("/api/v3/exchangeInfo")).json()["symbols"]]
            assert names == ["BTCUSDT"]
            state = (await client.get("/control/state")).json()
            assert state["connections"]["ever"] == 1
        assert await it.end() == 0


@pytest.mark.parametrize(("close_frame", "code"), [(True, 1001), (False, 1006)])
async def test_connections_are_closed_or_broken(close_frame: bool, code: int) -> None:
    async with simulator("--minute", "0.5") as it, connect(f"{it.streams}/ws/{BTC}") as connection:
        await events(connection, 2)
        await it.fault(kind="drop", close_frame=close_frame)
        with suppress(ConnectionClosed):
            while True:
                await connection.get_message()
        assert connection.closed is not None
        assert connection.closed.code == code
        async with connect(f"{it.streams}/stream?streams={BTC}") as again:
            assert (await events(again, 1))[0]["stream"] == BTC


async def test_connections_are_refused_by_a_schedule_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('[{"kind":"refuse"},{"kind":"rest_down","status":500}]')
    async with simulator("--faults", str(path)) as it, httpx.AsyncClient(base_url=it.rest) as client:
        host, port = it.rest.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(handshake("/ws"))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 503")
        assert (await client.get("/api/v3/ping")).status_code == 500
        await client.delete("/control/faults")
        assert (await client.get("/api/v3/ping")).status_code == 200
        async with connect(f"{it.streams}/ws/{BTC}") as connection:
            await events(connection, 1)


async def test_the_server_pings() -> None:
    async with simulator() as it:
        host, port = it.rest.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(handshake("/ws"))
            answer = b""
            while b"\r\n\r\n\x89" not in answer:
                answer += await stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 101")


async def test_files_listing_times_and_start() -> None:
    file = shared("archive/BTCUSDT-1m-2024-06-01.zip")
    start = str(START - 86_400_000)
    options: tuple[str, ...] = (
        "--klines",
        f"BTCUSDT:1m:{file}",
        "--symbol",
        "ETHUSDT",
        "--symbol",
        "SOLUSDT",
        "--start",
        start,
    )
    options += ("--listed-before", "SOLUSDT:30", "--minute", "60")
    async with simulator(*options) as it, httpx.AsyncClient(base_url=it.rest) as client:
        assert len(await klines(client, "SOLUSDT")) == 31
        assert len(await klines(client, "ETHUSDT")) == 500
        assert (await klines(client, limit=1000))[-1].open_time == START - 86_400_000 - 60_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--klines", "BTCUSDT:1m:/nowhere.csv"), "No such file"),
        (("--bind", "192.0.2.1:0"), "assign requested address"),
        (("--faults", "FILE"), "Invalid value 'nonsense'"),
    ],
)
async def test_what_cannot_be_done_is_said(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('[{"kind":"nonsense"}]')
    arguments = [str(path) if option == "FILE" else option for option in options]
    with trio.fail_after(60):
        ended = await trio.run_process([*COMMAND, *arguments], check=False, capture_stderr=True, capture_stdout=True)
    assert ended.returncode in (1, 2)
    assert message in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()


async def test_it_ends_at_once_whatever_its_clients_do() -> None:
    async with simulator("--minute", "0.05", "--shortest-update", "0") as it:
        host, port = it.rest.removeprefix("http://").split(":")
        names = "/".join(f"{symbol}@kline_1s" for symbol in ("btcusdt", "ethusdt", "solusdt"))
        async with await trio.open_tcp_stream(host, int(port)) as deaf:
            await deaf.send_all(handshake(f"/stream?streams={names}"))
            async with connect(f"{it.streams}/ws/{BTC}") as connection:
                await events(connection, 50)
                with within(3):
                    assert await it.end() == 0


def handshake(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: simulator\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
