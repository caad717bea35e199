"""A series as it stands: its candles with the revisions that last changed them.

One class serves twice. The memory store keeps the series in it, and each node keeps its replica in it, to answer REST
and WebSockets from. Both change only through `Replica.apply`, which refuses what would break invariant 1.

"What changed since revision r" is asked by every client that is behind. While only the newest candle changes, the order
by time is the order by revision, too. What changes behind it is therefore kept a second time, by revision, so that the
answer costs what has changed, not what the history holds.

A candle is held as an `Entry`, packed once it is not the newest any more. And where a commit is applied twice in one
process, to the memory store and to the replica, both hold the same entries (see `Commit.entries`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from itertools import takewhile
from operator import attrgetter

import msgspec

from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.position import Position
from candlesync.errors import NotContinuous, RevisionConflict

_open_time = attrgetter("open_time")


class Commit(msgspec.Struct, frozen=True, dict=True):
    """One atomic change of a series: what `Replica.apply` and a store's ``commit`` take."""

    life: str
    revision: int
    """The revision that the commit makes: the series must be at the one before (compare-and-set)."""
    candles: tuple[Candle, ...]
    """Changed and new candles, ascending by open time, at least one."""
    begins: bool = False
    """Whether the series begins (again) with exactly these candles, in a new life or after a gap beyond the history."""
    replaces: str = ""
    """Of a commit that begins a new life: the life that the series had until then, empty if there was none."""

    @property
    def position(self) -> Position:
        """Where the series is once it is made."""
        return Position(self.life, self.revision)

    @property
    def entries(self) -> list[Entry]:
        """The new entries, ascending: the same ones each time, for whoever holds the series; the list is not."""
        made: tuple[Entry, ...] | None = self.__dict__.get("entries")
        if made is None:
            made = self.__dict__["entries"] = tuple(Entry(candle, self.revision) for candle in self.candles)
        return list(made)


def progress(tail: Candle) -> tuple[int, bool, int]:
    """How far a series has come whose newest candle is ``tail``; to be compared."""
    return tail.open_time, tail.closed, tail.trades


class Snapshot(msgspec.Struct, frozen=True):
    """A whole series at one revision, as a store reads it."""

    life: str
    revision: int
    trimmed: int
    """The greatest revision of a candle that has left the history; see `Replica.trimmed`."""
    candles: tuple[tuple[Candle, int], ...]
    """Each candle with the revision that last changed it, ascending by open time."""

    @property
    def position(self) -> Position:
        """Where the series is."""
        return Position(self.life, self.revision)

    def check(self, series: Series) -> None:
        """Raise `ValueError` where it breaks invariant 1, or is of no revision: whoever wrote it did not follow ours.

        What a store holds may have been overwritten. None of it is shown to anybody before it was looked at.
        """
        if not self.candles:
            raise ValueError(f"{series} has no candles")
        previous: Candle | None = None
        for candle, revision in self.candles:
            if not 1 <= revision <= self.revision:
                raise ValueError(f"{candle.open_time} changed at revision {revision} of {self.revision}")
            if previous is None:
                if not series.interval.is_open_time(candle.open_time):
                    raise ValueError(f"{candle.open_time} is not an open time")
            elif candle.open_time != series.interval.next(previous.open_time):
                raise ValueError(f"{candle.open_time} does not follow {previous.open_time}")
            elif not previous.closed:
                raise ValueError(f"{candle.open_time} follows a forming candle")
            previous = candle


