"""A feed: one connection to Binance, kept for ever, and the streams that it carries.

    follow, drop ──▶ roster ──▶ URL, SUBSCRIBE ──▶ Binance ──▶ frame ──▶ `parse_frame` ──▶ sink

Invariant 8: the loop that receives frames never waits for the store or REST. Here it waits for nothing but the next
frame: a sink is called synchronously, and everything else that waits (pings, subscriptions) is a task of its own.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final, Never, Protocol

import structlog
import trio
import trio_websocket

from candlesync.binance.delay import EventDelay
from candlesync.binance.pace import Backoff, ConnectionPace, Seldom, SlidingWindow
from candlesync.binance.parse import Acknowledgement, Kline, ServerShutdown, parse_frame
from candlesync.binance.stream import (
    STREAMS_PER_CONNECTION,
    Failure,
    Request,
    Roster,
    StreamSettings,
    combined_url,
    failure_of,
)
from candlesync.core.candle import Candle, Series
from candlesync.errors import TooMany, UnreadableFrame
from candlesync.websocket import ENDS, Connect, Connection, open_websocket

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_SAMPLE: Final = 8
"""One candle in so many has its way measured, the first too: it takes half a microsecond, and all come the same way."""
_EXCERPT: Final = 200
"""Characters of a frame that may stand in a log line."""


class Sink(Protocol):
    """What is told of streams, synchronously, from the loop that receives frames: it must never block.

    For each series the calls are ``(connected frame* lost)*``, whatever happens; a lost follows each connected also
    when the feed is stopped. A sink may call the feed back (`Feed.follow`, `Feed.drop`, `Feed.reconnect`). One that
    raises takes the task of its feed down.
    """

    def stream_connected(self, series: Series) -> None:
        """The series is subscribed, on a connection that is new to it: what was before may have been missed."""

    def stream_frame(self, series: Series, candle: Candle) -> None:
        """The candle as Binance has it now."""

    def stream_lost(self, series: Series, reason: str) -> None:
        """The series no longer has a feed: its connection ended, or it was dropped."""


@dataclass(frozen=True, slots=True)
class FeedStatistics:
    """A snapshot. The counts are since the feed was made."""

    name: str
    connected: bool
    followed: int
    """Series that are wanted."""
    streams: int
    """Streams that the connection carries: in its URL, or acknowledged on it."""
    frames: int
    """Messages received, of any kind."""
    unreadable: int
    """Messages that are not what Binance documents; binary ones, too."""
    unwanted: int
    """Candles of series that are not followed or not acknowledged yet, and events of other kinds."""
    connects: int
    """Connections opened."""
    failures: int
    """Connections that could not be opened, or that ended while a series was followed."""
    last_failure: str | None


class Feed:
    """One connection to Binance and the streams that it carries: of one symbol, or of several that share it.

    `follow`, `drop` and `reconnect` are synchronous and may be called at any time, `run` or not.
    """

    def __init__(
        self,
        settings: StreamSettings,
        pace: ConnectionPace,
        sink: Sink,
        *,
        name: str,
        connect: Connect = open_websocket,
        random: Random | None = None,
        delay: EventDelay | None = None,
    ) -> None:
        """``delay`` is told of each candle's event time, for people to read."""
        self.name = name
        self._delay = EventDelay() if delay is None else delay
        self._settings = settings
        self._pace = pace
        self._sink = sink
        self._connect = connect
        jitter = random or Random()  # noqa: S311 - jitter is no secret
        self._backoff = Backoff(settings.backoff_first, settings.backoff_cap, jitter)
        self._roster = Roster()
        self._changed = trio.Event()
        """Set when what is wanted has changed; whoever waits for it puts a new one here first."""
        self._session: _Session | None = None
        self._turn_taken = False
        """Whether the pace has already been asked for the next attempt."""
        self._whole_url = False
        """Whether all streams stand in the next URL: a SUBSCRIBE went unanswered or was refused."""
        self._telling = False
        """Whether the sink is being called; still so after it raised: then no error is taken for the connection's."""
        self._counts = Counter[str]()
        self._last_failure: str | None = None
        self._seldom = Seldom(settings.log_period)

    def follow(self, series: Series) -> None:
        """Want the series from now on. Raises `TooMany` when the connection cannot carry one more."""
        wanted = self._roster.wanted
        if series not in wanted and len(wanted) >= STREAMS_PER_CONNECTION:
            raise TooMany(f"feed {self.name}: Binance allows {STREAMS_PER_CONNECTION} streams per connection")
        wanted.add(series)
        self._changed.set()

    def drop(self, series: Series) -> None:
        """Want the series no longer. If it was connected, the sink is told that it is lost before this returns."""
        self._roster.wanted.discard(series)
        self._changed.set()
        if series in self._roster.live:
            self._roster.live.remove(series)
            self._sink.stream_lost(series, "dropped")

    def reconnect(self, reason: str) -> None:
        """Make the connection anew. Without one, do nothing: one is being made anyway."""
        if self._session is not None and self._session.opened is not None:
            self._session.end(Failure(reason), at_once=True)

    def statistics(self) -> FeedStatistics:
        """A snapshot for metrics and reports."""
        counts = self._counts
        return FeedStatistics(
            name=self.name,
            connected=self._session is not None and self._session.opened is not None,
            followed=len(self._roster.wanted),
            streams=len(self._roster.carried),
            frames=counts["frames"],
            unreadable=counts["unreadable"],
            unwanted=counts["unwanted"],
            connects=counts["connects"],
            failures=counts["failures"],
            last_failure=self._last_failure,
        )

    async def run(self) -> Never:
        """Keep the connection for ever, as long as a series is followed; without one there is none.

        Raises only what the sink raises.
        """
        while True:
            while not self._roster.wanted:
                self._turn_taken = False  # it would be stale when it is used
                self._changed = trio.Event()
                await self._changed.wait()
            if not self._turn_taken:
                await self._pace.turn()
            self._turn_taken = False
            if self._roster.wanted:
                await trio.sleep(await self._attempt())

    async def _attempt(self) -> float:
        """Connect, and stay connected until it ends. The answer is how many seconds to wait before the next."""
        settings = self._settings
        series = self._roster.connect(None if self._whole_url else settings.url_streams)
        session = self._session = _Session(trio.current_time() + settings.connect_timeout)
        try:
            with session.scope:
                async with self._connect(
                    combined_url(settings.stream_url, series),
                    message_queue_size=settings.message_queue_size,
                    max_message_size=settings.max_message_size,
                ) as connection:
                    session.open(trio.current_time())
                    self._counts["connects"] += 1
                    self._say("stream connected", streams=len(series))
                    await self._converse(session, connection)
        except* ENDS as group:
            if self._telling:
                raise
            session.end(failure_of(group))
        finally:
            self._session = None
            reason = session.failure.reason if session.failure else "stopped"
            for one in self._roster.disconnect():
                self._sink.stream_lost(one, reason)
        # The scope ends by itself only at its deadline.
        failure = session.failure or Failure(f"not connected within {settings.connect_timeout:g} s")
        return self._pause_after(session, failure)

    def _pause_after(self, session: _Session, failure: Failure) -> float:
        """Count and log how a connection ended; the seconds to wait before the next."""
        if failure.status in (418, 429):
            held = self._settings.limited_pause if failure.retry_after is None else failure.retry_after
            self._pace.hold(held)
            self._warn("no feed may connect", reason=failure.reason, seconds=held)
        if not self._roster.wanted:
            self._say("stream closed", reason=failure.reason)
            return 0.0
        self._counts["failures"] += 1
        self._last_failure = failure.reason
        lasted = 0.0
        if session.opened is None:
            self._whole_url = False  # perhaps it was too long
        else:
            lasted = trio.current_time() - session.opened
            # A request that was refused, not answered, or that made the server close: the URL can do without.
            self._whole_url = self._whole_url or session.exchange is not None
        settled = session.candles > 0 and lasted >= self._settings.settled_after
        if settled:
            self._backoff.reset()
        pause = 0.0 if settled and session.at_once else self._backoff.pause()
        if failure.status in (403, 451):
            pause += self._settings.refused_pause
        event = "stream not connected" if session.opened is None else "stream lost"
        self._warn(event, reason=failure.reason, lasted=round(lasted, 3), pause=round(pause, 3))
        return pause

    async def _converse(self, session: _Session, connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_alive, session, connection)
            nursery.start_soon(self._keep_subscribed, session, connection)
            nursery.start_soon(self._move_when_told, session)
            self._tell_connected(session)
            await self._receive(session, connection)

    async def _receive(self, session: _Session, connection: Connection) -> Never:
        """The loop that receives frames. Raises `ConnectionClosed`, after all that came before the end is told."""
        live = self._roster.live
        while True:
            message = await connection.get_message()
            # No await below, in this loop: see the module.
            self._counts["frames"] += 1
            if isinstance(message, bytes):
                self._refuse(message, "a binary frame; Binance documents text")
                continue
            try:
                frame = parse_frame(message)
            except UnreadableFrame as error:
                self._refuse(message, str(error))
                continue
            if isinstance(frame, Kline):
                if frame.series in live:
                    session.candles += 1
                    if session.candles % _SAMPLE == 1 and frame.event_time:
                        self._delay.observe(frame.event_time)
                    self._telling = True
                    self._sink.stream_frame(frame.series, frame.candle)
                    self._telling = False
                else:
                    self._counts["unwanted"] += 1
            elif isinstance(frame, Acknowledgement):
                self._acknowledged(session, frame)
            elif isinstance(frame, ServerShutdown):
                session.leaving.set()
            else:
                self._counts["unwanted"] += 1

    async def _keep_alive(self, session: _Session, connection: Connection) -> None:
        while True:
            await trio.sleep(self._settings.ping_interval)
            with trio.move_on_after(self._settings.ping_timeout) as scope:
                try:
                    await connection.ping()
                except trio_websocket.ConnectionClosed:
                    return  # for `_receive` to report, once it has read what came before the end
            if scope.cancelled_caught:
                session.end(Failure(f"a ping was not answered within {self._settings.ping_timeout:g} s"))

    async def _keep_subscribed(self, session: _Session, connection: Connection) -> None:
        """Make what the connection carries what is wanted, one request at a time."""
        window = SlidingWindow(self._settings.messages_per_second, 1.0)
        while True:
            changed = self._changed = trio.Event()
            self._tell_connected(session)
            request = self._roster.request(self._settings.message_bytes)
            if not self._roster.wanted:
                session.end(Failure("no series is followed"))
                return
            if request is None:
                await changed.wait()
            elif (opens := window.opens(trio.current_time())) > trio.current_time():
                await trio.sleep_until(opens)  # and ask again: what is wanted may have changed
            else:
                window.take(trio.current_time())
                await self._exchange(session, connection, request)

    async def _exchange(self, session: _Session, connection: Connection, request: Request) -> None:
        exchange = session.exchange = _Exchange(next(session.ids), request)
        with trio.move_on_after(self._settings.acknowledge_timeout) as scope:
            # A closed connection is for `_receive` to report, once it has read what came before the end.
            with suppress(trio_websocket.ConnectionClosed):
                await connection.send_message(request.text(exchange.id))
            await exchange.granted.wait()
        if scope.cancelled_caught:
            session.end(Failure(f"{request.method} was not answered within {self._settings.acknowledge_timeout:g} s"))

    def _acknowledged(self, session: _Session, answer: Acknowledgement) -> None:
        exchange = session.exchange
        # Binance gives no id to an error in a request that it could not read; only one is under way at a time.
        if exchange is None or answer.id not in (exchange.id, None):
            self._counts["unwanted"] += 1
        elif answer.error is not None:
            session.end(Failure(f"{exchange.request.method} was refused: {answer.error}"))
        elif answer.id is not None:
            session.exchange = None
            self._roster.grant(exchange.request)
            self._tell_connected(session)
            exchange.granted.set()

    async def _move_when_told(self, session: _Session) -> None:
        """After a ``serverShutdown``: leave, but not before a new connection may be made. This one works until then."""
        await session.leaving.wait()
        await self._pace.turn()
        self._turn_taken = True
        session.end(Failure("Binance is about to shut this server down"), at_once=True)

    def _tell_connected(self, session: _Session) -> None:
        for series in self._roster.arrivals():
            # Asked again for each: the sink may have dropped it meanwhile, or made the connection end.
            if series in self._roster.wanted and session.failure is None:
                self._roster.live.add(series)
                self._telling = True
                self._sink.stream_connected(series)
                self._telling = False

    def _refuse(self, message: str | bytes, error: str) -> None:
        """Count and log a frame that is not what Binance documents. It costs nothing else."""
        self._counts["unreadable"] += 1
        self._warn("unreadable frame", error=error, frame=message[:_EXCERPT])

    def _say(self, event: str, **details: object) -> None:
        _log.info(event, feed=self.name, **details)

    def _warn(self, event: str, **details: object) -> None:
        """Log, but at most one line of a kind in a while: a broken server must not fill a disk."""
        suppressed = self._seldom.passes(event, trio.current_time())
        if suppressed is not None:
            _log.warning(event, feed=self.name, **details, suppressed=suppressed)


class _Session:
    """One attempt at a connection, and the connection if it comes to that. The first reason for its end stands."""

    def __init__(self, deadline: float) -> None:
        self.scope = trio.CancelScope(deadline=deadline)
        """Around all of it. The deadline is for connecting, and is lifted then."""
        self.opened: float | None = None
        """When it was connected, on trio's clock."""
        self.candles = 0
        self.failure: Failure | None = None
        self.at_once = False
        """Whether a settled connection is followed by the next without a pause: it was not the network's fault."""
        self.ids = itertools.count(1)
        self.exchange: _Exchange | None = None
        """The request that awaits its acknowledgement."""
        self.leaving = trio.Event()

    def open(self, now: float) -> None:
        self.scope.deadline = math.inf
        self.opened = now

    def end(self, failure: Failure, *, at_once: bool = False) -> None:
        if self.failure is None:
            self.failure = failure
            self.at_once = at_once
        self.scope.cancel()


class _Exchange:
    def __init__(self, id_: int, request: Request) -> None:
        self.id = id_
        self.request = request
        self.granted = trio.Event()
