"""The budget never lets more go than Binance allows, and never keeps anybody longer than it must."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.binance.purpose import Purpose, spending_for
from candlesync.binance.weight import Entry, Ledger, WeightBudget, WeightSettings
from candlesync.errors import RateLimited


def small_budget(limit: int = 10, *, spread: float = 0.0, seed: int = 1) -> WeightBudget:
    settings = WeightSettings(limit=limit, share=1.0, spread=spread, after_ban=0.0, in_trouble=0.0)
    return WeightBudget(settings, jitter=random.Random(seed).random)


async def use(budget: WeightBudget, weight: int, reported: int | None, *, patience: float = 0.0) -> None:
    """One request that is answered in no time."""
    with await budget.spend(weight, patience=patience) as spend:
        spend.sent()
        spend.report(reported)


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_only_the_share_of_the_limit_is_spent() -> None:
    ledger = Ledger(limit=100, share=0.9)
    ledger.settle(ledger.enter(2), used=88, now=0)
    assert ledger.free_at(2, now=0) == 0
    assert ledger.free_at(3, now=0) == 60


def test_requests_in_flight_count() -> None:
    ledger = Ledger(limit=10, share=1)
    first, second = ledger.enter(4), ledger.enter(4)
    assert ledger.free_at(2, now=0) == 0
    assert ledger.free_at(3, now=0) == math.inf  # no time frees what is in flight
    ledger.withdraw(first)
    assert ledger.free_at(6, now=0) == 0
    ledger.settle(second, used=4, now=1)
    assert (ledger.used, ledger.in_flight) == (4, 0)
    assert ledger.free_at(7, now=1) == 61


def test_a_minute_is_over_60_s_after_its_first_answer() -> None:
    ledger = Ledger(limit=10, share=1)
    ledger.settle(ledger.enter(2), used=2, now=5)
    ledger.settle(ledger.enter(2), used=10, now=30)
    assert ledger.free_at(2, now=64.9) == 65
    assert ledger.free_at(2, now=65) == 65
    assert ledger.used == 0


def test_an_answer_that_reports_less_shows_that_the_minute_turned() -> None:
    ledger = Ledger(limit=10, share=1)
    ledger.settle(ledger.enter(2), used=8, now=5)
    ledger.settle(ledger.enter(2), used=9, now=30)  # less than 8 + 2
    assert ledger.used == 9
    assert ledger.free_at(2, now=31) == 90  # 60 s after the first answer of the new minute


def test_answers_may_overtake_each_other() -> None:
    ledger = Ledger(limit=10, share=1)
    first, second = ledger.enter(2), ledger.enter(2)
    ledger.settle(second, used=4, now=1)
    ledger.settle(first, used=2, now=2)  # counted before the second, answered after it
    assert ledger.used == 4
    assert ledger.free_at(8, now=2) == 61


def test_a_late_answer_of_the_minute_before_changes_nothing() -> None:
    ledger = Ledger(limit=10, share=1)
    ledger.settle(ledger.enter(2), used=6, now=0)
    late = ledger.enter(2)
    ledger.settle(ledger.enter(2), used=2, now=10)  # the minute turned
    ledger.settle(late, used=8, now=11)
    assert (ledger.used, ledger.in_flight) == (2, 0)


def test_a_late_answer_of_the_new_minute_counts() -> None:
    ledger = Ledger(limit=10, share=1)
    ledger.settle(ledger.enter(2), used=6, now=0)
    late = ledger.enter(2)
    ledger.settle(ledger.enter(2), used=2, now=10)
    ledger.settle(late, used=4, now=11)
    assert ledger.used == 4


def test_a_lost_request_counts_for_a_minute_from_now() -> None:
    ledger = Ledger(limit=10, share=1)
    ledger.settle(ledger.enter(2), used=2, now=0)
    ledger.lose(ledger.enter(8), now=30)
    assert (ledger.used, ledger.in_flight) == (10, 0)
    assert ledger.free_at(3, now=31) == 90
    assert ledger.free_at(2, now=31) == 60
    assert ledger.free_at(2, now=60) == 60
    assert ledger.free_at(3, now=60) == 90
    assert ledger.free_at(10, now=90) == 90


def test_what_is_lost_again_and_again_does_not_add_up_for_ever() -> None:
    """REST that is down for hours, asked twice a second: 240 a minute, whenever it comes back."""
    ledger = Ledger(limit=6_000, share=0.9)
    for number in range(2 * 3 * 3600):
        now = number / 2
        assert ledger.free_at(2, now) == now
        ledger.lose(ledger.enter(2), now)
    assert 230 <= ledger.used <= 250


def test_what_is_over_the_limit_by_itself_goes_alone() -> None:
    ledger = Ledger(limit=10, share=1)
    assert ledger.free_at(20, now=0) == 0
    ledger.settle(ledger.enter(2), used=2, now=0)
    assert ledger.free_at(20, now=0) == 60
    assert ledger.free_at(20, now=60) == 60


@settings(deadline=None)
@given(phase=st.floats(0, 60), seed=st.integers(0), gap=st.floats(0.01, 1), delay=st.floats(0, 3))
def test_binance_never_counts_more_than_its_limit(phase: float, seed: int, gap: float, delay: float) -> None:
    # 80 % of 100 are spent; what is not known at a turn is what is in flight then: at most 8 requests of weight 2.
    ledger = Ledger(limit=100, share=0.8)
    chance = random.Random(seed)
    counted: Counter[float] = Counter()
    order = itertools.count()
    coming: list[tuple[float, int, Callable[[float], None]]] = []

    def later(now: float, event: Callable[[float], None]) -> None:
        heapq.heappush(coming, (now + delay * chance.random(), next(order), event))

    def arrive(entry: Entry, now: float) -> None:
        minute = (now + phase) // 60
        counted[minute] += 2
        assert counted[minute] <= 100
        lost = chance.random() < 0.2
        later(now, partial(ledger.lose, entry) if lost else partial(ledger.settle, entry, counted[minute]))

    now = 0.0
    for _ in range(500):
        now += gap * chance.random()
        while coming and coming[0][0] <= now:
            at, _, event = heapq.heappop(coming)
            event(at)
        if len(coming) < 8 and ledger.free_at(2, now) == now:
            later(now, partial(arrive, ledger.enter(2)))
    assert ledger.in_flight == 2 * len(coming)


# -- the budget --------------------------------------------------------------------------------------------------------


async def test_a_request_takes_and_settles_its_weight() -> None:
    budget = small_budget()
    with await budget.spend(4, patience=0) as spend:
        assert budget.statistics().in_flight == 4
        spend.sent()
        spend.report(7)
    assert (budget.statistics().used, budget.statistics().in_flight) == (7, 0)


async def test_what_was_not_sent_costs_nothing_and_what_was_not_answered_does() -> None:
    budget = small_budget()
    with await budget.spend(4, patience=0):
        pass
    assert (budget.statistics().used, budget.statistics().in_flight) == (0, 0)
    with await budget.spend(4, patience=0) as spend:
        spend.sent()
    assert (budget.statistics().used, budget.statistics().in_flight) == (4, 0)


async def test_what_was_sent_counts_to_what_it_was_for_answered_or_not() -> None:
    budget = small_budget(limit=100)
    await use(budget, 4, 4)
    with spending_for(Purpose.AUDIT):
        await use(budget, 2, 6)
        with spending_for(Purpose.OLDER):
            await use(budget, 3, None)
        with pytest.raises(ZeroDivisionError), spending_for(Purpose.LISTING):
            raise ZeroDivisionError
        await use(budget, 2, 11)
        with await budget.spend(50, patience=0):
            pass  # not sent
    await use(budget, 1, 12)
    assert budget.statistics().spent == {Purpose.SERIES: 5, Purpose.AUDIT: 4, Purpose.OLDER: 3}


async def test_tasks_side_by_side_spend_for_what_each_is_for(autojump_clock: MockClock) -> None:
    budget = small_budget(limit=100)

    async def work(purpose: Purpose, weight: int) -> None:
        with spending_for(purpose):
            for _ in range(3):
                await trio.sleep(1)
                await use(budget, weight, None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, Purpose.PASSED_ON, 3)
        nursery.start_soon(work, Purpose.OLDER, 2)
    assert budget.statistics().spent == {Purpose.PASSED_ON: 9, Purpose.OLDER: 6}


async def test_a_used_up_minute_is_waited_out(autojump_clock: MockClock) -> None:
    budget = small_budget()
    await use(budget, 2, 10)
    await use(budget, 2, 2, patience=60)
    assert trio.current_time() == 60


async def test_who_cannot_wait_so_long_hears_it_at_once(autojump_clock: MockClock) -> None:
    budget = small_budget()
    await use(budget, 2, 10)
    await trio.sleep(10)
    assert budget.retry_after == 50
    with pytest.raises(RateLimited, match="10 are used") as caught:
        await budget.spend(2, patience=49.9)
    assert trio.current_time() == 10
    assert caught.value.retry_after == 50
    await trio.sleep(49)
    assert budget.statistics().used == 10
    await trio.sleep(1)
    assert budget.statistics().used == 0


async def test_an_answer_in_flight_may_free_what_time_cannot(autojump_clock: MockClock) -> None:
    budget = small_budget()
    went: list[float] = []

    async def wait() -> None:
        await use(budget, 2, 4, patience=10)
        went.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        with await budget.spend(10, patience=0) as spend:
            assert budget.retry_after == 0  # nobody knows
            nursery.start_soon(wait)
            await trio.sleep(3)
            assert budget.statistics().waiting == 1
            with pytest.raises(RateLimited):
                await budget.spend(2, patience=2)
            assert trio.current_time() == 5
            spend.sent()
            spend.report(2)
    assert went == [5]
    assert budget.statistics().waiting == 0


async def test_a_ban_is_obeyed_by_everybody_at_once(autojump_clock: MockClock) -> None:
    budget = small_budget()
    await use(budget, 2, 10)
    ends: dict[str, tuple[float, str]] = {}

    async def wait(name: str, patience: float) -> None:
        try:
            await use(budget, 2, 2, patience=patience)
            ends[name] = trio.current_time(), "went"
        except RateLimited as error:
            ends[name] = trio.current_time(), f"refused for {error.retry_after}"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "patient", 300)
        nursery.start_soon(wait, "impatient", 100)
        await trio.sleep(20)
        budget.ban(120)
        budget.ban(1)  # does not shorten the first
        assert budget.banned_for == budget.statistics().banned_for == budget.retry_after == 120
        nursery.start_soon(wait, "late", 119)
    assert ends == {
        "impatient": (20, "refused for 120.0"),
        "late": (20, "refused for 120.0"),
        "patient": (140, "went"),
    }
    assert budget.banned_for == 0


async def test_a_ban_is_known_even_while_the_weight_is_all_in_flight(autojump_clock: MockClock) -> None:
    budget = small_budget()
    with await budget.spend(10, patience=0):
        budget.ban(30)
        with pytest.raises(RateLimited) as caught:
            await budget.spend(2, patience=29)
        assert (trio.current_time(), caught.value.retry_after) == (0, 30)


async def test_those_who_waited_do_not_all_go_in_the_same_instant(autojump_clock: MockClock) -> None:
    budget = small_budget(limit=1_000, spread=2.0)
    went: list[float] = []

    async def wait() -> None:
        # Each answer wakes the others: it must not make them forget their own moment.
        await use(budget, 2, None, patience=100)
        went.append(trio.current_time())

    budget.ban(30)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(wait)
    assert min(went) >= 30
    assert max(went) <= 32
    assert max(went) - min(went) > 1
    assert max(Counter(went).values()) <= 2


async def test_the_spread_does_not_cost_anybody_his_patience(autojump_clock: MockClock) -> None:
    budget = small_budget(spread=1000.0)
    budget.ban(30)
    await use(budget, 2, 2, patience=31)
    assert trio.current_time() <= 31


async def test_a_higher_limit_frees_at_once(autojump_clock: MockClock) -> None:
    budget = small_budget()
    await use(budget, 2, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(use, budget, 2, 12, patience=100))
        await trio.testing.wait_all_tasks_blocked()
        budget.resize(100)
    assert trio.current_time() == 0
    assert budget.statistics().limit == 100


@pytest.mark.parametrize("seconds", [0, 5])
async def test_cancelled_it_has_spent_nothing(seconds: int, autojump_clock: MockClock) -> None:
    budget = small_budget()
    await use(budget, 2, 10)
    with trio.move_on_after(seconds) as scope:
        await budget.spend(10, patience=100)
    assert scope.cancelled_caught
    assert (budget.statistics().in_flight, budget.statistics().waiting, budget.statistics().used) == (0, 0, 10)


async def test_after_a_ban_requests_go_one_after_the_other(autojump_clock: MockClock) -> None:
    """Hundreds wait for the same moment; 20 a second may go, and who has no turn in time hears when there is one."""
    budget = WeightBudget(WeightSettings(spread=0.0))
    went: list[float] = []
    refused: list[tuple[str, float]] = []

    async def ask(patience: float) -> None:
        try:
            await use(budget, 2, None, patience=patience)
        except RateLimited as error:
            refused.append((str(error), trio.current_time() + error.retry_after))
        else:
            went.append(trio.current_time())

    budget.ban(30)
    await trio.sleep(30)
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(ask, 10.0)
    assert len(went) == 101, "half of the patience is for the answer"
    assert max(Counter(int(moment) for moment in went).values()) <= 21
    assert [moment for _, moment in refused] == pytest.approx([35.05] * 99)
    assert "after a ban" in refused[0][0]
    await trio.sleep(60)
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(ask, 10.0)
    assert Counter(went)[trio.current_time()] == 200, "a minute later all is as ever"


async def test_a_ban_that_comes_while_turns_are_waited_for_holds_for_those_too(autojump_clock: MockClock) -> None:
    budget = WeightBudget(WeightSettings(spread=0.0))
    went: list[float] = []

    async def ask() -> None:
        await use(budget, 2, None, patience=100.0)
        went.append(trio.current_time())

    budget.ban(30)
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(ask)
        await trio.sleep(31.02)
        before = len(went)
        budget.ban(20)
    assert 20 <= before <= 22
    assert min(moment for moment in went[before:]) >= 51


async def test_while_nobody_gets_an_answer_few_ask_and_it_is_said_why(autojump_clock: MockClock) -> None:
    budget = WeightBudget(WeightSettings(spread=0.0))
    for _ in range(10):
        budget.failed("Binance answered 503")
    times = []
    for _ in range(3):
        await use(budget, 2, None, patience=10.0)
        times.append(trio.current_time())
    assert times == pytest.approx([0.0, 0.5, 1.0])
    with pytest.raises(RateLimited, match="Binance answered 503") as caught:
        await use(budget, 2, None, patience=0.5)
    assert caught.value.retry_after == pytest.approx(0.5)
    budget.answered()
    await use(budget, 2, None)


@pytest.mark.parametrize("bad", [{"after_ban": -0.1}, {"after_ban": 1.1}, {"in_trouble": -1}, {"in_trouble": 2}])
def test_shares_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        WeightSettings(**bad)  # type: ignore[arg-type]  # a dictionary of floats


@pytest.mark.parametrize("bad", [{"limit": 0}, {"share": 0}, {"share": 1.1}, {"spread": -1}])
def test_settings_that_allow_nothing_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="limit from 1"):
        WeightSettings(**bad)  # type: ignore[arg-type]  # one of three, chosen above
