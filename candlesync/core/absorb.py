"""What a REST answer says of a series: corrections, the tail's final values, what follows it, and what is missing.

Invariants 4 to 6 are kept here. The tail is fetched again before anything is put after it; a row counts as final only
if a later one stands in the same answer (``binance.parse`` marks it so); and a minute is filled only when an answer,
asked for after a pause, lacks it once more while showing later ones, and the stream never showed it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from candlesync.core.candle import Candle, fill_after
from candlesync.core.gap import Gap, gap_between
from candlesync.core.interval import Interval
from candlesync.core.merge import Source, merge
from candlesync.core.pending import Pending
from candlesync.core.replica import Replica


class Evidence(msgspec.Struct, frozen=True):
    """What else is known when an answer is read."""

    missing: tuple[Gap, ...]
    """What an answer before the pause did not show; empty when there was no pause."""
    pending: Pending
    give_up: bool
    """Whether REST was asked often enough for a minute that only the stream has shown."""


class Absorbed(msgspec.Struct):
    """What an answer changes."""

    changes: dict[int, Candle]
    """New states by open time; continuous with the series, or by themselves if it begins with them."""
    tail: Candle | None
    """The tail once the changes are made."""
    begins: bool = False
    missing: tuple[Gap, ...] = ()
    """What the answer lacks while it shows later rows, and may not be filled yet. ``changes`` ends before it."""
    appended: int = 0
    filled: int = 0
    corrected: int = 0
    given_up: list[int] = msgspec.field(default_factory=list)
    """Open times that are closed as the stream last showed them, for want of a row."""


def absorb(replica: Replica, rows: Sequence[Candle], evidence: Evidence) -> Absorbed:
    """Read an answer against the series. ``rows`` ascend, lie on the grid, and all but the last are final."""
    reading = _Reading(replica, evidence)
    if rows and replica.tail is not None and _is_disjoint(replica, rows):
        reading.begin()
    for row in rows:
        reading.take(row)
    return reading.absorbed


def refill(replica: Replica, changes: dict[int, Candle], *, begins: bool) -> None:
    """Derive the fills that stand behind changed candles anew (invariant 6), into ``changes``."""
    if not replica.filled and not any(candle.filled for candle in changes.values()):
        return
    interval = replica.series.interval
    for open_time in sorted(changes):
        before, time = changes[open_time], interval.next(open_time)
        while True:
            after = changes.get(time) or (None if begins else replica.get(time))
            if after is None or not after.filled:
                break
            fill = fill_after(before, time, interval.next(time))
            if fill == after:
                break
            changes[time] = before = fill
            time = interval.next(time)


def _is_disjoint(replica: Replica, rows: Sequence[Candle]) -> bool:
    """Whether the answer does not reach back to the tail, and ends a whole history or more after it."""
    tail = replica.tail
    interval = replica.series.interval
    if tail is None or rows[0].open_time <= (interval.next(tail.open_time) if tail.closed else tail.open_time):
        return False
    # What lies between them was not asked for: it is no outage, and must not be filled.
    steps = interval.steps(tail.open_time, rows[-1].open_time)
    return steps is not None and steps >= replica.history


class _Reading:
    """One answer being read, row by row."""

    def __init__(self, replica: Replica, evidence: Evidence) -> None:
        self._replica = replica
        self._interval: Interval = replica.series.interval
        self._evidence = evidence
        self._missing: list[Gap] = []
        tail = replica.tail
        self._reached = None if tail is None else tail.open_time
        if tail is not None and not tail.closed:
            # Invariant 4: the last known values of a forming tail are not its final ones; its own row is awaited too.
            self._reached = self._interval.previous(tail.open_time)
        self.absorbed = Absorbed({}, tail, begins=tail is None)

    def begin(self) -> None:
        """The series begins again: what came so far cannot be joined to what comes."""
        self.absorbed = Absorbed({}, None, begins=True)
        self._reached = None
        self._missing.clear()

    def take(self, row: Candle) -> None:
        """Read the next row."""
        tail = self.absorbed.tail
        if tail is not None and row.open_time <= tail.open_time:
            self._correct(row)
            self._reached = max(row.open_time, self._reached or 0)
            return
        if not row.closed:
            # Invariant 5: the newest row is forming, and nothing can follow it until it is final; where the stream is
            # further on, the row says nothing that lasts. Where the stream has shown its close, that is what it is.
            close = self._evidence.pending.closed(row.open_time)
            if close is not None:
                row = close
            elif self._evidence.pending.reaches_beyond(row.open_time):
                self._bridge(row.open_time)
                return
        if self._bridge(row.open_time):
            self._append(row)
            self.absorbed.appended += 1

    def _correct(self, row: Candle) -> None:
        # Rows ascend, so nothing has changed it yet; and behind a beginning there is no older one.
        known = self._replica.get(row.open_time)
        if known is None:
            return  # older than the history
        state = merge(known, row, Source.REST)
        if state is None:
            return
        self.absorbed.corrected += known.closed
        self.absorbed.changes[row.open_time] = state
        tail = self.absorbed.tail
        if tail is not None and tail.open_time == row.open_time:
            self.absorbed.tail = state

    def _bridge(self, open_time: int) -> bool:
        """Bring the tail to just before ``open_time``; whether that could be done."""
        reached, self._reached = self._reached, open_time
        if reached is None:
            return True
        gap = gap_between(self._interval, reached, open_time)
        if gap is not None and gap.count(self._interval) > self._replica.history:
            leapt = self._leap(gap)
            self._reached = open_time  # `begin` has forgotten it, and the next row may lie behind a hole again
            return leapt
        if gap is not None:
            lacking: list[int] = []
            for time in gap.open_times(self._interval):
                if not self._stand_in(time, follows=not (self._missing or lacking)):
                    lacking.append(time)
            if lacking:
                self._note(Gap(lacking[0], lacking[-1]))
        # Once something is missing, nothing is put behind it; reading on only finds what else is missing.
        return not self._missing

    def _leap(self, gap: Gap) -> bool:
        """Begin again behind a gap longer than the history, once it was seen twice."""
        if any(gap.first in seen and gap.last in seen for seen in self._evidence.missing):
            self.begin()
            return True
        self._note(gap)
        return False

    def _note(self, gap: Gap) -> None:
        self._missing.append(gap)
        self.absorbed.missing = tuple(self._missing)

    def _stand_in(self, time: int, *, follows: bool) -> bool:
        """Settle a minute that the answer lacks: with its waiting close, or with a fill. Whether that could be done.

        Nothing is put into the series unless it ``follows``: with no missing minute before it.
        """
        tail = self.absorbed.tail
        close = self._evidence.pending.closed(time)
        if tail is None or not follows:
            return close is not None
        if close is not None:
            self._append(close)
            return True
        if not any(time in seen for seen in self._evidence.missing):
            return False
        shown = self._evidence.pending.shown(time)
        if tail.open_time == time:
            shown = (shown and merge(tail, shown, Source.STREAM)) or tail
        if shown is None:
            self._append(fill_after(tail, time, self._interval.next(time)))
            self.absorbed.filled += 1
            return True
        # The stream showed it, so it is no outage. REST never did; once it was asked often enough, what was shown is
        # all there is, and a chart cannot wait for ever. A final row that comes later corrects it.
        if self._evidence.give_up:
            self._append(msgspec.structs.replace(shown, closed=True))
            self.absorbed.given_up.append(time)
        return self._evidence.give_up

    def _append(self, candle: Candle) -> None:
        self.absorbed.changes[candle.open_time] = candle
        self.absorbed.tail = candle
