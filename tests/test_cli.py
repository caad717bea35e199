"""The commands as real processes: their addresses, their messages, and above all their end.

Binance is a port of this machine that is closed: nothing here needs candles.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from candlesync import __version__
from candlesync.cli import main
from tests.ports import free_port
from tests.stalls import within
from tests.web.builders import Port, frame, read_all, upgrade

REPOSITORY = Path(__file__).parent.parent
NO_BINANCE = {"CANDLESYNC_REST_URL": "http://127.0.0.1:9", "CANDLESYNC_STREAM_URL": "ws://127.0.0.1:9"}
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
GONE = struct.pack(">H", 1012) + b"going_down"
"""How a close frame ends that says so."""

HYPERCORN = ["hypercorn", "-c", "hypercorn.toml", "--graceful-timeout", "1"]
SERVERS = {
    "serve": ["candlesync", "serve", "BTCUSDT"],
    "hypercorn": [*HYPERCORN, "candlesync.asgi:app"],
    "hypercorn with 2 workers": [*HYPERCORN, "-w", "2", "candlesync.asgi:app"],
}


class Program:
    """A process and what it says."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""
        self.port: Port

    async def status(self) -> int:
        """Its exit status, once it has ended."""
        with trio.fail_after(15):
            return await self.process.wait()

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for chunk in self.process.stdout:
            self.said += chunk.decode()


