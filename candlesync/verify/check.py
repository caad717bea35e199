"""The check of one series: REST first, then the WebSocket for a while, each against Binance."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from math import inf

import msgspec
import trio
import trio_websocket

from candlesync.binance.parse import Kline, parse_frame
from candlesync.binance.rest import Rest
from candlesync.binance.stream import combined_url
from candlesync.core.candle import Candle, Series
from candlesync.errors import UnknownSymbol, UnreadableFrame, UpstreamUnavailable
from candlesync.verify.findings import CannotCheck, Difference, Findings
from candlesync.verify.reading import read_candle, read_json
from candlesync.verify.server import Open, Server
from candlesync.verify.view import View, compare
from candlesync.websocket import ENDS, leaves_of

LATE = 5.0
"""Seconds after Binance's own that a close may come; what a healthy server takes is thousandths of one."""
AGREEMENT = 30.0
"""Seconds that Binance's event time may lie before this machine's clock. Otherwise the two do not agree, and a delay is
counted from when the event came here: no clock but this machine's is in it."""
_PATIENCE = 120.0
"""Seconds for one question to Binance: of hundreds of series some wait for the weight of the next minute."""
_PAGE = 1000
_ASK_AGAIN = 5
"""How often Binance is asked, a second apart, for the row that makes the last close final."""
_PAUSE = 0.5
"""Seconds between two connections to the server."""
_PAUSE_OF_BINANCE = 10.0
"""Seconds between two connections to Binance, which allows 300 in 5 minutes and address."""
_TOO_OLD = 4410
_COME_BACK = frozenset({1001, 1006, 1011, 1012, 1013})
"""Close codes after which a client connects again, with its position."""


class Binance(msgspec.Struct, frozen=True):
    """Binance itself."""

    rest: Rest
    open_socket: Open
    stream_url: str
    """Empty: delays are not measured."""
    most_streams: int = 20
    """Series of which they are: each takes one of the connections that Binance allows."""


class _Close(msgspec.Struct):
    """When a candle closed, on Trio's clock; infinity as long as it has not."""

    at_binance: float = inf
    """Binance's event time where the clocks agree, and else its arrival here."""
    here: float = inf


