"""The books of the store: each commit that it has made, checked as it is made, against the exchange's truth.

A `Book` is what one series holds by the commits alone. It is kept without any of the service's code, and remembers the
commits of late, so that what a client is sent can be held against them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.replica import Commit, Snapshot

from .network import Witness
from .truth import Truth
from .verdict import Verdict

REMEMBERED = 43_200.0
"""Seconds for which a book knows what a commit changed, and how a candle was before it changed: longer than any client
is away or behind."""

Said = tuple[str, str, str, str, str, bool, bool]
"""What a client is told of a candle: open, high, low, close, volume, closed, filled."""


def said_of(candle: Candle) -> Said:
    """What a client is to be told of a candle."""
    return candle.open, candle.high, candle.low, candle.close, candle.volume, candle.closed, candle.filled


class Book:
    """One series as the commits have made it."""

    def __init__(self, series: Series, step: int) -> None:
        self.series = series
        self.step = step
        """Milliseconds from one candle to the next."""
        self.life = ""
        self.revision = 0
        self.candles: dict[int, tuple[Candle, int]] = {}
        """By open time, ascending: the candle and the revision that last changed it."""
        self.commits: dict[tuple[str, int], tuple[int, ...]] = {}
        """By life and revision: the open times that a commit changed, of late."""
        self.said: dict[tuple[int, int], list[tuple[str, Said]]] = {}
        """By open time and revision: what was committed, with the life; of what the series holds, and held of late."""
        self.unpublished: Commit | None = None
        """Acknowledged, and not published so far."""
        self.answered_in: tuple[trio.lowlevel.Task, int] | None = None
        """The task that was told so, and how often it had waited for something until then."""
        self.begun_at: dict[str, int] = {}
        """By life: the revision with which the series last began."""
        self._made: deque[tuple[float, tuple[str, int]]] = deque()
        """The keys of `commits`, and when they came."""
        self._past: deque[tuple[float, tuple[int, int]]] = deque()
        """The keys of `said` that the series holds no more, and since when."""

    @property
    def tail(self) -> Candle | None:
        """The newest candle."""
        return next(reversed(self.candles.values()))[0] if self.candles else None

    def has_said(self, candle: Candle) -> bool:
        """Whether some commit has had exactly this already: what the store has lost comes again in a new life."""
        said = said_of(candle)
        made = (commits for (time, _), commits in self.said.items() if time == candle.open_time)
        return any(said == known for commits in made for _, known in commits)

    def enter(self, commit: Commit, history: int) -> None:
        """Take a commit into the books."""
        if commit.begins:
            self.hold("", 0, {})
            self.begun_at[commit.life] = commit.revision
        now = trio.current_time()
        for candle in commit.candles:
            known = self.candles.get(candle.open_time)
            if known is not None:
                self._past.append((now, (candle.open_time, known[1])))
            self.candles[candle.open_time] = candle, commit.revision
        while len(self.candles) > history:
            oldest = next(iter(self.candles))
            self._past.append((now, (oldest, self.candles.pop(oldest)[1])))
        self.life, self.revision = commit.life, commit.revision
        self.remember(commit.life, commit.revision, commit.candles)

    def hold(self, life: str, revision: int, candles: dict[int, tuple[Candle, int]]) -> None:
        """Be what the store holds, instead of what there was."""
        now = trio.current_time()
        self._past += [(now, (time, of)) for time, (_, of) in self.candles.items()]
        self.life, self.revision, self.candles = life, revision, candles

    def remember(self, life: str, revision: int, candles: Sequence[Candle]) -> None:
        """Note what a revision has changed, for a while."""
        key = life, revision
        if key in self.commits:
            return
        now = trio.current_time()
        self.commits[key] = tuple(candle.open_time for candle in candles)
        for candle in candles:
            said, was_said = (life, said_of(candle)), self.said.setdefault((candle.open_time, revision), [])
            if said not in was_said:
                was_said.append(said)
        self._made.append((now, key))
        while self._made[0][0] < now - REMEMBERED:
            self.commits.pop(self._made.popleft()[1], None)
        while self._past and self._past[0][0] < now - REMEMBERED:
            time, of = self._past.popleft()[1]
            # A store that fell back may hold it again.
            if self.candles.get(time, (None, 0))[1] != of:
                self.said.pop((time, of), None)


class Ledger:
    """The books of all series."""

    def __init__(
        self, truth: Truth, witness: Witness, verdict: Verdict, record: Callable[[str, str], None], history: int
    ) -> None:
        """``record`` takes each commit for the history of the simulation."""
        self.books: dict[Series, Book] = {}
        self.commits = 0
        self.fills = 0
        self.corrections = 0
        self.lives = 0
        self._truth = truth
        self._witness = witness
        self._verdict = verdict
        self._record = record
        self.history = history

    def book(self, series: Series) -> Book:
        """The book of a series, opened if need be."""
        book = self.books.get(series)
        if book is None:
            book = self.books[series] = Book(series, series.interval.next(0))
        return book

    def committed(self, series: Series, commit: Commit) -> None:
        """The store has made a commit."""
        self.commits += 1
        book = self.book(series)
        self._record("commit", f"{series} {commit.life}-{commit.revision} {commit.begins} {commit.candles}")
        self.check_published(series)
        if commit.begins:
            self.lives += 1
            self._check_begins(book, commit)
        else:
            self._check_follows(book, commit)
        self._check_candles(book, commit)
        book.enter(commit, self.history)

    def answered(self, series: Series, commit: Commit) -> None:
        """The store has told the service that a commit is made: it is published in this same moment, before any other
        task runs (`published`)."""
        book = self.book(series)
        book.unpublished, book.answered_in = commit, _step()

    def published(self, series: Series, life: str, revision: int) -> None:
        """The service shows the series at this position."""
        book = self.book(series)
        commit = book.unpublished
        if commit is not None and (life != commit.life or revision >= commit.revision):
            if _step() != book.answered_in:
                self.check_published(series)
            book.unpublished = book.answered_in = None
        self._verdict.expect(
            (life, revision) in book.commits or (life, revision) == (book.life, book.revision),
            "published after commit",
            "{} is shown at {}-{}, which no commit has made",
            *(series, life, revision),
        )

    def check_published(self, series: Series) -> None:
        """To be called in any later moment."""
        book = self.book(series)
        commit = book.unpublished
        book.unpublished = book.answered_in = None
        if commit is not None:
            self._verdict.wrong("one act", f"{series}: {commit.position} was acknowledged, and is not published")

    def fell_back(self, copy: Mapping[Series, Snapshot]) -> None:
        """The store is an older one, or empty, from now on."""
        self._record("store", f"fell back to {[(str(series), str(one.position)) for series, one in copy.items()]}")
        for series, book in self.books.items():
            snapshot = copy.get(series)
            if snapshot is None:
                book.hold("", 0, {})
            else:
                book.hold(snapshot.life, snapshot.revision, _by_time(snapshot))

    def found(self, series: Series, snapshot: Snapshot) -> None:
        """The store was read, and holds what it was not known to hold: a commit whose answer was lost."""
        book = self.book(series)
        if (snapshot.life, snapshot.revision) == (book.life, book.revision):
            return
        for revision in sorted({revision for _, revision in snapshot.candles}):
            changed = tuple(candle for candle, of in snapshot.candles if of == revision)
            book.remember(snapshot.life, revision, changed)
        book.hold(snapshot.life, snapshot.revision, _by_time(snapshot))

    def forgotten(self, series: Series) -> None:
        """The store has dropped a series."""
        self.book(series).hold("", 0, {})

    # --- the checks

    def _check_begins(self, book: Book, commit: Commit) -> None:
        expect = self._verdict.expect
        follows = commit.revision == 1 if commit.life != book.life else commit.revision == book.revision + 1
        expect(
            follows, "continuity", "{}: {} begins after {}-{}", book.series, commit.position, book.life, book.revision
        )
        for one, other in pairwise(commit.candles):
            fits = other.open_time == one.open_time + book.step and one.closed
            expect(fits, "continuity", "{}: begins with {} before {}", book.series, one, other)

    def _check_follows(self, book: Book, commit: Commit) -> None:
        expect, series = self._verdict.expect, book.series
        expect(
            (commit.life, commit.revision) == (book.life, book.revision + 1),
            "continuity",
            "{}: {} does not follow {}-{}",
            *(series, commit.position, book.life, book.revision),
        )
        tail = book.tail
        before = 0
        for candle in commit.candles:
            expect(candle.open_time > before, "continuity", "{}: a commit out of order: {}", series, candle)
            before = candle.open_time
            known = book.candles.get(candle.open_time)
            if known is not None:
                self._check_change(series, known[0], candle)
            elif tail is not None:
                fits = candle.open_time == tail.open_time + book.step and tail.closed
                expect(fits, "continuity", "{}: {} is put after {}", series, candle, tail)
            if tail is None or candle.open_time >= tail.open_time:
                tail = candle

    def _check_change(self, series: Series, known: Candle, candle: Candle) -> None:
        expect = self._verdict.expect
        if not known.closed:
            if not candle.closed:
                expect(candle.trades >= known.trades, "trades", "{}: {} after {}", series, candle, known)
            return
        if not expect(candle.closed, "forming again", "{}: {} after {}", series, candle, known):
            return
        if candle.filled and known.filled:
            return  # derived anew
        self.corrections += 1
        is_correct = not candle.filled and self._truth.is_correct(series, candle)
        expect(is_correct, "correction", "{}: {} in place of {}", series, candle, known)

    def _check_candles(self, book: Book, commit: Commit) -> None:
        expect, series, truth = self._verdict.expect, book.series, self._truth
        own = {candle.open_time: candle for candle in commit.candles}
        for candle in commit.candles:
            time = candle.open_time
            final = truth.final(series, time)
            if candle.filled:
                before = own.get(time - book.step) or book.candles.get(time - book.step, (None, 0))[0]
                known = book.candles.get(time)
                self._check_fill(series, candle, before, is_new=known is None or not known[0].filled)
            elif final is None:
                expect(False, "final", "{}: the exchange has no such candle: {}", series, candle)
            elif candle.closed:
                # What the stream alone has shown, and REST never did, is closed as it was shown.
                is_true = truth.is_final(series, candle) or (
                    truth.may_lack(series, time)
                    and (self._witness.has_shown(series, time) is False or book.has_said(candle))
                )
                expect(is_true, "final", "{}: {} is not {}", series, candle, final)
            else:
                fits = truth.is_on_the_way(candle, final)
                expect(fits, "final", "{}: {} never was on the way to {}", series, candle, final)

    def _check_fill(self, series: Series, fill: Candle, before: Candle | None, *, is_new: bool) -> None:
        expect, time = self._verdict.expect, fill.open_time
        # The candle before the first of a history has left it, or it is the first of all.
        close = fill.open if before is None else before.close
        is_flat = (fill.open, fill.high, fill.low, fill.close) == (close,) * 4
        is_flat = is_flat and not float(fill.volume) and not fill.trades
        expect(is_flat and fill.closed, "outage", "{}: {} is not flat after {}", series, fill, before)
        if not is_new:
            return
        self.fills += 1
        expect(self._truth.may_lack(series, time), "outage", "{}: the exchange has it: {}", series, fill)
        shown = self._witness.has_shown(series, time)
        expect(shown is None, "outage", "{}: the stream has shown it: {}", series, fill)
        answers = self._witness.lacking(series, time)
        waited = bool(answers) and answers[-1].asked - answers[0].answered >= self._truth.outage_pause - 1e-6
        expect(waited, "outage", "{}: filled after the answers {}: {}", series, [a.asked for a in answers], fill)


def _by_time(snapshot: Snapshot) -> dict[int, tuple[Candle, int]]:
    return {candle.open_time: (candle, revision) for candle, revision in snapshot.candles}


def _step() -> tuple[trio.lowlevel.Task, int]:
    """The task that runs, and how often it has waited so far: the same as long as it does not wait."""
    task = trio.lowlevel.current_task()
    return task, task._schedule_points
