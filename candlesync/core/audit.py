"""The audit of series that are whole: which part of which is compared with REST next, and what the answers say.

A closed candle comes from a stream's close frame or from a REST row that was final; either may have been changed by
Binance since. The last candles of a series are compared soon after they close, each a few times; the whole of it now
and then. When Binance allows little, a series' turn comes later, and then covers more at once: nothing is left out.

`Agenda` tells what to ask; whether there is weight for it, and the asking, is its caller's business. It decides by the
open times of candles and rows, and by times that its caller gives: seconds of a clock that never goes back
(invariant 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count

import msgspec

from candlesync.core.candle import Candle, Series, same_values
from candlesync.core.replica import Replica

_FEW = 16
"""Entries of the queue that may be of series that are gone, beside as many as there are."""


class AuditSettings(msgspec.Struct, frozen=True):
    """Times in seconds."""

    share: float = 0.1
    """Of the request weight of a minute: what the audit spends at most; 0: there is none. 200 series of ``1m`` take 400
    of the 6,000, so their last candles are compared each minute with a third of it to spare for longer intervals; nine
    tenths stay with what cannot wait."""
    busy: float = 0.5
    """Of the same: when more is used, by whomever, the audit waits. Clients that scroll back stop there, too."""
    every: float = 20.0
    """How often a series is looked at. Each has a phase of its own within it: what closes at one moment, as all minutes
    do, is not asked about at one moment. A candle of ``1m`` is compared 10 s after its close on the average; of
    200 symbols, for which the share is just enough, after 20 s, and 40 at most."""
    overlap: int = 3
    """So many of the candles that were compared the last time are compared again, without a question more: a row that
    changes within some minutes of the close is noticed then, not with the whole series."""
    whole_every: float = 3600.0
    """A series of 1000 candles is one question, so 1,000 series cost 33 of the weight each minute."""
    page: int = 1000
    """Rows of an answer at most: Binance's own limit of a klines request."""
    back_off_cap: float = 600.0
    """A question whose answer brings nothing (REST is behind, or fails) is put again after a pause that doubles, from
    ``every`` to this."""

    def __post_init__(self) -> None:
        """Refuse settings that ask without a pause, or never get anywhere, with `ValueError`."""
        if not 0 <= self.share <= self.busy <= 1 or not 0 < self.every <= self.back_off_cap:
            raise ValueError(f"{self}: share from 0 to busy, busy to 1; every above 0 and up to the back-off's cap")
        if self.overlap < 0 or self.page < self.overlap + 3 or self.whole_every < self.every:
            raise ValueError(f"{self}: overlap from 0, page above overlap + 2, whole_every from every")


class Finding(msgspec.Struct, frozen=True):
    """What an answer says of the closed candles from the one that was asked for on."""

    seen: int | None = None
    """The newest open time in it, whose row is forming (invariant 5): what opens before it was compared. `None`: the
    answer is empty."""
    compared: int = 0
    """Closed candles that it has a final row for."""
    differing: tuple[int, ...] = ()
    """The open times of those of them that the row shows otherwise, ascending."""
    absent: tuple[int, ...] = ()
    """Closed candles, not filled, that it lacks while it shows later ones. Nothing changes for that (invariant 3)."""
    ends: bool = False
    """Whether there is nothing after it: it has fewer rows than were asked for."""


class Question(msgspec.Struct, frozen=True):
    """Compare the closed candles from ``start`` (milliseconds) on with ``limit`` rows of REST."""

    series: Series
    start: int
    limit: int
    newest: int
    """The newest closed candle when it was asked."""
    is_whole: bool
    """Whether it is a part of going through the whole series."""
    turn: int
    """Which stay of the series on the agenda it belongs to."""


def compare(replica: Replica, question: Question, rows: Sequence[Candle]) -> Finding:
    """Hold an answer against the series; changes nothing. ``rows`` ascend, and all but the last are final."""
    first = replica.first
    if not rows or first is None:
        return Finding(ends=not rows)
    seen = rows[-1].open_time
    finals = {row.open_time: row for row in rows[:-1]}
    compared = 0
    differing: list[int] = []
    absent: list[int] = []
    for entry in replica.since(max(question.start, first.open_time)) or ():
        known = entry.candle
        if known.open_time >= seen or not known.closed:
            break
        row = finals.get(known.open_time)
        if row is not None:
            compared += 1
            if not same_values(known, row):
                differing.append(known.open_time)
        elif not known.filled:
            absent.append(known.open_time)
    return Finding(seen, compared, tuple(differing), tuple(absent), ends=len(rows) < question.limit)


class Outcome(msgspec.Struct, frozen=True):
    """What an answer was for the audit."""

    absent: int = 0
    """Candles that it lacks and that were not known to be lacking."""
    is_whole: bool = False
    """Whether the series has now been compared as a whole."""


class _Subject:
    """A series on the agenda."""

    def __init__(self, series: Series, turn: int, now: float, whole_at: float, pause: float) -> None:
        self.series = series
        self.turn = turn
        self.added_at = now
        self.whole_at = whole_at
        """When the whole series is to be compared the next time."""
        self.compared_whole_at: float | None = None
        self.verified: int | None = None
        """The newest closed candle that was compared; `None` before the first."""
        self.place: int | None = None
        """Where going through the whole series has come to."""
        self.asks_again = False
        """Whether it differed the last time: what was committed for that is looked at once."""
        self.pause = pause
        """Seconds to let pass after the next question that brings nothing."""
        self.absent: frozenset[int] = frozenset()
        """What REST is known to lack, so that it is counted once."""


