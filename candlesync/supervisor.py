"""The supervisor: one task per symbol, started for those that are pinned and for those that somebody asks for.

A symbol's task that dies is reported and started again after a growing pause; the others go on. Nobody has to wait for
that: what the series' replica holds is served meanwhile, and said to be ``stale``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar
from math import ceil

import msgspec
import structlog
import trio

from candlesync.binance.symbols import Symbols
from candlesync.core.allowance import Allowance, Allowances
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.sync import State
from candlesync.errors import TooMany, UnknownInterval, UnknownSymbol, UpstreamUnavailable
from candlesync.hub import Hub, Topic
from candlesync.symbol import SymbolTask

_log = structlog.get_logger(__name__)


asked_by: ContextVar[str] = ContextVar("asked_by", default="")
"""Whose request is being answered, as the limits count addresses; empty for who is not limited."""


class SupervisorSettings(msgspec.Struct, frozen=True):
    """Times in seconds."""

    max_symbols: int = 200
    """Symbols followed at once, pinned ones included: each holds a Binance connection, and costs weight to start."""
    start_rate: float = 5.0
    """Series a second that clients may make start in all. Each costs some weight (4): with the burst a third of what
    Binance allows in the first minute, and a fifth from then on. What is pinned always has the rest."""
    start_burst: float = 200.0
    start_rate_of_one: float = 1.0
    """The same for one address."""
    start_burst_of_one: float = 60.0
    symbol_rate: float = 1 / 3
    """Symbols a second that clients may make start in all, each with a connection of its own: of the 300 attempts that
    Binance allows in 5 minutes a third is always left for those that have to connect again."""
    symbol_burst: float = 100.0
    start_timeout: float = 10.0
    """How long a request waits for the first candles of a series that it started."""
    idle: float = 600.0
    """A series that is not pinned and that nobody has wanted for so long is followed no more."""
    restart_first: float = 1.0
    """Pause before a symbol's task that died is started again; doubles each time, to the cap."""
    restart_cap: float = 60.0
    ready_after: float = 30.0
    """A pinned series that has not been live for so long makes the server not ready (design, section 3)."""


class _Followed:
    """A symbol that is followed, whether its task runs or waits to be started again."""

    def __init__(self, symbol: str, predecessor: trio.Event | None) -> None:
        self.symbol = symbol
        self.predecessor = predecessor
        """Set when who followed the symbol before has ended: a symbol has one feed."""
        self.ended = trio.Event()
        self.intervals: set[Interval] = set()
        self.scope = trio.CancelScope()
        self.task: SymbolTask | None = None
        self.deaths = 0
        self.unknown = ""
        """Why Binance says that there is no such symbol; empty when it does not."""


