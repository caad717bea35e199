"""How a node follows a series: each rule by itself, and any order of events against what the store really had."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from candlesync.core.candle import Candle
from candlesync.core.following import HOLD_ON, LOOK_AGAIN, WAITING_AT_MOST, Due, Following
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot, progress
from candlesync.core.report import SeriesReport
from candlesync.core.sync import State
from tests.builders import BTC, begun, candle, candles_of, forming, minute, minutes, then

FRESH = 2.0


class Shown:
    """What is shown, without the hub."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.published: list[Commit] = []
        self.adopted: list[Snapshot] = []

    def publish(self, commit: Commit) -> object:
        begins_life = commit.begins and commit.life != self.replica.life
        made = self.replica.begin_life(commit) if begins_life else self.replica.apply(commit)
        self.published.append(commit)
        return made

    def adopt(self, snapshot: Snapshot) -> None:
        self.replica.restore(snapshot)
        self.adopted.append(snapshot)


class Node:
    """A follower of a store, which is a replica; unless said otherwise it hears everything."""

    def __init__(self, *candles: Candle) -> None:
        self.store: Replica | None = begun(candles) if candles else None
        self.shown = Shown(Replica(BTC, 1000))
        self.following = Following(self.shown, FRESH)
        self.now = 0.0
        self.following.listening()
        self.ask()
        assert self.following.due is Due.NOTHING

    @property
    def replica(self) -> Replica:
        return self.shown.replica

    def commits(self, *candles: Candle, heard: bool = True) -> Commit:
        """The owner commits."""
        assert self.store is not None
        commit = then(self.store, *candles)
        self.store.apply(commit)
        if heard:
            self.following.committed(commit)
        return commit

    def begins(self, life: str, *candles: Candle, told: bool = True) -> Commit:
        """The owner begins a new life."""
        commit = Commit(life, 1, candles, begins=True, replaces=self.store.life if self.store else "")
        self.store = self.store or Replica(BTC, 1000)
        self.store.apply(commit)
        if told:
            self.following.committed(commit)
        return commit

    def ask(self) -> bool:
        """What is due is asked and answered; whether the series was read."""
        due = self.following.due
        assert due is not Due.NOTHING
        self.following.asked()
        if due is Due.POSITION and self.following.found(self.store.position if self.store else None):
            return False
        self.following.read(self.store.snapshot() if self.store else None, self.now)
        return True

    def reports(self, position: Position | None = None, state: State = State.LIVE) -> None:
        at = position or (self.store or self.replica).position
        self.following.reported(SeriesReport(state, at), self.now)

    def state(self) -> State:
        return self.following.state(self.now)

    def due(self) -> Due:
        return self.following.due


def shown_by(node: Node) -> list[Candle]:
    return candles_of(node.replica)


def test_the_numbers_are_those_that_were_decided_on() -> None:
    assert (WAITING_AT_MOST, HOLD_ON, LOOK_AGAIN) == (256, 30.0, 4.0)
    assert Due.NOTHING.value < Due.POSITION.value < Due.SERIES.value, "of two, the one that asks for more is due"


# --- commits


def test_the_next_commit_is_shown_at_once() -> None:
    node = Node(*minutes(0, 2), forming(minute(3)))
    made = node.commits(candle(minute(3)), forming(minute(4)))
    assert node.shown.published == [made]
    assert node.due() is Due.NOTHING


def test_a_commit_that_was_shown_already_is_ignored() -> None:
    node = Node(*minutes(0, 2))
    made = node.commits(candle(minute(3)))
    node.following.committed(made)
    node.following.moved(made.position)
    node.following.moved(Position("life0", 1))
    assert node.shown.published == [made]
    assert node.due() is Due.NOTHING


def test_a_jump_is_read() -> None:
    node = Node(*minutes(0, 2))
    node.commits(candle(minute(3)), heard=False)
    node.commits(candle(minute(4)))
    assert node.due() is Due.SERIES
    assert shown_by(node) == minutes(0, 2)
    node.ask()
    assert node.replica.snapshot() == (node.store and node.store.snapshot())


