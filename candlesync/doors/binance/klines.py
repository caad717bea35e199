"""``klines``: from the replica as far back as it goes, and from Binance what lies before it.

This door shows what Binance shows: an outage is no row here, and a filled candle, which stands for one in the store,
counts for nothing. Where the two meet is fixed by the oldest candle of the replica at the moment of the question, so no
row is there twice, and none is missing, whatever the replica drops or gains while Binance is asked.
"""

from __future__ import annotations

import trio

from candlesync.archive import Archive
from candlesync.binance.public import PublicApi, PublicPath, Values
from candlesync.binance.rest import PassedOn
from candlesync.binance.symbols import Symbols
from candlesync.core.candle import Series
from candlesync.core.entry import Entry
from candlesync.core.sync import State
from candlesync.doors.binance.errors import invalid_interval
from candlesync.doors.binance.parameters import KlineQuestion, read_kline_question
from candlesync.doors.binance.passing import Passing
from candlesync.doors.binance.rows import NewestRows, rows_body
from candlesync.errors import TooMany, UpstreamUnavailable
from candlesync.hub import Topic
from candlesync.supervisor import Supervisor

PATIENCE = 9.0
"""Seconds for an answer, of whose pages each has as long by itself: ccxt and python-binance hang up after 10. The pages
that were read are kept for who asks again."""


class Klines:
    """Answers ``klines`` and ``uiKlines``."""

    def __init__(
        self, api: PublicApi, supervisor: Supervisor, symbols: Symbols, archive: Archive, passing: Passing
    ) -> None:
        self.api = api
        self._supervisor = supervisor
        self._symbols = symbols
        self._archive = archive
        self._passing = passing
        self._newest = NewestRows()

    async def answer(self, path: PublicPath, values: Values, *, in_microseconds: bool) -> tuple[PassedOn, State | None]:
        """The answer, and how true the replica is that it is from; `None` for Binance's own.

        Raises `BinanceRefusal` and what `Supervisor.ensure`, `Archive` and `Passing` raise.
        """
        question = read_kline_question(dict(values), self.api)
        interval = question.interval
        until = trio.current_time() + PATIENCE
        topic = await self._topic(question)
        if topic is None or interval is None:
            return await self._passing.ask(path, values, in_microseconds=in_microseconds), None
        state = topic.state
        entries = await self._rows(topic, question, until)
        if question.start is None and question.end is None and not in_microseconds:
            return PassedOn(200, self._newest.body(topic.series, entries)), state
        return PassedOn(200, rows_body(entries, interval, in_microseconds=in_microseconds)), state

    async def _rows(self, topic: Topic, question: KlineQuestion, until: float) -> list[Entry]:
        with trio.move_on_at(until):
            return await rows_of(topic, question, self._archive)
        raise UpstreamUnavailable(
            f"the older candles of {topic.series} did not all come within {PATIENCE:g} s", retry_after=5.0
        )

    async def _topic(self, question: KlineQuestion) -> Topic | None:
        """The series, followed from now on; `None` for what Binance has to answer by itself."""
        if not question.symbol.isascii():
            return None  # what is between us and Binance's streams is ASCII
        series = None if question.interval is None else Series(question.symbol, question.interval)
        # What is followed is served whether a list of symbols can be had or not.
        topic = self._supervisor.at_once(series) if series is not None and question.is_utc else None
        if topic is not None:
            return topic
        await self._symbols.require(question.symbol)
        if series is None:
            raise invalid_interval()
        if not question.is_utc:
            return None
        try:
            return await self._supervisor.ensure(series)
        except TooMany:
            return None


async def rows_of(topic: Topic, question: KlineQuestion, archive: Archive) -> list[Entry]:
    """The rows that a question asks for, ascending.

    The oldest from its start on, or the newest if it has none; in both cases none that opens after its end.
    """
    replica, series, limit = topic.replica, topic.series, question.limit
    # Taken before anything is waited for, and so are the bounds of what the archive is asked for.
    filled = replica.filled
    stored = [entry for entry in replica.newest(replica.history) if entry.open_time not in filled]
    first = replica.first
    joint = first.open_time if first else 0
    end = question.end
    if end is not None:
        stored = [entry for entry in stored if entry.open_time <= end]
    if question.start is None:
        stored = stored[-limit:]
        before = joint if end is None else min(end + 1, joint)
        older = await archive.rows_before(series, limit - len(stored), before=before, joint=joint)
        return [*older, *stored]
    start = question.start
    stored = [entry for entry in stored if entry.open_time >= start]
    before = joint if end is None else min(end + 1, joint)
    older = await archive.rows_from(series, limit, start=start, end=before, joint=joint)
    return [*older, *stored][:limit]
