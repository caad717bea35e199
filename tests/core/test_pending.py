"""What waits for its turn stays bounded and loses no evidence (invariants 6 and 8)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.candle import Candle
from candlesync.core.pending import Pending
from tests.builders import candle, forming, minute

HISTORY = 5


def pending_of(*candles: Candle, history: int = HISTORY) -> Pending:
    pending = Pending(history)
    for frame in candles:
        pending.add(frame)
    return pending


def waiting(pending: Pending) -> list[tuple[int, bool]]:
    """The numbers of the waiting minutes, and whether each is closed."""
    return [((frame.open_time - minute(0)) // 60_000, frame.closed) for frame in pending]


def test_forming_updates_of_one_candle_replace_each_other() -> None:
    pending = pending_of(forming(trades=1), forming(trades=2), forming(trades=3))
    assert list(pending) == [forming(trades=3)]


def test_a_late_forming_update_tells_nothing() -> None:
    pending = pending_of(forming(trades=3))
    assert not pending.add(forming(trades=2))
    assert not pending.add(forming(trades=3))
    assert pending.add(forming(trades=4))


def test_closed_candles_are_kept_in_order_whatever_order_they_come_in() -> None:
    pending = pending_of(candle(minute(2)), forming(minute(3)), candle(minute(0)), candle(minute(1)))
    assert waiting(pending) == [(0, True), (1, True), (2, True), (3, False)]
    assert len(pending) == 4


def test_a_close_takes_the_place_of_its_forming_candle_for_good() -> None:
    pending = pending_of(forming(minute(0)), candle(minute(0)))
    assert not pending.add(forming(minute(0), trades=99))
    assert waiting(pending) == [(0, True)]
    assert not pending.add(candle(minute(0))), "repeated"
    assert pending.add(candle(minute(0), "1.00")), "the last word counts"


def test_the_forming_candle_need_not_be_the_last() -> None:
    pending = pending_of(forming(minute(0)), candle(minute(1)))
    assert waiting(pending) == [(0, False), (1, True)]


def test_no_more_closed_candles_than_the_history_and_the_oldest_go() -> None:
    pending = pending_of(*(candle(minute(number)) for number in (3, 1, 0, 5, 4, 6, 2)))
    assert waiting(pending) == [(number, True) for number in (2, 3, 4, 5, 6)]


def test_what_a_newer_forming_candle_pushed_aside_was_shown() -> None:
    pending = pending_of(forming(minute(0), trades=1), forming(minute(0), trades=2), forming(minute(1)))
    assert waiting(pending) == [(1, False)]
    assert pending.shown(minute(0)) == forming(minute(0), trades=2)
    assert pending.shown(minute(1)) == forming(minute(1))
    assert pending.shown(minute(2)) is None


def test_a_late_frame_of_an_older_candle_is_shown_too_and_loses_no_trades() -> None:
    pending = pending_of(forming(minute(1)), forming(minute(0), trades=5), forming(minute(0), trades=4))
    assert waiting(pending) == [(1, False)]
    assert pending.shown(minute(0)) == forming(minute(0), trades=5)


def test_no_more_is_remembered_as_shown_than_the_history_and_the_oldest_goes() -> None:
    pending = pending_of(*(forming(minute(number)) for number in (9, 2, 0, 5, 1, 4, 3)))
    shown = [number for number in range(9) if pending.shown(minute(number)) is not None]
    assert shown == [1, 2, 3, 4, 5]


def test_once_closed_a_candle_is_no_longer_just_shown() -> None:
    pending = pending_of(forming(minute(0)), forming(minute(1)), candle(minute(0)))
    assert pending.shown(minute(0)) is None
    assert pending.closed(minute(0)) == candle(minute(0))
    assert pending.closed(minute(1)) is None


def test_whether_something_later_waits() -> None:
    assert not pending_of(forming(minute(1))).reaches_beyond(minute(1))
    assert pending_of(forming(minute(1))).reaches_beyond(minute(0))
    assert pending_of(candle(minute(1))).reaches_beyond(minute(0))
    assert not pending_of(candle(minute(1))).reaches_beyond(minute(1))


def test_forgetting_leaves_both_bounds() -> None:
    pending = pending_of(*(candle(minute(number)) for number in range(5)), forming(minute(5)))
    pending.forget(before=minute(1), beyond=minute(3))
    assert waiting(pending) == [(1, True), (2, True), (3, True)]


def test_forgetting_what_was_shown() -> None:
    pending = pending_of(*(forming(minute(number)) for number in range(4)))
    pending.forget(before=minute(1))
    assert [pending.shown(minute(number)) is not None for number in range(4)] == [False, True, True, True]


def test_what_an_impossible_frame_pushed_aside_comes_back_when_that_is_forgotten() -> None:
    pending = pending_of(forming(minute(0)), forming(minute(999)), forming(minute(1)))
    assert waiting(pending) == [(999, False)]
    pending.forget(beyond=minute(100))
    assert waiting(pending) == [(1, False)]
    assert pending.shown(minute(0)) is not None


def test_out_of_sight_a_forming_candle_was_only_shown() -> None:
    pending = pending_of(candle(minute(0)), forming(minute(1), trades=3))
    pending.lose_sight()
    assert waiting(pending) == [(0, True)]
    assert pending.shown(minute(1)) == forming(minute(1), trades=3)
    pending.lose_sight()
    assert waiting(pending) == [(0, True)]


def test_a_candle_that_was_taken_is_dropped_unless_it_has_changed_since() -> None:
    pending = pending_of(candle(minute(0)), forming(minute(1), trades=1))
    pending.drop(candle(minute(0), "1.00"))
    assert waiting(pending) == [(0, True), (1, False)]
    pending.drop(candle(minute(0)))
    pending.drop(forming(minute(1), trades=0))
    assert waiting(pending) == [(1, False)]
    pending.drop(forming(minute(1), trades=1))
    assert waiting(pending) == []


frames = st.builds(
    lambda number, trades, closed: candle(minute(number), trades=trades, closed=closed),
    number=st.integers(-(10**6), 10**6) | st.integers(-8, 8),
    trades=st.integers(0, 5),
    closed=st.booleans(),
)


@given(st.lists(frames, max_size=60))
def test_whatever_is_sent_little_is_kept(sent: list[Candle]) -> None:
    pending = pending_of(*sent)
    kept = list(pending)
    assert len(kept) == len(pending) <= HISTORY + 1
    assert [frame.open_time for frame in kept] == sorted({frame.open_time for frame in kept})
    assert sum(not frame.closed for frame in kept) <= 1
    shown = {frame.open_time for frame in sent if pending.shown(frame.open_time) is not None}
    assert len(shown) <= HISTORY + 1
    closes = sorted({frame.open_time for frame in sent if frame.closed})
    assert [frame.open_time for frame in kept if frame.closed] == closes[-HISTORY:], "the newest closes are kept"


def test_it_is_empty_when_nothing_waits_and_nothing_was_shown() -> None:
    assert pending_of().is_empty
    assert not pending_of(forming()).is_empty
    assert not pending_of(candle()).is_empty
    pending = pending_of(forming())
    pending.lose_sight()
    assert list(pending) == []
    assert not pending.is_empty, "what was shown may still stand in for a minute that REST never has"
