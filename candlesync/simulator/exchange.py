"""The simulated exchange: a market, its clock, and whoever is connected to it.

`Exchange.run` drives the streams and the scheduled faults under its owner's nursery; until it runs, the market's time
stands still. How connections come in is not its matter: `candlesync.simulator.app` brings those of HTTP,
`candlesync.simulator.memory` those within a process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import trio

from candlesync.core.interval import Interval
from candlesync.simulator.bars import Row
from candlesync.simulator.clock import MarketClock
from candlesync.simulator.distortion import Distortion
from candlesync.simulator.faults import Drop, Fault, FaultPlan, HideClose, Refuse, Shutdown, Window
from candlesync.simulator.frames import shutdown_frame
from candlesync.simulator.market import Market
from candlesync.simulator.rest import Answer, Rest
from candlesync.simulator.rewriting import rewrite
from candlesync.simulator.session import GOING_AWAY, Session, Transport, target_streams
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.streams import Streams
from candlesync.simulator.tally import Tally
from candlesync.simulator.weight import RequestWeight


class Exchange:
    """A Binance made of settings alone: the same settings make the same market, whoever asks, and when.

    Raises `OSError` or `files.UnreadableFile` when a kline file cannot be read.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.market = Market(settings)
        self.tally = Tally()
        self.clock = MarketClock(self.market.start, settings.minute_seconds)
        self._faults = FaultPlan(self.clock)
        self._weight = RequestWeight(
            settings.of_venue.weight_limit if settings.weight_limit is None else settings.weight_limit,
            patience=settings.weight_patience,
            ban_seconds=settings.ban_seconds,
        )
        self._rest = Rest(settings.of_venue, self.market, self.clock, self._faults, self._weight)
        self._streams = Streams(self.market, self.clock, settings, Distortion(self._faults))
        self._sessions: dict[Session, None] = {}
        self._nursery: trio.Nursery | None = None
        self._waiting = [self._faults.add(fault) for fault in settings.faults]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let the market's time run and the streams flow, until cancelled; started when they do. Once in a life."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                self.clock.run()
                for window in self._waiting:
                    nursery.start_soon(self._enact, window)
                nursery.start_soon(self._streams.run)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    @property
    def running(self) -> bool:
        """Whether `run` is under way."""
        return self._nursery is not None

    def start_soon(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Run a task under `run`: a connection that nobody else would wait for. Raises `RuntimeError` without one."""
        if self._nursery is None:
            raise RuntimeError("the exchange does not run")
        self._nursery.start_soon(function, *arguments)

    def now(self) -> int:
        """The market's time in UNIX milliseconds."""
        return self.clock.now()

    def truth(self, symbol: str, interval: Interval | str, start: int, end: int) -> list[Row]:
        """The final rows of all candles that open from ``start`` to ``end`` and have closed by now.

        No limit touches them, and no fault but `Rewritten`, which changes what is true. Raises `KeyError` for an
        unknown symbol, `ValueError` for an interval.
        """
        now = self.now()
        interval = interval if isinstance(interval, Interval) else Interval(interval)
        series = self.market.series(symbol, interval)
        finals = series.finals(max(start, series.first), min(end, now) + 1)
        closed = [kline for kline in finals if kline.row.close_time < now]
        return [kline.row for kline in rewrite(self._faults, symbol, interval, closed)]

    def add_fault(self, fault: Fault) -> None:
        """Let something go wrong, now or when the fault says."""
        window = self._faults.add(fault)
        if self._nursery is None:
            self._waiting.append(window)
        else:
            self._nursery.start_soon(self._enact, window)

    def clear_faults(self) -> None:
        """End all faults, and forget those to come."""
        self._faults.clear()

    def faults(self) -> list[Fault]:
        """The faults that are active or to come."""
        return self._faults.listed()

    @property
    def rest_paths(self) -> list[str]:
        """The paths of the REST API."""
        return self._rest.paths

    async def answer(self, path: str, query: Sequence[tuple[str, str]]) -> Answer:
        """The answer to a REST request for one of `rest_paths`."""
        answer = await self._rest.answer(path, query)
        self.tally.answered(path, answer.status, self._weight.used)
        return answer

    async def refusal(self, target: str) -> int | None:
        """The HTTP status with which a handshake for ``target`` (path and query) is refused; `None` if it is not."""
        for window in self._refusing(target):
            fault = window.fault
            if not isinstance(fault, Refuse):
                continue
            if fault.hang:
                await self._faults.end(window)
                return await self.refusal(target)
            self.tally.refused += 1
            return fault.status
        return None

    async def serve(self, transport: Transport, target: str) -> None:
        """Serve a stream connection whose handshake for ``target`` was accepted, until it ends."""
        session = Session(
            transport, target, settings=self.settings, streams=self._streams, faults=self._faults, tally=self.tally
        )
        self._sessions[session] = None
        self.tally.connections += 1
        try:
            await session.run()
        finally:
            del self._sessions[session]

    def state(self) -> dict[str, Any]:
        """Counters and the present, in the form of JSON."""
        open_by_symbol = Counter(symbol for session in self._sessions for symbol in session.symbols)
        tally = self.tally
        return {
            "now": self.now(),
            "start": self.clock.start,
            "minute_seconds": self.clock.minute_seconds,
            "connections": {
                "open": len(self._sessions),
                "ever": tally.connections,
                "refused": tally.refused,
                "by_symbol": {
                    symbol: {"open": open_by_symbol[symbol], "ever": ever}
                    for symbol, ever in tally.connections_by_symbol.items()
                },
            },
            "streams": self._streams.followed(),
            "subscribes": tally.subscribes,
            "unsubscribes": tally.unsubscribes,
            "frames": tally.frames,
            "rest": {
                path: {str(status): times for status, times in counts.items()} for path, counts in tally.rest.items()
            },
            "weight": {"used": self._weight.used, "limit": self._weight.limit, "banned": self._weight.banned},
            "faults": msgspec.to_builtins(self.faults()),
        }

    def _refusing(self, target: str) -> list[Window]:
        names = target_streams(target, self.settings.of_venue.streams).names
        asked = {self._streams.symbol(name) for name in names}
        # Which symbol a connection without streams is for is not known yet: it may be the one.
        of_all = self._faults.windows(Refuse)
        symbols = asked - {None} if asked else set(self.market.symbols)
        return of_all + [window for symbol in symbols for window in self._faults.windows(Refuse, symbol)]

    def _connected(self, symbol: str | None) -> list[Session]:
        return [session for session in self._sessions if symbol is None or symbol in session.symbols]

    async def _enact(self, window: Window) -> None:
        """Do what a fault does at one moment; all others are looked up where they matter."""
        if not isinstance(window.fault, Drop | HideClose | Shutdown) or not await self._faults.begin(window):
            return
        match window.fault:
            case Drop() as drop:
                for session in self._connected(drop.symbol):
                    if drop.close_frame:
                        session.end(drop.code)
                    else:
                        session.abort()
            case HideClose() as hide:
                await self._hide_close(hide, window)
            case Shutdown() as shutdown:
                told = self._connected(shutdown.symbol)
                for session in told:
                    session.announce(shutdown_frame(self.now()))
                if await self._faults.end(window):
                    for session in told:
                        session.end(GOING_AWAY, "The server shuts down")
        self._faults.forget(window)

    async def _hide_close(self, hide: HideClose, window: Window) -> None:
        now = self.now()
        open_time = hide.interval.floor(now + hide.before_ms)
        close_time = hide.interval.next(open_time) - 1
        if hide.symbol is not None:
            final = self.market.series(hide.symbol, hide.interval).first_from(open_time)
            if final is None:
                return
            close_time = final.row.close_time
        with trio.move_on_at(self.clock.when(close_time - hide.before_ms)):
            await window.cleared.wait()
            return
        span = self.clock.seconds(hide.before_ms + hide.after_ms)
        self._faults.add(Refuse(symbol=hide.symbol, seconds=span))
        for session in self._connected(hide.symbol):
            session.abort()
