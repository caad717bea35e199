"""What a REST answer says of a series (invariants 4 to 6)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from candlesync.core.absorb import Absorbed, Evidence, absorb, refill
from candlesync.core.candle import Candle, Series
from candlesync.core.gap import Gap
from candlesync.core.interval import Interval
from candlesync.core.pending import Pending
from candlesync.core.replica import Commit, Replica
from tests.builders import BTC, T0, answer, begun, candle, candles_of, flat, forming, minute, minutes

HISTORY = 10


def read(
    replica: Replica,
    rows: Sequence[Candle],
    *frames: Candle,
    missing: tuple[Gap, ...] = (),
    give_up: bool = False,
) -> Absorbed:
    """Read an answer; ``missing`` is what the answer before the pause lacked, ``frames`` is what the stream shows."""
    pending = Pending(HISTORY)
    for frame in frames:
        pending.add(frame)
    return absorb(replica, rows, Evidence(missing=missing, pending=pending, give_up=give_up))


def series(*candles: Candle) -> Replica:
    return begun(candles, history=HISTORY)


def changed(found: Absorbed) -> list[Candle]:
    """The changes, in time order; each answer in these tests must leave a series that a replica accepts."""
    return [found.changes[time] for time in sorted(found.changes)]


def apply(replica: Replica, found: Absorbed) -> None:
    changes = dict(found.changes)
    refill(replica, changes, begins=found.begins)
    life = replica.life or "life0"
    candles = tuple(changes[time] for time in sorted(changes))
    replica.apply(Commit(life, replica.revision + 1, candles, found.begins))


def gap(first: int, last: int) -> Gap:
    return Gap(minute(first), minute(last))


# --- invariant 4: the tail comes first


def test_a_forming_tail_gets_its_final_values_before_anything_follows_it() -> None:
    replica = series(candle(minute(0)), forming(minute(1), trades=3))
    final = candle(minute(1), trades=7)
    found = read(replica, answer([final, candle(minute(2))]))
    assert changed(found) == [final, forming(minute(2))]
    assert (found.corrected, found.appended) == (0, 1)
    apply(replica, found)


def test_without_its_own_row_nothing_follows_a_forming_tail() -> None:
    replica = series(candle(minute(0)), forming(minute(1)))
    found = read(replica, answer([candle(minute(2)), candle(minute(3))]))
    assert found.changes == {}
    assert found.missing == (gap(1, 1),)


def test_a_closed_tail_needs_no_row_of_its_own() -> None:
    found = read(series(candle(minute(0))), answer([candle(minute(1)), candle(minute(2))]))
    assert changed(found) == [candle(minute(1)), forming(minute(2))]
    assert (found.missing, found.begins) == ((), False)


def test_the_tail_as_the_newest_row_is_still_forming() -> None:
    replica = series(candle(minute(0)), forming(minute(1), trades=3))
    assert changed(read(replica, answer([candle(minute(1), trades=5)]))) == [forming(minute(1), trades=5)]
    assert changed(read(replica, answer([candle(minute(1), trades=2)]))) == [], "it never loses trades"


def test_old_rows_are_corrections_or_nothing() -> None:
    replica = series(*minutes(0, 2))
    found = read(replica, answer([candle(minute(-1)), minutes(0, 0)[0], candle(minute(1), "1.00"), candle(minute(2))]))
    assert changed(found) == [candle(minute(1), "1.00")], "the newest row is not final, and what is closed stays closed"
    assert (found.corrected, found.appended) == (1, 0)


# --- invariant 5: the newest row is forming


def test_a_series_begins_with_the_answer_and_its_last_candle_forming() -> None:
    replica = Replica(BTC, HISTORY)
    found = read(replica, answer(minutes(0, 3)))
    assert found.begins
    assert [made.closed for made in changed(found)] == [True, True, True, False]
    apply(replica, found)


def test_where_the_stream_is_further_on_the_newest_row_is_left_for_the_next_answer() -> None:
    found = read(series(candle(minute(0))), answer(minutes(1, 2)), forming(minute(3)))
    assert changed(found) == minutes(1, 1)


def test_where_the_stream_has_shown_its_close_the_newest_row_is_closed() -> None:
    close = candle(minute(2), "2.00")
    found = read(series(candle(minute(0))), answer(minutes(1, 2)), close)
    assert changed(found) == [*minutes(1, 1), close]
    assert found.tail == close


def test_an_empty_answer_says_nothing() -> None:
    found = read(series(candle(minute(0))), ())
    assert (found.changes, found.missing, found.begins) == ({}, (), False)


# --- invariant 6: what is missing


def test_what_one_answer_lacks_is_only_noted_and_nothing_is_put_behind_it() -> None:
    found = read(series(candle(minute(0))), answer([*minutes(1, 1), *minutes(4, 4), *minutes(6, 7)]))
    assert changed(found) == minutes(1, 1)
    assert found.missing == (gap(2, 3), gap(5, 5))


def test_what_two_answers_with_a_pause_between_lack_is_filled() -> None:
    replica = series(candle(minute(0), "7.00"))
    found = read(replica, answer([candle(minute(3)), candle(minute(4))]), missing=(gap(1, 2),))
    assert changed(found) == [flat(minute(1), "7.00"), flat(minute(2), "7.00"), candle(minute(3)), forming(minute(4))]
    assert (found.filled, found.appended, found.missing) == (2, 2, ())
    apply(replica, found)


def test_only_what_was_missing_before_the_pause_is_filled() -> None:
    found = read(series(candle(minute(0), "7.00")), answer(minutes(3, 4)), missing=(gap(1, 1),))
    assert changed(found) == [flat(minute(1), "7.00")]
    assert found.missing == (gap(2, 2),)


def test_nothing_is_filled_behind_a_minute_that_may_still_come() -> None:
    """Found by the model exchange: minute 2 was filled although minute 1 was not there."""
    found = read(series(candle(minute(0))), answer(minutes(3, 4)), missing=(gap(2, 2),))
    assert found.changes == {}
    assert found.missing == (gap(1, 2),)


def test_no_waiting_close_is_put_behind_a_minute_that_may_still_come() -> None:
    found = read(series(candle(minute(0))), answer(minutes(3, 4)), candle(minute(2)))
    assert found.changes == {}
    assert found.missing == (gap(1, 1),)


def test_a_close_of_the_stream_stands_in_for_a_row_that_rest_lacks() -> None:
    replica = series(candle(minute(0)))
    found = read(replica, answer(minutes(2, 3)), candle(minute(1), "5.00"))
    assert changed(found) == [candle(minute(1), "5.00"), *minutes(2, 2), *answer(minutes(3, 3))]
    assert (found.missing, found.filled) == ((), 0)
    apply(replica, found)


def test_the_close_of_a_forming_tail_stands_in_for_its_row() -> None:
    replica = series(forming(minute(0), trades=3))
    found = read(replica, answer(minutes(1, 2)), candle(minute(0), trades=4))
    assert changed(found)[0] == candle(minute(0), trades=4)
    assert found.missing == ()
    apply(replica, found)


def test_what_the_stream_has_shown_is_no_outage() -> None:
    found = read(series(candle(minute(0))), answer(minutes(2, 3)), forming(minute(1)), missing=(gap(1, 1),))
    assert found.changes == {}
    assert found.missing == (gap(1, 1),)


def test_a_forming_tail_is_no_outage() -> None:
    found = read(series(forming(minute(0))), answer(minutes(1, 2)), missing=(gap(0, 0),))
    assert found.changes == {}
    assert found.missing == (gap(0, 0),)


def test_after_enough_questions_what_was_shown_is_closed_as_it_was_shown() -> None:
    replica = series(candle(minute(0)))
    found = read(replica, answer(minutes(2, 3)), forming(minute(1), trades=4), missing=(gap(1, 1),), give_up=True)
    assert changed(found)[0] == candle(minute(1), trades=4)
    assert not changed(found)[0].filled
    apply(replica, found)


@pytest.mark.parametrize(("held", "shown", "closed"), [(4, 6, 6), (6, 4, 6)])
def test_a_tail_that_rest_never_shows_is_closed_with_the_most_trades_known(held: int, shown: int, closed: int) -> None:
    replica = series(forming(minute(0), trades=held))
    frame = forming(minute(0), trades=shown)
    found = read(replica, answer(minutes(1, 2)), frame, missing=(gap(0, 0),), give_up=True)
    assert changed(found)[0] == candle(minute(0), trades=closed)
    apply(replica, found)


def test_giving_up_needs_a_pause_too() -> None:
    found = read(series(candle(minute(0))), answer(minutes(2, 3)), forming(minute(1)), give_up=True)
    assert found.changes == {}


def test_a_hole_before_the_newest_row_is_seen_also_where_that_row_itself_says_nothing() -> None:
    found = read(series(candle(minute(0))), answer(minutes(2, 2)), forming(minute(3)), missing=(gap(1, 1),))
    assert changed(found) == [flat(minute(1))]


def test_a_real_minute_replaces_its_fill_and_the_fills_behind_it_are_derived_anew() -> None:
    replica = series(
        candle(minute(0), "1.00"), *(flat(minute(number), "1.00") for number in (1, 2, 3)), forming(minute(4))
    )
    found = read(replica, answer([candle(minute(1), "2.00"), candle(minute(4), trades=0)]))
    apply(replica, found)
    assert candles_of(replica)[1:4] == [candle(minute(1), "2.00"), flat(minute(2), "2.00"), flat(minute(3), "2.00")]


def test_a_correction_before_a_fill_derives_it_anew() -> None:
    replica = series(candle(minute(0), "1.00"), flat(minute(1), "1.00"), candle(minute(2)), flat(minute(3)))
    apply(replica, read(replica, answer([candle(minute(0), "2.00"), *minutes(4, 4)])))
    assert candles_of(replica)[1] == flat(minute(1), "2.00")
    assert candles_of(replica)[3] == flat(minute(3)), "what stands before it has not changed"


def test_a_fill_that_is_only_in_the_changes_is_derived_anew_too() -> None:
    """A close that comes late, of the minute before it, may have been put into the changes since."""
    changes = {minute(1): candle(minute(1), "2.00"), minute(2): flat(minute(2), "1.00")}
    refill(series(candle(minute(0), "1.00")), changes, begins=False)
    assert changes[minute(2)] == flat(minute(2), "2.00")


def test_fills_are_derived_anew_behind_each_change() -> None:
    held = [candle(minute(0), "1.00"), flat(minute(1), "1.00"), *minutes(2, 4), flat(minute(5), "37004.00000000")]
    unchanged, before_none, corrected = (
        candle(minute(0), "1.00", trades=99),
        minutes(2, 2)[0],
        candle(minute(4), "2.00"),
    )
    changes = {change.open_time: change for change in (unchanged, before_none, corrected)}
    refill(series(*held), changes, begins=False)
    assert changes.pop(minute(5)) == flat(minute(5), "2.00")
    assert list(changes.values()) == [unchanged, before_none, corrected]


def test_a_series_that_begins_again_has_no_fills_of_the_one_before() -> None:
    changes = {minute(0): candle(minute(0), "2.00")}
    refill(series(candle(minute(0), "1.00"), flat(minute(1), "1.00")), changes, begins=True)
    assert list(changes) == [minute(0)]


def test_corrections_are_counted_and_a_corrected_tail_is_what_a_fill_follows() -> None:
    replica = series(*minutes(0, 1), forming(minute(2), "1.00"))
    rows = answer([candle(minute(0), "5.00"), candle(minute(1), "6.00"), candle(minute(2), "2.00"), *minutes(4, 5)])
    found = read(replica, rows, missing=(gap(3, 3),))
    assert found.corrected == 2, "a forming candle that is closed is not corrected"
    assert found.changes[minute(3)] == flat(minute(3), "2.00")
    apply(replica, found)


def test_a_fill_that_stays_as_it_was_is_not_changed() -> None:
    replica = series(candle(minute(0), "1.00"), flat(minute(1), "1.00"), flat(minute(2), "1.00"), candle(minute(3)))
    apply(replica, read(replica, answer([candle(minute(0), "1.00", trades=99), *minutes(4, 4)])))
    assert [entry.open_time for entry in replica.changed_since(1)] == [minute(0), minute(4)]


# --- gaps longer than the history


def test_a_hole_as_long_as_the_history_is_filled() -> None:
    found = read(series(candle(minute(0))), answer([candle(minute(0)), *minutes(11, 12)]), missing=(gap(1, 10),))
    assert (found.filled, found.begins) == (10, False)


def test_behind_a_longer_hole_the_series_begins_again_once_it_was_seen_twice() -> None:
    replica = series(candle(minute(0)))
    rows = answer([candle(minute(0)), *minutes(12, 14)])
    once = read(replica, rows)
    assert (once.changes, once.missing, once.begins) == ({}, (gap(1, 11),), False)
    twice = read(replica, rows, missing=once.missing)
    assert twice.begins
    assert changed(twice) == list(answer(minutes(12, 14)))
    apply(replica, twice)


def test_what_was_missing_before_a_leap_is_no_part_of_the_series_that_begins_again() -> None:
    rows = answer([candle(minute(0)), *minutes(2, 2), *minutes(14, 15)])
    found = read(series(candle(minute(0))), rows, missing=(gap(3, 13),))
    assert changed(found) == list(answer(minutes(14, 15)))
    assert found.missing == ()


def test_a_longer_hole_of_which_only_a_part_was_seen_before_is_no_leap_yet() -> None:
    rows = answer([candle(minute(0)), *minutes(12, 14)])
    for seen in (gap(1, 5), gap(5, 11)):
        found = read(series(candle(minute(0))), rows, missing=(seen,))
        assert (found.changes, found.missing, found.begins) == ({}, (gap(1, 11),), False)


def test_a_hole_directly_behind_the_leap_is_not_overlooked() -> None:
    """Found by the model exchange: the row after the first one was taken for its neighbour."""
    rows = answer([candle(minute(0)), *minutes(12, 12), *minutes(14, 15)])
    found = read(series(candle(minute(0))), rows, missing=(gap(1, 11),))
    assert changed(found) == minutes(12, 12)
    assert found.missing == (gap(13, 13),)
    replica = series(candle(minute(0)))
    apply(replica, read(replica, rows, missing=(gap(1, 11), gap(13, 13))))
    assert [made.filled for made in candles_of(replica)] == [False, True, False, False]


def test_an_answer_that_does_not_reach_back_begins_the_series_again() -> None:
    """Found by the model exchange: what was never asked for was filled like an outage."""
    for tail, first in ((candle(minute(0)), 2), (forming(minute(0)), 1)):
        replica = series(tail)
        rows = answer(minutes(first, first + HISTORY - 1))
        found = read(replica, rows)
        assert found.begins
        assert changed(found) == list(rows)
        apply(replica, found)


def test_an_answer_that_joins_a_closed_tail_does_not_begin_the_series_again() -> None:
    replica = series(candle(minute(0)))
    assert not read(replica, answer(minutes(1, 12))).begins
    assert read(series(forming(minute(0))), answer(minutes(1, 12))).begins, "a forming one needs its own row"


def test_months_and_weeks_are_joined_by_the_calendar() -> None:
    for interval in (Interval.MO1, Interval.W1, Interval.D3):
        start = interval.floor(T0)
        rows = [candle(interval.next(start, step), interval=interval) for step in (0, 1, 3, 4)]
        replica = begun(rows[:1], series=Series("BTCUSDT", interval), history=HISTORY)
        hole = interval.next(start, 2)
        assert read(replica, answer(rows)).missing == (Gap(hole, hole),)
        apply(replica, read(replica, answer(rows), missing=(Gap(hole, hole),)))
        assert [made.filled for made in candles_of(replica)] == [False, False, True, False, False]
