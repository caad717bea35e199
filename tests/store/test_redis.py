"""The Redis store over real servers, in real time: the contract, and what only a store outside of the process has."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from random import Random

import pytest
import trio
from redis.crc import key_slot

from candlesync.binance.venue import SPOT, USDM
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.replica import Commit, Replica
from candlesync.core.report import Release, Report
from candlesync.errors import CommitRefused, Fenced, NotContinuous, RevisionConflict, StoreUnavailable
from candlesync.store.address import Address
from candlesync.store.base import Store
from candlesync.store.codec import encode_commit
from candlesync.store.redis import RedisSettings, RedisStore
from tests.builders import BTC, candle, forming, minute, minutes
from tests.store.contract import HISTORY, StoreContract, begin, follow
from tests.store.redis_server import REDIS, dump, listening, redis_nodes, redis_store, run_server, shared
from tests.store.shared_contract import hearing


def valkey_store(history: int) -> AbstractAsyncContextManager[Store]:
    return redis_store(shared().url, history)


class TestRedisStoreOnValkey(StoreContract):
    open_store = staticmethod(valkey_store)


if REDIS is not None:

    def debian_store(history: int) -> AbstractAsyncContextManager[Store]:
        return redis_store(shared(REDIS).url, history)

    class TestRedisStoreOnRedis(StoreContract):
        open_store = staticmethod(debian_store)


@pytest.mark.parametrize("interval", [Interval.S1, Interval.H8, Interval.D3, Interval.W1, Interval.MO1], ids=str)
async def test_the_calendar_is_that_of_a_replica(interval: Interval) -> None:
    """As the contract's own test of this, on other intervals than minutes."""
    random = Random(2)
    series = Series("BTCUSDT", interval)
    replica = Replica(series, HISTORY)
    outcomes = set()
    async with redis_store(shared().url) as store:
        token = await store.claim("BTCUSDT")
        for number in range(200):
            commit = some_commit(replica, random, number)
            expected = outcome_of(replica, commit)
            try:
                await store.commit(series, commit, token=token)
            except CommitRefused as refusal:
                outcome = type(refusal).__name__
            else:
                outcome = ""
            assert outcome == expected
            outcomes.add(outcome)
            assert await store.read(series) == (replica.snapshot() if len(replica) else None)
    assert {"", "NotContinuous", "RevisionConflict"} == outcomes


def some_commit(replica: Replica, random: Random, number: int) -> Commit:
    interval = replica.series.interval
    start = interval.floor(1_600_000_000_000) if replica.tail is None else replica.tail.open_time
    time = interval.next(start, random.choice([-7, -2, -1, 0, 0, 1, 1, 1, 2]))
    candles = []
    for step in range(random.randint(0, 4)):
        odd = random.choice([0] * 12 + [1, 3_600_000, 86_400_000])
        at = interval.next(time, step) + odd
        candles.append(candle(at, trades=number, closed=random.random() < 0.8, interval=interval))
    if not replica.life or random.random() < 0.05:
        return Commit(f"life{number}", 1, tuple(candles), begins=True, replaces=replica.life)
    revision = replica.revision + random.choice([1] * 12 + [2])
    return Commit(replica.life, revision, tuple(candles), begins=random.random() < 0.1)


def outcome_of(replica: Replica, commit: Commit) -> str:
    try:
        replica.apply(commit)
    except CommitRefused as refusal:
        return type(refusal).__name__
    return ""


# --- several nodes


async def test_a_node_that_takes_over_goes_on_where_the_other_stopped() -> None:
    async with redis_nodes(shared().url, HISTORY, 0.1) as make:
        first, second = await make(), await make()
        old = await first.claim("BTCUSDT")
        await first.commit(BTC, begin(candle(minute(0)), forming(minute(1))), token=old)
        await trio.sleep(0.12)
        new = await second.claim("BTCUSDT")
        assert await second.read(BTC) == await first.read(BTC)
        with pytest.raises(Fenced):
            await first.commit(BTC, follow(2, candle(minute(1))), token=old)
        await second.commit(BTC, follow(2, candle(minute(1))), token=new)
        with pytest.raises(Fenced):
            await first.forget(BTC, token=old)
        await second.forget(BTC, token=new)
        snapshot = await first.read(BTC)
        assert snapshot is not None
        assert snapshot.revision == 2, "kept: other nodes may follow it"


