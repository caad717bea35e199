"""``candlesync verify`` as its users start it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
from click.testing import CliRunner
from rich.console import Console

from candlesync.cli import main
from candlesync.verify.findings import CannotCheck, Difference, Findings
from candlesync.verify.report import _HEAD, SHOWN, show
from candlesync.verify.run import DIFFERENT, GOOD, UNCHECKED, Task, status_of, verify
from tests.ports import free_port
from tests.whole.programs import PATIENCE, run_program

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """A command sets up the logs of its process, which is this one here: afterwards they are as before."""
    root, ours = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    # Hidden from the command: it would close those of pytest.
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.configure(**ours)


async def test_the_demo_is_good_and_says_how_to_check_it() -> None:
    async with run_program(["candlesync", "demo", "--bind", "127.0.0.1:0", "--minute", "0.5"]) as demo:
        with trio.fail_after(PATIENCE):
            while (line := re.search(rb"candlesync verify (.*)\n", demo.said)) is None:  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
        command = [sys.executable, "-m", "candlesync", "verify", *line[1].decode().split(), "--for", "2"]
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(command, capture_stdout=True, check=False, cwd=REPOSITORY)
        said = done.stdout.decode()
        assert done.returncode == GOOD, said
        head, *rows = said.splitlines()
        assert head.split() == list(_HEAD)
        assert [row.split()[:2] for row in rows] == [["BTCUSDT", "1m"], ["ETHUSDT", "1m"]]
        assert [row.split()[-1] for row in rows] == ["good", "good"]


async def no_candlesync(stream: trio.SocketStream) -> None:
    """Some other web server."""
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
    await stream.aclose()


async def test_a_server_that_is_not_there_or_is_no_candlesync() -> None:
    def task(port: int, *symbols: str) -> Task:
        return Task(f"http://127.0.0.1:{port}", symbols, (), seconds=0)

    with pytest.raises(CannotCheck, match=r"^http://127\.0\.0\.1:\d+ does not answer: "):
        await verify(task(free_port()), "http://127.0.0.1:9", "", print)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, no_candlesync, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with pytest.raises(CannotCheck, match="is no candlesync: /metrics answers 200 'hello'"):
            await verify(task(port), "http://127.0.0.1:9", "", print)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["nonsense", "ws://127.0.0.1:8000", "http://", "http://x:port", "http://x/?a=b"])
@pytest.mark.usefixtures("as_it_was")
def test_what_is_no_address_or_not_there_is_exit_status_2(url: str) -> None:
    done = CliRunner().invoke(main, ["verify", url])
    assert done.exit_code == UNCHECKED
    assert "Error: " in done.output
    assert url in done.output
    done = CliRunner().invoke(main, ["verify", "http://127.0.0.1:9", "--token", "two words"])
    assert done.exit_code == UNCHECKED
    assert "the token is not one" in done.output
    done = CliRunner().invoke(main, ["verify", f"http://127.0.0.1:{free_port()}"])
    assert done.exit_code == UNCHECKED
    assert "does not answer" in done.output


WRONG = [Difference(1_700_000_040_000 + 60_000 * number, "close", "1.1", "1.2") for number in range(60)]
FINDINGS = [
    Findings("BTCUSDT 1m", 1000, 2, "live", 90, 1, [0.25]),
    Findings("ETHUSDT 1m", 1000, 0, "live", 90, 1, [0.25], WRONG),
    Findings("NOSUCH 1m", unchecked="it is not listed"),
]


def test_differences_are_lines_and_their_number_is_bounded() -> None:
    lines: list[str] = []
    show(FINDINGS, lines.append)
    assert [line.split("  ")[0].rstrip() for line in lines[:4]] == ["series", "BTCUSDT 1m", "ETHUSDT 1m", "NOSUCH 1m"]
    assert len({line.index("live") for line in lines[1:3]}) == 1, "aligned"
    assert lines[4] == "ETHUSDT 1m  2023-11-14 22:14:00  close  served 1.1  Binance 1.2"
    assert len(lines) == 4 + SHOWN + 1 + 1
    assert lines[-2] == "ETHUSDT 1m  and 10 more"
    assert lines[-1] == "NOSUCH 1m  not checked: it is not listed"


def test_on_a_terminal_it_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show(FINDINGS, print, terminal=Console(force_terminal=True, width=120))
    said = capsys.readouterr().out
    assert "┃" in said
    assert "60 differences" in said


def test_the_exit_status() -> None:
    assert status_of(FINDINGS[:1]) == GOOD
    assert status_of(FINDINGS) == DIFFERENT
    assert status_of([FINDINGS[0], FINDINGS[2]]) == UNCHECKED