@asynccontextmanager
async def run(arguments: Sequence[str], **environment: str) -> AsyncIterator[Program]:
    """A program as a user starts it; both of its outputs are read. It is killed if it is left alive."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
        env=os.environ | NO_BINANCE | environment,
        start_new_session=True,  # with its workers, so that none of them is left
    )
    program = Program(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program._listen)
            yield program
            await program.process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def serving(name: str, **environment: str) -> AsyncIterator[Program]:
    """One of `SERVERS`, once it answers. In the end nothing of it may be left, and no traceback in its log."""
    number = free_port()
    async with run([*SERVERS[name], "--bind", f"127.0.0.1:{number}"], **environment) as program:
        program.port = Port(number)
        with trio.fail_after(20):
            while await get(program.port, "/health") is None:
                assert program.process.returncode is None, program.said
                await trio.sleep(0.05)
        yield program
        assert program.process.returncode is not None, "it is still there"
    assert "Traceback" not in program.said
    assert '"exception"' not in program.said


async def get(port: Port, path: str) -> bytes | None:
    """The whole answer, or `None` when nobody listens."""
    try:
        async with await port.connect() as stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return await read_all(stream)
    except OSError:
        return None


async def follower(port: Port) -> trio.SocketStream:
    """A client with an open WebSocket."""
    stream = await port.connect()
    await stream.send_all(upgrade("/ws/candles"))
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some()
    assert received.startswith(b"HTTP/1.1 101 ")
    return stream


async def stuck(port: Port) -> trio.SocketStream:
    """A client with an open WebSocket that says much and reads nothing, until neither side can send any more."""
    stream = await port.connect(receive_buffer=4096)
    await stream.send_all(upgrade("/ws/candles"))
    await stream.receive_some()
    words = '"symbol":"{0}","interval":"{0}","id":"{0}"'.format("x" * 100)
    messages = frame(f'{{"op":"nothing",{words}}}') * 100
    sent = True
    while sent:
        with trio.move_on_after(0.4):
            await stream.send_all(messages)
            continue
        sent = False
    return stream


# --- what they say


async def test_help_names_every_option_and_its_variable() -> None:
    async with run(["candlesync", "serve", "--help"]) as program:
        assert await program.status() == 0
    for name in ("bind", "interval", "store", "rest-url", "stream-url", "grace", "log-level"):
        assert f"--{name}" in program.said
        assert f"CANDLESYNC_{name.replace('-', '_').upper()}" in program.said
    assert "[SYMBOL]..." in program.said
    assert "CANDLESYNC_SYMBOLS" in program.said


def test_the_commands_and_the_version() -> None:
    assert "serve" in CliRunner().invoke(main, ["--help"]).output
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


async def test_a_bad_value_is_exit_status_2() -> None:
    async with run(["candlesync", "serve", "--history", "5"]) as program:
        assert await program.status() == 2
    assert "'--history'" in program.said
    assert "Traceback" not in program.said


async def test_a_port_in_use_is_a_clear_error_and_exit_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with run(["candlesync", "serve", "--bind", address]) as program:
            assert await program.status() == 1
    assert f"Error: cannot listen on {address}:" in program.said
    assert "Address already in use" in program.said
    assert "Traceback" not in program.said


async def test_it_says_where_it_serves_and_takes_a_free_port() -> None:
    async with run(["candlesync", "serve", "--bind", "127.0.0.1:0"]) as program:
        with trio.fail_after(15):
            while (found := ADDRESS.search(program.said)) is None:  # noqa: ASYNC110 - it is said, not set
                await trio.sleep(0.02)
        answer = await get(Port(int(found[1])), "/health")
        assert answer is not None
        assert answer.endswith(b'{"status":"alive"}')
        program.process.terminate()
        assert await program.status() == 0


async def test_without_binance_it_serves_all_the_same_and_says_what_is_wrong() -> None:
    async with serving("serve") as program:
        ready = await get(program.port, "/ready")
        assert ready is not None
        assert ready.startswith(b"HTTP/1.1 503 ")
        assert b"BTCUSDT 1m" in ready
        program.process.terminate()
        assert await program.status() == 0


async def test_a_bad_value_in_the_environment_is_a_clear_error_under_hypercorn_too() -> None:
    arguments = [*HYPERCORN, "--bind", f"127.0.0.1:{free_port()}", "candlesync.asgi:app"]
    async with run(arguments, CANDLESYNC_HISTORY="many") as program:
        await program.status()  # Hypercorn 0.18 ends with 0 whatever its workers end with
    assert "CANDLESYNC_HISTORY" in program.said
    assert "'many' is not a valid integer" in program.said
    assert "click" not in program.said


# --- how they end


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("name", SERVERS)
async def test_a_signal_ends_it_with_exit_status_0_and_1012_for_everybody(name: str, signum: signal.Signals) -> None:
    async with serving(name) as program:
        followers = [await follower(program.port) for _ in range(8)]
        async with await program.port.connect():  # connected, and silent
            program.process.send_signal(signum)
            for stream in followers:
                assert (await read_all(stream)).endswith(GONE)
                await stream.aclose()
            with within(5):
                assert await program.status() == 0
        assert await get(program.port, "/health") is None
    assert ("several workers" in program.said) == ("2 workers" in name)


@pytest.mark.parametrize("name", ["serve", "hypercorn"])
async def test_clients_that_do_not_read_hold_the_end_up_no_longer_than_the_grace_time(name: str) -> None:
    async with serving(name, CANDLESYNC_GRACE="2") as program:
        blocked = [await stuck(program.port), await stuck(program.port)]
        reading = await follower(program.port)
        with within(2):
            program.process.terminate()
            with within(1):
                assert (await read_all(reading)).endswith(GONE)
            assert await program.status() == 0
        for stream in [*blocked, reading]:
            await trio.aclose_forcefully(stream)


async def test_signals_that_come_again_change_nothing() -> None:
    async with serving("serve", CANDLESYNC_GRACE="2") as program:
        stream = await stuck(program.port)
        for _ in range(5):
            program.process.send_signal(signal.SIGINT)
            await trio.sleep(0.05)
        with within(5):
            assert await program.status() == 0
        await trio.aclose_forcefully(stream)


async def test_a_signal_before_it_serves_ends_it_as_well() -> None:
    async with run(["candlesync", "serve", "--bind", "127.0.0.1:0"]) as program:
        with trio.fail_after(15):
            while "serving" not in program.said:  # noqa: ASYNC110 - it is said, not set
                await trio.sleep(0.001)
        program.process.send_signal(signal.SIGTERM)
        assert await program.status() == 0


# --- a service that fails

BROKEN = """
import trio
from candlesync.supervisor import Supervisor

async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
    task_status.started()
    await trio.sleep(1.5)
    raise RuntimeError("a part of the service has failed")

Supervisor.run = run
from candlesync.asgi import app
from candlesync.cli import main
if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("name", ["serve", "hypercorn"])
async def test_a_service_that_fails_ends_the_process_with_an_error_instead_of_serving_on(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    number = free_port()
    arguments = {"serve": ["broken", "serve"], "hypercorn": [*HYPERCORN, "broken:app"]}[name]
    async with run([*arguments, "--bind", f"127.0.0.1:{number}"], PYTHONPATH=f"{tmp_path}:{REPOSITORY}") as program:
        port = Port(number)
        with trio.fail_after(15):
            while await get(port, "/health") is None:  # noqa: ASYNC110 - another process listens
                await trio.sleep(0.05)
        stream = await follower(port)
        await read_all(stream)
        await stream.aclose()
        status = await program.status()
        assert status == 1 or name == "hypercorn"  # Hypercorn 0.18 ends with 0 whatever its workers end with
        assert await get(port, "/health") is None
    assert "a part of the service has failed" in program.said
