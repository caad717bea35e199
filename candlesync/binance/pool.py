"""The feeds of all symbols: one each, or for hundreds of symbols some that several share.

Alone, a symbol's feed runs inside the symbol's own task, which thus really holds its connection: they die together.
Shared, a feed runs in the pool, and each symbol's task takes its events from a memory channel of its own; what happens
to one symbol then does not touch the others on the same connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Never

import trio

from candlesync.binance.delay import EventDelay
from candlesync.binance.feed import Feed, FeedStatistics, Sink
from candlesync.binance.hosts import Hosts
from candlesync.binance.pace import ConnectionPace, PaceStatistics
from candlesync.binance.stream import StreamSettings
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.nursery import HeldNursery
from candlesync.websocket import Connect, open_websocket


class SymbolFeed:
    """The streams of one symbol, on a connection of its own or a shared one."""

    def __init__(self, symbol: str, feed: Feed) -> None:
        self._symbol = symbol
        self._feed = feed

    def follow(self, interval: Interval) -> None:
        """Want the series from now on."""
        self._feed.follow(Series(self._symbol, interval))

    def drop(self, interval: Interval) -> None:
        """Want the series no longer. If it was connected, the sink is told that it is lost before this returns, and
        nothing more of it until it is connected again."""
        self._feed.drop(Series(self._symbol, interval))

    def reconnect(self, reason: str) -> None:
        """Make the connection anew, with all that it carries. Without one, do nothing: one is being made anyway."""
        self._feed.reconnect(reason)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot."""

    feeds: tuple[FeedStatistics, ...]
    """Those that there are."""
    frames: int
    """This and the next four: of all feeds that there ever were, those that are gone too; see `FeedStatistics`."""
    unreadable: int
    connects: int
    failures: int
    renewals: int
    delay: EventDelay
    dropped: int
    """Frames dropped because a symbol's task, on a shared feed, did not take them in time; since the pool was made."""
    pace: PaceStatistics
    """Of all connection attempts."""
    url: str
    """The host that is connected to: another than the first when that one has refused the location."""


_SUMMED = ("frames", "unreadable", "connects", "failures", "renewals")


class FeedPool:
    """Gives each symbol its feed. `run` owns the shared ones, and has to run while one is used."""

    def __init__(
        self,
        settings: StreamSettings,
        pace: ConnectionPace,
        *,
        connect: Connect = open_websocket,
    ) -> None:
        self._settings = settings
        self._pace = pace
        self._connect = connect
        self._hosts = Hosts(settings.urls)
        self._feeds: dict[str, Feed] = {}
        """All feeds, own and shared, by name."""
        self._shared: list[_SharedFeed] = []
        self._shared_made = 0
        self._symbols: set[str] = set()
        self._mailboxes: dict[str, _Mailbox] = {}
        self._gone = Counter[str]()
        """What feeds that are gone have counted."""
        self._delay = EventDelay()
        self._dropped = 0
        """By mailboxes that are gone."""
        self._running = HeldNursery()
        """The shared feeds."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Run the shared feeds, for ever. A symbol of a shared feed that fails does not show here; a feed does."""
        await self._running.run(task_status=task_status)

    @asynccontextmanager
    async def subscription(self, symbol: str, sink: Sink) -> AsyncIterator[SymbolFeed]:
        """The symbol's feed, of use as long as the block lasts. The sink is called from a task inside the block.

        What the sink raises, the block raises (in a group), and nobody else. Raises `ValueError` when the symbol has
        a subscription already, `RuntimeError` when the feed is to be shared and `run` is not running.
        """
        if symbol in self._symbols:
            raise ValueError(f"{symbol} has a subscription already")
        self._symbols.add(symbol)
        try:
            if self._settings.symbols_per_connection == 1:
                async with self._own_feed(symbol, sink) as own:
                    yield own
            else:
                async with self._shared_feed(symbol, sink) as shared:
                    yield shared
        finally:
            self._symbols.remove(symbol)

    def statistics(self) -> PoolStatistics:
        dropped = self._dropped + sum(mailbox.dropped for mailbox in self._mailboxes.values())
        feeds = tuple(feed.statistics() for feed in self._feeds.values())
        sums = {name: self._gone[name] + sum(getattr(feed, name) for feed in feeds) for name in _SUMMED}
        return PoolStatistics(
            feeds=feeds,
            **sums,
            delay=self._delay,
            dropped=dropped,
            pace=self._pace.statistics(),
            url=self._hosts.url,
        )

    @asynccontextmanager
    async def _own_feed(self, symbol: str, sink: Sink) -> AsyncIterator[SymbolFeed]:
        feed = self._make(symbol, sink)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed.run)
                yield SymbolFeed(symbol, feed)
                nursery.cancel_scope.cancel()
        finally:
            self._let_go(symbol)

    @asynccontextmanager
    async def _shared_feed(self, symbol: str, sink: Sink) -> AsyncIterator[SymbolFeed]:
        shared = self._with_room()
        mailbox = _Mailbox(sink, self._settings.symbol_queue_size)
        shared.mailboxes[symbol] = self._mailboxes[symbol] = mailbox
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mailbox.deliver)
                yield _SharedSymbolFeed(symbol, shared.feed, mailbox)
                nursery.cancel_scope.cancel()
        finally:
            # First the mailbox: nobody is told any more of what is dropped after it.
            del shared.mailboxes[symbol], self._mailboxes[symbol]
            self._dropped += mailbox.dropped
            for interval in INTERVALS:
                shared.feed.drop(Series(symbol, interval))
            if not shared.mailboxes:
                shared.scope.cancel()
                self._shared.remove(shared)
                self._let_go(shared.feed.name)

    def _with_room(self) -> _SharedFeed:
        for shared in self._shared:
            # The limit keeps within Binance's streams per connection, whatever intervals come: see StreamSettings.
            if len(shared.mailboxes) < self._settings.symbols_per_connection:
                return shared
        if self._running.nursery is None:
            raise RuntimeError("the pool does not run")
        self._shared_made += 1
        shared = _SharedFeed(partial(self._make, f"shared-{self._shared_made}"))
        self._shared.append(shared)
        self._running.nursery.start_soon(shared.run)
        return shared

    def _make(self, name: str, sink: Sink) -> Feed:
        feed = Feed(
            self._settings,
            self._pace,
            sink,
            name=name,
            connect=self._connect,
            hosts=self._hosts,
            delay=self._delay,
        )
        self._feeds[name] = feed
        return feed

    def _let_go(self, name: str) -> None:
        gone = self._feeds.pop(name).statistics()
        self._gone.update({name: getattr(gone, name) for name in _SUMMED})


