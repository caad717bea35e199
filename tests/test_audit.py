"""The audit of a running series: what it corrects, when it holds back, and what it never does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from candlesync.audit import Audit
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.audit import AuditSettings
from candlesync.core.sync import State
from candlesync.errors import RateLimited, UnknownSymbol, UpstreamUnavailable
from candlesync.synchronizer import Synchronizer
from tests.builders import BTC, candle, forming, minute, minutes
from tests.upstream import RULES, World

SETTINGS = AuditSettings(every=20.0, whole_every=300.0)


@asynccontextmanager
async def audited(
    world: World, budget: WeightBudget | None = None, settings: AuditSettings = SETTINGS
) -> AsyncIterator[tuple[Synchronizer, Audit]]:
    """A synchronizer and its audit, which looks 10 s after the start and each 20 s from then on."""
    audit = Audit(settings, budget or WeightBudget(), jitter=lambda: 0.5)
    async with world.running() as synchronizer, trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        with audit.following(synchronizer):
            yield synchronizer, audit
        nursery.cancel_scope.cancel()


def world_of_minutes() -> World:
    """Ten closed minutes, and the next one forming."""
    return World([*minutes(0, 9), forming(minute(10))])


LATE = candle(minute(8), "37099.00000000", trades=11)
"""A minute as it is after a late trade."""


async def test_a_row_that_changes_after_the_close_becomes_a_correction(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world) as (synchronizer, audit):
        world.upstream.candles[8] = LATE
        published = len(world.topic.published_commits)
        await trio.sleep(12)
        assert world.candles[8] == LATE
        (commit,) = world.topic.published_commits[published:]
        assert commit.candles == (LATE,)
        assert world.topic.state is State.LIVE
        assert synchronizer.sync.statistics.corrections == 1
        statistics = audit.statistics()
        assert (statistics.differences, statistics.corrections, statistics.failures) == (1, 1, 0)
        await trio.sleep(100)
        assert audit.statistics().differences == 1, "it agrees since"
        await world.check_store_and_topic_agree()


async def test_what_changed_long_ago_is_found_when_the_whole_series_is_compared(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world) as (_, audit):
        early = world.upstream.candles[1] = candle(minute(1), "1.00000000", trades=11)
        await trio.sleep(140)
        assert world.candles[1] != early, "nothing has closed: the last ones were compared once"
        assert audit.statistics().ages[BTC] == pytest.approx(140.0)
        await trio.sleep(50)
        assert world.candles[1] == early
        assert audit.statistics().whole == 1
        assert audit.statistics().ages[BTC] < 50


async def test_a_row_that_is_not_final_corrects_nothing(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world) as (synchronizer, audit):
        # The stream closes the tail; REST does not show the next one yet, and the tail as it was before.
        synchronizer.frame(candle(minute(10), trades=20))
        await trio.sleep(100)
        assert world.candles[10] == candle(minute(10), trades=20)
        assert audit.statistics().differences == 0
        world.upstream.candles[10:] = [candle(minute(10), trades=21), forming(minute(11))]
        await trio.sleep(100)
        assert world.candles[10] == candle(minute(10), trades=21)


async def test_nothing_is_asked_while_the_series_is_not_live(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world) as (synchronizer, audit):
        synchronizer.lost()
        world.upstream.candles[8] = LATE
        asked = len(world.upstream.asked_at)
        await trio.sleep(1000)
        assert len(world.upstream.asked_at) == asked
        assert audit.statistics().questions == 0
        synchronizer.connected()
        await trio.sleep(30)
        assert world.candles[8] == LATE


async def test_an_answer_for_a_series_that_was_lost_meanwhile_changes_nothing(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world) as (synchronizer, audit):
        world.upstream.candles[8] = LATE
        world.upstream.delay = 5.0
        await trio.sleep(12)
        assert audit.statistics().questions == 1
        synchronizer.lost()
        await trio.sleep(10)
        assert world.candles[8] == minutes(8, 8)[0]
        assert audit.statistics().compared == 0


async def test_nor_does_one_for_a_series_that_is_followed_no_more(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    audit = Audit(SETTINGS, WeightBudget(), jitter=lambda: 0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        async with world.running() as synchronizer:
            with audit.following(synchronizer):
                world.upstream.candles[8] = LATE
                world.upstream.delay = 5.0
                await trio.sleep(12)
            assert audit.statistics().series == 0
        await trio.sleep(10)
        statistics = audit.statistics()
        assert (statistics.questions, statistics.compared, statistics.corrections) == (1, 0, 0)
        nursery.cancel_scope.cancel()


async def test_nor_does_one_that_was_asked_for_by_who_kept_the_series_before(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    audit = Audit(SETTINGS, WeightBudget(), jitter=lambda: 0.5)
    async with world.running() as before, trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        with audit.following(before):
            world.upstream.delay = 5.0
            await trio.sleep(12)
        after = Synchronizer(world.topic, world.store, world.upstream, RULES, token=world.token)
        with audit.following(after):
            await trio.sleep(4)
            statistics = audit.statistics()
            assert (statistics.questions, statistics.compared) == (1, 0)
            await trio.sleep(20)
            assert audit.statistics().compared > 0
        nursery.cancel_scope.cancel()


async def test_a_series_that_another_synchronizer_keeps_now_stays(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    audit = Audit(SETTINGS, WeightBudget(), jitter=lambda: 0.5)
    first, second = await world.make(), await world.make()
    with audit.following(first):
        with audit.following(second):
            pass
        assert audit.statistics().series == 0
    with audit.following(second):
        assert audit.statistics().series == 1


async def test_live_candles_do_not_wait_for_the_answer(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world) as (synchronizer, _):
        world.upstream.candles[8] = LATE
        world.upstream.delay = 5.0
        await trio.sleep(11)
        synchronizer.frame(forming(minute(10), trades=11))
        await trio.lowlevel.checkpoint()
        await trio.sleep(0.1)
        assert world.candles[-1] == forming(minute(10), trades=11)
        await trio.sleep(5)
        assert world.candles[8] == LATE
        assert world.candles[-1] == forming(minute(10), trades=11)


# --- holding back


async def test_while_much_of_the_weight_is_used_nothing_is_asked_and_that_is_counted(
    autojump_clock: MockClock,
) -> None:
    world, budget = world_of_minutes(), WeightBudget(WeightSettings(limit=100))
    async with audited(world, budget) as (_, audit):
        with await budget.spend(40, patience=1) as spend:
            spend.sent()
            spend.report(51)
        asked = len(world.upstream.asked_at)
        await trio.sleep(50)
        assert len(world.upstream.asked_at) == asked
        assert audit.statistics().skipped >= 2
        await trio.sleep(30)  # Binance's minute is over
        assert audit.statistics().questions == 1
        assert audit.statistics().skipped <= 4


async def test_nor_while_Binance_bans_us_or_somebody_waits_for_weight(  # noqa: N802 - Binance is a name
    autojump_clock: MockClock,
) -> None:
    world, budget = world_of_minutes(), WeightBudget(WeightSettings(limit=100))
    async with audited(world, budget) as (_, audit):
        budget.ban(3 * 3600.0)
        asked = len(world.upstream.asked_at)
        await trio.sleep(3 * 3600.0)
        assert len(world.upstream.asked_at) == asked
        assert audit.statistics().skipped == 1, "one question is held back, not one each moment"
        await trio.sleep(30)
        assert audit.statistics().questions == 1


async def test_after_failures_it_asks_ever_more_seldom(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world) as (synchronizer, audit):
        world.upstream.failure = UpstreamUnavailable("down")
        await trio.sleep(3600)
        failures = audit.statistics().failures
        assert 5 <= failures <= 15
        assert audit.statistics().questions == failures
        world.upstream.failure = RateLimited("banned", retry_after=100)
        world.upstream.candles[8] = LATE
        await trio.sleep(700)
        world.upstream.failure = None
        await trio.sleep(700)
        assert world.candles[8] == LATE
        assert synchronizer.sync.state is State.LIVE


async def test_a_symbol_that_Binance_lists_no_more_does_not_end_the_audit(  # noqa: N802 - Binance is a name
    autojump_clock: MockClock,
) -> None:
    world = world_of_minutes()
    async with audited(world) as (_, audit):
        world.upstream.failure = UnknownSymbol("Binance does not list BTCUSDT")
        await trio.sleep(100)
        assert audit.statistics().failures >= 1
        world.upstream.failure = None
        world.upstream.candles[8] = LATE
        await trio.sleep(700)
        assert world.candles[8] == LATE


async def test_a_share_of_nothing_is_no_audit(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    async with audited(world, settings=AuditSettings(share=0.0)) as (_, audit):
        await trio.sleep(10_000)
        assert audit.statistics().questions == 0


async def test_the_share_bounds_how_fast_it_asks(autojump_clock: MockClock) -> None:
    """Of 100 a minute a tenth is 10: five questions a minute, however much there is to be asked."""
    budget = WeightBudget(WeightSettings(limit=100))
    world = world_of_minutes()
    settings = AuditSettings(every=1.0, whole_every=1.0, back_off_cap=1.0)
    async with audited(world, budget, settings) as (_, audit):
        await trio.sleep(600)
        assert 45 <= audit.statistics().questions <= 51


async def test_where_a_question_weighs_more_fewer_are_put(autojump_clock: MockClock) -> None:
    world = world_of_minutes()
    settings = AuditSettings(every=1.0, whole_every=1.0, back_off_cap=1.0)
    audit = Audit(settings, WeightBudget(WeightSettings(limit=100)), weight_of=lambda _: 5, jitter=lambda: 0.5)
    async with world.running() as synchronizer, trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        with audit.following(synchronizer):
            await trio.sleep(600)
            assert 18 <= audit.statistics().questions <= 21
        nursery.cancel_scope.cancel()
