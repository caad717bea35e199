"""Which of two states of one candle stands (invariant 3)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.candle import Candle
from candlesync.core.merge import Source, merge
from tests.builders import T0, candle, flat, forming

BOTH = pytest.mark.parametrize("source", Source)
states = st.builds(
    lambda close, trades, closed, unused: candle(T0, close, trades=trades, closed=closed, unused=unused),
    close=st.sampled_from(["100.00", "101.00"]),
    trades=st.integers(min_value=0, max_value=3),
    closed=st.booleans(),
    unused=st.sampled_from(["0", "1"]),
) | st.just(flat(T0))


@BOTH
def test_a_closed_candle_never_becomes_forming_again(source: Source) -> None:
    assert merge(candle(trades=5), forming(trades=9), source) is None
    assert merge(flat(T0), forming(trades=9), source) is None


def test_a_closed_candle_changes_by_a_final_row_alone() -> None:
    known, corrected = candle(T0, "100.00"), candle(T0, "101.00")
    assert merge(known, corrected, Source.STREAM) is None
    assert merge(known, corrected, Source.REST) is corrected


def test_a_final_row_corrects_also_to_fewer_trades() -> None:
    corrected = candle(trades=4)
    assert merge(candle(trades=5), corrected, Source.REST) is corrected


@BOTH
def test_a_fill_gives_way_to_the_real_candle(source: Source) -> None:
    real = candle(T0)
    assert merge(flat(T0), real, source) is real


@BOTH
def test_a_real_candle_with_the_values_of_the_fill_is_no_longer_filled(source: Source) -> None:
    real = msgspec.structs.replace(flat(T0), filled=False)
    assert merge(flat(T0), real, source) is real


@BOTH
def test_a_close_beats_any_forming_state(source: Source) -> None:
    close = candle(trades=5)
    assert merge(forming(trades=4), close, source) is close
    assert merge(forming(trades=6), close, source) is close


@BOTH
def test_a_forming_candle_never_loses_trades(source: Source) -> None:
    assert merge(forming(trades=5), forming(trades=4), source) is None
    more = forming(trades=6)
    assert merge(forming(trades=5), more, source) is more


@BOTH
def test_of_as_many_trades_the_greater_volume_is_later(source: Source) -> None:
    known = forming(volume="9.5")
    more, less = forming(volume="10.5"), forming(volume="9.4")
    assert merge(known, more, source) is more, "compared as numbers, not as texts"
    assert merge(known, less, source) is None


@BOTH
def test_trades_count_before_the_volume(source: Source) -> None:
    known = forming(trades=5, volume="5.5")
    more, fewer = forming(trades=6, volume="5.4"), forming(trades=4, volume="9.5")
    assert merge(known, more, source) is more
    assert merge(known, fewer, source) is None


@BOTH
def test_of_as_many_trades_and_as_much_volume_the_last_word_counts(source: Source) -> None:
    last = forming(close="37013.00000000")
    assert merge(forming(), last, source) is last


@BOTH
def test_what_says_the_same_is_no_news(source: Source) -> None:
    assert merge(forming(unused="0"), forming(unused="1"), source) is None
    assert merge(candle(unused="0"), candle(unused="1"), source) is None


@given(states, states, st.sampled_from(Source))
def test_merging_twice_changes_nothing_more(known: Candle, seen: Candle, source: Source) -> None:
    state = merge(known, seen, source)
    if state is not None:
        assert state is seen
        assert merge(state, seen, source) is None
        assert state.closed or not known.closed
        assert state.closed or state.trades >= known.trades


TRUTH = [forming(close=f"{trades}.00", trades=trades) for trades in range(5)]


@given(st.permutations([*TRUTH, *TRUTH, candle(trades=5)]))
def test_in_whatever_order_frames_come_the_close_stands_in_the_end(frames: list[Candle]) -> None:
    state = TRUTH[0]
    for frame in frames:
        state = merge(state, frame, Source.STREAM) or state
    assert state == candle(trades=5)


@given(st.permutations(TRUTH))
def test_without_a_close_the_state_with_the_most_trades_stands(frames: list[Candle]) -> None:
    state = TRUTH[0]
    for frame in frames:
        state = merge(state, frame, Source.STREAM) or state
    assert state == TRUTH[-1]
