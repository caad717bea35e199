"""The bodies of REST answers: each is made once a revision, whoever asks for it and however often."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import msgspec

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.entry import Entry
from candlesync.hub import Topic
from candlesync.web.deflate import Deflater

CAPACITY = 2 * 2**20
"""Bytes of all bodies that are kept: 10 series of 1000 candles in plain text, ten times as many in gzip. One that is
not kept takes 0.03 ms to be joined again, or 0.1 ms to be put together in gzip, where a request takes 0.4: it is those
that are asked for between two revisions, many times a second, that are worth their memory."""


class Question(msgspec.Struct, frozen=True):
    """Which candles of a series are asked for."""

    limit: int
    """How many at most, the newest."""
    before: int | None
    """Only those that open before this (milliseconds)."""


class _Body(msgspec.Struct, frozen=True):
    revision: int
    last: Entry
    """With the revision this tells whether anything has changed: a commit has a revision of its own, and a replica that
    has taken over what a store holds, maybe of an earlier revision, has all its entries anew."""
    data: bytes


class Bodies:
    """Those that were asked for last, at most ``capacity`` bytes of them."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[tuple[Series, Question, bool], _Body] = OrderedDict()
        self.size = 0
        """Bytes of those that are kept."""
        # With its topic goes what is compressed of a series.
        self._deflaters: WeakKeyDictionary[Topic, Deflater] = WeakKeyDictionary()

    def plain(self, topic: Topic, question: Question, entries: Sequence[Entry]) -> bytes:
        """The JSON of ``entries``, which are what the topic's replica answers now."""
        return self._kept_or_made(topic, question, entries, is_gzip=False)

    def gzip(self, topic: Topic, question: Question, entries: Sequence[Entry]) -> bytes:
        """The same in gzip; at least one entry."""
        return self._kept_or_made(topic, question, entries, is_gzip=True)

    def _kept_or_made(self, topic: Topic, question: Question, entries: Sequence[Entry], *, is_gzip: bool) -> bytes:
        if not entries:
            return wire.history(topic.series, entries)
        key = (topic.series, question, is_gzip)
        kept = self._kept.get(key)
        revision = topic.replica.revision
        if kept is not None and kept.revision == revision and kept.last is entries[-1]:
            self._kept.move_to_end(key)
            return kept.data
        if is_gzip:
            deflater = self._deflaters.get(topic)
            if deflater is None:
                deflater = self._deflaters[topic] = Deflater(topic.series)
            data = deflater.gzip(entries, wire.history(topic.series, entries))
        else:
            data = wire.history(topic.series, entries)
        self._keep(key, _Body(revision, entries[-1], data))
        return data

    def _keep(self, key: tuple[Series, Question, bool], body: _Body) -> None:
        replaced = self._kept.pop(key, None)
        self.size += len(body.data) - (len(replaced.data) if replaced else 0)
        self._kept[key] = body
        while self.size > self._capacity:
            _, oldest = self._kept.popitem(last=False)
            self.size -= len(oldest.data)