class Replica:
    """The candles of one series, at most ``history`` of them.

    Invariant 1, kept in `apply`: each open time is the successor of the one before it, and only the last candle may
    be forming.
    """

    def __init__(self, series: Series, history: int) -> None:
        self.series = series
        self.history = history
        self.life = ""
        self.revision = 0
        self.trimmed = 0
        """A position with a smaller revision cannot be honoured whole: candles changed after it are gone."""
        self._by_time: list[Entry] = []
        self._corrected: OrderedDict[int, Entry] = OrderedDict()
        """Those that changed when they were not the newest, by open time, in the order of their revisions. All others
        ascend by revision in `_by_time`."""
        self._filled: set[int] = set()

    def __len__(self) -> int:
        return len(self._by_time)

    @property
    def position(self) -> Position:
        """The position of a client that has everything."""
        return Position(self.life, self.revision)

    @property
    def tail(self) -> Candle | None:
        """The newest candle, or `None` before the first."""
        return self._by_time[-1].candle if self._by_time else None

    @property
    def first(self) -> Candle | None:
        """The oldest candle, or `None` before the first."""
        return self._by_time[0].candle if self._by_time else None

    @property
    def filled(self) -> set[int]:
        """The open times of the candles that stand for outage minutes; not to be changed."""
        return self._filled

    def get(self, open_time: int) -> Candle | None:
        """The candle that opens at ``open_time``, or `None`."""
        index = self._index(open_time)
        return None if index is None else self._by_time[index].candle

    def newest(self, count: int, before: int | None = None) -> list[Entry]:
        """The newest ``count`` entries (that open before ``before``, in milliseconds), ascending."""
        end = len(self._by_time) if before is None else bisect_left(self._by_time, before, key=_open_time)
        return self._by_time[max(0, end - count) : end]

    def since(self, open_time: int) -> list[Entry] | None:
        """Every entry from ``open_time`` (milliseconds) on; `None` if some of them are older than the history."""
        first = self.first
        if first is None or self.series.interval.previous(first.open_time) >= open_time:
            return None
        return self._by_time[bisect_left(self._by_time, open_time, key=_open_time) :]

    def can_resume(self, position: Position) -> bool:
        """Whether all that changed after ``position`` is here (or, for a position ahead of us, will be)."""
        return position.life == self.life and position.revision >= self.trimmed

    def changed_since(self, revision: int) -> list[Entry]:
        """The entries that changed after ``revision``, ascending by open time; the caller has asked `can_resume`.

        Takes time in proportion to their number.
        """
        changed = list(takewhile(lambda entry: entry.revision > revision, reversed(self._by_time)))
        changed.reverse()
        # Before these, only what was corrected may have changed since.
        corrected = takewhile(lambda entry: entry.revision > revision, reversed(self._corrected.values()))
        earlier = [entry for entry in corrected if not changed or entry.open_time < changed[0].open_time]
        earlier.sort(key=_open_time)
        return earlier + changed

    def snapshot(self) -> Snapshot:
        """The whole series; raises `ValueError` before the first commit."""
        if not self._by_time:
            raise ValueError(f"{self.series} has no candles yet")
        candles = tuple((entry.candle, entry.revision) for entry in self._by_time)
        return Snapshot(self.life, self.revision, self.trimmed, candles)

    def restore(self, snapshot: Snapshot) -> None:
        """Become the series that a store has read."""
        self.life, self.revision, self.trimmed = snapshot.life, snapshot.revision, snapshot.trimmed
        self._by_time = [Entry(candle, revision) for candle, revision in snapshot.candles]
        self._filled = {candle.open_time for candle, _ in snapshot.candles if candle.filled}
        corrected, later = [], self.revision
        for entry in reversed(self._by_time):
            if entry.revision > later:
                corrected.append(entry)
            later = min(later, entry.revision)
        corrected.sort(key=attrgetter("revision"))
        self._corrected = OrderedDict((entry.open_time, entry) for entry in corrected)
        for entry in self._by_time[:-1]:
            entry.pack()

    def apply(self, commit: Commit) -> list[Entry]:
        """Make the change; returns the new entries, ascending.

        Raises, with nothing changed, `RevisionConflict` if the series is not at the commit's life and the revision
        just before its own, and `NotContinuous` if the change would break invariant 1 or reopen a closed candle.
        """
        self.check(commit)
        return self._make(commit)

    def begin_life(self, commit: Commit) -> list[Entry]:
        """Begin a new life, whatever the series is in whose place the commit does so; returns the new entries.

        For who knows that the store has it. No position of a life before is honoured from then on. Raises as `apply`.
        """
        self.check(msgspec.structs.replace(commit, replaces=self.life))
        return self._make(commit)

    def is_ahead_of(self, stored: Snapshot | None) -> bool:
        """Whether what a store holds is older than what is here: who took it over would go back in time.

        Within a life the revisions tell; of two lives the one whose tail is older.
        """
        tail = self.tail
        if tail is None:
            return False
        if stored is None:
            return True
        if stored.life == self.life:
            return stored.revision < self.revision
        return progress(stored.candles[-1][0]) < progress(tail)

    def continues_in(self, stored: Snapshot) -> bool:
        """Whether a series of the same life may be what became of this one.

        Not where the store went back within the life and on from there: the same revisions are others then. What has
        not changed since our revision has to be as it is here; then `changed_since` brings whoever is here to there.
        """
        tail = self.tail
        if stored.revision < self.revision or (tail is not None and stored.candles[-1][0].open_time < tail.open_time):
            return False
        for candle, revision in stored.candles:
            index = self._index(candle.open_time) if revision <= self.revision else None
            if index is not None:
                entry = self._by_time[index]
                if entry.revision != revision or entry.candle != candle:
                    return False
        return True

    def check(self, commit: Commit) -> None:
        """Raise what `apply` would raise, and change nothing."""
        if not commit.candles:
            raise NotContinuous(f"{self.series}: a commit without candles")
        if not commit.life:
            raise RevisionConflict(f"{self.series}: a commit of no life")
        if commit.begins and commit.life != self.life:
            follows = commit.replaces == self.life and commit.revision == 1
        else:
            follows = commit.life == self.life and commit.revision == self.revision + 1
        if not follows:
            raise RevisionConflict(
                f"{self.series}: a commit that makes {commit.position} cannot follow {self.position}"
            )
        self._check_continuity(commit)

    def _check_continuity(self, commit: Commit) -> None:
        # Invariant 1: the store itself refuses a commit that would leave a gap or a forming candle before the last.
        tail = None if commit.begins else self.tail
        interval = self.series.interval
        previous: Candle | None = None
        for candle in commit.candles:
            if previous is not None and candle.open_time <= previous.open_time:
                raise NotContinuous(f"{self.series}: {candle.open_time} does not ascend from {previous.open_time}")
            before = tail if previous is None or (tail and previous.open_time < tail.open_time) else previous
            if before is None:
                if not interval.is_open_time(candle.open_time):
                    raise NotContinuous(f"{self.series}: {candle.open_time} is not an open time")
            elif candle.open_time > before.open_time:
                if candle.open_time != interval.next(before.open_time):
                    raise NotContinuous(f"{self.series}: {candle.open_time} does not follow {before.open_time}")
                if not before.closed:
                    raise NotContinuous(f"{self.series}: {candle.open_time} follows a forming candle")
            else:
                self._check_change(candle)
            previous = candle

    def _make(self, commit: Commit) -> list[Entry]:
        """Make a change that was checked."""
        if commit.begins:
            self._by_time.clear()
            self._corrected.clear()
            self._filled.clear()
            # What stood before is gone, and with it whatever lay between: nobody can be brought here from before.
            self.trimmed = commit.revision
        entries = commit.entries
        for candle, entry in zip(commit.candles, entries, strict=True):
            self._put(entry)
            if candle.filled:
                self._filled.add(candle.open_time)
            elif self._filled:
                self._filled.discard(candle.open_time)
        self.life, self.revision = commit.life, commit.revision
        self._trim()
        return entries

    def _put(self, entry: Entry) -> None:
        newest = self._by_time[-1] if self._by_time else None
        if newest is None:
            self._by_time.append(entry)
        elif entry.open_time == newest.open_time:
            self._by_time[-1] = entry
        elif entry.open_time > newest.open_time:
            newest.pack()
            self._by_time.append(entry)
        else:
            index = self._index(entry.open_time)
            assert index is not None, "it was checked"  # noqa: S101 - for mypy; it cannot happen
            self._by_time[index] = entry
            self._corrected[entry.open_time] = entry
            self._corrected.move_to_end(entry.open_time)
            entry.pack()

    def _check_change(self, candle: Candle) -> None:
        tail = self.tail
        known = tail if tail is not None and tail.open_time == candle.open_time else self.get(candle.open_time)
        if known is None:
            raise NotContinuous(f"{self.series}: {candle.open_time} is not in the history")
        # Invariant 3: a closed candle never becomes forming again.
        if known.closed and not candle.closed:
            raise NotContinuous(f"{self.series}: {candle.open_time} is closed and cannot be forming again")

    def _index(self, open_time: int) -> int | None:
        if not self._by_time:
            return None
        index = self.series.interval.steps(self._by_time[0].open_time, open_time)
        return index if index is not None and 0 <= index < len(self._by_time) else None

    def _trim(self) -> None:
        excess = len(self._by_time) - self.history
        if excess <= 0:
            return
        for entry in self._by_time[:excess]:
            self.trimmed = max(self.trimmed, entry.revision)
            self._corrected.pop(entry.open_time, None)
            self._filled.discard(entry.open_time)
        del self._by_time[:excess]
