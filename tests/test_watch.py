"""``candlesync watch``: the screen, the lines, and both as a user starts them."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from rich.console import Console

from candlesync.cli import main
from candlesync.client import Candle, Feed, FeedError, State
from candlesync.watch import Watched, view, watch
from tests.builders import candle, forming, minute, minutes
from tests.ports import free_port
from tests.terminal import REPOSITORY, on_a_terminal
from tests.web.builders import Port, Web, clean_log, commit, on_a_port

__all__ = ["clean_log"]

T = 1_700_000_040


def one(number: int, close: str = "37000.10", *, interval: str = "1m", step: int = 60, **others: Any) -> Candle:
    """A candle that opens at 37,000.25."""
    price = Decimal(close)
    fields: dict[str, Any] = {"closed": True, "rev": 7} | others
    bounds = (Decimal("37000.25000000"), Decimal("37123.50000000"), Decimal("36999.00000000"))
    return Candle("BTCUSDT", interval, T + step * number, *bounds, price, Decimal("1.50000000"), **fields)


class _Nobody:
    """A server that is never asked."""

    async def load(self, *_: object, **__: object) -> Any:
        raise AssertionError

    def open(self) -> Any:
        raise AssertionError


def watched(candles: list[Candle], state: State = State.LIVE, reason: str = "", interval: str = "1m") -> Watched:
    feed = Feed(_Nobody(), "BTCUSDT", interval)
    feed._candles.list = candles
    feed.state, feed.reason = state, reason
    return Watched(feed, "http://127.0.0.1:8000")


def drawn(watching: Watched, width: int, height: int, now: float = T) -> list[str]:
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(view(watching, now, width, height), end="")
    return captured.get().removesuffix("\n").split("\n")


ROWS = [one(number, f"370{number:02}.10") for number in range(30)] + [one(30, "37020.1", closed=False, rev=99)]


def test_a_wide_screen_shows_it_all() -> None:
    watching = watched(ROWS)
    tally = watching.feed.tally
    tally.gaps, tally.missed, tally.breaks, tally.corrections, tally.messages = 2, 14, 3, 1, 1234
    watching.delay = 0.42
    watching.corrected.append(ROWS[28].time)
    lines = drawn(watching, 100, 9)
    assert len(lines) == 9
    assert lines[0] == f"{'BTCUSDT 1m  37,020.10  -0.02%':<96}live"
    assert lines[1] == "delay 0.4 s  gaps filled 2 (14 candles)  revision 99  breaks 3  corrections 1  messages 1234"
    assert lines[2] == "http://127.0.0.1:8000"
    assert [line.rstrip() for line in lines[3:7]] == [
        "UTC                    open       high        low      close  volume",
        "2023-11-14 22:44  37,000.25  37,123.50  36,999.00  37,020.10     1.5  forming",
        "2023-11-14 22:43  37,000.25  37,123.50  36,999.00  37,029.10     1.5",
        "2023-11-14 22:42  37,000.25  37,123.50  36,999.00  37,028.10     1.5  corrected",
    ]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("height", [1, 5, 12, 40])
def test_no_screen_is_wrapped_and_no_number_is_cut(height: int, state: State) -> None:
    watching = watched(ROWS, state, "the connection broke, for a reason that takes many words to be told")
    known = {"37,000.25", "37,123.50", "36,999.00", "1.5", *(f"37,0{number:02}.10" for number in range(30))}
    for width in (20, 30, 40, 60, 80, 100, 200):
        lines = drawn(watching, width, height)
        assert len(lines) == min(max(height, 5), 4 + len(ROWS))
        assert all(len(line) <= width for line in lines)
        assert lines[0].endswith(state.value)
        if width < 30:
            continue
        for line in lines[4:]:
            clock, *cells = line.removeprefix("2023-11-14 ").split()
            assert re.fullmatch(r"\d\d:\d\d", clock)
            assert set(cells) <= known | {"forming"}
            assert any(re.fullmatch(r"37,0\d\d.10", cell) for cell in cells), "the close is always there"


def test_a_narrow_screen_leaves_columns_out_whole() -> None:
    names = {width: drawn(watched(ROWS), width, 12)[3].split() for width in (75, 60, 50, 30)}
    assert names == {
        75: ["UTC", "open", "high", "low", "close"],
        60: ["UTC", "open", "high", "low", "close"],
        50: ["UTC", "high", "low", "close"],
        30: ["UTC", "close"],
    }


def test_why_it_is_not_live_and_how_old_it_is() -> None:
    watching = watched(ROWS, State.OFFLINE, "the connection broke")
    assert drawn(watching, 80, 5)[2] == "the connection broke"
    watching.note(ROWS[-1], T)
    assert drawn(watching, 80, 5, now=T + 12)[2] == "as of 12 s ago; the connection broke"
    assert drawn(watched([], State.SYNCING), 80, 5)[:3] == [
        f"{'BTCUSDT 1m':<73}syncing",
        "delay -  gaps filled 0  revision -  breaks 0  corrections 0  messages 0",
        "syncing",
    ]


def test_filled_candles_are_marked_and_long_intervals_have_dates() -> None:
    days = [one(number, interval="1d", step=86_400, filled=number == 1) for number in range(2)]
    lines = drawn(watched(days, interval="1d"), 100, 12)
    assert lines[4].startswith("2023-11-15  ")
    assert lines[4].rstrip().endswith("filled")
    seconds = drawn(watched([one(0, interval="1s")], interval="1s"), 100, 12)
    assert seconds[4].startswith("2023-11-14 22:14:00  ")
    assert drawn(watched([one(0)]), 100, 12)[0].startswith("BTCUSDT 1m  37,000.10  -0.00%")


def test_the_delay_is_that_of_a_close_that_was_awaited() -> None:
    watching = watched(ROWS)

    def delay_after(noted: Candle, now: float) -> float | None:
        watching.note(noted, now)
        return watching.delay

    assert delay_after(one(0), T + 60.5) is None, "it was fetched, not awaited"
    assert delay_after(one(1, closed=False), T + 70) is None
    assert delay_after(one(1), T + 120.5) == 0.5
    assert delay_after(one(0), T + 130) == 0.5
    assert list(watching.corrected) == [T]
    assert delay_after(one(2, closed=False), T + 150) == 0.5
    assert delay_after(one(2), T + 86_400) is None, "a simulated market has its own time"
    assert delay_after(one(3, closed=False), T + 190) is None
    watching.feed.state = State.SYNCING
    assert delay_after(one(3), T + 241) is None


# --- as a user starts it


@asynccontextmanager
async def served(web: Web | None = None) -> AsyncIterator[tuple[Any, Port]]:
    web = web or Web()
    topic = web.topic([*minutes(0, 30), forming(minute(31))])
    async with on_a_port(web) as port:
        yield topic, port


def program(port: Port, symbol: str = "btcusdt") -> list[str]:
    return ["candlesync", "watch", symbol, "--url", f"http://127.0.0.1:{port.number}"]


async def test_on_a_terminal_it_is_drawn_and_ctrl_c_leaves_that_as_it_was() -> None:
    async with served() as (topic, port), on_a_terminal(program(port), columns=60, lines=12) as terminal:
        await terminal.until("live")
        await terminal.until("22:45")
        commit(topic, candle(minute(31), trades=20), forming(minute(32)))
        await terminal.until("22:46")
        assert "\x1b[?1049h" in terminal.said, "a screen of its own"
        assert "\x1b[?1049l" not in terminal.said
        assert [len(line) <= 60 for line in terminal.screen].count(False) == 0
        assert terminal.screen[3].split() == ["UTC", "open", "high", "low", "close"]
        terminal.resize(120, 30)
        await terminal.until("volume")
        terminal.type("\x03")
        assert await terminal.status() == 0
        assert terminal.said.rfind("\x1b[?1049l") > terminal.said.rfind("\x1b[?1049h")
        assert terminal.said.rfind("\x1b[?25h") > terminal.said.rfind("\x1b[?25l"), "the cursor is back"
        assert "Traceback" not in terminal.text


async def test_the_drawing_follows_the_feed_and_ends_with_it() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system=None, width=80, height=12)

    async def until(text: str) -> None:
        with trio.fail_after(30):
            while text not in written.getvalue():  # noqa: ASYNC110 - as an outsider
                await trio.sleep(0.01)

    async with served() as (topic, port), trio.open_nursery() as nursery:
        url = f"http://127.0.0.1:{port.number}"
        show = partial(watch, "btcusdt", url=url, token="", console=console, say=print)
        nursery.start_soon(show, "1m")
        await until("22:45")
        commit(topic, candle(minute(31), trades=20), forming(minute(32)))
        await until("22:46")
        signal.raise_signal(signal.SIGINT)
        await until("\x1b[?1049l")
        with pytest.raises(FeedError, match="BTCUSDT"):
            await show(interval="1w")


async def test_what_is_refused_is_said_on_the_terminal_as_it_was() -> None:
    async with served() as (_, port), on_a_terminal(program(port, "NOSUCH")) as terminal:
        assert await terminal.status() == 1
        left = terminal.said.rpartition("\x1b[?1049l")[2]
        assert left.endswith("Error: unknown_symbol: Binance does not list NOSUCH\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_elsewhere_each_close_correction_and_state_is_a_line(signum: signal.Signals) -> None:
    said: list[str] = []

    async def until(count: int) -> None:
        with trio.fail_after(30):
            while len(said) < count:  # noqa: ASYNC110 - as an outsider
                await trio.sleep(0.01)

    async with served() as (topic, port), trio.open_nursery() as nursery:
        url = f"http://127.0.0.1:{port.number}"
        nursery.start_soon(partial(watch, "btcusdt", "1m", url=url, token="", console=None, say=said.append))
        await until(3)
        commit(topic, candle(minute(31), trades=20), forming(minute(32)))
        await until(4)
        commit(topic, candle(minute(31), "37000.00000000", trades=21))
        await until(5)
        port.stop.set()
        await until(6)
        signal.raise_signal(signum)
    bounds = "open 37000.00000000  high 37100.00000000  low 36900.00000000"
    assert said[:5] == [
        *("syncing: loading", "syncing: catching up", "live"),
        f"closed  BTCUSDT 1m  2023-11-14 22:45  {bounds}  close 37012.31000000  volume 20.50000000  rev 2",
        f"corrected  BTCUSDT 1m  2023-11-14 22:45  {bounds}  close 37000.00000000  volume 21.50000000  rev 3",
    ]
    assert said[5] in ("offline: the server is starting again", "offline: the connection broke")


async def test_who_reads_no_more_ends_it_without_a_word() -> None:
    async with served() as (topic, port):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", *program(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
            env=os.environ | {"FORCE_COLOR": "1"},  # by which rich takes a pipe for a terminal
        )
        assert process.stdout is not None
        assert process.stderr is not None
        said = b""
        with trio.fail_after(30):
            while b"live\n" not in said:
                said += await process.stdout.receive_some()
            await process.stdout.aclose()
            commit(topic, candle(minute(31), trades=20), forming(minute(32)))
            assert await process.wait() == 0
            assert await process.stderr.receive_some() == b""
        await process.stderr.aclose()
    assert said == b"syncing: loading\nsyncing: catching up\nlive\n"


async def test_a_server_that_is_not_there_is_waited_for() -> None:
    said: list[str] = []
    url = f"http://127.0.0.1:{free_port()}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(watch, "btcusdt", "1m", url=url, token="", console=None, say=said.append))
        with trio.fail_after(30):
            while len(said) < 2:  # noqa: ASYNC110 - as an outsider
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert said[:2] == ["syncing: loading", f"offline: {url} does not answer (ConnectError)"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["BTCUSDT", "-i", "2m"], "interval '2m': one of 1s 1m 3m"),
        (["BTCUSDT", "--url", "127.0.0.1"], "server URL '127.0.0.1'"),
        ([" "], "a symbol is needed"),
        ([], "Missing argument 'SYMBOL'"),
    ],
)
def test_what_cannot_be_watched_is_exit_status_2(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["watch", *arguments])
    assert result.exit_code == 2
    assert said in result.output


def test_its_help_names_the_environment() -> None:
    output = CliRunner().invoke(main, ["watch", "--help"]).output
    assert "CANDLESYNC_URL" in output
    assert "CANDLESYNC_TOKEN" in output
