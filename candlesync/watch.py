"""``candlesync watch``: a series of a running server in a terminal, or as lines where there is none."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from candlesync.client import Candle, Feed, FeedError, State, follow
from candlesync.core.interval import DAY, Interval

FRAMES: Final = 4
"""Times a second that the screen is drawn."""
_ABOVE: Final = 4
"""Lines of the screen above the candles, with the names of their columns."""
_BETWEEN: Final = 2
"""Spaces between columns."""
_COLOURS: Final = {State.LIVE: "green", State.SYNCING: "yellow", State.OFFLINE: "red"}
_LARGEST_DELAY: Final = 600.0
"""Seconds; a close that seems later, or earlier than it can be, is of another time than this machine's."""
_DISPENSABLE: Final = (("volume",), ("open",), ("high", "low"))
"""Columns that a narrow screen does without, in this order."""


class Watched:
    """A feed, and what one who watches it wants to know beside its candles."""

    def __init__(self, feed: Feed, url: str) -> None:
        self.feed = feed
        self.url = url
        self.delay: float | None = None
        """Seconds after its end, by this machine's clock, that the newest close came; `None` before one came, and for a
        market whose time is not ours (a simulated one)."""
        self.changed_at: float | None = None
        """When a candle last came, by this machine's clock."""
        self.corrected: deque[int] = deque(maxlen=100)
        """Open times of candles that have changed after their close."""
        self._forming: int | None = None
        self._closed: int | None = None

    def note(self, candle: Candle, now: float) -> None:
        """A candle came at ``now``, in UNIX seconds."""
        self.changed_at = now
        if not candle.closed:
            self._forming = candle.time
            return
        if self._closed is not None and candle.time <= self._closed:
            self.corrected.append(candle.time)
            return
        self._closed = candle.time
        # Of one that was not seen forming, the close was fetched later.
        if candle.time == self._forming and self.feed.state is State.LIVE:
            delay = now - Interval(candle.interval).next(candle.time * 1000) / 1000
            self.delay = delay if -5 < delay < _LARGEST_DELAY else None


