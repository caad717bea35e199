"""A connection is replaced before it ends: nothing is missed, and nobody notices."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import structlog.testing
import trio
import trio.testing

from candlesync.binance.pace import ConnectionPace
from candlesync.binance.session import Session
from candlesync.core.candle import Series
from tests.binance.connections import (
    BTC,
    ETH,
    SETTINGS,
    SHUTDOWN,
    Clock,
    Run,
    Served,
    deaf,
    ignoring,
    kline,
    many,
    refusing,
    running,
)

HOUR = 3600.0
RENEWED = SETTINGS.lifetime - SETTINGS.lifetime_spread
"""When a connection is replaced at the earliest."""


def shown(run: Run, series: Series = BTC) -> list[tuple[int, int, bool]]:
    """The candles that the sink was shown: minute, trades, whether closed."""
    frames = [told.detail for told in run.sink.told if told.kind == "frame" and told.series == series]
    first = 1700000040000
    return [((candle.open_time - first) // 60_000, candle.trades, candle.closed) for candle in frames]


async def both_there(run: Run) -> tuple[Served, Served]:
    """The leading connection is settled, and told that it will be ended; the one that is to take over is there."""
    await run.served.send(*[kline(series) for series in run.feed.wanted])
    await trio.sleep(60)
    old = run.served
    await old.send(SHUTDOWN)
    new = run.served
    assert new is not old
    return old, new


def is_over(run: Run) -> bool:
    """Whether the first connection is gone, and the second one is there."""
    return [half.closed for half in run.exchange.halves] == [True, False]


async def test_before_24_hours_are_over_another_connection_takes_over(autojump_clock: Clock) -> None:
    async with running(BTC, settings=replace(SETTINGS, ping_interval=600.0)) as run:
        await run.served.send(kline(BTC))
        await trio.sleep(RENEWED - 1)
        assert len(run.exchange.halves) == 1
        await trio.sleep(SETTINGS.lifetime_spread)
        _, new = run.exchange.served
        await trio.sleep(60)  # both are there, and nothing is shown
        run.sink.told.clear()
        assert run.exchange.halves[0].closed
        await new.send(kline(BTC, trades=2))
        assert run.sink.kinds(BTC) == ["frame"]
        statistics = run.feed.statistics()
        assert (statistics.renewals, statistics.connects, statistics.failures) == (1, 2, 0)
        assert statistics.streams == 1
    assert run.sink.reasons() == ["stopped"]


async def test_the_old_one_stays_until_the_new_one_shows_what_it_shows(autojump_clock: Clock) -> None:
    async with running(BTC, ETH) as run:
        old, new = await both_there(run)
        await old.send(kline(BTC, trades=2), kline(ETH, trades=2))
        await new.send(kline(BTC, trades=2))
        await trio.sleep(1)
        assert not run.exchange.halves[0].closed  # of ETH nothing is known
        await new.send(kline(ETH, trades=2))
        await trio.sleep(1)
        assert is_over(run)
        await new.send(kline(BTC, trades=3, closed=True), kline(BTC, trades=1, minute=1))
        assert shown(run) == [(0, 1, False), (0, 2, False), (0, 3, True), (1, 1, False)]
        assert run.sink.kinds(BTC)[:2] == ["connected", "frame"]
        assert run.sink.reasons() == []
        assert run.feed.statistics().renewals == 1


async def test_what_is_ahead_of_the_old_one_is_held_back_until_that_has_come_as_far(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        old, new = await both_there(run)
        # The new one was subscribed after the close of minute 0, which is still on its way to the old one.
        await new.send(kline(BTC, trades=1, minute=1), kline(BTC, trades=2, minute=1))
        await new.send(kline(BTC, trades=5, minute=1, closed=True), kline(BTC, trades=1, minute=2))
        assert shown(run) == [(0, 1, False)]
        await old.send(kline(BTC, trades=9, closed=True))
        assert shown(run)[1:] == [(0, 9, True)]
        await trio.sleep(1)
        assert not is_over(run)
        await old.send(kline(BTC, trades=2, minute=1))
        assert shown(run)[2:] == [(1, 2, False), (1, 5, True), (2, 1, False)]
        await trio.sleep(1)
        assert is_over(run)


async def test_a_quiet_series_is_taken_over_when_both_answer_and_have_nothing_to_show(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        await both_there(run)
        await trio.sleep(SETTINGS.handover_settle - 0.5)
        assert not is_over(run)
        await trio.sleep(1)
        assert is_over(run)
        assert run.feed.statistics().renewals == 1
        assert run.sink.live == {BTC}


async def test_a_quiet_series_is_not_left_to_a_connection_that_does_not_answer(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        run.exchange._script = [deaf]
        await run.served.send(kline(BTC))
        await trio.sleep(60)
        await run.served.send(SHUTDOWN)
        await trio.sleep(20)
        assert [half.closed for half in run.exchange.halves] == [False, False]
        await trio.sleep(10)
        assert run.feed.statistics().last_failure == "a ping was not answered within 10 s"
        assert run.sink.kinds(BTC) == ["connected", "frame"]
        await trio.sleep(30)
        assert [half.closed for half in run.exchange.halves] == [True, True, False]
        assert run.sink.kinds(BTC) == ["connected", "frame"]


async def test_a_new_connection_that_shows_nothing_of_what_the_old_one_shows_is_given_up(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        old, _ = await both_there(run)
        for second in range(20):
            await old.send(kline(BTC, trades=2 + second))
            await trio.sleep(1)
        assert [half.closed for half in run.exchange.halves[:2]] == [False, True]
        assert "shows nothing of BTCUSDT 1m, which the old one shows" in str(run.feed.statistics().last_failure)
        assert len(run.exchange.halves) > 2  # and another one is tried
        new = run.served
        await new.send(kline(BTC, trades=21))
        await trio.sleep(1)
        assert [half.closed for half in (run.exchange.halves[0], run.exchange.halves[-1])] == [True, False]
        assert len(shown(run)) == 21
        assert run.sink.reasons() == []


async def test_while_no_other_can_be_had_the_old_one_stays(autojump_clock: Clock) -> None:
    async with running(BTC, settings=replace(SETTINGS, lifetime=HOUR, lifetime_spread=0.0)) as run:
        run.exchange._script = [refusing(503)] * 20
        await run.served.send(kline(BTC))
        await trio.sleep(HOUR + 1000)
        assert 10 <= len(run.exchange.attempts) <= 22  # ever more seldom
        assert run.sink.kinds(BTC) == ["connected", "frame"]
        await run.exchange.served[0].send(kline(BTC, trades=2))
        await trio.sleep(2000)
        assert run.feed.statistics().renewals == 1
        assert run.sink.kinds(BTC) == ["connected", "frame", "frame"]


async def test_when_the_old_one_ends_too_early_the_new_one_leads_and_is_new_to_the_sink(autojump_clock: Clock) -> None:
    async with running(BTC, ETH) as run:
        old, new = await both_there(run)
        await old.send(kline(BTC, trades=2))
        await new.send(kline(BTC, trades=2))
        await old.cut()
        assert run.sink.kinds(BTC) == ["connected", "frame", "frame", "lost", "connected"]
        assert run.sink.kinds(ETH) == ["connected", "frame", "lost", "connected"]
        await new.send(kline(ETH, trades=3))
        assert run.sink.kinds(ETH)[-1] == "frame"
        await trio.sleep(60)
        assert len(run.exchange.attempts) == 2  # no other one was needed
        statistics = run.feed.statistics()
        assert (statistics.renewals, statistics.failures) == (0, 1)


async def test_a_stream_that_was_found_dead_is_told_as_lost_even_when_another_could_take_over(
    autojump_clock: Clock,
) -> None:
    async with running(BTC) as run:
        old, new = await both_there(run)
        for served in (old, new):
            await served.send(kline(BTC, trades=2))
        run.feed.reconnect("dead")  # in this moment the new one could take over
        run.feed.follow(ETH)
        await trio.sleep(2)
        assert run.sink.kinds(BTC) == ["connected", "frame", "frame", "lost", "connected"]
        assert run.sink.reasons() == ["dead"]
        assert run.sink.live == {BTC, ETH}
        assert run.feed.statistics().renewals == 0
        assert len(run.exchange.attempts) == 2


async def test_a_server_that_shuts_down_and_shows_nothing_more_is_left_in_the_end(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        _, new = await both_there(run)
        for trades in range(2, 60):
            await new.send(kline(BTC, trades=trades))
            await trio.sleep(1)
        assert run.sink.kinds(BTC) == ["connected", "frame"]  # nobody knows what the old one has not shown
        await trio.sleep(4)
        assert run.sink.kinds(BTC) == ["connected", "frame", "lost", "connected"]
        assert run.sink.reasons() == ["Binance is about to shut this server down"]
        assert is_over(run)


async def test_in_its_time_the_old_one_stays_when_the_new_one_cannot_take_over(autojump_clock: Clock) -> None:
    settings = replace(SETTINGS, lifetime=1000.0, lifetime_spread=0.0)
    async with running(BTC, settings=settings) as run:
        old = run.served
        await old.send(kline(BTC))
        await trio.sleep(1001)
        await run.served.send(kline(BTC, trades=2))  # which the old one never shows
        await trio.sleep(58)
        assert [half.closed for half in run.exchange.halves] == [False, False]
        await trio.sleep(2)
        assert run.exchange.halves[1].closed
        assert run.feed.statistics().last_failure == "could not take over within 60 s"
        await trio.sleep(60)  # another one tries: nothing is shown any more
        assert run.feed.statistics().renewals == 1
        assert run.sink.kinds(BTC) == ["connected", "frame"]


async def test_what_is_shown_while_the_answers_are_waited_for_counts(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        old, new = await both_there(run)
        await trio.sleep(SETTINGS.handover_settle - 0.1)  # quiet
        waited = run.feed._answer

        async def answer(*sessions: Session) -> bool:
            await new.send(kline(BTC, trades=2))  # as if it came just before the new one's answer
            return await waited(*sessions)

        run.feed._answer = answer  # type: ignore[method-assign] # nothing else has its place between the two
        await trio.sleep(2)
        assert not is_over(run)
        run.feed._answer = waited  # type: ignore[method-assign] # as it was
        await old.send(kline(BTC, trades=2))
        await trio.sleep(1)
        assert is_over(run)
        assert shown(run) == [(0, 1, False), (0, 2, False)]


async def test_the_age_of_a_connection_counts_from_when_it_was_made(autojump_clock: Clock) -> None:
    settings = replace(SETTINGS, lifetime=1000.0, lifetime_spread=0.0, handover_settle=300.0, handover_timeout=900.0)
    async with running(BTC, settings=settings) as run:
        await run.served.send(kline(BTC))
        await trio.sleep(2100)
        assert run.feed.statistics().renewals == 1
        first, second, third = run.exchange.attempts
        assert (first, second) == (0, 1000)
        assert 2000 <= third < 2001  # not 1000 s after the first one was left


async def test_when_the_old_one_ends_before_the_new_one_is_there_that_is_waited_for(autojump_clock: Clock) -> None:
    async with running(BTC) as run:
        run.exchange._script = [silent_for_a_while]
        await run.served.send(kline(BTC))
        await trio.sleep(60)
        old = run.served
        await old.send(SHUTDOWN)
        await old.cut()
        assert run.sink.kinds(BTC) == ["connected", "frame", "lost"]
        await trio.sleep(11)
        assert run.feed.statistics().last_failure == "not connected within 10 s"
        assert run.sink.live == {BTC}
        assert len(run.exchange.attempts) == 3


async def silent_for_a_while(stream: trio.abc.Stream) -> None:
    while await stream.receive_some():
        pass


async def test_what_is_followed_and_dropped_meanwhile_is_so_on_both(autojump_clock: Clock) -> None:
    async with running(BTC, ETH) as run:
        old, new = await both_there(run)
        more = many(3)
        run.feed.drop(ETH)
        assert run.sink.kinds(ETH) == ["connected", "frame", "lost"]
        for series in more:
            run.feed.follow(series)
        await trio.testing.wait_all_tasks_blocked()
        for served in (old, new):
            asked = [request["method"] for _, request in served.requests]
            assert asked == ["UNSUBSCRIBE", "SUBSCRIBE"]
        assert run.sink.live == {BTC, *more}
        for served in (old, new):
            await served.send(kline(BTC, trades=2), *(kline(series) for series in more), kline(ETH, trades=7))
        await trio.sleep(1)
        assert is_over(run)
        assert shown(run, ETH) == [(0, 1, False)]
        assert run.sink.live == {BTC, *more}
        assert [told.series for told in run.sink.told if told.kind == "lost"] == [ETH]


async def test_a_series_that_comes_back_meanwhile_begins_anew(autojump_clock: Clock) -> None:
    async with running(BTC, ETH) as run:
        old, new = await both_there(run)
        for served in (old, new):
            await served.send(kline(BTC, trades=2), kline(ETH, trades=2))
        run.feed.drop(ETH)
        await trio.testing.wait_all_tasks_blocked()
        run.feed.follow(ETH)
        await trio.testing.wait_all_tasks_blocked()
        await new.send(kline(ETH, trades=9))  # ahead of the old one, as never before
        assert shown(run, ETH)[-1] == (0, 2, False)
        await trio.sleep(1)
        assert not is_over(run)
        await old.send(kline(ETH, trades=9))
        await trio.sleep(1)
        assert is_over(run)


async def test_all_that_is_live_has_to_be_carried_by_the_new_one(autojump_clock: Clock) -> None:
    series = many(400)
    async with running(*series) as run:
        await trio.sleep(5)  # 100 in the URL, the others asked for
        assert run.sink.live == set(series)
        run.exchange.answer = ignoring
        await both_there(run)
        for served in run.exchange.served:
            await served.send(*(kline(one, trades=2) for one in series))
        await trio.sleep(1)
        assert not is_over(run)
        await trio.sleep(5)
        assert run.feed.statistics().last_failure == "SUBSCRIBE was not answered within 5 s"
        assert len(run.sink.live) == 400
        await trio.sleep(3)  # another one; that all of them stand in its URL is what it can do without an answer
        assert len(run.served.streams) == 400
        await trio.sleep(10)
        assert run.feed.statistics().renewals == 1
        assert run.sink.reasons() == []


async def test_a_new_connection_keeps_to_the_pace(autojump_clock: Clock) -> None:
    pace = ConnectionPace(replace(SETTINGS, connection_attempts=1))
    async with running(BTC, pace=pace) as run:
        await run.served.send(kline(BTC))
        await trio.sleep(60)
        old = run.served
        await old.send(SHUTDOWN)
        await trio.sleep(230)
        assert run.exchange.attempts == [0]
        await old.send(kline(BTC, trades=2))
        await trio.sleep(11)
        await old.send(kline(BTC, trades=3))
        await run.served.send(kline(BTC, trades=3))
        await trio.sleep(1)
        assert run.exchange.attempts == [0, 300]
        assert is_over(run)
        assert run.sink.kinds(BTC) == ["connected", "frame", "frame", "frame"]


async def test_the_feeds_of_a_process_are_not_renewed_in_one_moment(autojump_clock: Clock) -> None:
    settings = replace(SETTINGS, lifetime=2 * HOUR, lifetime_spread=HOUR, ping_interval=600.0)
    times: list[float] = []
    async with AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(running(BTC, settings=settings, seed=seed)) for seed in range(10)]
        await trio.sleep(2 * HOUR + 60)
        times = sorted(run.exchange.attempts[1] for run in runs)
    assert HOUR <= times[0] <= times[-1] <= 2 * HOUR
    assert times[-1] - times[0] > HOUR / 2


async def test_a_renewal_is_said_once_and_is_no_warning(autojump_clock: Clock) -> None:
    logs: list[Any] = []
    async with running(BTC) as run:
        with structlog.testing.capture_logs() as captured:
            await both_there(run)
            await trio.sleep(10)
            logs = [(log["log_level"], log["event"]) for log in captured]
    assert logs == [("info", "stream connected"), ("info", "stream renewed")]
