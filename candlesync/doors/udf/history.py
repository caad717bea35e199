"""``history``: the bars of a series, from its replica, and what is older from the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import trio

from candlesync.archive import Archive
from candlesync.core import wire
from candlesync.core.entry import Entry
from candlesync.core.interval import DAY, Interval
from candlesync.doors.udf.parameters import Question
from candlesync.errors import UpstreamUnavailable
from candlesync.hub import Topic

PATIENCE = 30.0
"""Seconds for an answer: its pages are read one after the other. Those that were read are kept for who asks again."""
_SHORTEST_MONTH = 28 * DAY
_NAMES = ("t", "o", "h", "l", "c", "v")

_encode = msgspec.json.Encoder().encode


class Bars(msgspec.Struct, frozen=True):
    """The bars of a range, ascending, a column for each kind of value.

    For the document alone: what is sent is made of Binance's own decimals, and of no float.
    """

    s: Literal["ok"]
    t: list[int]
    o: list[float]
    h: list[float]
    l: list[float]  # noqa: E741 - the protocol's name
    c: list[float]
    v: list[float]


class NoBars(msgspec.Struct, frozen=True, rename={"next_time": "nextTime"}):
    """There are no bars in the range."""

    s: Literal["no_data"]
    next_time: int | msgspec.UnsetType = msgspec.UNSET
    """The time of the closest one before it, if there is one."""


async def answer(topic: Topic, archive: Archive, question: Question) -> bytes:
    """The JSON: the bars ascending, or ``no_data`` and the time of the closest bar before the range, if there is one.

    Raises `UpstreamUnavailable` when older candles are needed and cannot be had: never a short answer.
    """
    candles = await _candles(topic, archive, question)
    bars = candles if question.start is None else [entry for entry in candles if entry.open_time >= question.start]
    if bars:
        columns = zip(_NAMES, wire.columns(bars), strict=True)
        parts = (b'"%b":[%b]' % (name.encode("ascii"), b",".join(column)) for name, column in columns)
        return b'{"s":"ok",%b}' % b",".join(parts)
    return _encode(NoBars("no_data", candles[-1].open_time // 1000 if candles else msgspec.UNSET))


async def _candles(topic: Topic, archive: Archive, question: Question) -> Sequence[Entry]:
    """The newest candles before the end of the range, so many that they reach back to its start.

    And if it is empty, to the candle before it.
    """
    count = question.count
    if question.start is not None:
        # Two more than the range can hold, so that the candle before it is among them.
        count = max(2, min(count, (question.end - question.start) // _shortest(topic.series.interval) + 2))
    replica = topic.replica
    # Taken before anything is waited for: what the store drops meanwhile would be missing between the two.
    stored = replica.newest(count, question.end)
    first = replica.first
    is_whole = question.start is not None and stored and stored[0].open_time <= question.start
    if is_whole or len(stored) == count or first is None:
        return stored
    before = min(question.end, first.open_time)
    with trio.move_on_after(PATIENCE):
        older = await archive.older(topic.series, count - len(stored), before=before, joint=first.open_time)
        return [*older, *stored]
    raise UpstreamUnavailable(
        f"the older bars of {topic.series} did not all come within {PATIENCE:g} s", retry_after=5.0
    )


def _shortest(interval: Interval) -> int:
    """Milliseconds from one candle to the next, at least."""
    return _SHORTEST_MONTH if interval is Interval.MO1 else interval.next(0)