async def watch(
    symbol: str, interval: str, *, url: str, token: str, console: Console | None, say: Callable[[str], None]
) -> None:
    """Show a series until SIGINT or SIGTERM, drawn on ``console``; without one, as lines to ``say``.

    Raises `FeedError` for what the server refuses, `ValueError` for what cannot be, and what ``say`` raises.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_end_at_signal, nursery.cancel_scope)
        try:
            if console is None:
                await _tell(symbol, interval, url=url, token=token, say=say)
            else:
                # The screen shows the state; a line of the log would spoil it.
                async with follow(symbol, interval, url=url, token=token, on_state=lambda *_: None) as feed:
                    await _draw(Watched(feed, url), console, nursery)
        except (FeedError, ValueError, OSError) as error:
            failure = error  # raised below, as it is and not in the nursery's group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _end_at_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    # SIGTERM too: a terminal that was drawn on is to be left as it was.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        scope.cancel()


async def _draw(watched: Watched, console: Console, nursery: trio.Nursery) -> None:
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:

        async def redraw() -> None:
            while True:
                live.update(view(watched, time.time(), *console.size), refresh=True)
                await trio.sleep(1 / FRAMES)

        nursery.start_soon(redraw)
        async for candle in watched.feed:
            watched.note(candle, time.time())


async def _tell(symbol: str, interval: str, *, url: str, token: str, say: Callable[[str], None]) -> None:
    def tell_state(state: State, reason: str) -> None:
        say(f"{state.value}: {reason}" if reason else state.value)

    last: int | None = None
    async with follow(symbol, interval, url=url, token=token, load=1, on_state=tell_state) as feed:
        async for candle in feed:
            if candle.closed:
                is_correction = last is not None and candle.time <= last
                last = candle.time if last is None else max(last, candle.time)
                say(f"{'corrected' if is_correction else 'closed'}  {candle}  rev {candle.rev}")


# --- the screen


def view(watched: Watched, now: float, width: int, height: int) -> RenderableType:
    """The screen: price, state and figures above, the newest candles below, the newest of all first.

    Nothing is wrapped and no number is cut: what a narrow screen has no room for is left out whole. ``now`` is UNIX
    seconds.
    """
    candles = list(reversed(watched.feed.candles[-max(1, height - _ABOVE) :]))
    price = _Format(number for candle in candles for number in (candle.open, candle.high, candle.low, candle.close))
    lines = [_head(watched, price, width), _figures(watched, width), _state(watched, now)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines, _table(watched, candles, price, width))


class _Format:
    """Numbers of one kind, each with as many decimal places as any of them needs."""

    def __init__(self, numbers: Iterable[Decimal]) -> None:
        self._places = max((_places(number) for number in numbers), default=0)

    def __call__(self, number: Decimal) -> str:
        return f"{number:,.{self._places}f}"


def _places(number: Decimal) -> int:
    return len(f"{number:f}".partition(".")[2].rstrip("0"))


def _head(watched: Watched, price: _Format, width: int) -> Text:
    feed = watched.feed
    parts = [(f"{feed.symbol} {feed.interval}", "bold")]
    if feed.newest is not None:
        newest, before = feed.newest, feed.candles[-2:][0]
        base = before.close if before is not newest else newest.open
        change = newest.close - base
        colour = _colour(change)
        parts.append((price(newest.close), f"bold {colour}"))
        if base:
            parts.append((f"{change / base:+.2%}", colour))
    state = feed.state.value
    line = Text()
    for text, style in parts:
        if len(line) + len(text) + _BETWEEN + len(state) <= width:
            line.append(text, style).append(" " * _BETWEEN)
    return line.append(f"{state:>{max(0, width - len(line))}}", f"bold {_COLOURS[feed.state]}")


def _figures(watched: Watched, width: int) -> Text:
    """As many as there is room for, the most wanted first."""
    tally, newest = watched.feed.tally, watched.feed.newest
    figures = [
        "delay -" if watched.delay is None else f"delay {watched.delay:.1f} s",
        f"gaps filled {tally.gaps}" + (f" ({tally.missed} candles)" if tally.missed else ""),
        f"revision {newest.rev if newest else '-'}",
        f"breaks {tally.breaks}",
        f"corrections {tally.corrections}",
        f"messages {tally.messages}",
    ]
    line = ""
    for figure in figures:
        longer = f"{line}{' ' * _BETWEEN}{figure}" if line else figure
        if len(longer) > width:
            break
        line = longer
    return Text(line)


def _state(watched: Watched, now: float) -> Text:
    """Where from; while it is not live, why not, and how old it all is."""
    feed = watched.feed
    if feed.state is State.LIVE:
        return Text(watched.url, "dim")
    age = "" if watched.changed_at is None else f"as of {max(0.0, now - watched.changed_at):.0f} s ago; "
    return Text(f"{age}{feed.reason or feed.state.value}", _COLOURS[feed.state])


def _table(watched: Watched, candles: list[Candle], price: _Format, width: int) -> Table:
    volume = _Format(candle.volume for candle in candles)
    is_long = Interval(watched.feed.interval).next(0) >= DAY
    columns = {
        "UTC": [_moment(candle, is_long=is_long, is_short=width < 70) for candle in candles],
        "open": [price(candle.open) for candle in candles],
        "high": [price(candle.high) for candle in candles],
        "low": [price(candle.low) for candle in candles],
        "close": [price(candle.close) for candle in candles],
        "volume": [volume(candle.volume) for candle in candles],
        "": [_mark(candle, watched) for candle in candles],
    }
    widths = {name: max(map(len, [name, *texts])) for name, texts in columns.items()}
    for names in _DISPENSABLE:
        if sum(widths.values()) + _BETWEEN * (len(widths) - 1) <= width:
            break
        for name in names:
            del widths[name]
    table = Table(box=None, pad_edge=False, padding=(0, _BETWEEN, 0, 0), header_style="dim")
    for name in widths:
        table.add_column(name, justify="left" if name in {"UTC", ""} else "right", no_wrap=True)
    for row, candle in enumerate(candles):
        colour = "yellow" if candle.filled else _colour(candle.close - candle.open)
        styles = {"UTC": "dim", "": "dim"}
        table.add_row(*(Text(columns[name][row], styles.get(name, colour)) for name in widths))
    return table


def _colour(change: Decimal) -> str:
    return "red" if change < 0 else "green"


def _mark(candle: Candle, watched: Watched) -> str:
    if candle.filled:
        return "filled"
    if not candle.closed:
        return "forming"
    return "corrected" if candle.time in watched.corrected else ""


def _moment(candle: Candle, *, is_long: bool, is_short: bool) -> str:
    if is_long:
        return f"{candle.opened:%Y-%m-%d}"
    clock = "%H:%M:%S" if candle.interval == "1s" else "%H:%M"
    return f"{candle.opened:{clock if is_short else f'%Y-%m-%d {clock}'}}"
