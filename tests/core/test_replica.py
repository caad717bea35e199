"""The replica: against a naive model, and each rule by itself."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import candlesync.core.replica
from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.errors import CommitRefused, NotContinuous, RevisionConflict
from tests.builders import BTC, T0, begun, candle, candles_of, flat, forming, minute, minutes, then

HISTORY = 6


class AgainstAModel(RuleBasedStateMachine):
    """A dictionary of candles with their revisions says the same as the replica, whatever is done to both."""

    @initialize(interval=st.sampled_from([Interval.S1, Interval.M1, Interval.D3, Interval.W1, Interval.MO1]))
    def empty(self, interval: Interval) -> None:
        self.interval = interval
        self.start = interval.floor(T0)
        self.replica = Replica(Series("BTCUSDT", interval), HISTORY)
        self.model: dict[int, tuple[Candle, int]] = {}
        self.life, self.revision, self.trimmed = "", 0, 0
        self.lives = 0

    # --- changes

    @rule(data=st.data(), appended=st.integers(0, 3), forming_last=st.booleans(), filled=st.booleans())
    @precondition(lambda self: self.model)
    def change(self, data: st.DataObject, appended: int, forming_last: bool, filled: bool) -> None:
        """Corrections of some candles, and some new ones behind a tail that is closed first."""
        times = sorted(self.model)
        changed = set(data.draw(st.lists(st.sampled_from(times), max_size=3)))
        if appended and not self.model[times[-1]][0].closed:
            changed.add(times[-1])
        changed.update(self.interval.next(times[-1], step) for step in range(1, appended + 1))
        if not changed:
            return
        newest = max(changed)
        is_forming = forming_last and (newest > times[-1] or not self.model[times[-1]][0].closed)
        trades = data.draw(st.integers(0, 99))
        candles = [
            candle(
                time,
                interval=self.interval,
                trades=trades,
                closed=not (is_forming and time == max(newest, times[-1])),
                filled=filled,
            )
            for time in sorted(changed)
        ]
        commit = Commit(self.life, self.revision + 1, tuple(candles))
        entries = self.replica.apply(commit)
        assert [(entry.candle, entry.revision) for entry in entries] == [(made, commit.revision) for made in candles]
        self._note(commit)

    @rule(count=st.integers(1, HISTORY + 2), away=st.integers(0, 50), new_life=st.booleans(), closed=st.booleans())
    def begin(self, count: int, away: int, new_life: bool, closed: bool) -> None:
        """The series begins: first of all, in a new life, or again behind a long gap."""
        first = self.interval.next(max(self.model, default=self.start), away)
        candles = [candle(self.interval.next(first, step), interval=self.interval) for step in range(count)]
        candles[-1] = msgspec.structs.replace(candles[-1], closed=closed)
        if new_life or not self.life:
            self.lives += 1
            commit = Commit(f"life{self.lives}", 1, tuple(candles), begins=True, replaces=self.life)
        else:
            commit = Commit(self.life, self.revision + 1, tuple(candles), begins=True)
        self.replica.apply(commit)
        self.model.clear()
        self.trimmed = commit.revision
        self._note(commit)

    @rule()
    @precondition(lambda self: self.model)
    def restore(self) -> None:
        """Another replica, read from a snapshot, is no different."""
        other = Replica(self.replica.series, HISTORY)
        other.restore(self.replica.snapshot())
        self.replica = other

    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        """A commit that must not be made is refused, and changes nothing at all."""
        commit = data.draw(st.sampled_from(self._bad_commits()))
        before = _all_of(self.replica)
        with pytest.raises(CommitRefused):
            self.replica.apply(commit)
        assert _all_of(self.replica) == before

    # --- questions

    @invariant()
    def same_as_the_model(self) -> None:
        entries = self.replica.newest(HISTORY + 1)
        assert [(entry.candle, entry.revision) for entry in entries] == [
            self.model[time] for time in sorted(self.model)
        ]
        assert [entry.open_time for entry in entries] == sorted(self.model)
        assert len(self.replica) == len(self.model) <= HISTORY
        assert self.replica.position == Position(self.life, self.revision)
        assert self.replica.trimmed == self.trimmed
        assert self.replica.filled == {time for time, (made, _) in self.model.items() if made.filled}
        assert self.replica.tail == (self.model[max(self.model)][0] if self.model else None)
        assert self.replica.first == (self.model[min(self.model)][0] if self.model else None)

    @rule(count=st.integers(0, HISTORY + 1), steps=st.integers(-2, HISTORY + 1), off=st.integers(-1, 1))
    def newest(self, count: int, steps: int, off: int) -> None:
        before = self.interval.next(min(self.model, default=self.start), steps) + off
        times = [time for time in sorted(self.model) if time < before]
        expected = times[len(times) - min(count, len(times)) :]
        assert [entry.open_time for entry in self.replica.newest(count, before)] == expected

    @rule(back=st.integers(0, HISTORY * 3))
    def changed_since(self, back: int) -> None:
        revision = self.revision - back
        expected = [self.model[time] for time in sorted(self.model) if self.model[time][1] > revision]
        assert [(entry.candle, entry.revision) for entry in self.replica.changed_since(revision)] == expected

    @rule(back=st.integers(-3, HISTORY * 3))
    def can_resume(self, back: int) -> None:
        position = Position(self.life, self.revision - back)
        assert self.replica.can_resume(position) is (self.revision - back >= self.trimmed)
        assert not self.replica.can_resume(Position("another", self.revision))

    @rule(steps=st.integers(-2, HISTORY + 1), off=st.integers(-1, 1))
    def since(self, steps: int, off: int) -> None:
        time = self.interval.next(min(self.model, default=self.start), steps) + off
        entries = self.replica.since(time)
        if not self.model or time <= self.interval.previous(min(self.model)):
            assert entries is None
        else:
            assert entries is not None
            assert [entry.open_time for entry in entries] == [at for at in sorted(self.model) if at >= time]

    @rule(steps=st.integers(-2, HISTORY + 1), off=st.integers(-1, 1))
    def get(self, steps: int, off: int) -> None:
        time = self.interval.next(min(self.model, default=self.start), steps) + off
        assert self.replica.get(time) == self.model.get(time, (None, 0))[0]

    # --- the model

    def _note(self, commit: Commit) -> None:
        self.life, self.revision = commit.life, commit.revision
        self.model.update({made.open_time: (made, commit.revision) for made in commit.candles})
        for time in sorted(self.model)[:-HISTORY]:
            self.trimmed = max(self.trimmed, self.model.pop(time)[1])

    def _bad_commits(self) -> list[Commit]:
        tail = self.replica.tail
        at = candle(self.start, interval=self.interval)
        life, revision = self.life, self.revision
        bad = [
            Commit(life or "new", revision + 1, (), begins=True),
            Commit("another", revision + 1, (at,)),
            Commit("another", 2, (at,), begins=True, replaces=life),
            Commit("another", 1, (at,), begins=True, replaces="a third"),
            Commit("", revision + 1, (at,), begins=True),
            Commit("", revision + 1, (at,)),
            Commit("new", 1, (candle(self.start + 1),), begins=True, replaces=life),
        ]
        if tail is None:
            return bad
        one = self.interval.next(tail.open_time)
        two = self.interval.next(one)
        good = candle(one, interval=self.interval)
        closed = msgspec.structs.replace(tail, closed=True)
        before = self.interval.previous(min(self.model))

        def make(*candles: Candle) -> Commit:
            return Commit(life, revision + 1, candles)

        bad += [
            Commit(life, revision, (closed,)),
            Commit(life, revision + 2, (closed,)),
            make(closed, candle(two, interval=self.interval)),
            make(closed, good, good),
            make(closed, candle(two, interval=self.interval), good),
            make(closed, candle(one, interval=self.interval, closed=False), candle(two, interval=self.interval)),
            make(candle(before, interval=self.interval), closed),
            make(candle(tail.open_time + 1), closed),
            make(msgspec.structs.replace(tail, closed=False), good),
        ]
        bad += [make(good)] if not tail.closed else [make(msgspec.structs.replace(tail, closed=False))]
        return bad


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def _all_of(replica: Replica) -> tuple[Any, ...]:
    entries = replica.newest(replica.history + 1)
    changed = replica.changed_since(-1)
    return replica.position, replica.trimmed, set(replica.filled), [*entries], [*changed]


# --- each rule of a commit by itself


def test_a_refusal_says_what_is_wrong() -> None:
    replica = begun([*minutes(0, 1), forming(minute(2))])
    closed = candle(minute(2))
    refusals = {
        "without candles": then(replica),
        "does not follow": then(replica, closed, candle(minute(4))),
        "follows a forming candle": then(replica, candle(minute(3))),
        "does not ascend": then(replica, closed, candle(minute(1))),
        "is not in the history": then(replica, candle(minute(-1))),
        "cannot be forming again": then(replica, forming(minute(1))),
        "is not an open time": then(replica, candle(minute(0) + 1), begins=True),
    }
    for words, commit in refusals.items():
        with pytest.raises(NotContinuous, match=words):
            replica.apply(commit)


def test_one_open_time_stands_once_in_a_commit() -> None:
    replica = begun(minutes(0, 1))
    with pytest.raises(NotContinuous, match="does not ascend"):
        replica.apply(then(replica, candle(minute(1), "1.00"), candle(minute(1), "2.00")))


def test_nothing_begins_without_a_life() -> None:
    with pytest.raises(RevisionConflict, match="of no life"):
        Replica(BTC, 10).apply(Commit("", 1, (candle(),), begins=True))


def test_a_commit_at_another_revision_conflicts() -> None:
    replica = begun(minutes(0, 1))
    with pytest.raises(RevisionConflict, match="life0-3 cannot follow life0-1"):
        replica.apply(Commit("life0", 3, (candle(minute(2)),)))


def test_a_new_life_names_the_one_that_it_replaces() -> None:
    replica = begun(minutes(0, 1))
    with pytest.raises(RevisionConflict):
        replica.apply(Commit("life1", 1, (candle(minute(9)),), begins=True))
    replica.apply(Commit("life1", 1, (candle(minute(9)),), begins=True, replaces="life0"))
    assert replica.position == Position("life1", 1)
    assert candles_of(replica) == [candle(minute(9))]


def test_a_life_that_a_store_has_begun_is_begun_whatever_is_here() -> None:
    replica = begun([*minutes(0, 4), forming(minute(5))])
    replica.apply(then(replica, forming(minute(5), trades=11)))
    commit = Commit("life2", 1, (*minutes(0, 4), forming(minute(5), trades=11)), begins=True, replaces="life1")
    entries = replica.begin_life(commit)
    assert entries == replica.newest(10)
    assert candles_of(replica) == list(commit.candles)
    assert replica.snapshot() == begun(commit.candles, life="life2").snapshot(), "as in a store that begins with it"
    for position in (Position("life0", 1), Position("life0", 2), Position("life1", 7), Position("life2", 0)):
        assert not replica.can_resume(position)
    assert replica.can_resume(Position("life2", 1))


@pytest.mark.parametrize(
    "commit",
    [
        Commit("life2", 1, tuple(minutes(0, 3))),
        Commit("life2", 2, tuple(minutes(0, 3)), begins=True),
        Commit("life0", 1, tuple(minutes(0, 3)), begins=True),
        Commit("life2", 1, (candle(minute(0)), candle(minute(2))), begins=True),
        Commit("life2", 1, (), begins=True),
    ],
    ids=["does not begin", "not with 1", "the same", "a gap", "nothing"],
)
def test_what_begins_no_life_is_refused(commit: Commit) -> None:
    replica = begun(minutes(0, 5))
    before = _all_of(replica)
    with pytest.raises(CommitRefused):
        replica.begin_life(commit)
    assert _all_of(replica) == before


def test_within_a_life_the_revisions_say_which_is_ahead() -> None:
    replica = begun(minutes(0, 5))
    before = replica.snapshot()
    assert not replica.is_ahead_of(before)
    replica.apply(then(replica, candle(minute(0), "1.00")))
    assert replica.is_ahead_of(before)
    older = begun([candle(minute(0))])
    older.restore(before)
    assert not older.is_ahead_of(replica.snapshot())


@pytest.mark.parametrize(
    ("stored", "is_ahead"),
    [
        (forming(minute(2), trades=20), False),
        (forming(minute(2), trades=19), True),
        (forming(minute(2), trades=21), False),
        (candle(minute(2), trades=1), False),
        (candle(minute(1), trades=99), True),
        (forming(minute(3), trades=1), False),
    ],
)
def test_of_two_lives_the_tails_say_which_is_ahead(stored: Candle, is_ahead: bool) -> None:
    replica = begun([*minutes(0, 1), forming(minute(2), trades=20)])
    before = [each for each in minutes(0, 5) if each.open_time < stored.open_time]
    assert replica.is_ahead_of(begun([*before, stored], life="life1").snapshot()) is is_ahead


def test_one_without_candles_is_ahead_of_nothing_and_any_other_of_none() -> None:
    empty, replica = Replica(BTC, 10), begun(minutes(0, 1))
    assert not empty.is_ahead_of(None)
    assert not empty.is_ahead_of(replica.snapshot())
    assert replica.is_ahead_of(None)


def test_to_begin_again_leaves_the_new_candles_alone_and_no_older_position_is_honoured() -> None:
    replica = begun(minutes(0, 5))
    replica.apply(then(replica, *minutes(100, 102), begins=True))
    assert candles_of(replica) == minutes(100, 102)
    assert replica.get(minute(5)) is None
    assert not replica.can_resume(Position("life0", 1))
    assert replica.can_resume(Position("life0", 2))
    assert replica.since(minute(5)) is None


def test_to_begin_again_forgets_the_corrections_and_the_fills() -> None:
    replica = begun([candle(minute(0)), flat(minute(1)), *minutes(2, 5)])
    replica.apply(then(replica, candle(minute(0), "1.00")))
    replica.apply(then(replica, *minutes(100, 102), begins=True))
    assert replica.filled == set()
    assert replica.changed_since(0) == replica.newest(10)


def test_a_longer_beginning_than_the_history_leaves_its_end() -> None:
    replica = begun(minutes(0, 9), history=4)
    assert candles_of(replica) == minutes(6, 9)
    assert replica.changed_since(0) == replica.newest(4)


def test_a_trimmed_correction_makes_older_positions_too_old() -> None:
    replica = begun(minutes(0, 3), history=4)
    replica.apply(then(replica, candle(minute(0), "1.00")))
    assert replica.can_resume(Position("life0", 1))
    replica.apply(then(replica, candle(minute(4))))
    assert replica.trimmed == 2, "what revision 2 changed has left the history"
    assert not replica.can_resume(Position("life0", 1))
    assert replica.can_resume(Position("life0", 2))


def test_a_correction_that_has_left_the_history_is_not_kept() -> None:
    replica = begun(minutes(0, 3), history=4)
    replica.apply(then(replica, candle(minute(0), "1.00")))
    replica.apply(then(replica, candle(minute(4))))
    assert not replica._corrected


def test_a_fill_is_known_until_it_is_replaced_or_leaves() -> None:
    replica = begun([candle(minute(0)), flat(minute(1)), flat(minute(2))], history=4)
    assert replica.filled == {minute(1), minute(2)}
    replica.apply(then(replica, candle(minute(2))))
    assert replica.filled == {minute(1)}
    replica.apply(then(replica, *minutes(3, 5)))
    assert replica.filled == set()


def test_an_entry_is_never_changed_only_replaced() -> None:
    replica = begun([forming(minute(0))])
    (entry,) = replica.newest(1)
    replica.apply(then(replica, candle(minute(0))))
    assert (entry.candle, entry.revision) == (forming(minute(0)), 1)
    assert replica.newest(1)[0] is not entry


def test_before_the_first_commit_it_is_nowhere() -> None:
    replica = Replica(BTC, 10)
    assert (len(replica), replica.tail, replica.first, replica.trimmed) == (0, None, None, 0)
    assert replica.position == Position("", 0)
    assert replica.can_resume(Position("", 0))
    assert replica.since(minute(0)) is None
    assert replica.get(minute(0)) is None
    assert replica.newest(10) == replica.changed_since(0) == []


def test_a_snapshot_is_where_the_series_is() -> None:
    replica = begun(minutes(0, 1))
    replica.apply(then(replica, candle(minute(2))))
    assert replica.snapshot().position == replica.position == Position("life0", 2)


def test_the_newest_before_a_time() -> None:
    replica = begun(minutes(0, 5))
    numbers = {
        (2, minute(3)): [1, 2],
        (2, minute(3) + 1): [2, 3],
        (9, minute(2)): [0, 1],
        (9, minute(0)): [],
        (2, minute(9)): [4, 5],
        (0, None): [],
    }
    for (count, before), expected in numbers.items():
        assert [entry.open_time for entry in replica.newest(count, before)] == [minute(each) for each in expected]


def test_a_correction_that_a_client_has_is_not_sent_to_it_again() -> None:
    replica = begun(minutes(0, 5))
    replica.apply(then(replica, candle(minute(2), "1.00")))
    replica.apply(then(replica, candle(minute(1), "1.00")))
    assert [entry.open_time for entry in replica.changed_since(1)] == [minute(1), minute(2)]
    assert [entry.open_time for entry in replica.changed_since(2)] == [minute(1)]
    assert replica.changed_since(3) == []
    replica.apply(then(replica, candle(minute(3), "1.00")))
    assert [entry.open_time for entry in replica.changed_since(2)] == [minute(1), minute(3)]
    replica.apply(then(replica, candle(minute(1), "2.00")))
    assert [entry.open_time for entry in replica.changed_since(4)] == [minute(1)]


def test_a_correction_next_to_a_newer_tail_is_sent_once() -> None:
    replica = begun([*minutes(0, 4), forming(minute(5))])
    replica.apply(then(replica, candle(minute(4), "1.00")))
    replica.apply(then(replica, forming(minute(5), trades=11)))
    assert [entry.open_time for entry in replica.changed_since(1)] == [minute(4), minute(5)]


def test_a_series_that_was_read_knows_its_corrections_in_their_order_and_nothing_else_twice() -> None:
    replica = begun([candle(minute(0)), flat(minute(1)), *minutes(2, 6)])
    for number in (4, 0, 2):
        replica.apply(then(replica, candle(minute(number), "1.00")))
    replica.apply(then(replica, candle(minute(7))))
    read = Replica(BTC, 1000)
    read.restore(replica.snapshot())
    for revision in range(replica.revision + 1):
        times = [[entry.open_time for entry in each.changed_since(revision)] for each in (read, replica)]
        assert times[0] == times[1]
    assert list(read._corrected) == [minute(4), minute(0), minute(2)]
    assert read.filled == {minute(1)}


def test_all_but_the_newest_are_held_packed() -> None:
    replica = begun([*minutes(0, 4), forming(minute(5))])
    replica.apply(then(replica, candle(minute(2), "1.00"), candle(minute(5)), forming(minute(6))))
    replica.apply(then(replica, forming(minute(6), trades=11)))
    read = Replica(BTC, 1000)
    read.restore(replica.snapshot())
    for each in (replica, read):
        assert [isinstance(entry._held, bytes) for entry in each.newest(10)] == [True] * 6 + [False]


def test_there_is_no_snapshot_before_the_first_commit() -> None:
    with pytest.raises(ValueError, match="no candles yet"):
        Replica(BTC, 10).snapshot()


def test_a_snapshot_stays_as_it_was() -> None:
    replica = begun([forming(minute(0))])
    snapshot = replica.snapshot()
    replica.apply(then(replica, candle(minute(0)), candle(minute(1))))
    assert snapshot == Snapshot("life0", 1, 1, ((forming(minute(0)), 1),))


class TouchedEntry(Entry):
    """An entry that knows whether it was looked at."""

    touched: ClassVar[set[int]] = set()

    def __getattribute__(self, name: str) -> Any:
        TouchedEntry.touched.add(id(self))
        return super().__getattribute__(name)


@pytest.mark.parametrize("changes", [0, 1, 7])
def test_what_changed_is_found_in_proportion_to_it(monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
    """Counted in entries looked at, of a history of 1000, also where old candles were corrected."""
    monkeypatch.setattr(candlesync.core.replica, "Entry", TouchedEntry)
    replica = begun(minutes(0, 999))
    for number in range(changes):
        replica.apply(then(replica, candle(minute(number * 100), "1.00")))
    TouchedEntry.touched.clear()
    assert len(replica.changed_since(1)) == changes
    assert len(TouchedEntry.touched) <= changes + 1


def test_who_else_applies_a_commit_has_the_same_entries() -> None:
    commit = Commit("life0", 1, tuple(minutes(0, 3)), begins=True)
    one, other = Replica(BTC, 10), Replica(BTC, 10)
    one.apply(commit)
    other.begin_life(commit)
    update = then(one, candle(minute(1), "1.00"), candle(minute(4)))
    one.apply(update)
    other.apply(update)
    assert [id(entry) for entry in one.newest(10)] == [id(entry) for entry in other.newest(10)]


# --- what has become of a series elsewhere


def elsewhere(*changes: Candle) -> tuple[Replica, Replica]:
    """A series at revision 2, and the same after more commits, one for each candle."""
    ours, theirs = begun([*minutes(0, 3), forming(minute(4))]), Replica(BTC, 10)
    ours.apply(then(ours, candle(minute(1), "1.00")))
    theirs.restore(ours.snapshot())
    for change in changes:
        theirs.apply(then(theirs, change))
    return ours, theirs


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [forming(minute(4), trades=7)],
        [candle(minute(4)), candle(minute(5)), candle(minute(2), "2.00")],
        [candle(minute(4)), *minutes(5, 20)],
    ],
)
def test_a_series_that_went_on_continues_what_it_was(changes: list[Candle]) -> None:
    ours, theirs = elsewhere(*changes)
    assert ours.continues_in(theirs.snapshot())


def test_one_that_is_behind_does_not() -> None:
    ours, theirs = elsewhere(forming(minute(4), trades=7))
    assert not theirs.continues_in(ours.snapshot())


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("lost", [candle(minute(2), "5.00"), candle(minute(1), "5.00"), forming(minute(4), trades=7)])
def test_one_that_went_back_and_on_does_not_before_all_that_differs_has_changed_once_more(
    lost: Candle, more: int
) -> None:
    ours, theirs = elsewhere(candle(minute(3), "3.00"), *[candle(minute(2), "2.00")] * more)
    ours.apply(then(ours, lost))
    assert not ours.continues_in(theirs.snapshot())
    theirs.apply(then(theirs, candle(minute(3), "4.00")))
    theirs.apply(then(theirs, lost))
    assert ours.continues_in(theirs.snapshot())


def test_one_that_ends_earlier_does_not() -> None:
    ours, theirs = elsewhere()
    ours.apply(then(ours, candle(minute(4)), forming(minute(5))))
    for trades in range(2, 5):
        theirs.apply(then(theirs, forming(minute(4), trades=trades)))
    assert not ours.continues_in(theirs.snapshot())


def test_what_has_left_our_history_does_not_count() -> None:
    ours, theirs = begun(minutes(2, 3)), begun(minutes(0, 3))
    theirs.apply(then(theirs, candle(minute(4))))
    assert ours.continues_in(theirs.snapshot())


def test_the_same_candle_at_another_revision_is_another_series() -> None:
    ours, theirs = begun([*minutes(0, 2), forming(minute(3))]), begun([*minutes(0, 2), forming(minute(3))])
    ours.apply(then(ours, forming(minute(3), trades=11)))
    ours.apply(then(ours, forming(minute(3), trades=12)))
    theirs.apply(then(theirs, forming(minute(3), trades=12)))
    theirs.apply(then(theirs, candle(minute(2), "1.00")))
    assert not ours.continues_in(theirs.snapshot())
    other = begun([*minutes(0, 2), forming(minute(3))])
    other.apply(then(other, forming(minute(3), trades=13)))
    other.apply(then(other, forming(minute(3), trades=14)))
    assert not ours.continues_in(other.snapshot()), "the same revision, and another candle"