async def test_of_two_nodes_that_write_at_once_one_wins_each_revision() -> None:
    """With one token, as only a mistake could bring about: the revisions alone keep them apart."""
    async with redis_store(shared().url, 1000) as one, redis_store(shared().url, 1000) as other:
        other.keys = one.keys
        token = await one.claim("BTCUSDT")
        await one.commit(BTC, begin(candle(minute(0))), token=token)
        won: dict[int, str] = {}

        async def write(name: str, store: RedisStore) -> None:
            revision = 2
            while revision <= 60:
                try:
                    await store.commit(BTC, follow(revision, candle(minute(revision - 1), unused=name)), token=token)
                except RevisionConflict:
                    snapshot = await store.read(BTC)
                    assert snapshot is not None
                    revision = snapshot.revision + 1
                else:
                    assert revision not in won
                    won[revision] = name
                    revision += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "1", one)
            nursery.start_soon(write, "2", other)
        snapshot = await one.read(BTC)
        assert snapshot is not None
        assert [made.unused for made, _ in snapshot.candles[1:]] == [won[revision] for revision in range(2, 61)]


async def test_tokens_are_new_on_a_wiped_server_too() -> None:
    with run_server() as server:
        async with redis_store(server.url, prefix="p") as store:
            tokens = []
            for _ in range(5):
                tokens += [await store.claim("BTCUSDT"), await store.claim("BTCUSDT")]
                server.client().flushall()
            assert len(set(tokens)) == 10


# --- a commit as a whole


async def test_a_refused_commit_leaves_every_byte_as_it_was_and_is_not_announced() -> None:
    async with redis_store(shared().url) as store:
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(candle(minute(0)), candle(minute(1)), forming(minute(2))), token=token)
        before = dump(shared(), store.settings.prefix)
        assert len(before) == 3
        with listening(shared(), store.keys.channel("BTCUSDT")) as heard:
            for commit, number, why in (
                (follow(2, candle(minute(2))), token + 1, Fenced),
                (follow(3, candle(minute(2))), token, RevisionConflict),
                (follow(2, candle(minute(1), "1.00"), candle(minute(2)), candle(minute(4))), token, NotContinuous),
                (follow(2, candle(minute(0), "1.00"), forming(minute(1))), token, NotContinuous),
                (begin(*minutes(900, 903), candle(minute(905)), revision=2), token, NotContinuous),
            ):
                with pytest.raises(why):
                    await store.commit(BTC, commit, token=number)
                assert dump(shared(), store.settings.prefix) == before
            assert heard() == []
        assert store.statistics().refused == 5


async def test_each_commit_is_announced_a_large_one_without_its_candles() -> None:
    async with redis_store(shared().url, 100) as store:
        token = await store.claim("BTCUSDT")
        commits = [
            begin(*minutes(0, 15), replaces=""),
            follow(2, candle(minute(15), "1.00"), forming(minute(16), filled=True)),
            begin(*minutes(100, 120), revision=3),
        ]
        with listening(shared(), store.keys.channel("BTCUSDT")) as heard:
            for commit in commits:
                await store.commit(BTC, commit, token=token)
            announced = heard()
        assert [made.commit() for made in announced] == [commits[0], commits[1], None]
        assert [(made.interval, made.life, made.revision) for made in announced] == [
            ("1m", "life0", 1),
            ("1m", "life0", 2),
            ("1m", "life0", 3),
        ]
        last = shared().client().hget(store.keys.meta(BTC), "commit")
        assert last == announced[-1].id.encode(), "the meta names the last commit as its announcement does"
        assert len({made.id for made in announced}) == 3