def test_a_commit_that_is_only_told_of_is_read_also_when_it_is_the_next() -> None:
    node = Node(*minutes(0, 2))
    node.following.moved(node.commits(candle(minute(3)), heard=False).position)
    assert node.due() is Due.SERIES
    node.ask()
    assert shown_by(node)[-1] == candle(minute(3))


def test_what_is_announced_while_the_store_is_asked_is_shown_after_its_answer() -> None:
    node = Node(*minutes(0, 2))
    node.commits(candle(minute(3)), heard=False)
    first = node.commits(candle(minute(4)))
    assert node.store is not None
    node.following.asked()
    snapshot = node.store.snapshot()
    last = [node.commits(*minutes(5, 5)), node.commits(*minutes(6, 6))]
    assert shown_by(node) == minutes(0, 2), "not before: it does not follow"
    node.following.read(snapshot, 0.0)
    assert node.shown.published == last
    assert first not in node.shown.published
    assert node.due() is Due.NOTHING


def test_more_than_can_wait_is_read_again() -> None:
    node = Node(forming(minute(0), trades=1))
    assert node.store is not None
    node.following.listening()
    node.following.asked()
    for trades in range(2, WAITING_AT_MOST + 10):
        node.commits(forming(minute(0), trades=trades))
    assert node.following.found(Position("life0", 1))
    assert node.due() is Due.SERIES
    node.ask()
    assert node.replica.position == node.store.position
    assert node.due() is Due.NOTHING


def test_as_many_as_can_wait_are_shown_after_the_answer() -> None:
    node = Node(forming(minute(0), trades=1))
    node.following.listening()
    node.following.asked()
    for trades in range(2, WAITING_AT_MOST + 2):
        node.commits(forming(minute(0), trades=trades))
    assert node.following.found(Position("life0", 1))
    assert len(node.shown.published) == WAITING_AT_MOST
    assert node.due() is Due.NOTHING
    node.following.listening()
    node.following.asked()
    for trades in range(WAITING_AT_MOST + 2, 2 * WAITING_AT_MOST + 3):
        node.commits(forming(minute(0), trades=trades))
    assert node.due() is Due.NOTHING, "one question at a time"
    node.following.found(node.replica.position)
    assert node.due() is Due.SERIES


def test_a_commit_that_does_not_fit_is_read() -> None:
    """A store went back within its life and on again, before that was seen."""
    node = Node(*minutes(0, 2))
    node.following.committed(Commit("life0", 2, (candle(minute(7)),)))
    assert shown_by(node) == minutes(0, 2)
    assert node.due() is Due.SERIES


# --- lives


def test_the_first_commit_of_a_life_is_shown_in_place_of_what_it_replaces() -> None:
    node = Node(*minutes(0, 2))
    made = node.begins("life1", *minutes(1, 3))
    assert node.shown.published == [made]
    assert node.replica.position == Position("life1", 1)


def test_a_new_life_that_ends_where_ours_does_is_shown() -> None:
    node = Node(*minutes(0, 2))
    made = node.begins("life1", *minutes(0, 2))
    assert node.shown.published == [made]


def test_one_that_replaces_another_life_than_ours_is_looked_at() -> None:
    """It may be late: of a life before ours."""
    node = Node(*minutes(0, 2))
    node.following.committed(Commit("late", 1, tuple(minutes(0, 5)), begins=True, replaces="former"))
    assert node.due() is Due.POSITION
    assert not node.ask()
    assert shown_by(node) == minutes(0, 2)


def test_one_that_is_behind_us_is_not_shown() -> None:
    node = Node(*minutes(0, 5))
    node.begins("life1", *minutes(0, 4))
    assert shown_by(node) == minutes(0, 5)
    assert node.due() is Due.POSITION


def test_a_commit_of_a_life_that_was_missed_is_read() -> None:
    node = Node(*minutes(0, 2))
    node.begins("life1", *minutes(0, 2), told=False)
    node.commits(candle(minute(3)))
    assert node.due() is Due.POSITION
    assert node.ask()
    assert node.replica.position == Position("life1", 2)


