from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from candlesync.simulator.bars import Bar, aggregate, flat
from candlesync.simulator.tape import Tape

END = 59_999


@st.composite
def bars(draw: Any) -> Bar:
    trades = draw(st.integers(4, 3000))
    low, one, other, high = sorted(draw(st.lists(st.integers(1, 10**6), min_size=4, max_size=4)))
    open_, close = draw(st.permutations([one, other]))
    volume, quote = draw(st.integers(trades, 10**12)), draw(st.integers(trades, 10**15))
    taker, taker_quote = draw(st.integers(0, volume)), draw(st.integers(0, quote))
    return Bar(0, END, open_, high, low, close, volume, quote, trades, taker, taker_quote, 1000)


@settings(max_examples=60, deadline=None)
@given(bar=bars(), at_once=st.booleans(), seed=st.integers(0, 99))
def test_a_candle_grows_to_its_final_values_and_never_back(bar: Bar, at_once: bool, seed: int) -> None:
    tape = Tape(bar, seed=seed, opens_at_once=at_once)
    before = tape.bar_between(0, 1, 0, END)
    if at_once:
        assert before.trades
    for now in [*range(0, END, 997), END]:
        after = tape.bar_between(0, now + 1, 0, END)
        assert after.open == bar.open
        assert after.trades >= before.trades
        assert after.volume >= before.volume
        assert after.quote_volume >= before.quote_volume
        assert after.taker_volume >= before.taker_volume
        assert after.high >= before.high
        assert after.low <= before.low
        before = after
    assert before == bar


@settings(max_examples=30, deadline=None)
@given(bar=bars(), seed=st.integers(0, 99))
def test_its_seconds_make_up_the_candle(bar: Bar, seed: int) -> None:
    tape = Tape(bar, seed=seed, opens_at_once=False)
    seconds = [tape.bar_between(time, time + 1000, time, time + 999) for time in range(0, END, 1000)]
    assert aggregate(seconds, 0, END) == bar


def test_a_candle_without_trades_is_flat_all_along() -> None:
    bar = flat(0, END, 7)
    tape = Tape(bar, seed=1, opens_at_once=True)
    assert tape.bar_between(0, 30_000, 0, END) == bar


def test_few_trades_have_no_room_for_all_prices() -> None:
    for trades in (1, 2, 3):
        bar = Bar(0, END, 5, 9, 1, 6, 10, 60, trades, 5, 30, 0)
        grown = Tape(bar, seed=1, opens_at_once=True).bar_between(0, END + 1, 0, END)
        assert grown.trades == trades
        assert grown.close == bar.close
        assert grown.volume == bar.volume


def test_the_seed_decides() -> None:
    bar = Bar(0, END, 500, 900, 100, 600, 10**6, 10**8, 300, 5, 30, 0)
    one, same, other = (Tape(bar, seed=seed, opens_at_once=False) for seed in (1, 1, 2))
    half = [tape.bar_between(0, 30_000, 0, END) for tape in (one, same, other)]
    assert half[0] == half[1] != half[2]