async def test_a_commit_that_cannot_be_announced_stands(capsys: pytest.CaptureFixture[str]) -> None:
    with run_server() as server:
        client = server.client()
        client.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "allkeys", "+@all", "resetchannels")
        async with redis_store(server.url.replace("//", "//mute:secret@")) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(candle(minute(0))), token=token)
            await store.commit(BTC, follow(2, candle(minute(1))), token=token)
            assert await store.read(BTC) is not None
            assert store.statistics().unannounced == 2
    assert capsys.readouterr().out.count("cannot be announced") == 1


async def test_databases_are_apart_and_so_are_their_channels() -> None:
    async with (
        redis_store(f"{shared().url}/1") as one,
        redis_store(f"{shared().url}/2", prefix=one.settings.prefix) as two,
    ):
        token = await one.claim("BTCUSDT")
        await one.commit(BTC, begin(candle()), token=token)
        assert await two.read(BTC) is None
        assert one.keys.channel("BTCUSDT") != two.keys.channel("BTCUSDT")


async def test_the_nodes_of_two_venues_know_nothing_of_each_other_on_one_server() -> None:
    with run_server() as server:
        default = RedisSettings(Address(server.url)).prefix
        spot, futures = SPOT.store_prefix(default), USDM.store_prefix(default)
        async with (
            redis_store(server.url, prefix=spot) as one,
            redis_store(server.url, prefix=futures) as other,
            hearing(one) as ear,
        ):
            tokens = [await store.claim("BTCUSDT") for store in (one, other)]  # each owns its own BTCUSDT
            await other.commit(BTC, begin(candle(minute(5))), token=tokens[1])
            assert await one.read(BTC) is None
            await one.commit(BTC, begin(candle(minute(0))), token=tokens[0])
            await other.attend(Member("futures"))
            assert await one.attend(Member("spot")) == {one.node: Member("spot")}
            for store, opened in ((one, minute(0)), (other, minute(5))):
                snapshot = await store.read(BTC)
                assert snapshot is not None
                assert [kept.open_time for kept, _ in snapshot.candles] == [opened]
            await ear.until(1, "committed")
            assert [commit for _, _, commit in ear.of("committed")] == [begin(candle(minute(0)))]


async def test_no_key_outside_of_the_prefix_is_touched_and_a_symbols_are_in_one_slot() -> None:
    with run_server() as server:
        client = server.client()
        client.set("{BTCUSDT}:fence", "theirs")
        async with redis_store(server.url, prefix="ours", lease=30) as store:
            token = await store.claim("BTCUSDT")
            for interval in (Interval.M1, Interval.MO1):
                series = Series("BTCUSDT", interval)
                await store.commit(series, begin(candle(interval.floor(minute(0)), interval=interval)), token=token)
            keys = sorted(bytes(key) for key in client.keys("*") if isinstance(key, bytes))
            assert keys == [
                b"ours:{BTCUSDT}:1M:candles",
                b"ours:{BTCUSDT}:1M:meta",
                b"ours:{BTCUSDT}:1m:candles",
                b"ours:{BTCUSDT}:1m:meta",
                b"ours:{BTCUSDT}:fence",
                b"ours:{BTCUSDT}:lease",
                b"{BTCUSDT}:fence",
            ]
            assert len({key_slot(key) for key in keys}) == 1
            await store.attend(Member("name"))
            members = sorted({bytes(key) for key in client.keys("*") if isinstance(key, bytes)}.difference(keys))
            assert members == [b"ours:{nodes}:members", b"ours:{nodes}:until", b"ours:{nodes}:versions"]
            assert len({key_slot(key) for key in members}) == 1
            assert client.get("{BTCUSDT}:fence") == b"theirs"
            meta = client.hgetall(store.keys.meta(BTC))
            assert meta[b"token"] == str(token).encode()
            assert (meta[b"first"], meta[b"last"], meta[b"length"]) == (b"1700000040000", b"1700000040000", b"1")


