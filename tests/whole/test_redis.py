"""A synchronizer over a real Redis that goes away and comes back, in real time."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from candlesync.core.sync import Rules, State
from candlesync.errors import StoreUnavailable
from candlesync.hub import Topic
from candlesync.store.redis import RedisStore
from candlesync.synchronizer import Synchronizer
from tests.builders import BTC, candles_of, forming, minute, minutes
from tests.store.redis_server import RedisServer, redis_store, run_server
from tests.upstream import Upstream

Answer = TypeVar("Answer")

RULES = Rules(history=900)
PATIENCE = 60.0
"""Seconds to wait for what takes a moment."""


async def trouble(server: RedisServer, store: RedisStore, topic: Topic) -> None:
    """All that a server of its own free will does not do, twice; each is noticed."""

    async def until_noticed(since: int) -> None:
        with trio.fail_after(PATIENCE):
            while store.statistics().failures == since or topic.state is State.LIVE:  # noqa: ASYNC110 - as an outsider
                await trio.sleep(0.01)

    for _ in range(2):
        await trio.sleep(0.3)
        failures = store.statistics().failures
        server.signal(signal.SIGSTOP)
        await until_noticed(failures)
        server.signal(signal.SIGCONT)
        await trio.sleep(0.3)
        failures = store.statistics().failures
        server.kill()
        await until_noticed(failures)
        server.start()
        await trio.sleep(0.3)
        failures = store.statistics().failures
        server.client().execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        await until_noticed(failures)
        server.client().execute_command("CLIENT", "UNPAUSE")
        await trio.sleep(0.3)
        server.client().script_flush()


async def show_minutes(synchronizer: Synchronizer, upstream: Upstream) -> None:
    """A minute each 20 ms, of which the stream and REST show the same."""
    number = 3
    while True:
        upstream.candles = minutes(0, number + 1)
        synchronizer.frame(upstream.candles[number])
        synchronizer.frame(forming(minute(number + 1), trades=1))
        number += 1
        await trio.sleep(0.02)


async def note_states(topic: Topic, seen: set[State]) -> None:
    while True:
        seen.add(topic.state)
        await trio.sleep(0.01)


async def until_whole(topic: Topic, upstream: Upstream) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            tail = topic.replica.tail
            if topic.state is State.LIVE and tail and tail.open_time == upstream.candles[-1].open_time:
                return
            await trio.sleep(0.02)


async def answered(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """What the store answers: it is given no longer than the troubles last, which a busy machine may take, too."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await trio.sleep(0.02)


async def test_whatever_the_server_goes_through_no_candle_is_lost_or_wrong() -> None:
    with run_server("--appendonly", "yes", "--appendfsync", "always") as server:
        async with redis_store(server.url, RULES.history, answer_timeout=0.25, deadline=0.5) as store:
            topic = Topic(BTC, RULES.history)
            upstream = Upstream(minutes(0, 3))
            token = await answered(partial(store.claim, "BTCUSDT"))
            synchronizer = Synchronizer(topic, store, upstream, RULES, token=token)
            seen: set[State] = set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(synchronizer.run)
                synchronizer.connected()
                await until_whole(topic, upstream)
                async with trio.open_nursery() as story:
                    story.start_soon(show_minutes, synchronizer, upstream)
                    story.start_soon(note_states, topic, seen)
                    await trouble(server, store, topic)
                    story.cancel_scope.cancel()
                await until_whole(topic, upstream)
                assert await answered(partial(store.read, BTC)) == topic.replica.snapshot()
                # On a machine that stands still for long there are more than the history holds.
                assert candles_of(topic.replica)[:-1] == upstream.candles[-RULES.history : -1]
                assert seen == {State.LIVE, State.SYNCING}, "the feed was there all the time"
                nursery.cancel_scope.cancel()
