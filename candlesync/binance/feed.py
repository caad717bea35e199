"""A feed: one connection to Binance, kept for ever, and the streams that it carries.

    follow, drop ──▶ wanted ──▶ URL, SUBSCRIBE ──▶ Binance ──▶ frame ──▶ `parse_frame` ──▶ sink

A connection is replaced before its 24 hours are over, and when Binance is about to shut its server down. Then there are
two for a while, and the leading one stays until the other has demonstrably taken over (see ``handover``):

    ──▶ none ──attempt──▶ leading ──24 hours nearly over, serverShutdown──▶ leading + successor
         ▲                 │  ▲ ▲                                             │ │ │
         └──ended: lost────┘  │ └──successor ended, or cannot take over───────┘ │ │
                              ├──taken over: nobody notices─────────────────────┘ │
                              └──leading ended: lost, and the successor leads─────┘
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Final, Never, Protocol

import structlog
import trio

from candlesync.binance.delay import EventDelay
from candlesync.binance.handover import Handover
from candlesync.binance.hosts import Hosts
from candlesync.binance.pace import Backoff, ConnectionPace, Seldom
from candlesync.binance.parse import Kline
from candlesync.binance.session import Session
from candlesync.binance.stream import Failure, StreamSettings
from candlesync.core.candle import Candle, Series
from candlesync.errors import TooMany
from candlesync.websocket import Connect, open_websocket

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_REPLACED: Final = Failure("another connection has taken over")
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
        """The series is subscribed, on a connection that is new to it: what was before may have been missed.

        Not told when a new connection takes over from an old one: then nothing is missed.
        """

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
    renewals: int
    """Connections that another one took over from, without a break and before Binance ended them."""
    last_failure: str | None


class Feed:
    """One connection to Binance and the streams that it carries: of one symbol, or of several that share it.

    `follow`, `drop` and `reconnect` are synchronous and may be called at any time, `run` or not. It is the ``Owner`` of
    its sessions, which call the methods whose names say so.
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
        hosts: Hosts | None = None,
        delay: EventDelay | None = None,
    ) -> None:
        """``hosts``: shared by the feeds of a process, so that they learn together where they are not served.
        ``delay`` is told of candles' event times, for people to read."""
        self.name = name
        self.wanted: set[Series] = set()
        self.changed = trio.Event()
        self.telling = False
        self.counts = Counter[str]()
        self._delay = EventDelay() if delay is None else delay
        self._settings = settings
        self._pace = pace
        self._sink = sink
        self._connect = connect
        self._hosts = hosts or Hosts(settings.urls)
        self._jitter = random or Random()  # noqa: S311 - jitter is no secret
        self._backoff = Backoff(settings.backoff_first, settings.backoff_cap, self._jitter)
        self._retries = Backoff(settings.backoff_first, settings.handover_retry, self._jitter)
        self._live: set[Series] = set()
        """Wanted, carried by the leading connection, and told to the sink as connected: no frames of others are for
        the sink."""
        self._leading: Session | None = None
        self._successor: Session | None = None
        """What is to take over from the leading one. Never without a leading one, and never without a handover."""
        self._handover: Handover | None = None
        self._whole_url = False
        """Whether all streams stand in the next URL: a SUBSCRIBE went unanswered or was refused."""
        self._last_failure: str | None = None
        self._seldom = Seldom(settings.log_period)

    def follow(self, series: Series) -> None:
        """Want the series from now on. Raises `TooMany` when the connection cannot carry one more."""
        most = self._settings.venue.streams_per_connection
        if series not in self.wanted and len(self.wanted) >= most:
            raise TooMany(f"feed {self.name}: Binance allows {most} streams per connection")
        self.wanted.add(series)
        self._wake()

    def drop(self, series: Series) -> None:
        """Want the series no longer. If it was connected, the sink is told that it is lost before this returns."""
        self.wanted.discard(series)
        self._wake()
        if self._handover is not None:
            self._handover.forget(series)
        if series in self._live:
            self._live.remove(series)
            self._sink.stream_lost(series, "dropped")

    def reconnect(self, reason: str) -> None:
        """Make the connection anew. Without one, do nothing: one is being made anyway."""
        if self._leading is not None and self._leading.opened is not None:
            self._leading.end(Failure(reason), at_once=True)

    def statistics(self) -> FeedStatistics:
        """A snapshot for metrics and reports."""
        counts, leading = self.counts, self._leading
        is_connected = leading is not None and leading.opened is not None
        return FeedStatistics(
            name=self.name,
            connected=is_connected,
            followed=len(self.wanted),
            streams=len(leading.roster.carried) if leading is not None else 0,
            frames=counts["frames"],
            unreadable=counts["unreadable"],
            unwanted=counts["unwanted"],
            connects=counts["connects"],
            failures=counts["failures"],
            renewals=counts["renewals"],
            last_failure=self._last_failure,
        )

    async def run(self) -> Never:
        """Keep the connection for ever, as long as a series is followed; without one there is none.

        Raises only what the sink raises.
        """
        async with trio.open_nursery() as sessions:
            while True:
                while not self.wanted:
                    await self.changed.wait()
                await self._pace.turn()
                session = self._leading = self._begin(sessions) if self.wanted else None
                while session is not None:
                    session = await self._lead(sessions, session)

    async def _lead(self, sessions: trio.Nursery, session: Session) -> Session | None:
        """Until a session leads no more; the one that leads after it, or `None` when another may be tried now."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._renew_in_time, sessions, session)
            await session.ended.wait()
            nursery.cancel_scope.cancel()
        pause = 0.0
        if session.failure is not None and session.failure is not _REPLACED:
            event = "stream not connected" if session.opened is None else "stream lost"
            pause = self._pause_after(session, session.failure, event)
        if session.heir is None:
            await trio.sleep(pause)
        return session.heir

    # --- two connections

    async def _renew_in_time(self, sessions: trio.Nursery, session: Session) -> None:
        """Have another session take over before this one is ended. Cancelled when this one has ended all the same."""
        await session.open.wait()
        lifetime = self._settings.lifetime - self._jitter.random() * self._settings.lifetime_spread
        with trio.move_on_after(lifetime - session.lasted):
            await session.leaving.wait()
        if not session.is_settled:
            # One that has hardly begun: a server that sends everybody away at once is not asked without a pause.
            await trio.sleep(self._backoff.pause())
        while True:
            # This one works until then.
            await self._pace.turn()
            # No await from here to the beginning: a turn is used by who got it.
            successor = self._successor = self._begin(sessions)
            self._handover = Handover(self._settings.handover_grace, self._settings.handover_settle)
            if await self._hand_over(session, successor):
                self._retries.reset()
                return
            pause = self._retries.pause()
            if successor.failure is not None:
                pause = max(pause, self._pause_after(successor, successor.failure, "stream not renewed"))
            await trio.sleep(pause)

    async def _hand_over(self, old: Session, new: Session) -> bool:
        """Let the new session lead as soon as it can; whether it does. If not, it has ended."""
        deadline = trio.current_time() + self._settings.handover_timeout
        while not new.ended.is_set():
            now = trio.current_time()
            if self._is_complete(old, new) and (not self._is_quiet() or await self._answer(old, new)):
                # Asked again: series may have come, and something may have been shown, before the answers.
                if self._is_complete(old, new):
                    # No await in between: no frame is shown to nobody, and none of the old one after one of the new.
                    self._succeed(old, new)
                    return True
            elif (deaf := self._handover.deaf(now) if self._handover else None) is not None:
                new.end(Failure(f"a new connection shows nothing of {deaf}, which the old one shows"))
            elif now >= deadline and old.leaving.is_set() and new.opened is not None:
                old.end(Failure("Binance is about to shut this server down"), at_once=True)  # and the new one leads
            elif now >= deadline:
                new.end(Failure(f"could not take over within {self._settings.handover_timeout:g} s"))
            with trio.move_on_after(self._settings.handover_look):
                await new.ended.wait()
        return False

    def _is_complete(self, old: Session, new: Session) -> bool:
        # One that is ending for a reason of its own has lost its series, and what follows is told so.
        if self._handover is None or new.opened is None or old.failure is not None or new.failure is not None:
            return False
        now = trio.current_time()
        self._handover.begin(self._live & new.roster.carried, now)
        return self._live <= new.roster.carried and self._handover.is_complete(self._live, now)

    def _is_quiet(self) -> bool:
        return self._handover is not None and self._handover.is_quiet(self._live)

    async def _answer(self, *sessions: Session) -> bool:
        """Whether all of them answer a ping: that one shows nothing says something only if it is alive."""
        answers: list[bool] = []

        async def ask(session: Session) -> None:
            answers.append(await session.answers())

        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(ask, session)
        return all(answers)

    def _succeed(self, old: Session, new: Session) -> None:
        self._leading, self._successor, self._handover = new, None, None
        self.counts["renewals"] += 1
        self._say("stream renewed", lasted=round(old.lasted, 3), streams=len(self._live))
        old.heir = new
        old.end(_REPLACED)
        self.session_carries(new)

    # --- what sessions tell

    def session_opened(self, session: Session) -> None:
        """See ``session.Owner``."""
        self.counts["connects"] += 1
        self._say("stream connected", streams=len(session.roster.carried), leads=session is self._leading)

    def session_carries(self, session: Session) -> None:
        """See ``session.Owner``."""
        if session is not self._leading or session.opened is None:
            return
        for series in session.roster.arrivals(self._live):
            # Asked again for each: the sink may have dropped it meanwhile, or made the connection end.
            if series in self.wanted and session.failure is None:
                self._live.add(series)
                self.telling = True
                self._sink.stream_connected(series)
                self.telling = False

    def session_shows(self, session: Session, frame: Kline) -> None:
        """See ``session.Owner``."""
        series, handover = frame.series, self._handover
        if series not in self._live:
            self.counts["unwanted"] += 1
            return
        session.candles += 1
        if session.candles % _SAMPLE == 1 and frame.event_time:
            self._delay.observe(frame.event_time)
        if session is self._leading:
            self.telling = True
            self._sink.stream_frame(series, frame.candle)
            self.telling = False
            if handover is None or self._successor is None or series not in self._successor.roster.carried:
                return
            shown = handover.old_shows(series, frame.candle, trio.current_time())
        elif session is self._successor and handover is not None and series in session.roster.carried:
            shown = handover.new_shows(series, frame.candle, trio.current_time())
        else:
            self.counts["unwanted"] += 1
            return
        for candle in shown:
            self._tell(series, candle)

    def session_refuses(self, message: str | bytes, error: str) -> None:
        """See ``session.Owner``. Count and log it; it costs nothing else."""
        self.counts["unreadable"] += 1
        self._warn("unreadable frame", error=error, frame=message[:_EXCERPT])

    def session_ended(self, session: Session) -> None:
        """See ``session.Owner``."""
        if session is self._successor:
            self._successor = self._handover = None
        elif session is self._leading:
            successor, self._successor, self._handover = self._successor, None, None
            # When it is stopped, so is the successor: nobody is told that one has connected.
            self._leading = session.heir = successor if session.failure is not None else None
            reason = session.failure.reason if session.failure is not None else "stopped"
            lost = sorted(self._live, key=str)
            self._live.clear()
            for series in lost:
                self._sink.stream_lost(series, reason)
            if session.heir is not None:
                self.session_carries(session.heir)

    # --- the parts

    def _begin(self, sessions: trio.Nursery) -> Session:
        url_streams = None if self._whole_url else self._settings.url_streams
        session = Session(self, self._settings, self._connect, self._hosts.url, url_streams=url_streams)
        sessions.start_soon(session.run)
        return session

    def _tell(self, series: Series, candle: Candle) -> None:
        # Asked for each: the sink may have dropped it with the one before.
        if series in self._live:
            self.telling = True
            self._sink.stream_frame(series, candle)
            self.telling = False

    def _pause_after(self, session: Session, failure: Failure, event: str) -> float:
        """Count and log (as ``event``) how a connection ended; the seconds to wait before the next."""
        if failure.status in (418, 429):
            held = self._settings.limited_pause if failure.retry_after is None else failure.retry_after
            self._pace.hold(held)
            self._warn("no feed may connect", reason=failure.reason, seconds=held)
        if not self.wanted:
            self._say("stream closed", reason=failure.reason)
            return 0.0
        self.counts["failures"] += 1
        self._last_failure = failure.reason
        if session.opened is None:
            self._whole_url = False  # perhaps it was too long
        else:
            # A request that was refused, not answered, or that made the server close: the URL can do without.
            self._whole_url = self._whole_url or session.exchange is not None
        if session.is_settled:
            self._backoff.reset()
        pause = 0.0 if session.is_settled and session.at_once else self._backoff.pause()
        if failure.status == 451 and self._hosts.refused(session.url):
            pause = 0.0  # for the first time at another host; the pace is kept, and there are few
        elif failure.status in (403, 451):
            pause += self._settings.refused_pause
        self._warn(event, reason=failure.reason, lasted=round(session.lasted, 3), pause=round(pause, 3))
        return pause

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _say(self, event: str, **details: object) -> None:
        _log.info(event, feed=self.name, **details)

    def _warn(self, event: str, **details: object) -> None:
        """Log, but at most one line of a kind in a while: a broken server must not fill a disk."""
        suppressed = self._seldom.passes(event, trio.current_time())
        if suppressed is not None:
            _log.warning(event, feed=self.name, **details, suppressed=suppressed)
