"""How the first backfill is reported: in the log, on a terminal, and both without a mess."""

from __future__ import annotations

import io
import re
from typing import Any

import structlog.testing
import trio
from rich.console import Console
from trio.testing import MockClock

from candlesync.backfill import report_backfill
from tests.terminal import on_a_terminal
from tests.whole.programs import break_something, simulator

Events = list[dict[str, Any]]


class Series:
    """Twenty series, of which one after the other becomes live."""

    def __init__(self, *, every: float, never: int = 0) -> None:
        self.every = every
        self.never = never
        self.began = trio.current_time()

    def waiting(self) -> dict[str, str]:
        live = min(20 - self.never, int((trio.current_time() - self.began) / self.every))
        return {f"S{number}USDT 1m": "not synced yet" for number in range(live, 20)}


async def reported(series: Series, console: Console | None, seconds: float = 5_000) -> Events:
    with structlog.testing.capture_logs() as events, trio.move_on_after(seconds):
        await report_backfill(20, series.waiting, console)
    return [dict(event) for event in events]


async def test_the_log_says_it_seldom(autojump_clock: MockClock) -> None:
    events = await reported(Series(every=30), None)
    assert events[0] == {"event": "backfill begins", "series": 20, "log_level": "info"}
    seconds = events[-1].pop("seconds")
    assert 600 <= seconds < 601
    assert events[-1] == {"event": "backfill done", "series": 20, "log_level": "info"}
    words = events[1:-1]
    assert [word["live"] for word in words] == [0, 0, 1, 2, 5, 10]
    assert words[0]["waiting"] == [f"S{number}USDT 1m: not synced yet" for number in range(5)] + ["and 15 more"]
    assert words[-1]["event"] == "backfill goes on"


async def test_what_is_live_at_once_is_two_lines_and_nothing_is_none(autojump_clock: MockClock) -> None:
    assert [event["event"] for event in await reported(Series(every=0.01), None)] == [
        "backfill begins",
        "backfill done",
    ]
    with structlog.testing.capture_logs() as none:
        await report_backfill(0, dict, None)
    assert none == []


async def test_however_long_it_takes_the_log_goes_on_saying_it(autojump_clock: MockClock) -> None:
    events = await reported(Series(every=1, never=3), None, seconds=3_600)
    words = events[1:]
    assert {word["event"] for word in words} == {"backfill goes on"}
    assert 14 < len(words) < 20
    assert words[-1]["live"] == 17
    assert len(words[-1]["waiting"]) == 3


def terminal() -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=True, width=100, color_system=None), written


async def test_on_a_terminal_it_is_drawn_and_then_gone(autojump_clock: MockClock) -> None:
    console, written = terminal()
    events = await reported(Series(every=1), console)
    assert [event["event"] for event in events] == ["backfill begins", "backfill done"]
    drawings = written.getvalue().split("\r")
    for part in ("10/20", "1.0/s", "waiting: S10USDT 1m, S11USDT 1m"):
        assert any(part in drawing for drawing in drawings), part
    assert max(len(line) for drawing in drawings for line in drawing.split("\n")) <= 110
    assert written.getvalue().endswith("\x1b[2K"), "the line is erased"


async def test_what_is_over_at_once_is_not_drawn(autojump_clock: MockClock) -> None:
    console, written = terminal()
    await reported(Series(every=0.02), console)
    assert written.getvalue() == ""


async def test_when_nothing_gets_on_the_drawing_ends_and_the_log_goes_on(autojump_clock: MockClock) -> None:
    console, written = terminal()
    series = Series(every=1, never=1)
    events = await reported(series, console, seconds=400)
    drawn = len(written.getvalue())
    assert "19/20" in written.getvalue()
    assert written.getvalue().endswith("\x1b[2K")
    assert [event["event"] for event in events] == ["backfill begins", *["backfill goes on"] * (len(events) - 1)]
    assert 2 <= len(events) <= 8
    assert events[-1]["waiting"] == ["S19USDT 1m: not synced yet"]
    series.never = 0
    assert len(written.getvalue()) == drawn


async def test_the_log_and_the_drawing_do_not_get_into_each_other() -> None:
    symbols = [f"S{number}USDT" for number in range(12)]
    async with simulator(1, *[part for symbol in symbols for part in ("--symbol", symbol)]) as binance:
        await break_something(binance, kind="rest_down", **{"for": 1})
        urls = ["--rest-url", f"http://{binance.host}", "--stream-url", f"ws://{binance.host}"]
        async with on_a_terminal(["candlesync", "serve", *symbols, "--bind", "127.0.0.1:0", *urls]) as terminal:
            await terminal.until("backfill done")
            terminal.type("\x03")
            assert await terminal.status() == 0
    assert "0/12" in terminal.text
    assert "waiting: S0USDT 1m, S10USDT 1m" in terminal.text
    lines = terminal.said.split("\n")
    events = [line for line in lines if re.search(r"\[.{0,20}(info|warning) ", line)]
    assert len(events) > 12
    for line in events:
        # A drawing may stand before it on its line, but is erased there; nothing of one stands behind it.
        assert "waiting:" not in line.rpartition("\x1b[2K")[2]
    last = next(number for number, line in enumerate(lines) if "backfill done" in line)
    assert not any("waiting:" in line for line in lines[last:])
