from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from candlesync.binance.pace import Backoff, ConnectionPace, Seldom, SlidingWindow
from candlesync.binance.stream import StreamSettings

BINANCE = StreamSettings()
SMALL = StreamSettings(connection_attempts=3, connection_period=10.0)


@settings(deadline=None)  # other work on the machine is no fault of the window
@given(
    limit=st.integers(1, 6),
    period=st.floats(0.5, 100),
    waits=st.lists(st.floats(0, 60), max_size=40),
)
def test_a_window_is_never_overfull_and_never_waits_in_vain(limit: int, period: float, waits: list[float]) -> None:
    window = SlidingWindow(limit, period)
    taken: list[float] = []
    now = 0.0
    for wait in waits:
        now += wait
        opens = window.opens(now)
        if opens > now:
            # It was full for a reason: so many events lie less than a period back.
            assert sum(moment + period > now for moment in taken) == limit
        now = opens
        window.take(now)
        taken.append(now)
    for first, beyond in zip(taken, taken[limit:], strict=False):
        assert beyond >= first + period
    assert window.used(now) == sum(moment + period > now for moment in taken)


def test_pauses_double_up_to_the_cap_and_start_again() -> None:
    backoff = Backoff(0.25, 10.0, Random(1))
    longest = [0.25, 0.5, 1, 2, 4, 8, 10, 10, 10]
    pauses = [backoff.pause() for _ in longest]
    for pause, most in zip(pauses, longest, strict=True):
        assert most / 2 <= pause <= most
    assert pauses[-1] > 5  # for ever: a long outage is not forgotten
    backoff.reset()
    assert 0.125 <= backoff.pause() <= 0.25


def test_pauses_are_jittered_over_the_whole_half() -> None:
    first = [Backoff(1.0, 10.0, Random(seed)).pause() for seed in range(200)]
    assert min(first) < 0.55
    assert max(first) > 0.95


def test_one_of_a_kind_passes_and_counts_the_others() -> None:
    seldom = Seldom(30.0)
    assert seldom.passes("garbage", 100.0) == 0
    assert seldom.passes("garbage", 101.0) is None
    assert seldom.passes("refusal", 101.0) == 0
    assert seldom.passes("garbage", 129.9) is None
    assert seldom.passes("garbage", 130.0) == 2
    assert seldom.passes("garbage", 160.0) == 0


async def test_three_hundred_feeds_never_try_more_than_250_in_five_minutes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace = ConnectionPace(BINANCE)
    turns: list[float] = []

    async def feed() -> None:
        await pace.turn()
        turns.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(feed)
        await trio.testing.wait_all_tasks_blocked()
        assert len(turns) == 250  # at once: nothing is gained by making them wait
        assert pace.statistics().used == 250
        assert pace.statistics().waiting == 50

    for first, beyond in zip(turns, turns[250:], strict=False):
        assert beyond - first >= 300.0
    assert turns[-1] - turns[0] == 300.0
    assert pace.statistics().used == 50
    assert pace.statistics().waiting == 0


async def test_turns_come_in_the_order_they_were_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    pace = ConnectionPace(SMALL)
    order: list[int] = []

    async def feed(number: int) -> None:
        await pace.turn()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(feed, number)
            await trio.testing.wait_all_tasks_blocked()
    assert order == list(range(10))


@pytest.mark.parametrize("cancelled", [3, 4, 5, 6])
async def test_a_cancelled_wait_uses_no_turn_and_holds_nobody_up(
    cancelled: int, autojump_clock: trio.testing.MockClock
) -> None:
    pace = ConnectionPace(SMALL)
    start = trio.current_time()
    turns: dict[int, float] = {}
    scopes = [trio.CancelScope() for _ in range(7)]

    async def feed(number: int) -> None:
        with scopes[number]:
            await pace.turn()
            turns[number] = trio.current_time() - start

    async with trio.open_nursery() as nursery:
        for number in range(7):
            nursery.start_soon(feed, number)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        scopes[cancelled].cancel()

    # The three behind the first three come together ten seconds later, whichever of the four gave up.
    assert turns == {number: (0.0 if number < 3 else 10.0) for number in range(7) if number != cancelled}


async def test_cancelled_before_it_waits_uses_no_turn(autojump_clock: trio.testing.MockClock) -> None:
    pace = ConnectionPace(SMALL)
    with trio.CancelScope() as scope:
        scope.cancel()
        await pace.turn()
    assert scope.cancelled_caught
    assert pace.statistics().used == 0


async def test_a_hold_stops_everybody_also_those_who_wait_already(autojump_clock: trio.testing.MockClock) -> None:
    pace = ConnectionPace(SMALL)
    start = trio.current_time()
    turns: list[float] = []

    async def feed() -> None:
        await pace.turn()
        turns.append(trio.current_time() - start)

    for _ in range(3):
        await pace.turn()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        nursery.start_soon(feed)
        await trio.sleep(5)
        pace.hold(60)
        pace.hold(20)  # a shorter one takes nothing back
        assert pace.statistics().held_for == 60
    assert turns == [65, 65]
    assert pace.statistics().held_for == 0


async def test_pacing_over_a_long_time(autojump_clock: trio.testing.MockClock) -> None:
    pace = ConnectionPace(SMALL)
    turns = []
    for wait in [0, 0, 4, 0, 9, 1, 0, 0, 25, 0, 0, 0]:
        await trio.sleep(wait)
        await pace.turn()
        turns.append(trio.current_time())
    assert all(beyond - first >= 10 for first, beyond in zip(turns, turns[3:], strict=False))
    assert all(second >= first for first, second in pairwise(turns))
