"""The Redis store and all that can be wrong with a server, in real time."""

from __future__ import annotations

import signal
import socket
import threading
import time

import pytest
import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.departure import Stop
from candlesync.core.interval import Interval
from candlesync.errors import Fenced, RevisionConflict, StoreUnavailable
from candlesync.store.redis import RedisStore
from tests.builders import BTC, candle, flat, forming, minute, minutes
from tests.stalls import within
from tests.store.contract import begin, follow
from tests.store.redis_server import RedisServer, dump, redis_store, run_server, shared

# --- trouble


async def test_a_commit_to_a_server_that_hangs_is_reported_and_happens_once() -> None:
    with run_server() as server:
        async with redis_store(server.url, answer_timeout=0.3) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(forming(minute(0))), token=token)
            made = commits_made(server)
            server.signal(signal.SIGSTOP)
            with within(2), pytest.raises(StoreUnavailable, match=r"did not answer in time.* may have happened"):
                await store.commit(BTC, follow(2, candle(minute(0))), token=token)
            with pytest.raises(StoreUnavailable, match=r"did not answer in time|cannot be reached"):
                await store.read(BTC)
            server.signal(signal.SIGCONT)
            snapshot = await until_read(store, 2)
            assert snapshot == ((candle(minute(0)), 2),)
            await trio.sleep(0.1)
            assert commits_made(server) == made + 1, "it ran once"
            await store.commit(BTC, follow(3, candle(minute(1))), token=token)


async def test_beyond_the_deadline_nobody_waits_for_a_thread_and_no_answers_are_mixed_up() -> None:
    """The server is silent for longer than our deadline, but not longer than the sockets' timeout."""
    with run_server() as server:
        async with redis_store(server.url, answer_timeout=10, deadline=0.3) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 2)), token=token)
            server.signal(signal.SIGSTOP)
            with pytest.raises(StoreUnavailable, match=r"within 0\.3 s"):
                await store.read(BTC)
            with pytest.raises(StoreUnavailable, match=r"within 0\.3 s"):
                await store.claim("ETHUSDT")
            server.signal(signal.SIGCONT)
            ether = Series("ETHUSDT", Interval.M1)
            for _ in range(20):
                snapshot = await store.read(BTC)
                assert snapshot is not None
                assert [made for made, _ in snapshot.candles] == minutes(0, 2)
                assert await store.read(ether) is None


async def test_who_waits_behind_a_silent_server_is_told_with_the_first() -> None:
    with run_server() as server:
        async with redis_store(server.url, answer_timeout=0.4, calls=2) as store:
            await store.claim("BTCUSDT")
            server.signal(signal.SIGSTOP)
            failures = 0

            async def ask(symbol: str) -> None:
                nonlocal failures
                with pytest.raises(StoreUnavailable):
                    await store.claim(symbol)
                failures += 1

            with within(1.5):  # not ten times the timeout
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(ask, f"S{number}USDT")
            assert failures == store.statistics().failures == 20
            server.signal(signal.SIGCONT)


async def test_a_server_that_was_restarted_is_asked_anew_and_an_empty_one_begins_anew() -> None:
    with run_server() as server:
        async with redis_store(server.url, prefix="p") as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 2)), token=token)
            server.kill()
            with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:\d+: .*(lost|refused)"):
                await store.commit(BTC, follow(2, candle(minute(3))), token=token)
            server.start()
            # The connection that the restart broke is noticed before anything is sent on it.
            assert await store.read(BTC) is None
            with pytest.raises(Fenced):
                await store.commit(BTC, follow(2, candle(minute(3))), token=token)
            again = await store.claim("BTCUSDT")
            assert again != token
            with pytest.raises(RevisionConflict):
                await store.commit(BTC, follow(2, candle(minute(3))), token=again)
            await store.commit(BTC, begin(*minutes(0, 3), life="life1"), token=again)


