"""Pages of history before what a store holds: which open times they have, and which candles stand there. Pure.

All clients that scroll back ask for the same pages, whatever moment each of them begins at: a page's place is fixed on
the grid of its series, and does not depend on the question.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from candlesync.core.candle import Candle, fill_after
from candlesync.core.gap import gap_between
from candlesync.core.interval import Interval

ROWS = 1_000
"""Of one answer of Binance's, at most."""
LENGTH = ROWS - 2
"""Open times of a page: its answer has room for the one before, which fills are derived from, and for the one after,
without which its last row would not be final (invariant 5)."""


class Page(msgspec.Struct, frozen=True):
    """The open times from ``first`` on and before ``end``, in milliseconds."""

    first: int
    end: int


def page_before(interval: Interval, end: int, joint: int) -> Page:
    """The page that has the newest open time before ``end``. ``joint`` is any open time of the series.

    It gives the grid its phase: Binance does not say on which days ``3d`` begins.
    """
    if interval is Interval.MO1:
        return Page(0, interval.next(0, LENGTH))  # 83 years
    step = interval.next(0)
    length = LENGTH * step
    first = end - 1 - (end - 1 - joint % step) % length
    return Page(first, first + length)


def assemble(interval: Interval, page: Page, rows: Sequence[Candle], joint: int) -> list[Candle]:
    """The candles of a page, closed, continuous (invariant 1), and ascending.

    ``rows`` are Binance's, ascending, from before the page (or from the first there is) to after it, so that all of
    them within it are final. What they lack is an outage (invariant 6): flat candles stand there, marked as filled.
    Rows off the grid (Binance has some, of 2018) are left out.
    """
    candles: list[Candle] = []
    known: Candle | None = None
    for row in rows:
        if interval.steps(row.open_time, joint) is None:
            continue
        if known is not None:
            candles += _filled(interval, known, row.open_time, page)
        if page.first <= row.open_time < page.end:
            candles.append(row if row.closed else msgspec.structs.replace(row, closed=True))
        known = row
    return candles


def off_grid(interval: Interval, page: Page, rows: Sequence[Candle], joint: int) -> list[Candle]:
    """The rows of a page that `assemble` leaves out, closed and ascending."""
    return [
        row if row.closed else msgspec.structs.replace(row, closed=True)
        for row in rows
        if page.first <= row.open_time < page.end and interval.steps(row.open_time, joint) is None
    ]


def _filled(interval: Interval, before: Candle, after: int, page: Page) -> list[Candle]:
    """What stands in the page between a row and the next one, which opens at ``after``."""
    # An outage may be longer than the page: only what is in it is made. Its bounds are open times themselves.
    gap = gap_between(interval, max(before.open_time, interval.previous(page.first)), min(after, page.end))
    if gap is None:
        return []
    return [fill_after(before, time, interval.next(time)) for time in gap.open_times(interval)]
