"""History before what the store holds: closed candles, read from Binance a page at a time when a client scrolls back.

Nothing here is stored or published, and it has no revisions: an `Entry` of it has revision 0, which every candle of the
store is above. Its pages are few (the memory they take is bounded), asked for once whoever waits for them, two at a
time, and only while more than half of the request weight is left: those who scroll never keep a live series from its
backfill.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Protocol

import msgspec
import trio

from candlesync.binance.purpose import Purpose, spending_for
from candlesync.binance.weight import WeightBudget
from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.page import ROWS, Page, assemble, off_grid, page_before
from candlesync.errors import RateLimited, UnreadableAnswer, UpstreamUnavailable
from candlesync.sharing import Sharing

_BEGINNINGS = 10_000
"""Series of which it is remembered where they begin."""
_ANSWERS = 4
"""Answers that a page may take: one, but for outages at its ends, and rows off the grid."""


class Klines(Protocol):
    """Who asks Binance (``binance.rest.Rest``)."""

    budget: WeightBudget

    async def klines(
        self,
        series: Series,
        *,
        start_time: int | None = None,
        end_time: int | None = None,
        limit: int = 1_000,
        patience: float = 30.0,
    ) -> tuple[Candle, ...]:
        """A page of candles; see there."""
        ...


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """How much may be read for clients that scroll back. Times are seconds."""

    pages: int = 32
    """Pages that are kept, of some 440 KiB."""
    at_once: int = 2
    """Pages being read."""
    patience: float = 9.0
    """For a page, with its waiting for a place. ccxt and python-binance hang up after 10."""
    share: float = 0.5
    """Of the request weight; when more is used, nothing is read."""


@dataclass(frozen=True, slots=True)
class ArchiveStatistics:
    """What has been read since the start."""

    read: int
    """Pages read from Binance."""
    kept: int
    """Pages that were here when they were wanted."""
    shared: int
    """Pages that were being read for somebody else when they were wanted."""
    refused_for_weight: int
    """Pages that were not read because the weight is needed otherwise, or Binance asks to wait."""
    failures: int
    """Pages that could not be read: Binance did not answer usably, or not in time."""
    pages: int
    """That are held now."""


class _Kept(msgspec.Struct, frozen=True):
    entries: list[Entry]
    until: int
    """What is here is whole up to this open time, exclusive: a page into which the store reached is not."""
    is_first: bool
    """Whether the series begins in it, or after it."""
    filled: frozenset[int]
    """Open times of the entries that stand for an outage."""
    off_grid: list[Entry]
    """Rows of Binance's that no continuous series can hold."""
    preceding: int | None
    """The open time of Binance's newest row before the page; `None` when it has none."""
    following: int | None
    """The open time of Binance's oldest row after what is here, as far as it is known."""

    def rows(self, first: int, end: int) -> list[Entry]:
        """What Binance itself has from ``first`` on and before ``end``, ascending."""
        entries = [
            entry for entry in self.entries if first <= entry.open_time < end and entry.open_time not in self.filled
        ]
        if self.off_grid:
            entries += [entry for entry in self.off_grid if first <= entry.open_time < end]
            entries.sort(key=attrgetter("open_time"))
        return entries


