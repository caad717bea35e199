"""What the stream has shown and the series does not hold yet.

Invariant 8: the loop that receives frames never waits. It leaves each frame here, and the synchronizer takes them when
it can. So that this stays bounded however long that takes, forming updates of one candle replace each other, and closed
candles are kept in order, at most as many as the history holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from candlesync.core.candle import Candle
from candlesync.core.merge import Source, merge


class Pending:
    """Frames of one series that wait for their turn."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._closed: dict[int, Candle] = {}
        self._forming: Candle | None = None
        self._shown: dict[int, Candle] = {}

    def __len__(self) -> int:
        return len(self._closed) + (self._forming is not None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, and nothing is remembered as shown."""
        return self._forming is None and not self._closed and not self._shown

    def __iter__(self) -> Iterator[Candle]:
        """The waiting candles, ascending by open time; at most one of them, not always the last, is forming."""
        forming = self._forming
        if not self._closed:
            return iter(() if forming is None else (forming,))
        waiting = dict(self._closed)
        if forming is not None:
            waiting[forming.open_time] = forming
        return iter([waiting[time] for time in sorted(waiting)])

    def add(self, candle: Candle) -> bool:
        """Keep a frame's candle; whether it told anything new."""
        time = candle.open_time
        if candle.closed:
            known = self._closed.get(time)
            self._closed[time] = candle
            self._shown.pop(time, None)
            if self._forming is not None and self._forming.open_time == time:
                self._forming = None
            if len(self._closed) > self._history:
                del self._closed[min(self._closed)]
            return known != candle
        if time in self._closed:
            return False
        if self._forming is None:
            self._forming = candle
        elif self._forming.open_time == time:
            if merge(self._forming, candle, Source.STREAM) is None:
                return False
            self._forming = candle
        elif self._forming.open_time < time:
            self._show(self._forming)
            self._forming = candle
        else:
            self._show(candle)
        return True

    def closed(self, open_time: int) -> Candle | None:
        """The close that waits for ``open_time``."""
        return self._closed.get(open_time)

    def shown(self, open_time: int) -> Candle | None:
        """The last forming state that the stream showed of a candle whose close it has not shown (yet)."""
        if self._forming is not None and self._forming.open_time == open_time:
            return self._forming
        return self._shown.get(open_time)

    def reaches_beyond(self, open_time: int) -> bool:
        """Whether a later candle than the one of ``open_time`` waits."""
        if self._forming is not None and self._forming.open_time > open_time:
            return True
        return any(time > open_time for time in self._closed)

    def forget(self, *, before: int | None = None, beyond: int | None = None) -> None:
        """Drop what opens before ``before`` (the series is past it) or after ``beyond`` (it cannot be true)."""

        def is_kept(time: int) -> bool:
            return (before is None or time >= before) and (beyond is None or time <= beyond)

        for candles in (self._closed, self._shown):
            if candles:
                for time in [time for time in candles if not is_kept(time)]:
                    del candles[time]
        if self._forming is not None and not is_kept(self._forming.open_time):
            # What a frame that cannot be true has pushed aside takes its place again.
            newest = max(self._shown, default=None)
            self._forming = None if newest is None else self._shown.pop(newest)

    def lose_sight(self) -> None:
        """The stream was interrupted (invariant 4): the forming candle went on unseen, and only counts as shown."""
        if self._forming is not None:
            self._show(self._forming)
            self._forming = None

    def drop(self, candle: Candle) -> None:
        """Forget a candle that was taken into the series, unless a newer state of it has come since."""
        if self._closed.get(candle.open_time) == candle:
            del self._closed[candle.open_time]
        elif self._forming == candle:
            self._forming = None

    def _show(self, candle: Candle) -> None:
        known = self._shown.get(candle.open_time)
        if known is None or merge(known, candle, Source.STREAM) is not None:
            self._shown[candle.open_time] = candle
            if len(self._shown) > self._history:
                del self._shown[min(self._shown)]
