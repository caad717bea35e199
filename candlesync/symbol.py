"""The task of one symbol: it owns the symbol, or follows the node that does.

    follow ──`Ownership.obtain`──▶ own: feed and synchronizers ──`Tenure.ended`, `Fenced`──▶ give up ──▶ follow

Whoever owns a symbol holds its Binance connection and keeps all of its series continuous; whoever follows it shows what
the owner commits. The two take turns and never overlap: only one of them shows anything of a series.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field

import structlog
import trio

from candlesync.announcements import Announcements
from candlesync.audit import Audit
from candlesync.binance.pool import FeedPool, SymbolFeed
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.record import Record
from candlesync.core.report import SeriesReport
from candlesync.core.sync import Rules
from candlesync.errors import Fenced, StoreUnavailable
from candlesync.follower import Follower
from candlesync.hub import Hub
from candlesync.inspection import InspectionSettings, watch_fills, watch_silence
from candlesync.ownership import Ownership, Tenure
from candlesync.store.base import Store
from candlesync.synchronizer import Klines, Synchronizer

_log = structlog.get_logger(__name__)

_GIVE_UP_WITHIN = 5.0
"""Seconds that giving a symbol up is waited for, also by who is being cancelled. `Ownership.give_up` promises to be
bounded; this bounds the shield whatever it does."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the tasks of all symbols work with."""

    hub: Hub
    store: Store
    klines: Klines
    feeds: FeedPool
    rules: Rules
    inspection: InspectionSettings
    ownership: Ownership
    announcements: Announcements
    audit: Audit
    record: Record = field(default_factory=Record)


