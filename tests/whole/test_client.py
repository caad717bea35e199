"""The README's bot and ``candlesync watch``, as real processes, while the server dies and comes back."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from tests.terminal import on_a_terminal
from tests.whole.programs import PATIENCE, REPOSITORY, free_host, open_client, server, simulator

CLOSED = re.compile(rb"^BTCUSDT 1m  (\S+ \S+)  .* close (\S+) .*$", re.MULTILINE)


def bot() -> str:
    """The README's, as it stands there."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return text.partition("```python\n")[2].partition("```")[0]


async def test_the_readmes_bot_gets_each_closed_candle_once_though_its_server_is_killed(tmp_path: Path) -> None:
    assert 5 < bot().count("\n") <= 15
    assert "127.0.0.1:8000" in bot()
    host = free_host()
    program = tmp_path / "bot.py"
    program.write_text(bot().replace("127.0.0.1:8000", host))
    said = bytearray()
    async with AsyncExitStack() as stack:
        binance = await stack.enter_async_context(simulator(0.3))
        first = await stack.enter_async_context(server(binance, "BTCUSDT", bind=host))
        process = await trio.lowlevel.open_process(
            [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY
        )
        watch = ["candlesync", "watch", "BTCUSDT", "--url", f"http://{host}"]
        terminal = await stack.enter_async_context(on_a_terminal(watch, columns=80, lines=12))
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def read() -> None:
            assert process.stdout is not None
            async for data in process.stdout:
                said.extend(data)

        async def until(closed: int) -> None:
            with trio.fail_after(PATIENCE):
                while len(CLOSED.findall(said)) < closed:  # noqa: ASYNC110 - of another process
                    await trio.sleep(0.05)

        nursery.start_soon(read)
        await until(1002)
        await terminal.until("live")
        await first.kill()
        await terminal.until("offline")
        async with server(binance, "BTCUSDT", bind=host):
            await until(1012)
            await terminal.until("gaps filled 1")
            terminal.type("\x03")
            assert await terminal.status() == 0
            process.kill()
            await process.wait()
            async with open_client() as client:
                truth = (await client.get(f"http://{host}/candles/BTCUSDT/1m")).text
        nursery.cancel_scope.cancel()
    assert b"Traceback" not in said
    moments = [moment.decode() for moment, _ in CLOSED.findall(said)]
    assert moments == sorted(set(moments)), "each once, in order"
    known = dict(re.findall(r'"time":(\d+),.*?"close":([^,]+),.*?"closed":true', truth))
    assert len(known) > 900
    closes = [close.decode() for _, close in CLOSED.findall(said)]
    # The same candles in the same order, as far as REST has them: none is missing in between.
    shown = list(known.values())
    start = closes.index(shown[0])
    assert closes[start:] == shown[: len(closes) - start]