# --- group commit


async def test_commits_that_are_ready_together_go_together_and_each_gets_its_own_outcome() -> None:
    async with redis_store(shared().url) as store:
        series = [Series(f"S{number}USDT", Interval.M1) for number in range(300)]
        tokens = {each: await store.claim(each.symbol) for each in series[:3]}
        async with trio.open_nursery() as nursery:
            for each in series[3:]:
                nursery.start_soon(claim_into, store, each, tokens)
        before = store.statistics()
        outcomes: dict[Series, str] = {}

        async def write(number: int, each: Series) -> None:
            commit, token = begin(*minutes(0, number % 5)), tokens[each]
            match number % 10:
                case 1:
                    commit = follow(7, candle(minute(0)))
                case 2:
                    commit = begin(candle(minute(0)), candle(minute(2)))
                case 3:
                    token += 1
            try:
                await store.commit(each, commit, token=token)
            except CommitRefused as refusal:
                outcomes[each] = type(refusal).__name__
            else:
                outcomes[each] = ""

        async with trio.open_nursery() as nursery:
            for number, each in enumerate(series):
                nursery.start_soon(write, number, each)
        refusals = {1: "RevisionConflict", 2: "NotContinuous", 3: "Fenced"}
        for number, each in enumerate(series):
            assert outcomes[each] == refusals.get(number % 10, "")
            snapshot = await store.read(each)
            if outcomes[each]:
                assert snapshot is None
            else:
                assert snapshot is not None
                assert [made for made, _ in snapshot.candles] == minutes(0, number % 5)
        after = store.statistics()
        assert after.commits - before.commits == 210
        assert after.refused - before.refused == 90
        assert after.largest_group == 256
        assert after.pipelines - before.pipelines - 300 <= 4, "300 reads, one by one, and 300 commits in a few"
        assert (after.waiting, after.failures) == (0, 0)
        assert after.latencies.count == 210
        assert 0 < after.latencies.sum / 210 < 5


async def claim_into(store: RedisStore, series: Series, tokens: dict[Series, int]) -> None:
    tokens[series] = await store.claim(series.symbol)


async def test_a_pipeline_is_limited_in_bytes() -> None:
    async with redis_store(shared().url, 1000, size=100_000) as store:
        token = await store.claim("BTCUSDT")
        intervals = [Interval.M1, Interval.M3, Interval.M5, Interval.M15, Interval.M30, Interval.H1]
        async with trio.open_nursery() as nursery:
            for interval in intervals:
                first = interval.floor(minute(0))
                candles = [candle(interval.next(first, step), interval=interval) for step in range(1000)]
                write = partial(store.commit, Series("BTCUSDT", interval), begin(*candles), token=token)
                nursery.start_soon(write)
        assert store.statistics().largest_group <= 2


async def test_scripts_that_the_server_forgot_are_sent_again_and_run_once() -> None:
    with run_server() as server:
        async with redis_store(server.url) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(forming(minute(0))), token=token)
            for revision in range(2, 6):
                server.client().script_flush()
                await store.commit(BTC, follow(revision, forming(minute(0), trades=revision)), token=token)
                server.client().script_flush()
                snapshot = await store.read(BTC)
                assert snapshot is not None
                assert snapshot.revision == revision


# --- cancellation


async def test_whoever_is_cancelled_leaves_the_others_theirs() -> None:
    for turns in range(12):
        async with redis_store(shared().url) as store:
            series = [Series(f"S{number}USDT", Interval.M1) for number in range(5)]
            tokens = {each: await store.claim(each.symbol) for each in series}
            async with trio.open_nursery() as nursery:
                for each in series[1:]:
                    nursery.start_soon(partial(store.commit, each, begin(candle()), token=tokens[each]))
                scope = trio.CancelScope()
                nursery.start_soon(cancellable_commit, store, series[0], tokens[series[0]], scope)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
            for each in series[1:]:
                assert await store.read(each) is not None
            assert store.statistics().waiting == 0