class _Starts:
    """How fast clients may make series start: a request of theirs must not take what the others live on."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._in_all = Allowance(settings.start_rate, settings.start_burst)
        self._of_one = Allowances(settings.start_rate_of_one, settings.start_burst_of_one)
        self._symbols = Allowance(settings.symbol_rate, settings.symbol_burst)
        self.refused = 0

    def check(self, *, is_new_symbol: bool) -> None:
        """Raise `TooMany` when it is too early for one more."""
        key, now = asked_by.get(), trio.current_time()
        wait = self._of_one.wait(key, now) if key else 0.0
        if wait:
            self._refuse("this address has made many new series start", wait)
        wait = max(self._in_all.wait(now), self._symbols.wait(now) if is_new_symbol else 0.0)
        if wait:
            self._refuse("many new series have just been started", wait)

    def take(self, *, is_new_symbol: bool) -> None:
        """One more has been started, for which `check` had no objection."""
        key, now = asked_by.get(), trio.current_time()
        self._in_all.take(now)
        if key:
            self._of_one.take(key, now)
        if is_new_symbol:
            self._symbols.take(now)

    def _refuse(self, message: str, wait: float) -> None:
        self.refused += 1
        again = f"try again in {ceil(wait)} s; series that are followed are served"
        raise TooMany(f"{message}: {again}", retry_after=wait)


class Supervisor:
    """Follows symbols."""

    def __init__(
        self,
        pinned: Iterable[Series],
        *,
        hub: Hub,
        symbols: Symbols,
        new_task: Callable[[str, set[Interval]], SymbolTask],
        settings: SupervisorSettings,
        on_wants_changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_wants_changed`` is called after each change of `wants`, and never waits."""
        self._pinned = frozenset(pinned)
        self._hub = hub
        self._symbols = symbols
        self._new_task = new_task
        self._settings = settings
        self._on_wants_changed = on_wants_changed
        self._followed: dict[str, _Followed] = {}
        self._ending: dict[str, trio.Event] = {}
        """Of the symbols that are let go, but whose tasks have not ended yet."""
        self.restarts = 0
        """How often a symbol's task has died."""
        self.refused_symbols = 0
        """How often somebody asked for one more symbol than are followed at once."""
        self._starts = _Starts(settings)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the pinned symbols, and those that `ensure` adds, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for series in sorted(self._pinned, key=str):
                self._start(series)
            task_status.started()
            await self._stop_idle()

    async def ensure(self, series: Series) -> Topic:
        """The topic of a series with its first candles in it, followed from now on if it was not.

        Raises `UnknownSymbol`, `UnknownInterval`, `TooMany` (also when clients make new series start too fast), or
        `UpstreamUnavailable` when there are no candles within the start timeout.
        """
        topic = self.at_once(series)
        if topic is not None:
            return topic
        self._require(series.interval)
        topic = self._hub.get(series)
        if topic is None:
            if series.symbol not in self._followed:
                await self._symbols.require(series.symbol)
            topic = self._hub.get(series) or self._start_asked(series)
        topic.touch()
        if not topic.is_begun and not self._why_unknown(series.symbol):
            with trio.move_on_after(self._settings.start_timeout):
                await topic.begun()
        if not topic.is_begun:
            if unknown := self._why_unknown(series.symbol):
                raise UnknownSymbol(unknown)
            reason = topic.reason or "the first candles have not come yet"
            again = max(5.0, topic.failing_until - trio.current_time())
            raise UpstreamUnavailable(f"{series} cannot be served yet: {reason}", retry_after=again)
        return topic

    def at_once(self, series: Series) -> Topic | None:
        """What `ensure` returns, where that needs no waiting; else `None`, and nothing is done."""
        topic = self._hub.get(series)
        if topic is None or not topic.is_begun:
            return None
        topic.touch()
        return topic

    def keep(self, series: Series) -> None:
        """Another node wants a series of a symbol that this node owns: have it, if the symbol is still followed here.

        To be called again and again: one that nobody wants any more is let go after the idle time.
        """
        if series.symbol in self._followed:
            topic = self._hub.get(series) or self._start(series)
            topic.touch()

    @property
    def wants(self) -> dict[str, tuple[Interval, ...]]:
        """The series that are followed, by symbol; in a fixed order."""
        return {
            symbol: tuple(interval for interval in INTERVALS if interval in followed.intervals)
            for symbol, followed in sorted(self._followed.items())
        }

    @property
    def tasks(self) -> list[SymbolTask]:
        """The tasks that run now."""
        return [followed.task for followed in self._followed.values() if followed.task is not None]

    @property
    def pinned(self) -> frozenset[Series]:
        """The series that are followed from the start, and always."""
        return self._pinned

    @property
    def symbol_count(self) -> int:
        """How many symbols are followed."""
        return len(self._followed)

    def not_ready(self) -> dict[str, str]:
        """Why each pinned series that keeps the server from being ready does so; empty when it is ready."""
        reasons = {}
        for series in sorted(self._pinned, key=str):
            topic = self._hub.get(series)
            if topic is None or (topic.state is not State.LIVE and topic.left_live_at is None):
                reasons[str(series)] = (topic and topic.reason) or "not synced yet"
            elif topic.state is not State.LIVE and topic.left_live_at is not None:
                seconds = trio.current_time() - topic.left_live_at
                if seconds >= self._settings.ready_after:
                    why = f": {topic.reason}" if topic.reason else ""
                    reasons[str(series)] = f"{topic.state.value}, not live for {seconds:.0f} s{why}"
        return reasons

    @property
    def most_symbols(self) -> int:
        """How many may be followed at once."""
        return self._settings.max_symbols

    @property
    def refused_starts(self) -> int:
        """How many series clients asked for too early."""
        return self._starts.refused

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The intervals that the venue has, shortest first."""
        return self._symbols.intervals

    def _require(self, interval: Interval) -> None:
        if interval not in self._symbols.intervals:
            known = ", ".join(map(str, self._symbols.intervals))
            raise UnknownInterval(f"interval must be one of {known}: this venue has no {interval}")

    def _start_asked(self, series: Series) -> Topic:
        """Follow a series that a client asks for, if it is not too early for one more."""
        is_new_symbol = series.symbol not in self._followed
        self._starts.check(is_new_symbol=is_new_symbol)
        topic = self._start(series)
        self._starts.take(is_new_symbol=is_new_symbol)
        return topic

    def _why_unknown(self, symbol: str) -> str:
        followed = self._followed.get(symbol)
        return "" if followed is None else followed.unknown

    def _start(self, series: Series) -> Topic:
        """Follow a series. Synchronous, so that two requests at once start it once."""
        if self._nursery is None:
            raise UpstreamUnavailable("the server is starting", retry_after=1.0)
        followed = self._followed.get(series.symbol)
        if followed is None:
            if len(self._followed) >= self._settings.max_symbols and series not in self._pinned:
                self.refused_symbols += 1
                raise TooMany(f"this server follows at most {self._settings.max_symbols} symbols at once")
            predecessor = self._ending.get(series.symbol)
            followed = self._followed[series.symbol] = _Followed(series.symbol, predecessor)
            # In a context of its own: it outlives the request that made it start, and must not keep its connection.
            Context().run(self._nursery.start_soon, self._keep, followed)
        if series.interval not in followed.intervals:
            followed.intervals.add(series.interval)
            self._on_wants_changed()
        if followed.task is not None:
            followed.task.add(series.interval)
        topic = self._hub.open(series)
        topic.is_pinned = series in self._pinned
        return topic

    async def _keep(self, followed: _Followed) -> None:
        """Run a symbol's task, and again when it has died, until nobody wants the symbol."""
        if followed.predecessor is not None:
            await followed.predecessor.wait()
        try:
            with followed.scope:
                await self._run_again_and_again(followed)
        finally:
            followed.ended.set()
            if self._ending.get(followed.symbol) is followed.ended:
                del self._ending[followed.symbol]

    async def _run_again_and_again(self, followed: _Followed) -> None:
        pause = self._settings.restart_first
        while True:
            started = trio.current_time()
            followed.task = self._new_task(followed.symbol, followed.intervals)
            try:
                await followed.task.run()
            except Exception as error:  # noqa: BLE001 - reported, and started again
                # The one place where a symbol's errors end: invariant 10, restarted visibly. Cancellation, also in
                # a group with errors, is no `Exception` and goes on its way.
                self._report(followed, error)
            finally:
                followed.task = None
            if trio.current_time() - started > self._settings.restart_cap:
                pause = self._settings.restart_first
            await trio.sleep(pause)
            pause = min(pause * 2, self._settings.restart_cap)

    def _report(self, followed: _Followed, error: Exception) -> None:
        followed.deaths += 1
        self.restarts += 1
        unknown = _find_unknown(error)
        followed.unknown = "" if unknown is None else str(unknown)
        if unknown is None:
            _log.error("symbol task died", symbol=followed.symbol, deaths=followed.deaths, exc_info=error)
        else:
            _log.error("unknown symbol", symbol=followed.symbol, reason=str(unknown))
        for interval in sorted(followed.intervals, key=str):
            series = Series(followed.symbol, interval)
            topic = self._hub.open(series)
            topic.failure = str(unknown or "its task died and is started again")
            if unknown is not None and series not in self._pinned:
                topic.refuse(unknown)
                self._forget(followed, interval)

    def _forget(self, followed: _Followed, interval: Interval) -> None:
        self._hub.close(Series(followed.symbol, interval))
        followed.intervals.discard(interval)
        if not followed.intervals:
            del self._followed[followed.symbol]
            self._ending[followed.symbol] = followed.ended
            followed.scope.cancel()
        self._on_wants_changed()

    async def _stop_idle(self) -> None:
        """Let go of what nobody has wanted for a while."""
        # Not before the start timeout: until then somebody may be waiting for the first candles.
        idle = max(self._settings.idle, self._settings.start_timeout)
        while True:
            await trio.sleep(min(idle / 4, 60.0))
            for topic in self._hub:
                idle_since = topic.idle_since
                is_idle = idle_since is not None and trio.current_time() - idle_since > idle
                # Each turn waits, and meanwhile the next topic may have been let go, and its series started anew.
                is_current = self._hub.get(topic.series) is topic
                if is_idle and is_current and topic.series not in self._pinned:
                    await self._stop(topic.series)

    async def _stop(self, series: Series) -> None:
        followed = self._followed[series.symbol]
        task = followed.task
        self._forget(followed, series.interval)
        if task is not None:
            await task.remove(series.interval)
        _log.info("no longer followed", series=str(series))


def _find_unknown(error: Exception) -> UnknownSymbol | None:
    if isinstance(error, UnknownSymbol):
        return error
    if isinstance(error, ExceptionGroup):
        return next((found for inner in error.exceptions if (found := _find_unknown(inner)) is not None), None)
    return None