class SymbolTask:
    """One symbol, owned or followed. Intervals come and go while it runs.

    It is the ``Sink`` of its feed: what the stream shows goes straight to the series' synchronizer, which only takes
    note of it (invariant 8).
    """

    def __init__(self, symbol: str, intervals: set[Interval], means: Means) -> None:
        self.symbol = symbol
        self.tenure: Tenure | None = None
        """While this node owns the symbol."""
        self.synchronizers: dict[Interval, Synchronizer] = {}
        """Those that run now: none while the symbol is followed."""
        self.followers: dict[Interval, Follower] = {}
        """Those that run now: none while the symbol is owned."""
        self._intervals = intervals
        self._means = means
        self._scopes: dict[Interval, trio.CancelScope] = {}
        self._start: Callable[[Interval], None] | None = None
        """Starts what the present role does for an interval; `None` while there is no role."""
        self._feed: SymbolFeed | None = None
        self._letting_go = trio.Lock()
        """Held while the store forgets a series: nobody reads it then, to have it again."""

    async def run(self) -> None:
        """Follow the symbol, and own it whenever that is this node's turn, until cancelled.

        Raises what a synchronizer or the feed raises, in an exception group; then nothing of it is left running.
        """
        try:
            while True:
                await self._follow_until_turn()
                await self._own_until_end()
        finally:
            await self._give_up()

    def add(self, interval: Interval) -> None:
        """Have one more interval."""
        self._intervals.add(interval)
        if self._start is not None:
            self._start(interval)

    async def remove(self, interval: Interval) -> None:
        """Have an interval no more, and let go of what was kept of it."""
        self._intervals.discard(interval)
        scope = self._scopes.pop(interval, None)
        if scope is not None:
            scope.cancel()
        self.followers.pop(interval, None)
        if self.synchronizers.pop(interval, None) is not None and self._feed is not None:
            self._feed.drop(interval)
        series = Series(self.symbol, interval)
        self._means.hub.close(series)
        tenure = self.tenure
        if tenure is None:
            return  # the store is another node's to tidy
        async with self._letting_go:
            # Fenced: the symbol has another owner, who may keep it. Unavailable: it is no memory of ours.
            with suppress(Fenced, StoreUnavailable):
                await self._means.store.forget(series, token=tenure.token)

    # --- the roles

    async def _follow_until_turn(self) -> None:
        async with trio.open_nursery() as nursery:
            self._begin_role(nursery, self._follow)
            try:
                # Kept at once, whatever is cancelled: what was obtained has to be given up.
                self.tenure = await self._means.ownership.obtain(self.symbol, self._report)
            finally:
                self._start = None
            nursery.cancel_scope.cancel()

    async def _own_until_end(self) -> None:
        tenure = self.tenure
        assert tenure is not None, "it was obtained"  # noqa: S101 - for mypy; it cannot happen
        # The nursery inside the feed's block: the consumers are cancelled before what they consume from.
        async with self._means.feeds.subscription(self.symbol, self) as self._feed:
            try:
                async with trio.open_nursery() as nursery:
                    self._begin_role(nursery, self._keep)
                    await tenure.ended.wait()
                    nursery.cancel_scope.cancel()
            finally:
                self._start = None  # closed to new arrivals, while the feed still ends
                # Nothing commits any more. The next owner does not wait for the end of our connection.
                await self._give_up()
        self._feed = None
        _log.info("owned no more", symbol=self.symbol, reason=tenure.reason)

    def _begin_role(self, nursery: trio.Nursery, act: Callable[[Interval], Awaitable[None]]) -> None:
        # In a context of its own: an interval outlives the request that adds it, and must not keep its connection.
        self._start = lambda interval: Context().run(nursery.start_soon, act, interval)
        for interval in sorted(self._intervals, key=str):
            self._start(interval)

    async def _give_up(self) -> None:
        tenure, self.tenure = self.tenure, None
        if tenure is not None:
            with trio.move_on_after(_GIVE_UP_WITHIN, shield=True):
                await self._means.ownership.give_up(tenure)

    def _report(self) -> dict[Interval, SeriesReport]:
        """How the symbol's series are, for those who follow."""
        return {
            interval: SeriesReport(synchronizer.topic.state, synchronizer.topic.replica.position)
            for interval, synchronizer in self.synchronizers.items()
            if synchronizer.topic.is_begun
        }

    # --- one interval

    async def _follow(self, interval: Interval) -> None:
        if interval not in self._intervals or interval in self.followers:
            return
        means = self._means
        series = Series(self.symbol, interval)
        follower = Follower(means.hub.open(series), means.store, fresh_for=means.announcements.fresh_for)
        with trio.CancelScope() as scope:
            self.followers[interval], self._scopes[interval] = follower, scope
            try:
                with means.announcements.following(series, follower):
                    await follower.run()
            finally:
                # `remove` may have let go of it already, and another may follow the interval since.
                if self.followers.get(interval) is follower:
                    del self.followers[interval], self._scopes[interval]

    async def _keep(self, interval: Interval) -> None:
        async with self._letting_go:
            pass  # or what is read of the series now might be gone before it is changed
        feed, tenure, means = self._feed, self.tenure, self._means
        if feed is None or tenure is None or interval not in self._intervals or interval in self.synchronizers:
            return
        topic = means.hub.open(Series(self.symbol, interval))
        synchronizer = Synchronizer(
            topic, means.store, means.klines, means.rules, token=tenure.token, record=means.record
        )
        with trio.CancelScope() as scope:
            self.synchronizers[interval], self._scopes[interval] = synchronizer, scope
            topic.on_state_change = lambda: means.ownership.state_changed(tenure)
            try:
                feed.follow(interval)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch_silence, synchronizer, means.inspection, feed.reconnect)
                    nursery.start_soon(watch_fills, synchronizer, means.inspection)
                    try:
                        with (
                            means.announcements.each_time_listening(synchronizer.doubt),
                            means.audit.following(synchronizer),
                        ):
                            await synchronizer.run()
                    except Fenced as error:
                        # No error: another node owns the symbol, or the store has lost who does. What is left of
                        # this one ends with the tenure.
                        tenure.end(str(error))
            finally:
                topic.on_state_change = None
                # See `_follow`.
                if self.synchronizers.get(interval) is synchronizer:
                    del self.synchronizers[interval], self._scopes[interval]
                    feed.drop(interval)

    # --- the feed's sink

    def stream_connected(self, series: Series) -> None:
        """See ``binance.feed.Sink``."""
        synchronizer = self.synchronizers.get(series.interval)
        if synchronizer is not None:
            synchronizer.connected()

    def stream_frame(self, series: Series, candle: Candle) -> None:
        """See ``binance.feed.Sink``."""
        synchronizer = self.synchronizers.get(series.interval)
        if synchronizer is not None:
            synchronizer.frame(candle)

    def stream_lost(self, series: Series, reason: str) -> None:
        """See ``binance.feed.Sink``."""
        synchronizer = self.synchronizers.get(series.interval)
        if synchronizer is not None:
            _log.debug("feed lost", series=str(series), reason=reason)
            synchronizer.lost()