async def cancellable_commit(store: RedisStore, series: Series, token: int, scope: trio.CancelScope) -> None:
    with scope:
        await store.commit(series, begin(candle()), token=token)


async def test_a_commit_cancelled_before_it_was_sent_has_not_happened() -> None:
    async with redis_store(shared().url) as store:
        token = await store.claim("BTCUSDT")
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.commit(BTC, begin(candle()), token=token)
        await trio.sleep(0.05)
        assert scope.cancelled_caught
        assert await store.read(BTC) is None


async def test_when_the_store_is_closed_nobody_is_left_waiting() -> None:
    with run_server() as server:
        store = RedisStore(RedisSettings(Address(server.url), prefix="p"), HISTORY)
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.claim("BTCUSDT")
        failed: list[str] = []

        async def ask(symbol: str) -> None:
            with pytest.raises(StoreUnavailable) as failure:
                await store.claim(symbol)
            failed.append(str(failure.value))

        async with trio.open_nursery() as nursery, trio.open_nursery() as running:
            await running.start(store.run)
            await store.claim("BTCUSDT")
            server.signal(signal.SIGSTOP)
            nursery.start_soon(ask, "BTCUSDT")
            await trio.sleep(0.1)
            nursery.start_soon(ask, "ETHUSDT")
            await trio.sleep(0.1)
            running.cancel_scope.cancel()
        assert sorted(failed) == ["the store was closed", "the store was closed before it answered"]
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.read(BTC)
        server.signal(signal.SIGCONT)


@pytest.mark.parametrize("reply", [7, [], [b"what", 1], b"words"], ids=str)
async def test_an_answer_that_no_script_of_ours_gives_is_said_to_be_one(reply: object) -> None:
    async with redis_store(shared().url) as store:
        store._servers.execute = lambda calls: [reply] * len(calls)  # type: ignore[method-assign] # what goes wrong here
        questions: list[Callable[[], Awaitable[object]]] = [
            partial(store.commit, BTC, begin(candle()), token=1),
            partial(store.forget, BTC, token=1),
            partial(store.claim, "ETHUSDT"),
            partial(store.renew, "ETHUSDT", Report("", {}), token=1),
            partial(store.release, "ETHUSDT", Release(""), token=1),
            partial(store.attend, Member("")),
            partial(store.leave),
            partial(store.read, BTC),
            partial(store.position, BTC),
        ]
        if reply == b"words":
            del questions[6]  # it might be why it could not be announced
        if reply == [b"what", 1]:
            del questions[-2:]  # it might be a later version's
        for question in questions:
            with pytest.raises(StoreUnavailable, match="no script of ours"):
                await question()


async def test_between_two_large_commits_everything_else_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wiped store makes an owner of 500 series begin 500 lives at once: its leases must not wait for all of that."""
    turns, at = 0, list[int]()

    def encode(series: Series, commit: Commit, identity: str) -> tuple[bytes, bytes, list[bytes]]:
        at.append(turns)
        return encode_commit(series, commit, identity)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr("candlesync.store.redis.encode_commit", encode)
    async with redis_store(shared().url, history=1000) as store, trio.open_nursery() as nursery:
        token = await store.claim("BTCUSDT")
        nursery.start_soon(take_turns)
        async with trio.open_nursery() as commits:
            for interval in (Interval.M1, Interval.M3, Interval.M5, Interval.M15):
                times = [interval.next(interval.floor(minute(0)), number) for number in range(200)]
                candles = tuple(candle(time, interval=interval) for time in times)
                commit = Commit("life", 1, candles, begins=True)
                series = Series("BTCUSDT", interval)
                commits.start_soon(partial(store.commit, series, commit, token=token))
        nursery.cancel_scope.cancel()
    assert len(set(at)) == 4, "a turn before each"