class Archive:
    """Gives older candles. `run` owns the reading; a client that leaves does not end what others wait for."""

    def __init__(self, klines: Klines, settings: ArchiveSettings | None = None) -> None:
        self._klines = klines
        self._settings = settings or ArchiveSettings()
        self._places = trio.CapacityLimiter(self._settings.at_once)
        self._pages: OrderedDict[tuple[Series, int], _Kept] = OrderedDict()
        self._readings = Sharing[tuple[Series, int, int], _Kept]()
        self._begins: OrderedDict[Series, int] = OrderedDict()
        self._read_pages = 0
        self._kept_pages = 0
        self._shared_pages = 0
        self._refused_for_weight = 0
        self._failures = 0

    def statistics(self) -> ArchiveStatistics:
        """What has been read until now."""
        return ArchiveStatistics(
            read=self._read_pages,
            kept=self._kept_pages,
            shared=self._shared_pages,
            refused_for_weight=self._refused_for_weight,
            failures=self._failures,
            pages=len(self._pages),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read for those who ask, until cancelled."""
        await self._readings.run(task_status=task_status)

    @property
    def is_open(self) -> bool:
        """Whether `run` runs."""
        return self._readings.is_open

    async def older(self, series: Series, count: int, *, before: int, joint: int) -> list[Entry]:
        """The newest ``count`` candles that open before ``before``, ascending; fewer where the series begins.

        ``joint``: the open time of the oldest candle in the store; ``before`` is not after it. Both are milliseconds.
        Raises `UpstreamUnavailable` or another error of Binance's, and then nothing is known: never a short answer.
        """
        entries: list[Entry] = []
        end = before
        while len(entries) < count and end > max(0, self._begins.get(series, 0)):
            page = page_before(series.interval, end, joint)
            kept = await self._page(series, page, joint)
            entries = [entry for entry in kept.entries if entry.open_time < end] + entries
            if kept.is_first:
                break
            end = page.first
        return entries[-count:]

    async def rows_before(self, series: Series, count: int, *, before: int, joint: int) -> list[Entry]:
        """The newest ``count`` rows that Binance itself has before ``before``, ascending; fewer where it begins.

        Unlike `older` nothing stands for an outage, and rows off the grid are there. ``joint`` and errors are as there.
        """
        rows: list[Entry] = []
        end = before
        while len(rows) < count and end > max(0, self._begins.get(series, 0)):
            page = page_before(series.interval, end, joint)
            kept = await self._page(series, page, joint)
            rows = kept.rows(page.first, end) + rows
            if kept.preceding is None:
                break
            # An outage may be many pages long.
            end = kept.preceding + 1
        return rows[-count:]

    async def rows_from(self, series: Series, count: int, *, start: int, end: int, joint: int) -> list[Entry]:
        """The oldest ``count`` rows that Binance itself has from ``start`` on and before ``end``, ascending.

        ``end`` is not after ``joint``. Otherwise as `rows_before`.
        """
        rows: list[Entry] = []
        at = max(start, self._begins.get(series, start))
        while len(rows) < count and at < end:
            page = page_before(series.interval, at + 1, joint)
            kept = await self._page(series, page, joint)
            rows += kept.rows(at, end)
            at = max(page.end, kept.following or 0)
        return rows[:count]

    async def _page(self, series: Series, page: Page, joint: int) -> _Kept:
        until = min(page.end, joint)
        kept = self._pages.get((series, page.first))
        if kept is not None and kept.until >= until:
            self._pages.move_to_end((series, page.first))
            self._kept_pages += 1
            return kept
        key = (series, page.first, until)
        self._shared_pages += self._readings.is_under_way(key)
        return await self._readings.get(key, partial(self._count, series, page, until))

    async def _count(self, series: Series, page: Page, until: int) -> _Kept:
        try:
            return await self._read(series, page, until)
        except RateLimited:
            self._refused_for_weight += 1
            raise
        except UpstreamUnavailable:
            self._failures += 1
            raise

    async def _read(self, series: Series, page: Page, until: int) -> _Kept:
        self._klines.budget.check_share(self._settings.share, "older history is not read now")
        with trio.move_on_after(self._settings.patience), spending_for(Purpose.OLDER):
            async with self._places:
                kept = await self._ask(series, msgspec.structs.replace(page, end=until))
                self._read_pages += 1
                self._keep(series, page, kept)
                return kept
        raise UpstreamUnavailable(
            f"older candles of {series} did not come within {self._settings.patience:g} s", retry_after=5.0
        )

    def _keep(self, series: Series, page: Page, kept: _Kept) -> None:
        self._pages[series, page.first] = kept
        self._pages.move_to_end((series, page.first))
        while len(self._pages) > self._settings.pages:
            self._pages.popitem(last=False)

    async def _ask(self, series: Series, page: Page) -> _Kept:
        """Read what a page has, ``end`` being where it has to be whole."""
        interval, patience = series.interval, self._settings.patience
        rows = await self._klines.klines(series, end_time=page.end, limit=ROWS, patience=patience)
        is_all = len(rows) < ROWS
        for _ in range(_ANSWERS - 2):
            if is_all or rows[0].open_time < page.first:
                break
            # Rows off the grid took the room of others.
            earlier = await self._klines.klines(series, end_time=rows[0].open_time, limit=ROWS, patience=patience)
            if not earlier or earlier[-1].open_time != rows[0].open_time:
                raise UnreadableAnswer(f"candles of {series}: two pages do not join")
            is_all = len(earlier) < ROWS
            rows = earlier[:-1] + rows
        if rows and rows[-1].open_time < page.end:
            # An outage to the end of the page and beyond. Only a later row makes the last one final (invariant 5).
            later = await self._klines.klines(series, start_time=rows[-1].open_time, limit=2, patience=patience)
            if len(later) < 2 or later[0].open_time != rows[-1].open_time:
                raise UpstreamUnavailable(f"candles of {series}: Binance is behind what it has sent", retry_after=5.0)
            rows = rows[:-1] + later
        if not rows:
            # It begins later: where, is asked once.
            rows = await self._klines.klines(series, start_time=page.end, limit=2, patience=patience)
        if is_all:
            self._remember_beginning(series, rows[0].open_time if rows else page.end)
        elif rows[0].open_time >= page.first:
            raise UnreadableAnswer(f"candles of {series}: {len(rows)} rows do not reach back to {page.first}")
        candles = assemble(interval, page, rows, page.end)
        return _Kept(
            _packed(candles),
            page.end,
            is_all and (not rows or rows[0].open_time >= page.first),
            frozenset(candle.open_time for candle in candles if candle.filled),
            _packed(off_grid(interval, page, rows, page.end)),
            max((row.open_time for row in rows if row.open_time < page.first), default=None),
            min((row.open_time for row in rows if row.open_time >= page.end), default=None),
        )

    def _remember_beginning(self, series: Series, open_time: int) -> None:
        self._begins[series] = open_time
        self._begins.move_to_end(series)
        while len(self._begins) > _BEGINNINGS:
            self._begins.popitem(last=False)


def _packed(candles: list[Candle]) -> list[Entry]:
    entries = [Entry(candle, 0, candle.open_time) for candle in candles]
    for entry in entries:
        entry.write()
        entry.pack()
    return entries
