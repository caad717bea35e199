"""What the nodes of a shared store announce, given to those on this node whom it concerns.

    store's listener ─▶ `Announcements` ─┬▶ the follower of a series: commits, and what its owner says of it
                                         └▶ the ownership: who owns what, and who is there

The last report of each symbol is kept, also of those that nobody follows here: a series that somebody asks for is then
known to be live as soon as it has its candles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit
from candlesync.core.report import Release, Report, SeriesReport

MOST = 10_000
"""Symbols of which a report is kept; Binance lists a third as many. Who else announces what is none cannot fill us."""


class Listener(Protocol):
    """Who follows a series (``follower.Follower``). None of it may wait."""

    def listening(self) -> None:
        """From now on everything is heard; what was announced before may have been missed."""
        ...

    def deaf(self, reason: str) -> None:
        """Until `listening` is called again nothing may be heard."""
        ...

    def committed(self, commit: Commit) -> None:
        """A commit stands in the store."""
        ...

    def moved(self, position: Position) -> None:
        """A commit stands in the store, of which only the position is told."""
        ...

    def reported(self, report: SeriesReport | None, at: float) -> None:
        """The owner said at ``at`` (trio time) how the series is; `None`: it has not begun it. No owner: -inf."""
        ...


class Observer(Protocol):
    """Who wants to know who owns what (``ownership``). None of it may wait."""

    def reported(self, symbol: str, report: Report) -> None:
        """See `Audience.reported`; this node's own reports are told, too."""
        ...

    def released(self, symbol: str, release: Release) -> None:
        """See `Audience.released`."""
        ...

    def assembled(self) -> None:
        """See `Audience.assembled`."""
        ...


class Heard(msgspec.Struct, frozen=True):
    """The last that was heard of a symbol's owner."""

    report: Report
    at: float
    """Trio time."""


class Announcements:
    """The ``Audience`` of a node's store. Without one, nothing is ever heard, and every follower is deaf."""

    def __init__(self, node: str = "", fresh_for: float = 2.0) -> None:
        """``node`` is this node's identity. A report counts for ``fresh_for`` seconds: as long as a lease lasts."""
        self.node = node
        self.fresh_for = fresh_for
        self.ownership: Observer | None = None
        self.deafness = "the store's announcements are not heard yet"
        """Why nothing is heard; empty while everything is."""
        self.reports: dict[str, Heard] = {}
        """The last report of each symbol, of this node too; none where the owner has given the symbol up since."""
        self._listeners: dict[str, dict[Interval, Listener]] = {}
        self._calls: list[Callable[[], None]] = []

    @contextmanager
    def each_time_listening(self, call: Callable[[], None]) -> Iterator[None]:
        """As long as the block lasts, call ``call`` whenever everything is heard again. It must not wait."""
        self._calls.append(call)
        try:
            yield
        finally:
            self._calls.remove(call)

    @contextmanager
    def following(self, series: Series, listener: Listener) -> Iterator[None]:
        """Tell ``listener`` what concerns the series, as long as the block lasts; first how things are now."""
        self._listeners.setdefault(series.symbol, {})[series.interval] = listener
        try:
            if self.deafness:
                listener.deaf(self.deafness)
            else:
                listener.listening()
            heard = self.reports.get(series.symbol)
            if heard is not None and heard.report.owner != self.node:
                listener.reported(heard.report.series.get(series.interval), heard.at)
            yield
        finally:
            # Another may follow the series already.
            listeners = self._listeners.get(series.symbol, {})
            if listeners.get(series.interval) is listener:
                del listeners[series.interval]
            if not listeners:
                self._listeners.pop(series.symbol, None)

    # --- the audience

    def listening(self) -> None:
        """See `Audience.listening`."""
        self.deafness = ""
        for listener in self._all():
            listener.listening()
        for call in list(self._calls):
            call()

    def deaf(self, reason: str) -> None:
        """See `Audience.deaf`."""
        self.deafness = reason
        for listener in self._all():
            listener.deaf(reason)

    def committed(self, series: Series, commit: Commit) -> None:
        """See `Audience.committed`."""
        listener = self._listeners.get(series.symbol, {}).get(series.interval)
        if listener is not None:
            listener.committed(commit)

    def moved(self, series: Series, position: Position) -> None:
        """See `Audience.moved`."""
        listener = self._listeners.get(series.symbol, {}).get(series.interval)
        if listener is not None:
            listener.moved(position)

    def reported(self, symbol: str, report: Report) -> None:
        """See `Audience.reported`."""
        heard = Heard(report, trio.current_time())
        self.reports.pop(symbol, None)
        self.reports[symbol] = heard
        if len(self.reports) > MOST:
            del self.reports[next(iter(self.reports))]  # of which nothing was heard for longest
        # What this node said while it was the owner is no news of who is now.
        if report.owner != self.node:
            for interval, listener in self._of(symbol):
                listener.reported(report.series.get(interval), heard.at)
        if self.ownership is not None:
            self.ownership.reported(symbol, report)

    def released(self, symbol: str, release: Release) -> None:
        """See `Audience.released`."""
        heard = self.reports.get(symbol)
        if heard is not None and heard.report.owner == release.owner:
            del self.reports[symbol]
            for _, listener in self._of(symbol):
                listener.reported(None, -math.inf)
        if self.ownership is not None:
            self.ownership.released(symbol, release)

    def assembled(self) -> None:
        """See `Audience.assembled`."""
        if self.ownership is not None:
            self.ownership.assembled()

    # What is told may make a follower end, or begin: so they are counted before.

    def _of(self, symbol: str) -> list[tuple[Interval, Listener]]:
        return list(self._listeners.get(symbol, {}).items())

    def _all(self) -> list[Listener]:
        return [listener for listeners in self._listeners.values() for listener in listeners.values()]