async def test_commits_of_unknown_outcome_are_settled_by_reading_whatever_the_server_goes_through() -> None:
    """It is killed and stopped again and again; what was acknowledged stands, and nothing stands twice."""
    with run_server("--appendonly", "yes", "--appendfsync", "always") as server:
        async with redis_store(server.url, 10_000, answer_timeout=0.25, deadline=0.5) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(candle(minute(0))), token=token)
            acknowledged: dict[int, Candle] = {}
            unknown = settled_as_done = 0
            done = False

            async def write() -> None:
                nonlocal unknown, settled_as_done
                revision = 2
                while not done:
                    made = candle(minute(revision), f"{revision}.{len(acknowledged)}")
                    made_at = candle(minute(revision - 1), made.close)
                    try:
                        await store.commit(BTC, follow(revision, made_at), token=token)
                    except StoreUnavailable:
                        unknown += 1
                        snapshot = await until_read(store, revision - 1)
                        revision = snapshot[-1][1] + 1
                        settled_as_done += snapshot[-1][0] == made_at
                    else:
                        acknowledged[revision] = made_at
                        revision += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                for _ in range(3):
                    await trio.sleep(0.2)
                    server.signal(signal.SIGSTOP)
                    await trio.sleep(0.4)
                    server.signal(signal.SIGCONT)
                    await trio.sleep(0.2)
                    server.kill()
                    await trio.sleep(0.1)
                    server.start()
                await trio.sleep(0.3)
                done = True
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert len(snapshot.candles) == snapshot.revision
            assert unknown >= 3
            assert settled_as_done >= 1, "the commits that the stopped server took happened"
            assert len(acknowledged) > 20
            held = {revision: made for made, revision in snapshot.candles}
            assert acknowledged.items() <= held.items()


async def until_read(store: RedisStore, revision: int) -> tuple[tuple[Candle, int], ...]:
    """The candles, as soon as the store answers and has come to the revision."""
    with trio.fail_after(10):
        while True:
            try:
                snapshot = await store.read(BTC)
            except StoreUnavailable:
                snapshot = None
            if snapshot is not None and snapshot.revision >= revision:
                return snapshot.candles
            await trio.sleep(0.02)


def commits_made(server: RedisServer) -> int:
    """How often the server has announced a commit."""
    return int(server.client().info("commandstats")["cmdstat_publish"]["calls"])


# --- what a person is told


async def refused_words(url: str) -> str:
    async with redis_store(url) as store:
        with pytest.raises(StoreUnavailable) as failure:
            await store.claim("BTCUSDT")
        words = str(failure.value)
    assert "secret" not in words
    return words


async def test_a_wrong_password_and_a_missing_one() -> None:
    with run_server("--requirepass", "hidden", password="hidden") as server:
        wrong = await refused_words(server.url.replace("//", "//:secret@"))
        assert "refuses the user name or the password" in wrong
        assert f"127.0.0.1:{server.port}" in wrong
        assert "wants a password" in await refused_words(server.url)
        async with redis_store(server.url.replace("//", "//:hidden@")) as store:
            await store.claim("BTCUSDT")


async def test_a_database_that_there_is_not() -> None:
    assert "no database of that number" in await refused_words(f"{shared().url}/99")


async def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "Connection refused" in await refused_words(f"redis://127.0.0.1:{free.getsockname()[1]}")


async def test_something_else_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "is no Redis" in await refused_words(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


async def test_a_replica() -> None:
    with run_server("--replicaof", "127.0.0.1", str(shared().port)) as replica:
        assert "read-only replica: name the primary" in await refused_words(replica.url)


async def test_full_memory_refuses_commits_and_leaves_reads() -> None:
    with run_server() as server:
        async with redis_store(server.url) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 3)), token=token)
            before = dump(server, store.settings.prefix)
            server.client().config_set("maxmemory", 1)
            for commit in (follow(2, candle(minute(4))), begin(*minutes(100, 104), revision=2)):
                with pytest.raises(StoreUnavailable, match="memory is full"):
                    await store.commit(BTC, commit, token=token)
            assert dump(server, store.settings.prefix) == before
            server.client().config_set("maxmemory", 0)
            await store.commit(BTC, follow(2, candle(minute(4))), token=token)


async def test_a_server_that_cannot_save() -> None:
    with run_server("--dbfilename", "blocked", "--save", "10000 1") as server:
        client = server.client()
        client.set("x", "y")
        await trio.to_thread.run_sync(fail_to_save, server)
        assert "cannot save to its disk" in await refused_words(server.url)


def fail_to_save(server: RedisServer) -> None:
    """There is a folder where the file should be."""
    (server.socket.parent / "blocked").mkdir()
    client = server.client()
    client.bgsave()
    until = time.monotonic() + 10
    while client.info("persistence")["rdb_last_bgsave_status"] != "err":
        assert time.monotonic() < until
        time.sleep(0.02)


async def test_a_user_who_may_not_write() -> None:
    with run_server() as server:
        client = server.client()
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", ">secret", "allkeys", "allchannels", "+@all", "-@write"
        )
        assert "may not do" in await refused_words(server.url.replace("//", "//reader:secret@"))


