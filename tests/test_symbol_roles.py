"""One symbol on several nodes: who owns it, who follows, and how it goes from one to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from candlesync.binance.pace import ConnectionPace
from candlesync.binance.pool import FeedPool
from candlesync.binance.stream import StreamSettings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.report import SeriesReport
from candlesync.core.sync import State
from candlesync.hub import Outbox
from candlesync.symbol import Means, SymbolTask
from candlesync.web.subscription import pull
from candlesync.websocket import Connection
from tests.builders import BTC, candle, forming, minute, minutes, unheard
from tests.stand_ins import no_audit
from tests.turns import LEASE, Node, Nodes

BTC_5M = Series("BTCUSDT", Interval.M5)


def check_same(*nodes: Node) -> None:
    """The nodes show what the store has, to the letter."""
    stored = nodes[0].world.server.series[BTC].snapshot()
    for node in nodes:
        assert node.topic.replica.snapshot() == stored


# --- one owns, the others follow


async def test_one_owns_it_and_the_other_shows_the_same(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running(3) as (first, *others):
        await first.owns()
        await trio.sleep(1)
        for number in range(3, 20):
            world.show(candle(minute(number)), forming(minute(number + 1)))
            await trio.sleep(0.2)
            check_same(first, *others)
            assert [node.state for node in world.nodes] == ["live"] * 3
        assert world.connections == 1
        assert first.feeds.sink is not None
        assert first.task.synchronizers.keys() == {Interval.M1}
        assert first.task.followers == {}
        for node in others:
            assert node.task.tenure is None
            assert node.task.synchronizers == {}
            assert node.task.followers.keys() == {Interval.M1}
            assert node.store.calls["read"] <= 2
            assert node.store.calls["commit"] == 0


async def test_followers_are_told_at_once_that_the_feed_is_lost_and_back(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        first.task.stream_lost(BTC, "gone")
        await trio.sleep(0.01)
        assert second.state == "stale"
        first.feeds.connect(Interval.M1)
        await trio.sleep(0.01)
        assert second.state == "live"
        assert first.turns.state_changes >= 3


async def test_an_owner_reports_the_series_that_have_begun(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        world.upstream.candles.clear()
        first.task.add(Interval.M5)
        await trio.sleep(1)
        assert first.task.synchronizers.keys() == {Interval.M1, Interval.M5}
        told = second.announcements.reports["BTCUSDT"].report
        assert told.owner == "node0"
        assert told.series == {Interval.M1: SeriesReport(State.LIVE, first.topic.replica.position)}


# --- hand over


async def test_it_is_handed_over_and_nobody_misses_anything(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        outbox = Outbox(unheard)
        subscribers = [node.topic.subscribe(outbox) for node in (first, second)]
        number = 3
        for turn in range(6):
            owner, other = (first, second) if turn % 2 == 0 else (second, first)
            world.show(candle(minute(number)), forming(minute(number + 1)))
            await trio.sleep(0.1)
            position = owner.topic.replica.position
            owner.yields()
            world.show(candle(minute(number + 1)))  # nobody may see it
            await other.owns()
            number += 2
            await trio.sleep(1)
            check_same(first, second)
            assert [first.state, second.state] == ["live", "live"]
            assert other.topic.replica.can_resume(position), "a client goes from one to the other"
            assert world.connections == 1
        for subscriber in subscribers:
            assert len(pull(subscriber)) == 12, "one message a candle that changed"
        assert world.server.series[BTC].life == position.life


async def test_the_next_owner_does_not_wait_for_the_end_of_the_connection(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        first.feeds.end_after = 5.0
        second.turns.turn.set()
        await trio.sleep(1)
        yielded = trio.current_time()
        first.yields()
        await second.owns()
        assert trio.current_time() - yielded < 0.2
        ((given_up, tenure),) = first.turns.given_up
        assert given_up == yielded
        assert tenure.reason == "its turn is over"
        assert first.task.synchronizers == {}, "and it commits nothing more"
        await trio.sleep(5)
        assert first.task.followers.keys() == {Interval.M1}


async def test_an_owner_is_stale_until_another_has_it(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        first.yields()
        await trio.sleep(0.1)
        assert [first.state, second.state] == ["stale", "stale"]
        await trio.sleep(100)
        assert [first.state, second.state] == ["stale", "stale"]
        assert len(first.candles) == len(second.candles) == 4


async def test_it_ends_at_once_also_while_the_feed_still_connects(autojump_clock: MockClock) -> None:
    connecting = 0

    @asynccontextmanager
    async def hang(url: str, *, message_queue_size: int, max_message_size: int) -> AsyncIterator[Connection]:
        nonlocal connecting
        connecting += 1
        await trio.Event().wait()
        yield cast("Connection", None)

    settings = StreamSettings(stream_url="ws://binance.test")
    feeds = FeedPool(settings, ConnectionPace(settings), connect=hang)
    world = Nodes(minutes(0, 3))
    node = Node(world, "node")
    means = Means(
        hub=node.hub,
        store=node.store,
        klines=world.upstream,
        feeds=feeds,
        rules=node.means.rules,
        inspection=node.means.inspection,
        ownership=node.turns,
        announcements=node.announcements,
        audit=no_audit(),
    )
    task = SymbolTask("BTCUSDT", {Interval.M1}, means)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeds.run)
        nursery.start_soon(task.run)
        await trio.sleep(1)
        assert connecting == 0, "who follows needs no connection"
        node.turns.turn.set()
        await trio.sleep(1)
        assert connecting == 1
        ended = trio.current_time()
        node.yields()
        await trio.sleep(0.1)
        assert [at for at, _ in node.turns.given_up] == [ended]
        assert task.followers.keys() == {Interval.M1}
        nursery.cancel_scope.cancel()


# --- takeover


async def test_an_owner_that_dies_is_replaced_when_its_lease_has_ended(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        second.turns.turn.set()
        await trio.sleep(1)
        world.show(candle(minute(3)), forming(minute(4)))
        await trio.sleep(0.1)
        position, died = second.topic.replica.position, trio.current_time()
        first.kill()
        world.show(candle(minute(4)), candle(minute(5)), forming(minute(6)))
        await second.owns()
        assert trio.current_time() - died < LEASE + 0.2
        assert second.candles[3:] == [candle(minute(3)), candle(minute(4)), candle(minute(5)), forming(minute(6))]
        assert second.topic.replica.can_resume(position)
        assert world.connections == 1


async def test_an_owner_that_was_frozen_publishes_nothing_more_and_follows(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    with structlog.testing.capture_logs() as events:
        async with world.running() as (first, second):
            await first.owns()
            second.turns.turn.set()
            await trio.sleep(1)
            first.store.frozen = True
            world.show(forming(minute(3), "1.00", trades=50))
            await second.owns()
            world.show(forming(minute(3), "2.00", trades=60), candle(minute(3), trades=70), forming(minute(4)))
            await trio.sleep(1)
            revision = first.topic.replica.revision
            assert revision < second.topic.replica.revision
            first.turns.turn = trio.Event()
            first.store.frozen = False
            await trio.sleep(1)
            assert first.task.tenure is None
            check_same(first, second)
            assert [first.state, second.state] == ["live", "live"]
            assert world.connections == 1
    assert [event for event in events if event["log_level"] == "error"] == []
    ended = [event for event in events if event["event"] == "owned no more"]
    assert len(ended) == 1
    assert "token" in ended[0]["reason"]


async def test_a_commit_that_is_fenced_ends_the_tenure_and_not_the_task(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running(1) as (node,):
        await node.owns()
        node.task.add(Interval.M5)
        await trio.sleep(0.4)
        node.turns.beats = False
        before = node.topic.replica.position
        world.server.tokens["BTCUSDT"] = 0
        node.turns.turn = trio.Event()
        world.show(candle(minute(3)))
        await trio.sleep(0.05)
        assert node.task.tenure is None
        assert node.topic.replica.position == before
        assert node.feeds.sink is None
        assert node.task.followers.keys() == {Interval.M1, Interval.M5}


# --- the store


async def test_while_the_store_is_down_nothing_new_is_shown_and_then_all_of_it(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        world.server.down = True
        for number in range(3, 10):
            world.show(candle(minute(number)), forming(minute(number + 1)))
            await trio.sleep(1)
            assert first.state == "syncing"
            assert second.state == ("syncing" if number < 4 else "stale")
            assert len(first.candles) == len(second.candles) == 4
        asked = len(world.upstream.asked_at)
        world.server.down = False
        await trio.sleep(4.1)
        assert first.candles == second.candles
        assert first.candles[3:] == [*(candle(minute(number)) for number in range(3, 10)), forming(minute(10))]
        assert [first.state, second.state] == ["live", "live"]
        assert len(world.upstream.asked_at) == asked, "REST is not asked because of the store"
        check_same(first, second)


async def test_a_store_that_was_wiped_is_made_whole_by_its_owner(autojump_clock: MockClock) -> None:
    """The fence is lost, too: the owner loses the symbol first."""
    world = Nodes(minutes(0, 30))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        served = first.topic.replica.position
        world.server.wipe()
        await trio.sleep(1)
        await first.owns()
        await trio.sleep(1)
        check_same(first, second)
        assert len(second.candles) == 31
        assert [first.state, second.state] == ["live", "live"]
        for node in (first, second):
            assert not node.topic.replica.can_resume(served)


async def test_a_store_that_went_back_is_made_whole_before_anything_new_is_shown(autojump_clock: MockClock) -> None:
    """Also with the fence as it was: whoever hears again looks whether the store is where it should be."""
    world = Nodes(minutes(0, 30))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        old = world.server.snapshot()
        world.show(candle(minute(30)), forming(minute(31)))
        await trio.sleep(0.1)
        served = second.topic.replica.position
        asked = len(world.upstream.asked_at)
        world.server.down = True
        world.server.rollback(old)
        await trio.sleep(0.1)
        world.server.down = False
        await trio.sleep(1)
        assert world.server.series[BTC].life != served.life
        check_same(first, second)
        assert second.candles[-1] == forming(minute(31))
        assert [first.state, second.state] == ["live", "live"]
        assert len(world.upstream.asked_at) == asked
        assert not second.topic.replica.can_resume(served)


async def test_a_follower_that_takes_over_makes_whole_what_the_owner_lost_with_the_store(
    autojump_clock: MockClock,
) -> None:
    world = Nodes(minutes(0, 30))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        world.show(candle(minute(30)), forming(minute(31)))
        await trio.sleep(0.1)
        world.server.down = True
        first.kill()
        world.server.wipe()
        await trio.sleep(3)
        assert len(second.candles) == 32
        world.server.down = False
        await second.owns()
        assert len(second.candles) == 32
        check_same(second)


async def test_a_node_that_comes_late_is_live_at_once(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 30))
    async with world.running() as (first, _):
        await first.owns()
        await trio.sleep(1)
        late = Node(world, "late")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late.run)
            await trio.sleep(0.6)
            check_same(first, late)
            assert late.state == "live"
            nursery.cancel_scope.cancel()


# --- intervals


async def test_an_interval_joins_and_leaves_in_either_role(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        for node in (first, second):
            node.task.add(Interval.M5)
        world.upstream.candles = [candle(BTC_5M.interval.floor(minute(0)), interval=Interval.M5)]
        await trio.sleep(1)
        topics = [node.hub.get(BTC_5M) for node in (first, second)]
        assert [topic and topic.state for topic in topics] == [State.LIVE, State.LIVE]
        await second.task.remove(Interval.M5)
        await trio.sleep(0.1)
        assert second.hub.get(BTC_5M) is None
        assert second.task.followers.keys() == {Interval.M1}
        assert world.server.calls["forget"] == 0, "the store is the owner's to tidy"
        second.task.add(Interval.M5)
        await trio.sleep(0.1)
        again = second.hub.get(BTC_5M)
        assert again is not None
        assert again is not topics[1]
        assert [again.state] == [State.LIVE]
        await first.task.remove(Interval.M5)
        assert world.server.calls["forget"] == 1
        await trio.sleep(1)
        assert again.state is State.SYNCING, "its owner has it no more, until it hears that it is wanted"
        assert len(again.replica) == 1


async def test_an_interval_that_leaves_and_comes_at_once_is_followed_on(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        for _ in range(3):
            await second.task.remove(Interval.M1)
            second.task.add(Interval.M1)
        await trio.sleep(1)
        assert second.task.followers.keys() == {Interval.M1}
        assert second.state == "live"


async def test_an_interval_that_joins_twice_is_followed_once(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        followers = dict(second.task.followers)
        for _ in range(3):
            second.task.add(Interval.M1)
        await trio.sleep(0.1)
        assert second.task.followers == followers


async def test_one_that_joins_and_leaves_at_once_is_not_followed(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        second.task.add(Interval.M5)
        await second.task.remove(Interval.M5)
        await trio.sleep(0.1)
        assert second.hub.get(BTC_5M) is None
        assert second.task.followers.keys() == {Interval.M1}


# --- the end


async def test_what_was_obtained_is_given_up_wherever_it_is_cancelled(autojump_clock: MockClock) -> None:
    for ticks in range(60):
        world = Nodes(minutes(0, 3))
        node = Node(world, "node")
        node.turns.turn.set()
        node.store.lose_answers.clear()
        claimed = world.server.calls
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.task.run)
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert node.turns.tenure is None
        assert len(node.turns.given_up) in (claimed["claim"], claimed["claim"] - 1), "a claim that was cancelled"
        assert node.task.tenure is None
        assert node.task.synchronizers == {}
        assert node.task.followers == {}
        assert node.feeds.sink is None


async def test_a_task_that_dies_gives_the_symbol_up(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    node = Node(world, "node")
    node.turns.turn.set()
    world.upstream.failure = ValueError("a bug")
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        await node.task.run()
    assert len(node.turns.given_up) == 1
    assert world.server.owner("BTCUSDT") == ""


async def test_giving_up_is_waited_for_only_so_long(autojump_clock: MockClock) -> None:
    """A shield that is not bounded would keep a process for ever."""
    world = Nodes(minutes(0, 3))
    node = Node(world, "node")
    node.turns.turn.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.task.run)
        await trio.sleep(1)
        node.store.frozen = True
        cancelled = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - cancelled == pytest.approx(5.0)


async def test_a_position_of_one_node_is_good_on_another(autojump_clock: MockClock) -> None:
    world = Nodes(minutes(0, 3))
    async with world.running() as (first, second):
        await first.owns()
        await trio.sleep(1)
        position = first.topic.replica.position
        world.show(forming(minute(3), trades=20), candle(minute(3), trades=30), forming(minute(4)))
        await trio.sleep(0.1)
        assert second.topic.replica.can_resume(position)
        changed = second.topic.replica.changed_since(position.revision)
        assert [entry.candle for entry in changed] == [candle(minute(3), trades=30), forming(minute(4))]
        assert first.topic.replica.can_resume(Position(position.life, second.topic.replica.revision))