def test_a_series_that_is_not_there_yet_begins_with_its_first_commit() -> None:
    node = Node()
    node.begins("life0", *minutes(0, 2))
    assert shown_by(node) == minutes(0, 2)


def test_a_series_that_neither_the_store_nor_we_have_is_settled() -> None:
    shown = Shown(Replica(BTC, 1000))
    following = Following(shown, FRESH)
    following.asked()
    assert following.found(None), "both are nowhere"
    following.listening()
    following.asked()
    following.read(None, 0.0)
    assert following.due is Due.NOTHING
    assert (shown.adopted, following.look_at) == ([], None)


# --- hearing


def test_until_it_listens_it_may_miss_anything() -> None:
    following = Following(Shown(begun(minutes(0, 2))), FRESH)
    assert following.due is Due.POSITION
    following.asked()
    assert following.found(Position("life0", 1))
    following.reported(SeriesReport(State.LIVE, Position("life0", 1)), 0.0)
    assert following.state(0.0) is State.SYNCING


def test_while_the_store_is_asked_nothing_else_is_due() -> None:
    node = Node(*minutes(0, 2))
    node.following.listening()
    node.following.asked()
    node.following.listening()
    assert node.due() is Due.NOTHING
    node.following.found(Position("life0", 1))
    assert node.due() is Due.POSITION


def test_when_everything_is_heard_again_the_position_tells_whether_anything_was_missed() -> None:
    node = Node(*minutes(0, 2))
    for missed in (False, True):
        node.following.deaf()
        if missed:
            node.commits(candle(minute(3)), heard=False)
        node.following.listening()
        assert node.due() is Due.POSITION
        assert node.ask() is missed
    assert shown_by(node)[-1] == candle(minute(3))


def test_an_answer_from_before_everything_was_heard_does_not_count() -> None:
    node = Node(*minutes(0, 2))
    node.following.deaf()
    node.following.listening()
    node.following.asked()
    node.following.deaf()
    node.following.listening()
    assert node.following.found(Position("life0", 1))
    assert node.due() is Due.POSITION


def test_a_question_without_an_answer_is_due_again() -> None:
    node = Node(*minutes(0, 2))
    node.following.moved(Position("life0", 9))
    node.following.asked()
    node.following.listening()
    node.following.unanswered()
    assert node.due() is Due.SERIES


def test_what_was_heard_before_the_question_is_in_its_answer() -> None:
    node = Node(*minutes(0, 2))
    node.following.listening()
    made = node.commits(candle(minute(3)))
    assert shown_by(node) == minutes(0, 2), "not before it is known that nothing was missed"
    node.following.asked()
    node.following.committed(Commit("late", 9, (candle(minute(1)),)))
    node.following.unanswered()
    node.following.asked()
    assert not node.following.found(made.position)
    assert node.store is not None
    node.following.read(node.store.snapshot(), 0.0)
    assert shown_by(node)[-1] == candle(minute(3))
    assert node.due() is Due.NOTHING


# --- reports


def test_an_owner_that_is_further_than_we_are_makes_us_read() -> None:
    node = Node(*minutes(0, 2))
    node.commits(candle(minute(3)), heard=False)
    node.reports()
    assert node.due() is Due.SERIES


def test_an_owner_at_another_life_makes_us_look() -> None:
    node = Node(*minutes(0, 2))
    node.begins("life1", *minutes(0, 2), told=False)
    node.reports()
    assert node.due() is Due.POSITION


def test_an_owner_that_publishes_after_us_is_no_reason_to_look() -> None:
    node = Node(*minutes(0, 2))
    node.reports()
    node.commits(candle(minute(3)))
    node.reports(Position("life0", 1))
    assert node.due() is Due.NOTHING


def test_an_owner_that_stays_behind_us_is_one() -> None:
    """The store went back within its life, and the connection did not even break."""
    node = Node(*minutes(0, 2))
    node.commits(candle(minute(3)))
    node.reports()
    node.reports(Position("life0", 1))
    assert node.due() is Due.POSITION


# --- a store that is behind


