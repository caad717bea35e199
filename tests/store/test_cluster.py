"""The Redis store over a real cluster of three."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from redis.crc import key_slot

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.errors import StoreUnavailable
from candlesync.store.base import Store
from candlesync.store.redis import RedisStore
from tests.builders import candle, minute
from tests.stalls import within
from tests.store.contract import StoreContract, begin, follow
from tests.store.redis_server import RedisServer, listening, redis_store, run_cluster, run_server, wait_for_cluster

CLUSTER: list[RedisServer] = []


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with run_cluster() as CLUSTER[:]:
        yield


def url() -> str:
    """The first of the servers stands for all."""
    return f"redis+cluster://127.0.0.1:{CLUSTER[0].port}"


def cluster_store(history: int) -> AbstractAsyncContextManager[Store]:
    return redis_store(url(), history)


class TestRedisStoreOnACluster(StoreContract):
    open_store = staticmethod(cluster_store)


def symbols_of_each(count: int) -> list[list[Series]]:
    """So many series of each server."""
    found: list[list[Series]] = [[] for _ in CLUSTER]
    for number in range(1000):
        series = Series(f"S{number}USDT", Interval.M1)
        server = found[key_slot(series.symbol.encode()) * len(CLUSTER) // 16_384]
        if len(server) < count:
            server.append(series)
    return found


async def begin_all(store: RedisStore, groups: list[list[Series]]) -> dict[Series, int]:
    tokens: dict[Series, int] = {}

    async def start(series: Series) -> None:
        tokens[series] = await store.claim(series.symbol)
        await store.commit(series, begin(candle(minute(0))), token=tokens[series])

    async with trio.open_nursery() as nursery:
        for group in groups:
            for series in group:
                nursery.start_soon(start, series)
    return tokens


def test_the_tests_use_what_they_mean() -> None:
    """The map of the slots that the tests assume is the servers' own."""
    for first, last, (_, port, *_) in CLUSTER[0].client().execute_command("CLUSTER", "SLOTS"):
        number = next(number for number, server in enumerate(CLUSTER) if server.port == port)
        assert first * len(CLUSTER) // 16_384 == number
        assert last * len(CLUSTER) // 16_384 == number


async def test_commits_go_to_the_server_of_their_symbol_in_groups() -> None:
    groups = symbols_of_each(20)
    async with redis_store(url(), lease=30) as store:
        await begin_all(store, groups)
        for server, group in zip(CLUSTER, groups, strict=True):
            held: set[bytes | str] = set(server.client().keys(f"{store.settings.prefix}:*"))
            assert held == {
                name.encode()
                for series in group
                for name in (
                    store.keys.fence(series.symbol),
                    store.keys.lease(series.symbol),
                    store.keys.meta(series),
                    store.keys.candles(series),
                )
            }
        statistics = store.statistics()
        assert statistics.commits == 60
        assert statistics.pipelines < 40


async def test_a_follower_hears_a_commit_on_any_server() -> None:
    (series,) = symbols_of_each(1)[0]
    async with redis_store(url()) as store:
        token = await store.claim(series.symbol)
        with listening(CLUSTER[2], store.keys.channel(series.symbol)) as heard:
            await store.commit(series, begin(candle()), token=token)
            assert [announced.commit() for announced in heard()] == [begin(candle())]


async def test_a_slot_that_has_moved_is_followed_and_nothing_is_done_twice() -> None:
    (series,), (other,), _ = symbols_of_each(1)
    slot = key_slot(series.symbol.encode())
    source, target = CLUSTER[0].client(), CLUSTER[1].client()
    ids = {name: client.execute_command("CLUSTER", "MYID") for name, client in (("source", source), ("target", target))}
    async with redis_store(url()) as store:
        tokens = await begin_all(store, [[series, other]])
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids["source"])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids["target"])
        try:
            await store.commit(series, follow(2, candle(minute(1))), token=tokens[series])
            for key in source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.execute_command("MIGRATE", "127.0.0.1", CLUSTER[1].port, key, 0, 1000)
            with pytest.raises(StoreUnavailable, match="on its way to another server"):
                await store.commit(series, follow(3, candle(minute(2))), token=tokens[series])
        finally:
            for server in (CLUSTER[1], CLUSTER[0], CLUSTER[2]):
                server.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids["target"])
        # The store's map of the slots is the old one: the old server says that it has not done it.
        await store.commit(series, follow(3, candle(minute(2))), token=tokens[series])
        await store.commit(other, follow(2, candle(minute(1))), token=tokens[other])
        snapshot = await store.read(series)
        assert snapshot is not None
        assert (snapshot.revision, len(snapshot.candles)) == (3, 3)
        assert store.statistics().failures == 1


async def test_a_server_that_hangs_holds_up_its_own_symbols_only() -> None:
    groups = symbols_of_each(2)
    async with redis_store(url(), answer_timeout=0.5) as store:
        tokens = await begin_all(store, groups)
        CLUSTER[2].signal(signal.SIGSTOP)
        try:
            hanging, well = groups[2][0], groups[1][0]

            async def fail() -> None:
                with pytest.raises(StoreUnavailable, match=r"did not answer in time|cannot be reached"):
                    await store.commit(hanging, follow(2, candle(minute(1))), token=tokens[hanging])

            with within(2):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fail)
                    await trio.sleep(0.05)
                    with within(0.35):
                        await store.commit(well, follow(2, candle(minute(1))), token=tokens[well])
                # Now the map is asked for anew, and not of the server that hangs.
                await store.commit(well, follow(3, candle(minute(2))), token=tokens[well])
        finally:
            CLUSTER[2].signal(signal.SIGCONT)
        with trio.fail_after(10):
            while True:
                try:
                    snapshot = await store.read(hanging)
                except StoreUnavailable:
                    await trio.sleep(0.05)
                else:
                    break
        assert snapshot is not None
        assert snapshot.revision == 2, "it happened, once, when the server went on"


async def test_what_is_no_cluster_is_said_to_be_none_and_a_cluster_is_no_single_server() -> None:
    series = symbols_of_each(1)[2][0]
    async with redis_store(f"redis://127.0.0.1:{CLUSTER[0].port}") as store:
        with pytest.raises(StoreUnavailable, match=r"is a cluster|another server of the cluster"):
            await store.claim(series.symbol)


async def test_no_server_of_the_cluster_can_be_reached() -> None:
    async with redis_store("redis+cluster://127.0.0.1:1,127.0.0.1:2") as store:
        with pytest.raises(StoreUnavailable, match=r"the store at 127\.0\.0\.1:1,127\.0\.0\.1:2: .*connect"):
            await store.claim("BTCUSDT")


async def test_a_slot_that_no_server_has() -> None:
    with run_server("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no") as server:
        server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 10_922)
        wait_for_cluster(server)
        (has,), _, (has_not,) = symbols_of_each(1)
        async with redis_store(f"redis+cluster://127.0.0.1:{server.port}") as store:
            await store.claim(has.symbol)
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="not covered by the cluster"):
                    await store.claim(has_not.symbol)
                await store.claim(has.symbol)
