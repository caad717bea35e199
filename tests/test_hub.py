"""The hub: what is published reaches whoever is interested, and costs nothing for who does not take it."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica
from candlesync.core.sync import State
from candlesync.errors import NotContinuous, UnknownSymbol
from candlesync.hub import Hub, Outbox, Topic
from candlesync.web.parameters import Resume
from candlesync.web.refusal import Refusal
from candlesync.web.subscription import check, pull
from tests.builders import BTC, begun, candle, candles_of, forming, minute, minutes, then, unheard

ETH = Series("ETHUSDT", Interval.M1)


def begin(topic: Topic) -> None:
    topic.publish(Commit("life0", 1, (*minutes(0, 1), forming(minute(2))), begins=True))


# --- the outbox


async def test_who_was_offered_something_is_taken_once_oldest_first(autojump_clock: MockClock) -> None:
    hub, outbox = Hub(10), Outbox(unheard)
    first, second, third = (hub.open(BTC).subscribe(outbox) for _ in range(3))
    for subscriber in (second, first, second, third, second):
        outbox.offer(subscriber)
    assert outbox.take() == [second, first, third]
    assert not outbox.take()


async def test_who_serves_the_socket_is_called_at_the_first_mark_until_all_are_taken() -> None:
    calls: list[int] = []
    hub, outbox = Hub(10), Outbox(lambda: calls.append(1))
    first, second = (hub.open(BTC).subscribe(outbox) for _ in range(2))
    outbox.offer(first)
    outbox.offer(second)
    outbox.offer(first)
    assert len(calls) == 1
    outbox.take()
    outbox.offer(second)
    assert len(calls) == 2
    outbox.withdraw(second)
    outbox.offer(first)
    assert len(calls) == 3


async def test_whoever_is_withdrawn_is_not_taken() -> None:
    hub, outbox = Hub(10), Outbox(unheard)
    subscriber = hub.open(BTC).subscribe(outbox)
    outbox.offer(subscriber)
    hub.open(BTC).unsubscribe(subscriber)
    assert outbox.take() == []


async def test_however_much_is_published_a_slow_client_is_marked_once(autojump_clock: MockClock) -> None:
    """Invariant 9."""
    hub, outbox = Hub(10), Outbox(unheard)
    topic = hub.open(BTC)
    begin(topic)
    subscriber = topic.subscribe(outbox)
    for trades in range(11, 500):
        topic.publish(then(topic.replica, forming(minute(2), trades=trades)))
    assert len(outbox._ready) == 1
    assert outbox.take() == [subscriber]
    (entry,) = topic.replica.changed_since(subscriber.revision)
    assert entry.candle.trades == 499
    assert not outbox.take()


# --- topics


async def test_what_is_published_is_in_the_replica_and_offered_to_each_subscriber() -> None:
    topic = Hub(10).open(BTC)
    begin(topic)
    outboxes = [Outbox(unheard), Outbox(unheard)]
    subscribers = [topic.subscribe(outbox) for outbox in outboxes]
    assert [subscriber.revision for subscriber in subscribers] == [1, 1]
    entries = topic.publish(then(topic.replica, candle(minute(2)), candle(minute(3))))
    assert [(entry.candle, entry.revision) for entry in entries] == [(candle(minute(2)), 2), (candle(minute(3)), 2)]
    for outbox, subscriber in zip(outboxes, subscribers, strict=True):
        assert outbox.take() == [subscriber]
    assert topic.commits == 2


async def test_what_the_replica_refuses_is_offered_to_nobody(autojump_clock: MockClock) -> None:
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    begin(topic)
    topic.subscribe(outbox)
    with pytest.raises(NotContinuous):
        topic.publish(then(topic.replica, candle(minute(9))))
    assert not outbox.take()
    assert topic.commits == 1


async def test_whoever_waits_for_a_change_is_woken_at_each() -> None:
    topic = Hub(10).open(BTC)
    seen: list[int] = []

    async def watch() -> None:
        while topic.replica.revision < 3:
            await topic.changed()
            seen.append(topic.replica.revision)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        begin(topic)
        await trio.testing.wait_all_tasks_blocked()
        topic.publish(then(topic.replica, candle(minute(2))))
        await trio.testing.wait_all_tasks_blocked()
        topic.publish(then(topic.replica, candle(minute(3))))
    assert seen == [1, 2, 3]


async def test_whoever_waits_for_the_first_candles_gets_them() -> None:
    topic = Hub(10).open(BTC)
    was_begun = topic.is_begun
    async with trio.open_nursery() as nursery:
        nursery.start_soon(topic.begun)
        await trio.testing.wait_all_tasks_blocked()
        begin(topic)
    assert (was_begun, topic.is_begun) == (False, True)
    await topic.begun()


async def test_whoever_waits_for_candles_that_will_never_come_is_told_why() -> None:
    topic = Hub(10).open(BTC)
    with pytest.RaisesGroup(UnknownSymbol):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(topic.begun)
            await trio.testing.wait_all_tasks_blocked()
            topic.refuse(UnknownSymbol("no such symbol"))
    with pytest.raises(UnknownSymbol, match="no such symbol"):
        await topic.begun()


async def test_what_the_store_holds_is_adopted_and_shown(autojump_clock: MockClock) -> None:
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    begin(topic)
    subscriber = topic.subscribe(outbox)
    stored = begun([*minutes(0, 1), forming(minute(2))])
    topic.adopt(stored.snapshot())
    assert not outbox.take(), "the same as we have"
    stored.apply(then(stored, candle(minute(2)), candle(minute(3))))
    topic.adopt(stored.snapshot())
    assert outbox.take() == [subscriber]
    assert candles_of(topic.replica) == candles_of(stored)
    assert [entry.open_time for entry in topic.replica.changed_since(subscriber.revision)] == [minute(2), minute(3)]
    other = begun(minutes(5, 6), life="life1")
    topic.adopt(other.snapshot())
    assert outbox.take() == [subscriber]
    assert topic.replica.life == "life1"


async def test_a_new_life_is_shown_in_place_of_the_old(autojump_clock: MockClock) -> None:
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    begin(topic)
    subscriber = topic.subscribe(outbox)
    former = topic.replica.position
    topic.publish(Commit("life2", 1, tuple(minutes(0, 3)), begins=True, replaces="life1"))
    assert outbox.take() == [subscriber]
    assert candles_of(topic.replica) == minutes(0, 3)
    assert not topic.replica.can_resume(former)
    with pytest.raises(Refusal, match="load it over REST again"):
        pull(subscriber)


async def test_who_has_got_more_than_a_store_that_went_back_loads_again(autojump_clock: MockClock) -> None:
    """The revisions that they have got will be given to other changes."""
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    begin(topic)
    for trades in (11, 12):
        topic.publish(then(topic.replica, forming(minute(2), trades=trades)))
    old = topic.replica.snapshot()
    for trades in range(13, 16):
        topic.publish(then(topic.replica, forming(minute(2), trades=trades)))
    subscriber, gone = topic.subscribe(outbox), topic.replica.position
    topic.adopt(old)
    assert outbox.take() == [subscriber]
    assert topic.replica.position == Position("life0", 3)
    with pytest.raises(Refusal, match="load it over REST again"):
        pull(subscriber)
    topic.publish(then(topic.replica, candle(minute(2))))
    newcomer = topic.subscribe(outbox)
    topic.publish(then(topic.replica, candle(minute(3))))
    assert len(pull(newcomer)) == 1, "who came since misses nothing"
    for position in (gone, Position("life0", 2)):
        with pytest.raises(Refusal):
            check(topic, Resume(position))


@pytest.mark.parametrize("more", [0, 1, 3])
async def test_who_has_got_what_the_store_then_had_otherwise_loads_again(more: int) -> None:
    """It went back within the life, and on from there: as far as we were, or further."""
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    begin(topic)
    stored = Replica(BTC, 10)
    stored.restore(topic.replica.snapshot())
    topic.publish(then(topic.replica, forming(minute(2), trades=11)))
    stored.apply(then(stored, candle(minute(2))))
    for number in range(more):
        stored.apply(then(stored, candle(minute(3 + number))))
    subscriber = topic.subscribe(outbox)
    topic.adopt(stored.snapshot())
    assert topic.replica.snapshot().candles == stored.snapshot().candles
    assert outbox.take() == [subscriber]
    with pytest.raises(Refusal, match="load it over REST again"):
        pull(subscriber)


async def test_whoever_keeps_a_series_is_told_of_each_change_of_its_state() -> None:
    topic = Hub(10).open(BTC)
    told: list[State] = []
    topic.on_state_change = lambda: told.append(topic.state)
    for state in (State.STALE, State.LIVE, State.LIVE, State.SYNCING):
        topic.set_state(state)
    assert told == [State.LIVE, State.SYNCING]


async def test_a_state_is_told_when_it_changes(autojump_clock: MockClock) -> None:
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    subscriber = topic.subscribe(outbox)
    topic.set_state(State.STALE)
    assert not outbox.take()
    assert topic.left_live_at is None
    topic.set_state(State.SYNCING)
    assert outbox.take() == [subscriber]
    assert topic.left_live_at is None, "it was never live"
    topic.set_state(State.LIVE)
    assert outbox.take() == [subscriber]
    await trio.sleep(7)
    left = trio.current_time()
    topic.set_state(State.SYNCING)
    await trio.sleep(7)
    topic.set_state(State.STALE)
    assert topic.left_live_at == left, "since it is not live, not since the last change"


async def test_a_topic_is_idle_since_the_last_interest_in_it_ended(autojump_clock: MockClock) -> None:
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    assert topic.idle_since == trio.current_time()
    await trio.sleep(3)
    topic.touch()
    touched = trio.current_time()
    await trio.sleep(3)
    assert topic.idle_since == touched
    one, other = topic.subscribe(outbox), topic.subscribe(outbox)
    await trio.sleep(3)
    subscribed = [topic.idle_since]
    topic.unsubscribe(one)
    subscribed.append(topic.idle_since)
    assert subscribed == [None, None]
    topic.unsubscribe(other)
    await trio.sleep(3)
    assert topic.idle_since == trio.current_time() - 3


async def test_an_unsubscribed_client_hears_nothing(autojump_clock: MockClock) -> None:
    topic, outbox = Hub(10).open(BTC), Outbox(unheard)
    topic.unsubscribe(topic.subscribe(outbox))
    begin(topic)
    topic.set_state(State.LIVE)
    assert not outbox.take()


# --- the hub


async def test_a_series_has_one_topic_until_it_is_closed() -> None:
    hub = Hub(10)
    assert hub.get(BTC) is None
    topic = hub.open(BTC)
    assert hub.open(BTC) is hub.get(BTC) is topic
    other = hub.open(ETH)
    assert (list(hub), len(hub)) == ([topic, other], 2)
    for each in hub:
        hub.close(each.series)
    assert (list(hub), len(hub)) == ([], 0)
    hub.close(BTC)
    assert hub.open(BTC) is not topic


async def test_a_topic_holds_as_much_as_the_hubs_history() -> None:
    topic = Hub(3).open(BTC)
    topic.publish(Commit("life0", 1, tuple(minutes(0, 9)), begins=True))
    assert candles_of(topic.replica) == minutes(7, 9)