def rolled_back(*, wiped: bool = False) -> Node:
    """A node that had all, over a store that lost the last two minutes, or everything."""
    node = Node(*minutes(0, 2))
    for trades in range(1, 9):
        node.commits(forming(minute(3), trades=trades))
    for made in minutes(3, 4):
        node.commits(made)
    node.store = None if wiped else begun(minutes(0, 2))
    node.following.deaf()
    node.following.listening()
    assert node.ask()
    assert shown_by(node) == minutes(0, 4), "nothing goes back in time"
    assert node.due() is Due.NOTHING
    assert node.following.look_at == LOOK_AGAIN
    return node


@pytest.mark.parametrize("wiped", [True, False])
def test_its_owner_begins_a_new_life_and_that_is_followed(wiped: bool) -> None:
    node = rolled_back(wiped=wiped)
    node.begins("life1", *minutes(0, 4))
    assert node.due() is Due.SERIES
    node.ask()
    assert node.replica.position == Position("life1", 1)
    node.commits(*minutes(5, 5))
    assert shown_by(node) == minutes(0, 5)
    assert node.following.look_at is None


def test_also_when_that_is_only_told_of() -> None:
    node = rolled_back()
    node.following.moved(node.begins("life1", *minutes(0, 4), told=False).position)
    assert node.due() is Due.SERIES


def test_what_its_owner_reports_meanwhile_is_no_reason_to_look() -> None:
    """It says so four times a lease, for each series."""
    node = rolled_back()
    for position in (Position("life0", 2), Position("life1", 1), Position("life0", 99)):
        node.reports(position)
        assert node.due() is Due.NOTHING


def test_an_owner_that_never_had_it_is_followed_once_it_has_come_as_far() -> None:
    node = rolled_back()
    for made in minutes(3, 5):
        if made.open_time < minute(4):
            node.commits(made)
            assert node.due() is Due.NOTHING, "still behind: not even worth reading"
        else:
            node.commits(made, heard=made.open_time == minute(4))
    assert node.due() is Due.SERIES
    assert node.store is not None
    assert node.store.revision < node.replica.revision, "in fewer revisions"
    node.ask()
    assert shown_by(node) == minutes(0, 5)
    node.commits(*minutes(6, 6))
    assert shown_by(node) == minutes(0, 6)


def test_it_is_looked_at_again_and_in_the_end_followed_back() -> None:
    node = rolled_back()
    looks = 0
    while shown_by(node) != minutes(0, 2):
        assert node.following.look_at is not None
        node.now = node.following.look_at
        node.following.look_again()
        node.ask()
        looks += 1
        assert looks < 20
    assert HOLD_ON <= node.now < HOLD_ON + LOOK_AGAIN
    assert node.following.look_at is None


def test_how_long_it_holds_on_counts_from_when_the_store_was_seen_to_be_behind() -> None:
    node = Node(*minutes(0, 2))
    node.commits(*minutes(3, 3))
    node.store = begun(minutes(0, 2))
    node.now = 100.0
    for moment, tail in ((100.0, 3), (100.0 + HOLD_ON - 0.5, 3), (100.0 + HOLD_ON, 2)):
        node.now = moment
        node.following.look_again()
        assert node.following.look_at is None, "not twice for one look"
        node.ask()
        assert shown_by(node)[-1] == minutes(tail, tail)[0]


def test_one_that_has_come_as_far_in_fewer_revisions_is_followed_at_once() -> None:
    node = rolled_back()
    node.commits(*minutes(3, 4), heard=False)
    node.following.look_again()
    node.ask()
    assert node.replica.position == Position("life0", 2)


def test_one_that_is_empty_is_never_followed() -> None:
    node = rolled_back(wiped=True)
    node.now = 1000.0
    node.following.look_again()
    node.ask()
    assert shown_by(node) == minutes(0, 4)


def test_one_that_comes_back_whole_is_followed_as_before() -> None:
    node = rolled_back()
    assert node.store is not None
    node.store.restore(node.replica.snapshot())
    node.following.listening()
    assert node.ask(), "whether it is whole, only what it holds tells"
    assert node.following.look_at is None
    node.commits(*minutes(5, 5))
    assert shown_by(node) == minutes(0, 5)


