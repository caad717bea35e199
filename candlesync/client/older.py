"""Candles that a client holds no more, or never held: asked of the server, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from candlesync.client.candles import Candle, check, successor
from candlesync.client.pauses import Pauses
from candlesync.client.server import Answer
from candlesync.core.interval import Interval
from candlesync.errors import FeedError

PAGE: Final = 1000
"""Candles of one answer of REST at most."""
FINAL: Final = frozenset(
    {"unknown_symbol", "bad_interval", "bad_limit", "bad_parameter", "unauthorized", "forbidden", "not_found"}
)
"""Refusals after which the same question would get the same answer."""


class Loads(Protocol):
    """What is needed of a `Server`."""

    async def load(self, symbol: str, interval: str, **query: int) -> Answer: ...


class Older:
    """The candles of one series, as far back as the server goes."""

    def __init__(self, source: Loads, symbol: str, interval: Interval) -> None:
        self._source = source
        self._symbol = symbol
        self._interval = interval

    async def page(self, due: int, end: int) -> list[Candle]:
        """The first candles that open at ``due`` or later, but before ``end``; a page of them. Empty: there are none.

        Both are open times in UNIX seconds. Raises `FeedError` for what the server refuses for good.
        """
        interval = self._interval
        least = span = successor(0, interval) * PAGE
        pauses = Pauses()
        while due < end:
            until = min(due + span, end)
            try:
                answer = await self._source.load(self._symbol, str(interval), limit=PAGE, before=until)
                _check_page(answer.candles, interval)
            except FeedError as error:
                if error.code in FINAL:
                    raise
                await trio.sleep(pauses.take(error.retry_after))
                continue
            found = [candle for candle in answer.candles if candle.time >= due]
            if found and (span == least or len(answer.candles) < PAGE):
                return found
            if found:
                span = least  # not far: the series begins somewhere here
            else:
                due, span = until, 2 * span  # the series begins later
        return []


def _check_page(candles: Sequence[Candle], interval: Interval) -> None:
    check(candles, interval)
    if candles and not candles[-1].closed:
        raise FeedError("bad_answer", "the server is behind what it has sent before")