class Agenda:
    """Which series is looked at when. Its memory is bounded by the series on it."""

    def __init__(self, settings: AuditSettings, jitter: Callable[[], float]) -> None:
        """``jitter`` gives numbers from 0 up to 1: the phases of the series."""
        self._settings = settings
        self._jitter = jitter
        self._subjects: dict[Series, _Subject] = {}
        self._queue: list[tuple[float, int, _Subject]] = []
        """A heap by the time at which a subject is due; in it once, or not at all while its question is asked."""
        self._count = count()

    def __len__(self) -> int:
        return len(self._subjects)

    def add(self, series: Series, now: float) -> None:
        """Audit a series from now on; if it was on the agenda, as if for the first time."""
        whole_at = now + self._jitter() * self._settings.whole_every
        subject = self._subjects[series] = _Subject(series, next(self._count), now, whole_at, self._settings.every)
        self._queue_up(subject, now + self._jitter() * self._settings.every)

    def remove(self, series: Series) -> None:
        """Audit it no more; answers that are still to come mean nothing."""
        self._subjects.pop(series, None)

    def due_at(self) -> float | None:
        """When `next` has something; `None` when there is no series."""
        while self._queue and not self._is_current(self._queue[0][2]):
            heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def next(self, now: float) -> Series | None:
        """The series that is due, longest overdue first, or `None`. One of `ask`, `put_off` is to follow for it."""
        due_at = self.due_at()
        return None if due_at is None or due_at > now else heappop(self._queue)[2].series

    def ask(self, series: Series, replica: Replica | None, now: float) -> Question | None:
        """What to ask of the series that is due, or `None`, and then it is looked at again later.

        ``replica`` is `None` while the series is not live: the sync asks then. For a question one of `answered`,
        `put_off`, `failed` is to follow.
        """
        subject = self._subjects[series]
        question = None if replica is None else self._question(subject, replica, now)
        if question is None:
            subject.place = None
            self._queue_up(subject, now + self._settings.every)
        return question

    def answered(self, question: Question, finding: Finding, now: float) -> Outcome:
        """What the answer says."""
        subject = self._subject(question)
        if subject is None:
            return Outcome()
        absent = set(finding.absent) - subject.absent
        if question.is_whole and subject.place is None:
            # It begins with the series' first candle: what was before that is asked about no more.
            subject.absent = frozenset(time for time in subject.absent if time >= question.start)
        subject.absent |= absent
        if finding.seen is None or (finding.seen <= question.start and not finding.ends):
            self._back_off(subject, now)
            return Outcome(len(absent))
        subject.pause = self._settings.every
        again = bool(finding.differing) and not subject.asks_again
        subject.asks_again = again
        reached = finding.differing[0] if again else finding.seen
        """Compared, and not to be asked for again, is what opens before it."""
        verified = subject.series.interval.previous(reached)
        subject.verified = verified if subject.verified is None else max(subject.verified, verified)
        is_through = not again and (finding.ends or finding.seen > question.newest)
        if question.is_whole:
            self._go_through(subject, None if is_through else reached, now)
        # More of it that is there is asked for at once, but behind all that is due already.
        self._queue_up(subject, now + self._settings.every if again or is_through else now)
        return Outcome(len(absent), question.is_whole and is_through)

    def put_off(self, question: Question, now: float) -> None:
        """It was not asked: Binance's weight was needed for something else."""
        subject = self._subject(question)
        if subject is not None:
            self._queue_up(subject, now + self._settings.every)

    def failed(self, question: Question, now: float) -> None:
        """It was asked, and there is no answer."""
        subject = self._subject(question)
        if subject is not None:
            self._back_off(subject, now)

    def ages(self, now: float) -> dict[Series, float]:
        """Seconds since each series was last compared as a whole, or was put on the agenda if it never was."""
        return {
            series: now - (subject.added_at if subject.compared_whole_at is None else subject.compared_whole_at)
            for series, subject in self._subjects.items()
        }

    def _question(self, subject: _Subject, replica: Replica, now: float) -> Question | None:
        first, tail, interval = replica.first, replica.tail, replica.series.interval
        if first is None or tail is None:
            return None
        newest = tail.open_time if tail.closed else interval.previous(tail.open_time)
        if newest < first.open_time:
            return None
        settings = self._settings
        is_whole = subject.place is not None or now >= subject.whole_at
        if is_whole:
            start = max(first.open_time, subject.place or 0)
        elif subject.verified is not None and subject.verified >= newest:
            return None
        else:
            # Of a series that is new here as many as are compared again: REST has just shown it.
            verified = newest if subject.verified is None else subject.verified
            start = max(first.open_time, interval.next(verified, -settings.overlap))
        # Later rows are needed for the newest to be final (invariant 5), and one more may have begun meanwhile.
        steps = interval.steps(start, newest)
        rows = settings.page if steps is None else min(steps + 3, settings.page)
        return Question(subject.series, start, rows, newest, is_whole, subject.turn)

    def _go_through(self, subject: _Subject, place: int | None, now: float) -> None:
        subject.place = place
        if place is None:
            subject.compared_whole_at = now
            subject.whole_at = now + self._settings.whole_every

    def _back_off(self, subject: _Subject, now: float) -> None:
        self._queue_up(subject, now + subject.pause)
        subject.pause = min(self._settings.back_off_cap, 2 * subject.pause)

    def _subject(self, question: Question) -> _Subject | None:
        subject = self._subjects.get(question.series)
        return subject if subject is not None and subject.turn == question.turn else None

    def _is_current(self, subject: _Subject) -> bool:
        return self._subjects.get(subject.series) is subject

    def _queue_up(self, subject: _Subject, at: float) -> None:
        heappush(self._queue, (at, next(self._count), subject))
        if len(self._queue) > 2 * len(self._subjects) + _FEW:
            self._queue = [entry for entry in self._queue if self._is_current(entry[2])]
            heapify(self._queue)