def test_one_that_has_come_to_the_same_revision_in_another_way_is_read() -> None:
    """Its new owner never had what we have, and goes on in the same life."""
    node = Node(*minutes(0, 2))
    node.commits(forming(minute(3)))
    position = node.replica.position
    node.store = begun(minutes(0, 2))
    node.following.listening()
    node.ask()
    node.commits(*minutes(3, 3), heard=False)
    assert node.store.position == position
    node.following.listening()
    node.ask()
    assert shown_by(node) == minutes(0, 3)


# --- the state


def test_it_is_what_the_owner_says_while_that_is_fresh() -> None:
    node = Node(*minutes(0, 2))
    assert node.state() is State.STALE
    for state in State:
        node.reports(state=state)
        assert node.state() is state
    node.reports()
    node.now = FRESH - 0.001
    assert node.state() is State.LIVE
    node.now = FRESH
    assert node.state() is State.STALE
    node.reports()
    assert node.state() is State.LIVE
    node.following.reported(None, -math.inf)
    assert node.state() is State.STALE
    node.following.reported(None, node.now)
    assert node.state() is State.SYNCING, "there is an owner, which has not begun it"


def test_it_is_not_live_while_anything_may_be_missing() -> None:
    node = Node(*minutes(0, 2))
    node.reports()
    node.following.deaf()
    assert node.state() is State.SYNCING
    node.following.listening()
    assert node.state() is State.SYNCING
    node.following.asked()
    assert node.state() is State.SYNCING
    node.following.found(Position("life0", 1))
    assert node.state() is State.LIVE
    node.following.moved(Position("life0", 2))
    assert node.state() is State.SYNCING
    node.ask()
    assert node.state() is State.LIVE
    node.reports(Position("life0", 2))
    assert node.state() is State.SYNCING, "it is further than we are"
    node.ask()
    assert node.state() is State.SYNCING, "and still is"
    node.reports(Position("life9", 1))
    assert node.state() is State.SYNCING
    node.ask()
    node.reports(Position("life0", 1))
    assert node.state() is State.LIVE


def test_it_is_not_live_while_it_holds_on() -> None:
    node = rolled_back()
    node.reports(Position("life0", 1))
    assert node.state() is State.SYNCING
    node.following.reported(None, -math.inf)
    assert node.state() is State.STALE


# --- any order of events