class _SharedSymbolFeed(SymbolFeed):
    """The streams of one symbol on a shared connection."""

    def __init__(self, symbol: str, feed: Feed, mailbox: _Mailbox) -> None:
        super().__init__(symbol, feed)
        self._mailbox = mailbox

    def drop(self, interval: Interval) -> None:
        self._mailbox.forget(Series(self._symbol, interval))
        super().drop(interval)


class _SharedFeed:
    """A feed that several symbols share, and its sink: each event goes into the mailbox of its symbol."""

    def __init__(self, make: Callable[[Sink], Feed]) -> None:
        self.feed = make(self)
        self.mailboxes: dict[str, _Mailbox] = {}
        self.scope = trio.CancelScope()
        """Cancelled when no symbol is left."""

    async def run(self) -> None:
        with self.scope:
            await self.feed.run()

    def stream_connected(self, series: Series) -> None:
        if mailbox := self.mailboxes.get(series.symbol):
            mailbox.put_change(_Connected(series))

    def stream_frame(self, series: Series, candle: Candle) -> None:
        if mailbox := self.mailboxes.get(series.symbol):
            mailbox.put_frame(_Frame(series, candle))

    def stream_lost(self, series: Series, reason: str) -> None:
        if mailbox := self.mailboxes.get(series.symbol):
            mailbox.put_change(_Lost(series, reason))


@dataclass(frozen=True, slots=True)
class _Connected:
    series: Series


@dataclass(frozen=True, slots=True)
class _Frame:
    series: Series
    candle: Candle


@dataclass(frozen=True, slots=True)
class _Lost:
    series: Series
    reason: str


_Change = _Connected | _Lost


class _Mailbox:
    """The events of one symbol, between the shared feed, which never waits, and the symbol's own task.

    Bounded: when the channel is full, frames are dropped and counted. The core heals that: the next forming frame
    stands for those before it, and a lost close shows as a gap. Connected and lost are never dropped: what finds the
    channel full waits beside it, and everything that comes after waits there, too, or is dropped.
    """

    def __init__(self, sink: Sink, size: int) -> None:
        self._sink = sink
        self._send, self._receive = trio.open_memory_channel[tuple[int, _Change | _Frame]](size)
        """Each event with its number, from 1."""
        self._beside: dict[Series, list[_Change]] = {}
        """Changes after the last event of the channel. Not empty only while the channel is not: `deliver` looks here
        when it has emptied the channel."""
        self._count = 0
        """Events put into the channel."""
        self._forgotten: dict[Series, int] = {}
        """Of a dropped series: the last event that is not for the sink any more."""
        self._live: set[Series] = set()
        """Series whose last change that the sink was told is connected."""
        self.dropped = 0

    def put_frame(self, frame: _Frame) -> None:
        if self._beside or not self._put(frame):
            self.dropped += 1

    def put_change(self, change: _Change) -> None:
        if not self._beside and self._put(change):
            return
        changes = self._beside.setdefault(change.series, [])
        changes.append(change)
        # Connected and lost take turns, and no frame is between them here: of three, the first two cancel out. So a
        # symbol that is never served costs two changes a series, however often its connection is made anew.
        if len(changes) == 3:
            del changes[:2]

    def forget(self, series: Series) -> None:
        """The symbol's task has dropped the series: it is told so now, and nothing of what is on its way."""
        self._forgotten[series] = self._count
        self._beside.pop(series, None)
        self._tell(_Lost(series, "dropped"))

    async def deliver(self) -> Never:
        """Call the sink with each event, in order. In the end, what was connected is lost."""
        try:
            while True:
                number, event = await self._receive.receive()
                if number > self._forgotten.get(event.series, 0):
                    self._tell(event)
                if self._beside and not self._receive.statistics().current_buffer_used:
                    beside, self._beside = self._beside, {}
                    for changes in beside.values():
                        for change in changes:
                            self._tell(change)
        finally:
            for series in sorted(self._live, key=str):
                self._sink.stream_lost(series, "stopped")

    def _put(self, event: _Change | _Frame) -> bool:
        try:
            self._send.send_nowait((self._count + 1, event))
        except trio.WouldBlock:
            return False
        self._count += 1
        return True

    def _tell(self, event: _Change | _Frame) -> None:
        match event:
            case _Connected(series):
                self._live.add(series)
                self._sink.stream_connected(series)
            case _Frame(series, candle):
                self._sink.stream_frame(series, candle)
            case _Lost(series, reason) if series in self._live:
                self._live.remove(series)
                self._sink.stream_lost(series, reason)
