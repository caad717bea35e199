"""Stand-ins for what is around the task of a symbol: a feed and a REST that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import trio

from candlesync.audit import Audit
from candlesync.binance.feed import Sink
from candlesync.binance.pace import ConnectionPace
from candlesync.binance.pool import FeedPool, SymbolFeed
from candlesync.binance.stream import StreamSettings
from candlesync.binance.weight import WeightBudget
from candlesync.core.audit import AuditSettings
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.errors import UnknownSymbol
from tests.builders import answer, candle, minute


class Feeds(FeedPool):
    """A pool whose one feed is moved by the test, and is its own record of what was asked of it."""

    def __init__(self) -> None:
        settings = StreamSettings(stream_url="ws://binance.test")
        super().__init__(settings, ConnectionPace(settings))
        self.followed: list[Interval] = []
        self.asked: list[tuple[str, Interval]] = []
        self.sink: Sink | None = None
        self.end_after = 0.0
        """How long the feed takes to end: its connection has a close handshake."""

    @asynccontextmanager
    async def subscription(self, symbol: str, sink: Sink) -> AsyncIterator[SymbolFeed]:
        assert symbol == "BTCUSDT"
        assert self.sink is None, "a symbol has one feed"
        self.sink = sink
        try:
            yield cast("SymbolFeed", self)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.end_after)
            self.sink = None

    def follow(self, interval: Interval) -> None:
        self.asked.append(("follow", interval))
        self.followed.append(interval)
        self.connect(interval)

    def drop(self, interval: Interval) -> None:
        self.asked.append(("drop", interval))
        self.followed.remove(interval)

    def reconnect(self, reason: str) -> None:
        raise AssertionError(reason)  # nothing is silent for so long here

    def connect(self, interval: Interval) -> None:
        assert self.sink is not None
        self.sink.stream_connected(Series("BTCUSDT", interval))

    def show(self, series: Series, shown: Candle) -> None:
        assert self.sink is not None
        self.sink.stream_frame(series, shown)


class Klines:
    """REST, which knows the first five candles of each interval, the last one forming."""

    def __init__(self) -> None:
        self.unknown: set[Interval] = set()
        self.asked: list[Interval] = []

    async def klines(
        self, series: Series, *, start_time: int | None = None, limit: int = 1000, patience: float = 0.0
    ) -> tuple[Candle, ...]:
        await trio.sleep(0.01 * (patience > 0))
        self.asked.append(series.interval)
        if series.interval in self.unknown:
            raise UnknownSymbol("Binance does not know BTCUSDT")
        interval = series.interval
        times = [interval.next(interval.floor(minute(0)), number) for number in range(5)]
        rows = [candle(time, interval=interval) for time in times if start_time is None or time >= start_time]
        return answer(rows[:limit])

    async def newest(self, series: Series, count: int, *, patience: float = 0.0) -> tuple[Candle, ...]:
        return (await self.klines(series, patience=patience))[-count:]


def no_audit() -> Audit:
    """An audit that asks nothing."""
    return Audit(AuditSettings(share=0.0), WeightBudget())
