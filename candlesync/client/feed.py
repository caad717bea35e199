"""Follows one series: loads it over REST, follows it over a WebSocket, and resumes with its position after a break."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, Self

import msgspec
import trio

from candlesync.client.candles import Candle, Candles, Change, successor
from candlesync.client.older import FINAL, PAGE, Loads, Older
from candlesync.client.pauses import Pauses
from candlesync.client.server import Broken, Message, Server, Talk
from candlesync.core.interval import INTERVALS, Interval
from candlesync.errors import FeedError

QUIET: Final = 15.0
"""Seconds without a word, after which the server is asked for one; what comes then comes in as many."""
_log = logging.getLogger("candlesync.client")
_OVERLOADED: Final = (1013, 4429)
"""Too slow, or too many messages: not at once again."""


class State(Enum):
    """How true the candles are."""

    LIVE = "live"
    """Connected, and whole."""
    SYNCING = "syncing"
    """Loading or catching up: true as far as it goes."""
    OFFLINE = "offline"
    """No connection to the server, or none from the server to the exchange: true up to the newest candle."""


@dataclass(slots=True)
class Tally:
    """What has happened to a feed since it began."""

    messages: int = 0
    breaks: int = 0
    """Connections that were lost."""
    gaps: int = 0
    """Times that whole candles were missed, and then fetched."""
    missed: int = 0
    """Those candles."""
    corrections: int = 0
    """Closed candles that have changed."""
    loads: int = 0
    """Loads over REST, the first one included."""


class Source(Loads, Protocol):
    """What a feed needs of a `Server`."""

    def open(self) -> AbstractAsyncContextManager[Talk]: ...


class Feed:
    """The candles of one series, kept whole. `follow` makes one.

    Iterating (in one task) gives each candle that is new or has changed, as it is then: first those that were loaded,
    ascending; after that a forming candle at each change, its close, and corrections of older ones. `closed` gives the
    closed ones alone. Who is slow skips changes in between, never a candle: what is no longer held is asked of the
    server again, so that memory stays bounded.
    """

    def __init__(
        self,
        server: Source,
        symbol: str,
        interval: str = "1m",
        *,
        load: int = PAGE,
        most: int = 20_000,
        on_state: Callable[[State, str], None] | None = None,
    ) -> None:
        """Raises `ValueError` for what cannot be."""
        names = [str(one) for one in INTERVALS]
        if interval not in names:
            raise ValueError(f"interval {interval!r}: one of {' '.join(names)}")
        if not 1 <= load <= PAGE:
            raise ValueError(f"load {load}: 1 to {PAGE}")
        if not symbol.strip():
            raise ValueError("a symbol is needed")
        self.symbol = symbol.strip().upper()
        self.interval = interval
        self.state = State.SYNCING
        self.reason = ""
        """Of the state, for people."""
        self.tally = Tally()
        self._server = server
        self._load = load
        self._candles = Candles(Interval(interval), max(most, PAGE))
        self._older = Older(server, self.symbol, self._candles.interval)
        self._page: deque[Candle] = deque()
        """Candles that are no longer held, on their way to who iterates."""
        self._on_state = on_state
        self._told: tuple[State, str] | None = None
        self._position = ""
        self._pauses = Pauses()
        self._is_connected = False
        self._behind: Candle | None = None
        """The newest candle when sight of the series was lost, until it is whole again."""
        self._error: FeedError | None = None
        self._changed = trio.Event()

    @property
    def candles(self) -> Sequence[Candle]:
        """All that are held, ascending, none missing between two."""
        return self._candles.list

    @property
    def newest(self) -> Candle | None:
        return self._candles.newest

    def at(self, time: int) -> Candle | None:
        """The candle of an open time in UNIX seconds, if it is held."""
        return self._candles.at(time)

    # --- what it gives

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Candle:
        """Raises `FeedError` when the server refuses for good, after the last candle."""
        await trio.lowlevel.checkpoint()
        candles = self._candles
        while True:
            if self._page:
                candle = self._page.popleft()
                candles.due = successor(candle.time, candles.interval)
                return candle
            if candles.due is not None and candles.is_due_dropped:
                due, page = candles.due, await self._older.page(candles.due, candles.list[0].time)
                if not page or page[0].time != due:
                    raise _hole(due)
                self._page.extend(page)
                continue
            changed = candles.pop_changed()
            if changed is not None:
                return changed
            await self._wait()

    def closed(self, since: int | None = None) -> AsyncIterator[Candle]:
        """Each closed candle once, in order, none left out, whatever happens to the connection or the server.

        Begins with the oldest that was loaded; or with the first that opens at ``since`` (UNIX seconds) or later, be it
        years ago: a bot that keeps the open time of the last candle it has dealt with goes on from there. A candle that
        is corrected after it was given is not given again: who needs corrections iterates the feed, beside this one.

        Raises `ValueError` for a time that is none, and when iterated `FeedError`: when the server refuses for good;
        ``hole`` when it has no candle where one must be.
        """
        if since is not None and not 0 <= since < 10**11:
            raise ValueError(f"since {since}: a time in UNIX seconds")
        return _Closed(self, since)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        await self._changed.wait()

    # --- what runs beside

    async def run(self) -> None:
        """Keep the candles whole until cancelled, or until that is of no use: then iterating says why."""
        self._tell(State.SYNCING, "loading")
        while True:
            wait = 0.0
            try:
                if not self._position:
                    await self._begin()
                await self._follow()
            except Broken as broken:
                self._tell(State.OFFLINE, str(broken))
                wait = Pauses.LAST / 2 if broken.code in _OVERLOADED else 0.0
            except FeedError as error:
                if error.code in FINAL:
                    self._error = error
                    self._tell(State.OFFLINE, str(error))
                    self._wake()
                    return
                if error.code == "too_old":
                    self._position = ""
                    self._tell(State.SYNCING, "loading again: what was missed cannot be resumed")
                else:
                    self._tell(State.OFFLINE, str(error))
                wait = error.retry_after
            self._behind = self._behind or self.newest
            await trio.sleep(self._pauses.take(wait))

    async def _begin(self) -> None:
        # With candles at hand, all that the server has is compared with them: one may have been corrected meanwhile.
        limit = PAGE if self._candles.list else self._load
        answer = await self._server.load(self.symbol, self.interval, limit=limit)
        if not answer.position:
            raise FeedError("bad_answer", "the answer has no Candlesync-Position")
        self._candles.load(answer.candles)
        self._position = answer.position
        self.tally.loads += 1
        self._count_missed()
        self._wake()

    async def _follow(self) -> None:
        try:
            async with self._server.open() as talk:
                self._is_connected = True
                self._tell(State.SYNCING, "catching up")
                subscription: dict[str, object] = {"op": "subscribe", "symbol": self.symbol, "interval": self.interval}
                await talk.say({**subscription, "position": self._position, "id": 1})
                began = trio.current_time()
                while True:
                    self._read(await _hear(talk))
                    if trio.current_time() - began > Pauses.LAST:
                        self._pauses.succeed()
        except Broken:
            self.tally.breaks += self._is_connected
            raise
        finally:
            self._is_connected = False

    def _read(self, data: bytes) -> None:
        try:
            message = msgspec.json.decode(data, type=Message)
            candle = None if message.op else msgspec.json.decode(data, type=Candle)
        except msgspec.DecodeError as error:
            raise Broken(f"a message that cannot be read: {error}") from error
        self.tally.messages += 1
        if candle is not None:
            if (candle.symbol, candle.interval) != (self.symbol, self.interval):
                raise Broken("the server sent a candle of another series")
            self._take(candle)
            if message.position:
                # One without a position is part of a catch-up: to resume in its midst, the position before it counts.
                self._position = message.position
                self._count_missed()
                self._pauses.succeed()
        elif message.op == "state":
            if message.state == "stale":
                self._tell(State.OFFLINE, "the server has no connection to the exchange")
            else:
                self._tell(State.LIVE if message.state == "live" else State.SYNCING, "")
        elif message.op == "error":
            raise FeedError(message.code, message.message, retry_after=0 if message.code == "too_old" else 1)

    def _take(self, candle: Candle) -> None:
        before = self.at(candle.time)
        change = self._candles.take(candle)
        if change is Change.HOLE:
            raise FeedError("too_old", f"a candle is missing before that of {candle.time}")
        if change is not Change.NOTHING:
            self.tally.corrections += before is not None and before.closed
            self._wake()

    def _count_missed(self) -> None:
        """The series is whole again: count what was missed; whole, so not what was forming at the break."""
        if self._behind is not None and self._candles.list:
            missed = self._candles.closed_since(self._behind)
            self.tally.gaps += missed > 0
            self.tally.missed += missed
        self._behind = None

    def _tell(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
        if self._told == (state, reason):
            return
        self._told = (state, reason)
        if self._on_state is not None:
            self._on_state(state, reason)
        else:
            # Who asked for nothing is to see why nothing comes: a wrong URL is tried for ever.
            level = logging.WARNING if state is State.OFFLINE else logging.INFO
            _log.log(level, "%s %s is %s%s", self.symbol, self.interval, state.value, reason and f": {reason}")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Closed:
    """The closed candles of a feed. No generator: who breaks off leaves nothing behind that wants to be closed."""

    def __init__(self, feed: Feed, since: int | None) -> None:
        self._feed = feed
        self._due = since
        self._is_begun = False
        self._page: deque[Candle] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Candle:
        await trio.lowlevel.checkpoint()
        while not self._page:
            if not await self._look():
                await self._feed._wait()
        if self._is_begun and self._page[0].time != self._due:
            raise _hole(self._due)
        candle = self._page.popleft()
        self._due, self._is_begun = successor(candle.time, self._feed._candles.interval), True
        return candle

    async def _look(self) -> bool:
        """Look for what is due; whether anything was found out."""
        candles = self._feed._candles
        if not candles.list:
            return False
        oldest = candles.list[0].time
        due = self._due = oldest if self._due is None else self._due
        if due < oldest:
            self._page.extend(await self._feed._older.page(due, oldest))
            if not self._page and self._is_begun:
                raise _hole(due)
            self._due = due if self._page else oldest
            return True
        # Not what has changed, but what comes next: no order of arrival can leave one out.
        found = candles.since(due)
        if found is None or not found.closed:
            return False
        self._page.append(found)
        return True


def _hole(due: int | None) -> FeedError:
    return FeedError("hole", f"the server has no candle of {due}, which comes next")


async def _hear(talk: Talk) -> bytes:
    """The next message. Silence may be death, which a socket does not say: then the server is asked for a word."""
    with trio.move_on_after(QUIET):
        return await talk.hear()
    await talk.say({"op": "ping"})
    with trio.move_on_after(QUIET):
        return await talk.hear()
    raise Broken("the server says nothing")


@asynccontextmanager
async def follow(
    symbol: str,
    interval: str = "1m",
    *,
    url: str = "http://127.0.0.1:8000",
    token: str = "",
    load: int = PAGE,
    most: int = 20_000,
    on_state: Callable[[State, str], None] | None = None,
) -> AsyncIterator[Feed]:
    """Follow a series of the server at ``url`` until the block is left.

    ``load``: with how many candles to begin, 1 to 1000. ``most``: how many to hold (1,000 at least; some 0.8 KB each).
    ``on_state`` is called at each change of the state, with its reason; without it `logging`'s ``candlesync.client`` is
    told, of ``offline`` as a warning. Raises `ValueError` for what cannot be. What
    the server refuses for good raises `FeedError` where the feed is iterated; all else is tried again, for ever.
    """
    feed_server = Server(url, token)
    try:
        feed = Feed(feed_server, symbol, interval, load=load, most=most, on_state=on_state)
        async with _beside(feed):
            yield feed
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await feed_server.aclose()


_PLAIN: Final = (Exception, KeyboardInterrupt, SystemExit)


@asynccontextmanager
async def _beside(feed: Feed) -> AsyncIterator[None]:
    """Run a feed beside the block. What either raises comes out as it is, not in a nursery's group."""
    failures: list[BaseException] = []
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            try:
                await feed.run()
            except _PLAIN as error:  # raised again below: what `on_state` raises, say
                failures.append(error)
                nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        try:
            yield
        except _PLAIN as error:
            failures.append(error)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