class AnyOrder(RuleBasedStateMachine):
    """An owner that never loses what it served, a store that does, and a follower that hears late or not at all."""

    @initialize()
    def start(self) -> None:
        self.owner = Replica(BTC, 6)
        self.lives = 0
        self.commit_life()
        self.store: Snapshot | None = self.owner.snapshot()
        self.truth = {self.owner.position: self.owner.snapshot()}
        self.shown = Shown(Replica(BTC, 6))
        self.following = Following(self.shown, FRESH)
        self.on_its_way: list[Commit | SeriesReport] = []
        self.hears = False
        self.asking: tuple[Due, Snapshot | None] | None = None
        self.lags = False
        self.position: Position | None = None
        self.seen = (0, False, 0)

    # --- the owner and its store

    def commit_life(self) -> Commit:
        self.lives += 1
        candles = candles_of(self.owner) or [candle(minute(0)), forming(minute(1), trades=1)]
        commit = Commit(f"life{self.lives}", 1, tuple(candles), begins=True, replaces=self.owner.life)
        self.owner.apply(commit)
        return commit

    def made(self, commit: Commit) -> None:
        self.store = self.truth[commit.position] = self.owner.snapshot()
        if self.hears:
            self.on_its_way.append(commit)

    @rule(kind=st.sampled_from(["update", "close", "close and open", "correct"]))
    def commit(self, kind: str) -> None:
        if self.lags:
            self.made(self.commit_life())
            self.lags = False
            return
        tail = self.owner.tail
        assert tail is not None
        after = self.owner.series.interval.next(tail.open_time)
        if tail.closed:
            self.made_of(forming(after, trades=1))
        elif kind == "update":
            self.made_of(forming(tail.open_time, trades=tail.trades + 1))
        elif kind == "close":
            self.made_of(candle(tail.open_time, trades=tail.trades + 1))
        elif kind == "close and open":
            self.made_of(candle(tail.open_time, trades=tail.trades + 1), forming(after, trades=1))
        else:
            first = self.owner.first
            assert first is not None
            self.made_of(candle(first.open_time, "1.00", trades=first.trades, closed=True)) if first.closed else None

    def made_of(self, *candles: Candle) -> None:
        commit = then(self.owner, *candles)
        self.owner.apply(commit)
        self.made(commit)

    @rule(data=st.data())
    def fall_back(self, data: st.DataObject) -> None:
        """An old copy is promoted: every connection to the one before is lost."""
        known = [None, *(snapshot for position, snapshot in self.truth.items() if position.life == self.owner.life)]
        self.store = data.draw(st.sampled_from(known))
        self.lags = self.store is None or self.store.position != self.owner.position
        self.lose()

    # --- the way

    @rule()
    def lose(self) -> None:
        self.on_its_way.clear()
        if self.hears:
            self.hears = False
            self.following.deaf()
        if self.asking is not None:
            self.asking = None
            self.following.unanswered()

    @rule()
    @precondition(lambda self: not self.hears)
    def listen(self) -> None:
        self.hears = True
        self.following.listening()

    @rule()
    @precondition(lambda self: self.hears)
    def report(self) -> None:
        if not self.lags:
            self.on_its_way.append(SeriesReport(State.LIVE, self.owner.position))

    @rule(count=st.integers(1, 4))
    def arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.on_its_way))):
            heard = self.on_its_way.pop(0)
            if isinstance(heard, SeriesReport):
                self.following.reported(heard, 0.0)
            elif len(heard.candles) > 3:
                self.following.moved(heard.position)
            else:
                self.following.committed(heard)

    @rule(at=st.integers(0, 3))
    @precondition(lambda self: self.on_its_way)
    def drop(self, at: int) -> None:
        """One is lost, though nothing breaks; a later one shows it, or a report."""
        del self.on_its_way[min(at, len(self.on_its_way) - 1)]

    # --- the follower's questions

    @rule()
    @precondition(lambda self: self.asking is None and self.following.due is not Due.NOTHING)
    def ask(self) -> None:
        due = self.following.due
        self.following.asked()
        self.asking = (due, self.store)

    @rule()
    @precondition(lambda self: self.asking is not None)
    def answer(self) -> None:
        """With what the store had when it was asked, whatever came since."""
        assert self.asking is not None
        (due, stored), self.asking = self.asking, None
        if due is Due.SERIES or not self.following.found(None if stored is None else stored.position):
            self.following.read(stored, 0.0)

    @rule()
    @precondition(lambda self: self.following.look_at is not None)
    def look_again(self) -> None:
        self.following.look_again()

    # --- what is promised

    @invariant()
    def what_is_shown_stood_in_the_store(self) -> None:
        if len(self.shown.replica):
            assert self.shown.replica.snapshot() == self.truth[self.shown.replica.position]

    @invariant()
    def nothing_goes_back(self) -> None:
        replica = self.shown.replica
        if self.position is not None and self.position.life == replica.life:
            assert replica.revision >= self.position.revision
        assert replica.tail is None or progress(replica.tail) >= self.seen
        self.position = replica.position
        self.seen = self.seen if replica.tail is None else progress(replica.tail)

    @invariant()
    def live_is_what_the_owner_had_at_its_last_report(self) -> None:
        if self.following.state(0.0) is State.LIVE:
            assert self.hears
            assert self.following.due is Due.NOTHING

    def teardown(self) -> None:
        """Once everything is heard and answered, it is where the owner is."""
        if self.lags:
            self.commit("update")
        if not self.hears:
            self.listen()
        for _ in range(20):
            self.report()
            self.arrive(1000)
            if self.asking is not None:
                self.answer()
            if self.following.due is not Due.NOTHING:
                self.ask()
                self.answer()
            if self.following.look_at is not None:
                self.following.look_again()
        assert self.shown.replica.snapshot() == self.owner.snapshot() == self.store
        assert self.following.state(0.0) is State.LIVE


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
