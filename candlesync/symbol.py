"""The task of one symbol: it holds the symbol's feed and keeps all of its series continuous."""

from __future__ import annotations

from contextlib import suppress

import structlog
import trio

from candlesync.binance.pool import FeedPool, SymbolFeed
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.sync import Rules
from candlesync.errors import Fenced, StoreUnavailable
from candlesync.hub import Hub
from candlesync.inspection import InspectionSettings, watch_fills, watch_silence
from candlesync.store.base import Store
from candlesync.synchronizer import Klines, Synchronizer

_log = structlog.get_logger(__name__)


class SymbolTask:
    """One symbol, followed. Intervals come and go while it runs.

    It is the ``Sink`` of its feed: what the stream shows goes straight to the series' synchronizer, which only takes
    note of it (invariant 8).
    """

    def __init__(
        self,
        symbol: str,
        intervals: set[Interval],
        *,
        hub: Hub,
        store: Store,
        klines: Klines,
        feeds: FeedPool,
        rules: Rules,
        inspection: InspectionSettings,
    ) -> None:
        self.symbol = symbol
        self._intervals = intervals
        self._hub = hub
        self._store = store
        self._klines = klines
        self._feeds = feeds
        self._rules = rules
        self._inspection = inspection
        self._synchronizers: dict[Interval, Synchronizer] = {}
        self._scopes: dict[Interval, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._feed: SymbolFeed | None = None
        self._token = 0
        self._letting_go = trio.Lock()
        """Held while the store forgets a series: nobody reads it then, to follow it again."""

    async def run(self) -> None:
        """Follow the symbol until cancelled.

        Raises what a synchronizer or the feed raises, in an exception group; then nothing of it is left running.
        """
        self._token = await self._store.claim(self.symbol)
        # The nursery inside the feed's block: the consumers are cancelled before what they consume from.
        async with self._feeds.subscription(self.symbol, self) as self._feed:
            try:
                async with trio.open_nursery() as self._nursery:
                    for interval in sorted(self._intervals, key=str):
                        self._nursery.start_soon(self._follow, interval)
                    await trio.sleep_forever()
            finally:
                self._nursery = None  # closed to new arrivals, while the feed still ends

    def add(self, interval: Interval) -> None:
        """Follow one more interval."""
        self._intervals.add(interval)
        if self._nursery is not None:
            self._nursery.start_soon(self._follow, interval)

    async def remove(self, interval: Interval) -> None:
        """Follow an interval no more, and let go of what was kept of it."""
        self._intervals.discard(interval)
        if self._synchronizers.pop(interval, None) is not None:
            self._scopes.pop(interval).cancel()
            if self._feed is not None:
                self._feed.drop(interval)
        series = Series(self.symbol, interval)
        self._hub.close(series)
        async with self._letting_go:
            # Fenced: the symbol has another owner, who may keep it. Unavailable: it is no memory of ours.
            with suppress(Fenced, StoreUnavailable):
                await self._store.forget(series, token=self._token)

    @property
    def synchronizers(self) -> dict[Interval, Synchronizer]:
        """The running synchronizers, for statistics."""
        return self._synchronizers

    # --- the feed's sink

    def stream_connected(self, series: Series) -> None:
        """See ``binance.feed.Sink``."""
        synchronizer = self._synchronizers.get(series.interval)
        if synchronizer is not None:
            synchronizer.connected()

    def stream_frame(self, series: Series, candle: Candle) -> None:
        """See ``binance.feed.Sink``."""
        synchronizer = self._synchronizers.get(series.interval)
        if synchronizer is not None:
            synchronizer.frame(candle)

    def stream_lost(self, series: Series, reason: str) -> None:
        """See ``binance.feed.Sink``."""
        synchronizer = self._synchronizers.get(series.interval)
        if synchronizer is not None:
            _log.debug("feed lost", series=str(series), reason=reason)
            synchronizer.lost()

    async def _follow(self, interval: Interval) -> None:
        async with self._letting_go:
            pass  # or what is read of the series now might be gone before it is changed
        feed = self._feed
        if feed is None or interval not in self._intervals or interval in self._synchronizers:
            return
        topic = self._hub.open(Series(self.symbol, interval))
        synchronizer = Synchronizer(topic, self._store, self._klines, self._rules, token=self._token)
        with trio.CancelScope() as scope:
            self._synchronizers[interval], self._scopes[interval] = synchronizer, scope
            try:
                feed.follow(interval)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch_silence, synchronizer, self._inspection, feed.reconnect)
                    nursery.start_soon(watch_fills, synchronizer, self._inspection)
                    await synchronizer.run()
            finally:
                # `remove` may have let go of it already, and another may follow the interval since.
                if self._synchronizers.get(interval) is synchronizer:
                    del self._synchronizers[interval], self._scopes[interval]
                    feed.drop(interval)