async def test_a_user_who_may_not_write_all_leaves_no_half_of_a_commit() -> None:
    with run_server() as server:
        client = server.client()
        client.execute_command("ACL", "SETUSER", "odd", "on", ">secret", "allkeys", "allchannels", "+@all")
        async with redis_store(server.url.replace("//", "//odd:secret@")) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 3)), token=token)
            client.execute_command("ACL", "SETUSER", "odd", "-ltrim")
            with pytest.raises(StoreUnavailable, match="may not do"):
                await store.commit(BTC, follow(2, *minutes(4, 9)), token=token)
            assert await store.read(BTC) is None, "rather none than a half"
            client.execute_command("ACL", "SETUSER", "odd", "+ltrim")
            await store.commit(BTC, begin(*minutes(0, 9), life="life1"), token=token)


@pytest.mark.parametrize("part", ["fence", "meta", "candles"])
async def test_a_key_of_another_type_is_named_and_left_alone(part: str) -> None:
    async with redis_store(shared().url) as store:
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(*minutes(0, 3)), token=token)
        keys = {"fence": store.keys.fence("BTCUSDT"), "meta": store.keys.meta(BTC), "candles": store.keys.candles(BTC)}
        name = keys[part]
        client = shared().client()
        client.set(name, "somebody's")
        before = dump(shared(), store.settings.prefix)
        with pytest.raises(StoreUnavailable, match="of another type, and so not ours") as failure:
            await store.commit(BTC, follow(2, candle(minute(4))), token=token)
        assert name in str(failure.value)
        ask = store.claim("BTCUSDT") if part == "fence" else store.read(BTC)
        with pytest.raises(StoreUnavailable, match="of another type"):
            await ask
        assert dump(shared(), store.settings.prefix) == before


async def test_a_series_of_another_version_is_left_alone() -> None:
    async with redis_store(shared().url) as store:
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(*minutes(0, 3)), token=token)
        shared().client().hset(store.keys.meta(BTC), "format", "2")
        before = dump(shared(), store.settings.prefix)
        with pytest.raises(StoreUnavailable, match="format 2, of another version"):
            await store.read(BTC)
        with pytest.raises(StoreUnavailable, match="format 2, of another version"):
            await store.position(BTC)
        for commit in (follow(2, candle(minute(4))), begin(candle(minute(4)))):
            with pytest.raises(StoreUnavailable, match="format 2, of another version"):
                await store.commit(BTC, commit, token=token)
        assert dump(shared(), store.settings.prefix) == before


@pytest.mark.parametrize("part", ["meta", "candles"])
async def test_a_series_of_which_a_part_has_vanished_is_one_that_was_never_there(part: str) -> None:
    """As a server does that may evict keys."""
    async with redis_store(shared().url) as store:
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(*minutes(0, 3)), token=token)
        shared().client().delete(store.keys.meta(BTC) if part == "meta" else store.keys.candles(BTC))
        assert await store.read(BTC) is None
        assert await store.position(BTC) is None
        with pytest.raises(RevisionConflict):
            await store.commit(BTC, follow(2, candle(minute(4))), token=token)
        await store.commit(BTC, begin(*minutes(7, 8), life="life1"), token=token)
        snapshot = await store.read(BTC)
        assert snapshot is not None
        assert [made for made, _ in snapshot.candles] == minutes(7, 8)


async def test_a_value_that_is_not_ours_is_never_taken_for_a_candle() -> None:
    async with redis_store(shared().url) as store:
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(*minutes(0, 3)), token=token)
        shared().client().lset(store.keys.candles(BTC), 1, "junk")
        with pytest.raises(StoreUnavailable, match="BTCUSDT 1m in the store at"):
            await store.read(BTC)


async def test_a_unix_socket() -> None:
    async with redis_store(f"unix://{shared().socket}") as store:
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(candle(), flat(minute(1))), token=token)
        assert await store.read(BTC) is not None


async def test_where_streams_stopped_nobody_waits_for_longer_than_a_moment() -> None:
    with run_server("--maxmemory-policy", "noeviction") as server:
        async with redis_store(server.url, answer_timeout=10) as store:
            await store.keep_departures([Stop("a", 1, 1)], [Stop("b", 2, 1)])
            server.signal(signal.SIGSTOP)
            with within(2), pytest.raises(StoreUnavailable, match="within 1 s"):
                await store.take_departures(["b"], 0)
            server.signal(signal.SIGCONT)
            server.client().config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="memory"):
                await store.keep_departures([Stop("c", 1, 1)], [])
            assert await store.keep_departures([], []) == 1, "that it is there it can still say"
            server.client().config_set("maxmemory", 0)
            assert await store.keep_departures([Stop("c", 1, 1)], []) == 2
