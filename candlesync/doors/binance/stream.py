"""One stream of one client: what it is to be sent, given where it is.

A stream's place is the open time up to which its client has been shown every closed candle. All that the client is
still to be sent follows from it and the replica: each later candle that is closed, once and in order, and then the
forming one as it is now. So a slow client skips forming updates and never a close, it costs no queue (invariant 9), and
going on after a break is the same as being slow. The place is a time, not a revision: it outlives a series' lives.

This door shows what Binance shows, so three things that the client contract tells are not seen on it:

- a filled outage minute, which Binance does not have. When the real minute appears later, it is in REST, and not here:
  what comes after it has been shown, and a stream does not go back;
- a correction of a closed candle, be it the newest: Binance closes a candle once. REST has the correction;
- the state of the series. While it is not live nothing new is shown, as on a stream of Binance's that is silent; and
  who begins then is not shown an old forming candle as if it were the present one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from candlesync.core.candle import Series
from candlesync.core.entry import Entry
from candlesync.core.position import Position
from candlesync.core.sync import State
from candlesync.core.wire import frame
from candlesync.doors.binance.events import encode, event_time, wrap
from candlesync.errors import CandlesyncError
from candlesync.hub import Line, Outbox, Topic

_AHEAD = 10
"""Candles by which another node may be ahead."""


class Missed(CandlesyncError):
    """Closed candles that a client has not been sent have left the history."""


class Texts:
    """The events of all series, each made once a commit, whoever is sent it."""

    def __init__(self, clock: Callable[[], int], *, in_microseconds: bool = False) -> None:
        """``clock`` gives the milliseconds of the UNIX epoch; ``in_microseconds`` is of the times in the events."""
        self._clock = clock
        self._in_microseconds = in_microseconds
        self._made: WeakKeyDictionary[Topic, _Made] = WeakKeyDictionary()

    def event(self, topic: Topic, entry: Entry) -> bytes:
        """The event of a raw stream for a candle of a topic."""
        position = topic.replica.position
        made = self._made.get(topic)
        if made is None or made.position != position:
            # What was made for an earlier commit is not kept: few are behind.
            made = self._made[topic] = _Made(position)
        found = made.events.get(entry.open_time)
        if found is None:
            candle = entry.candle
            said = event_time(candle, self._clock())
            found = encode(topic.series, candle, said, in_microseconds=self._in_microseconds)
            made.events[entry.open_time] = found
        return found


class _Made:
    """The events that were made since a commit, by open time."""

    __slots__ = ("events", "position")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.events: dict[int, bytes] = {}


class Stream:
    """One client's interest in one series, begun with the series as it is now."""

    __slots__ = ("_shown", "_texts", "place", "subscriber")

    def __init__(self, topic: Topic, outbox: Outbox, texts: Texts) -> None:
        """Synchronous: what is committed from here on is not lost, however long it takes until it is sent."""
        self.subscriber = topic.subscribe(outbox)
        self._texts = texts
        entry = next(iter(topic.replica.newest(1)), None)
        self._shown: Entry | None = None
        """The entry that the client was sent last as the forming candle."""
        self.place = 0
        """What opens at or before this (milliseconds) is not to be sent any more."""
        if entry is not None:
            is_closed = entry.candle.closed
            self.place = entry.open_time if is_closed else entry.open_time - 1
            if not is_closed and topic.state is not State.LIVE:
                self._shown = entry

    @property
    def series(self) -> Series:
        """What it is a stream of."""
        return self.subscriber.topic.series

    def go_on_from(self, place: int) -> None:
        """Its client has every closed candle up to ``place``, as far as is known."""
        # Another node may have been a close or two ahead of this one. What is further ahead (a store holds what anybody
        # has written there) would be silence for so long.
        newest = next(iter(self.subscriber.topic.replica.newest(1)), None)
        interval = self.series.interval
        if newest is not None and place > interval.next(interval.floor(newest.open_time), _AHEAD):
            return
        self.place = place

    def due(self, *, combined: bool) -> Iterator[tuple[int, bytes]]:
        """What is to be sent now, in order, each with the place to which its being sent brings the stream.

        Nothing is to be sent where the bytes are empty. The replica is read when the first is asked for. Raises
        `Missed`.
        """
        topic, subscriber = self.subscriber.topic, self.subscriber
        # Once all of it is sent, the client has everything until now, and the subscriber can be parked.
        subscriber.life, subscriber.revision = topic.replica.life, topic.replica.revision
        entries = topic.replica.since(self.place + 1)
        if entries is None:
            if len(topic.replica):
                raise Missed(f"closed candles of {topic.series} were missed that are no longer held")
            return
        place = self.place
        for entry in entries:
            candle = entry.candle
            if candle.filled:
                place = entry.open_time
                yield place, b""
                continue
            if candle.closed:
                place = entry.open_time
            elif entry is self._shown:
                return
            else:
                self._shown = entry
            event = self._texts.event(topic, entry)
            yield place, wrap(topic.series, event) if combined else event

    def offer(self, line: Line, *, combined: bool) -> tuple[int, int]:
        """Write what is due to a line at once: how many bytes were taken, and of how many. Never waits."""
        shown = self._shown
        try:
            due = list(self.due(combined=combined))
        except Missed:
            return 0, 1  # for who pulls to deal with
        frames = b"".join(frame(event) for _, event in due if event)
        taken = line.offer(frames) if frames else 0
        if taken or not frames:
            # What was begun goes out whole.
            self.place = due[-1][0] if due else self.place
        else:
            self._shown = shown
        return taken, len(frames)

    def end(self) -> None:
        """Let go of the series."""
        self.subscriber.topic.unsubscribe(self.subscriber)