class Check:
    """Of one series of one server."""

    def __init__(self, server: Server, binance: Binance, series: Series, *, measures: bool = True) -> None:
        """``measures`` says whether Binance's own stream is followed beside the server's."""
        self._server = server
        self._binance = binance
        self._measures = measures and bool(binance.stream_url)
        self._series = series
        self._view = View(series)
        self._position = ""
        self._closes: dict[int, _Close] = {}
        self._refusal = "it was not opened in time"
        self.findings = Findings(str(series))

    async def run(self, seconds: float) -> Findings:
        """Check; ``seconds`` for which the WebSocket is followed. Says in its findings what could not be checked."""
        try:
            await self._check_rest()
            if seconds > 0:
                await self._check_live(seconds)
        except* (CannotCheck, UnknownSymbol) as group:
            self.findings.unchecked = str(next(leaves_of(group)))
        except* UpstreamUnavailable as group:
            self.findings.unchecked = f"Binance cannot be asked: {next(leaves_of(group))}"
        self._view.end()
        found = [*self.findings.differences, *self._view.differences]
        self.findings.differences = sorted(dict.fromkeys(found), key=lambda one: (one.time or 0, one.field))
        return self.findings

    # --- REST

    async def _check_rest(self) -> None:
        # Binance first: what it has by then the server must have, but for the candle that may just have begun.
        newest = await self._binance.rest.newest(self._series, 2, patience=_PATIENCE)
        await self._load()
        candles = list(self._view.candles.values())
        self.findings.candles = len(candles)
        self.findings.filled = sum(candle.filled for candle in candles)
        self._judge_newest(newest)
        if not candles:
            return
        first = candles[0].time
        if len(candles) < _PAGE:
            older = await self._binance.rest.klines(self._series, end_time=first - 1, limit=1, patience=_PATIENCE)
            self._note(bool(older), first, "missing", f"{len(candles)} candles, from here on", "has older ones")
        rows = await self._rows(first, candles[-1].time)
        self.findings.differences += compare(self._series, self._view, rows)

    async def _load(self) -> None:
        loaded = await self._server.candles(self._series)
        self.findings.differences += loaded.differences
        self.findings.state, self._position = loaded.state, loaded.position
        self._view.load(loaded.candles)

    def _judge_newest(self, rows: tuple[Candle, ...]) -> None:
        """The server is late when a candle that Binance has finished is not even begun there."""
        if not rows:
            return
        newest, due = self._view.newest, self._series.interval.previous(rows[-1].open_time)
        is_late = newest is None or newest.time < due
        shown = "-" if newest is None else f"newest {newest.time // 1000}"
        self._note(is_late, due, "late", f"{shown} ({self.findings.state})", f"newest {rows[-1].open_time // 1000}")

    async def _rows(self, start: int, end: int) -> list[Candle]:
        """Binance's rows from ``start`` on; with one after ``end``, if there is one, which makes that one final."""
        rows: dict[int, Candle] = {}
        while True:
            page = await self._binance.rest.klines(self._series, start_time=start, limit=_PAGE, patience=_PATIENCE)
            rows |= {row.open_time: row for row in page}
            if len(page) < _PAGE or page[-1].open_time > end:
                return [rows[time] for time in sorted(rows)]
            start = page[-1].open_time

    # --- live

    async def _check_live(self, seconds: float) -> None:
        newest = self._view.newest
        began = 0 if newest is None else newest.time
        ends_at = trio.current_time() + seconds
        with trio.move_on_at(ends_at):
            async with trio.open_nursery() as nursery:
                if self._measures:
                    nursery.start_soon(self._again_and_again, self._listen_to_binance, _PAUSE_OF_BINANCE)
                await self._again_and_again(self._listen, _PAUSE)
        self._judge_closes()
        last = max((time for time, candle in self._view.candles.items() if candle.closed), default=began)
        rows: list[Candle] = []
        for _ in range(_ASK_AGAIN):
            rows = await self._rows(began, last)
            if any(row.closed and row.open_time >= last for row in rows):
                break
            await trio.sleep(1)
        self.findings.differences += compare(self._series, self._view, rows)
        if self._refusal:
            raise CannotCheck(f"its WebSocket is not open: {self._refusal}")

    async def _again_and_again(self, listen: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            await listen()
            await trio.sleep(pause)

    async def _listen(self) -> None:
        """One connection to the server, until it ends. Raises `CannotCheck` where no client would come back."""
        try:
            async with self._server.follow(self._series, self._position) as connection:
                self._refusal = ""
                while True:
                    self._take(str(await connection.get_message()), trio.current_time())
        except* ENDS as group:
            ended = next(leaves_of(group))
        code = ended.reason.code if isinstance(ended, trio_websocket.ConnectionClosed) and ended.reason else 1006
        if code == _TOO_OLD:
            await self._load()
        elif code not in _COME_BACK:
            raise CannotCheck(f"its WebSocket for {self._series} was closed with {code}")
        self._refusal = str(ended) or type(ended).__name__

    def _take(self, text: str, now: float) -> None:
        candle = read_candle(read_json(text), self._series)
        self._view.take(candle)
        self._position = candle.position or self._position
        self.findings.live += 1
        if candle.closed:
            close = self._closes.setdefault(candle.time, _Close())
            close.here = min(close.here, now)

    async def _listen_to_binance(self) -> None:
        url = combined_url(self._binance.stream_url, [self._series])
        try:
            async with self._binance.open_socket(url, ()) as connection:
                while True:
                    text = await connection.get_message()
                    now = trio.current_time()
                    try:
                        frame = parse_frame(text)
                    except UnreadableFrame:
                        continue
                    if isinstance(frame, Kline) and frame.candle.closed:
                        # Invariant 7 is the server's; this is the way between two clocks, shown to people.
                        way = time.time() - frame.event_time / 1000
                        close = self._closes.setdefault(frame.candle.open_time, _Close())
                        close.at_binance = now - way if 0 <= way <= AGREEMENT else now
        except* ENDS:
            pass  # and again; until then no delay is measured

    def _judge_closes(self) -> None:
        now = trio.current_time()
        for open_time, close in sorted(self._closes.items()):
            self.findings.closes += close.here < inf
            if close.at_binance == inf:
                continue
            if close.here < inf:
                delay = close.here - close.at_binance
                self.findings.delays.append(delay)
                self._note(delay > LATE, open_time, "late", f"closed {delay:.1f} s after", "its event")
            elif (candle := self._view.candles.get(open_time)) is None or not candle.closed:
                ago = now - close.at_binance
                self._note(ago > LATE, open_time, "late", "no close", f"closed {ago:.1f} s ago")

    def _note(self, is_wrong: bool, open_time: int | None, field: str, served: str, due: str) -> None:
        if is_wrong:
            self.findings.differences.append(Difference(open_time, field, served, due))
