"""Access and limits as an operator sets them: the commands, their environment, and what they log."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import trio
import trio_websocket

from tests.whole.programs import PATIENCE, REPOSITORY, free_host, open_client, run_program, server, simulator

SECRET = "xyzzy-2718281828"
BEARER = {"Authorization": f"Bearer {SECRET}"}


async def first_message(host: str, path: str) -> str:
    with trio.fail_after(PATIENCE):
        async with trio_websocket.open_websocket_url(f"ws://{host}{path}") as socket:
            return str(await socket.get_message())


async def until_served(host: str) -> httpx.Response:
    """Load with the token until there is something."""
    async with open_client() as client:
        with trio.fail_after(PATIENCE):
            while True:
                answer = await client.get(f"http://{host}/candles/BTCUSDT/1m", headers=BEARER)
                if answer.status_code != 503:
                    return answer
                await trio.sleep(0.1)


async def last_of(count: int, host: str) -> bytes:
    """Open so many connections; what the last one is answered."""
    name, _, port = host.rpartition(":")
    async with AsyncExitStack() as stack:
        for _ in range(count):
            stream = await stack.enter_async_context(await trio.open_tcp_stream(name, int(port)))
        with trio.fail_after(PATIENCE):
            await stream.send_all(b"GET /symbols HTTP/1.1\r\nHost: x\r\n\r\n")
            return bytes(await stream.receive_some())


async def one_too_many(count: int, host: str) -> bytes:
    """What the last of so many connections is answered, of which the server takes one less."""
    with trio.move_on_after(PATIENCE):
        # A server that stood still may have closed the first, which said nothing for so long, before the last came.
        while b" 503 " not in (answer := await last_of(count, host)):  # noqa: ASYNC110 - of another process
            await trio.sleep(0.1)
    return answer


async def shut_out(host: str) -> None:
    """Without the token there is nothing but what needs none."""
    async with open_client() as client:
        for path in ("/candles/BTCUSDT/1m", "/symbols", "/metrics", f"/candles/BTCUSDT/1m?token={SECRET}x"):
            answer = await client.get(f"http://{host}{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert (await client.get(f"http://{host}/health")).status_code == 200


async def test_a_server_with_a_token_shows_it_to_nobody() -> None:
    async with simulator(0.25) as binance:
        async with server(binance, "BTCUSDT", "--token", SECRET, "--log-level", "debug") as candlesync:
            assert (await until_served(candlesync.host)).status_code == 200
            await shut_out(candlesync.host)
            message = await first_message(candlesync.host, f"/ws/candles/BTCUSDT?replay=1&token={SECRET}")
            assert json.loads(message)["symbol"] == "BTCUSDT"
            assert (await candlesync.end())[0] == 0
        assert b"serving" in candlesync.said
        assert SECRET.encode() not in candlesync.said


async def test_under_hypercorn_s_own_command_its_access_log_shows_no_token(tmp_path: Path) -> None:
    config = tmp_path / "hypercorn.toml"
    # All that an access log may be told to say of a request.
    config.write_text(
        (REPOSITORY / "hypercorn.toml").read_text().replace("WARNING", "INFO")
        + 'accesslog = "-"\naccess_log_format = "%(h)s %(R)s %(q)s %(r)s %(U)s %(s)s %({authorization}i)s"\n'
    )
    host = free_host()
    async with simulator(0.25) as binance:
        settings = {
            "CANDLESYNC_SYMBOLS": "BTCUSDT",
            "CANDLESYNC_REST_URL": f"http://{binance.host}",
            "CANDLESYNC_STREAM_URL": f"ws://{binance.host}",
            "CANDLESYNC_TOKEN": f"other {SECRET}",
            "CANDLESYNC_MAX_CONNECTIONS": "30",
        }
        arguments = ["hypercorn", "-c", str(config), "-b", host, "candlesync.asgi:app"]
        async with run_program(arguments, host=host, **settings) as program:
            assert (await until_served(host)).status_code == 200
            await shut_out(host)
            async with open_client() as client:
                answer = await client.get(f"http://{host}/candles/BTCUSDT/1m?limit=7&token={SECRET}")
                assert len(answer.json()) == 7
            await first_message(host, f"/ws/candles/BTCUSDT?replay=1&token={SECRET}")
            assert (await one_too_many(31, host)).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            await program.end()
    assert b"limit=7" in program.said
    assert b" 401 " in program.said
    assert SECRET.encode() not in program.said


async def test_the_demo_shows_candles_with_a_token_and_origins_too() -> None:
    arguments = ["candlesync", "demo", "--bind", "127.0.0.1:0", "--minute", "0.3"]
    options = ["--token", SECRET, "--allow-origin", "https://chart.example"]
    async with run_program([*arguments, *options]) as demo:
        await shut_out(demo.host)
        with trio.fail_after(PATIENCE):
            while demo.said.count(b"  close ") < 3:  # noqa: ASYNC110 - of another process
                await trio.sleep(0.1)
        assert SECRET.encode() not in demo.said


async def test_with_few_files_there_are_few_connections_and_the_log_says_so() -> None:
    program = [
        "import resource, sys",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 60))",
        "from candlesync.cli import main",
        "main(['demo', '--bind', '127.0.0.1:0', '--minute', '0.5'])",
    ]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", "\n".join(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
    )
    said = b""
    try:
        assert process.stdout is not None
        with trio.fail_after(PATIENCE):
            while b"Ctrl-C ends it" not in said:
                said += await process.stdout.receive_some()
        host = said.split(b"REST        http://")[1].split(b"/")[0].decode()
        assert b"all 30 connections are taken" in await one_too_many(31, host)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()
    (told,) = [line for line in said.splitlines() if b"LimitNOFILE" in line]
    line = json.loads(told)
    assert (line["level"], line["files"], line["connections"], line["max_connections"]) == ("warning", 60, 30, 10_000)
