"""Leases and membership in Redis, and all that can be wrong with a server, in real time."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from functools import partial

import pytest
import trio

from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.report import Release
from candlesync.errors import Fenced, Leased, StoreUnavailable
from candlesync.store import scripts
from candlesync.store.redis import RedisStore
from candlesync.store.scripts import Call
from candlesync.store.server import Outcome
from tests.builders import BTC, candle, forming, minute
from tests.stalls import within
from tests.store.contract import begin, follow
from tests.store.redis_server import REDIS, dump, redis_nodes, redis_store, run_server, shared
from tests.store.shared_contract import hearing, report_of

PROGRAMS = [None, *([REDIS] if REDIS else [])]


# --- a server whose memory is full


@pytest.mark.parametrize("program", PROGRAMS, ids=["valkey", "redis"][: len(PROGRAMS)])
async def test_with_full_memory_what_stands_is_kept_and_nothing_new_is_claimed(program: str | None) -> None:
    with run_server("--maxmemory-policy", "noeviction", program=program) as server:
        async with redis_nodes(server.url, 10, 0.5) as make:
            one, other = await make(), await make()
            token = await one.claim("BTCUSDT")
            await one.commit(BTC, begin(forming(minute(0))), token=token)
            await one.attend(Member("one"))
            server.client().config_set("maxmemory", 1)
            async with hearing(other) as ear:
                for _ in range(4):
                    await trio.sleep(0.2)
                    await one.renew("BTCUSDT", report_of(one), token=token)
                    assert await one.attend(Member("one")) == {one.node: Member("one")}
                await ear.hears(*[("reported", "BTCUSDT", report_of(one))] * 4)
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await one.commit(BTC, follow(2, candle(minute(0))), token=token)
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await other.claim("ETHUSDT")
            before = dump(server, one.settings.prefix)
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await one.claim("BTCUSDT")
            assert dump(server, one.settings.prefix) == before, "its token is the current one still"
            # What has ended is taken again, and a node may come, change and leave.
            await trio.sleep(0.6)
            await one.renew("BTCUSDT", report_of(one), token=token)
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")
            both = {one.node: Member("one", owns=("BTCUSDT",)), other.node: Member("other")}
            await one.attend(both[one.node])
            assert await other.attend(Member("other")) == both
            await other.leave()
            await one.release("BTCUSDT", Release(one.node), token=token)
            server.client().config_set("maxmemory", 0)
            await other.commit(BTC, follow(2, candle(minute(0))), token=await other.claim("BTCUSDT"))


# --- a server that lost what it knew


async def test_on_a_wiped_server_every_token_is_void_and_all_come_together_again() -> None:
    with run_server() as server:
        async with redis_nodes(server.url, 10, 2.0) as make:
            one, other = await make(), await make()
            token = await one.claim("BTCUSDT")
            both = {one.node: Member("one"), other.node: Member("other")}
            await one.attend(both[one.node])
            assert await other.attend(both[other.node]) == both
            server.client().flushall()
            with pytest.raises(Fenced):
                await one.renew("BTCUSDT", report_of(one), token=token)
            with pytest.raises(Fenced):
                await one.release("BTCUSDT", Release(one.node), token=token)
            assert server.client().keys() == [], "it left nothing"
            assert await other.attend(both[other.node]) == {other.node: both[other.node]}
            assert await one.attend(both[one.node]) == both
            assert await other.attend(both[other.node]) == both
            assert await other.claim("BTCUSDT") != token


async def test_a_lease_that_vanished_is_put_back_by_a_renewal() -> None:
    """As a server does that may evict keys."""
    async with redis_nodes(shared().url, 10, 2.0) as make:
        one, other = await make(), await make()
        token = await one.claim("BTCUSDT")
        shared().client().delete(one.keys.lease("BTCUSDT"))
        await one.renew("BTCUSDT", report_of(one), token=token)
        with pytest.raises(Leased) as refused:
            await other.claim("BTCUSDT")
        assert refused.value.owner == one.node
        assert refused.value.seconds > 1


async def test_a_lease_without_an_end_is_nobodys() -> None:
    async with redis_nodes(shared().url, 10, 2.0) as make:
        one, other = await make(), await make()
        await one.claim("BTCUSDT")
        shared().client().persist(one.keys.lease("BTCUSDT"))
        await other.claim("BTCUSDT")
        with pytest.raises(Leased):
            await one.claim("BTCUSDT")


async def test_a_restart_of_a_server_that_saves_ends_no_lease_early() -> None:
    with run_server("--appendonly", "yes", "--appendfsync", "always") as server:
        async with redis_nodes(server.url, 10, 5.0) as make:
            one, other = await make(), await make()
            token = await one.claim("BTCUSDT")
            server.kill()
            server.start()
            with pytest.raises(Leased) as refused:
                await other.claim("BTCUSDT")
            assert refused.value.owner == one.node
            await one.renew("BTCUSDT", report_of(one), token=token)


# --- a server that hangs


async def test_a_renewal_is_given_up_in_time_and_the_next_one_keeps_the_lease() -> None:
    with run_server() as server:
        async with redis_store(server.url, deadline=0.3) as store:
            token = await store.claim("BTCUSDT")
            server.signal(signal.SIGSTOP)
            with within(1):
                with pytest.raises(StoreUnavailable, match=r"within 0\.3 s"):
                    await store.renew("BTCUSDT", report_of(store), token=token)
                with pytest.raises(StoreUnavailable, match=r"within 0\.3 s"):
                    await store.attend(Member("one"))
            server.signal(signal.SIGCONT)
            await store.renew("BTCUSDT", report_of(store), token=token)


# --- as calls


async def test_leases_wait_neither_for_commits_nor_for_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    async with redis_store(shared().url) as store:
        execute = store._servers.execute

        def slow(calls: Sequence[Call]) -> list[Outcome]:
            if calls[0].script in (scripts.COMMIT, scripts.READ):
                time.sleep(0.7)
            return execute(calls)

        monkeypatch.setattr(store._servers, "execute", slow)
        token = await store.claim("BTCUSDT")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(store.commit, BTC, begin(candle()), token=token))
            nursery.start_soon(store.read, BTC)
            await trio.sleep(0.05)
            with within(0.4):
                await store.renew("BTCUSDT", report_of(store), token=token)
                await store.attend(Member("one"))
                await store.claim("ETHUSDT")


async def test_renewals_that_are_ready_together_go_together() -> None:
    async with redis_store(shared().url) as store:
        tokens = {f"S{number}USDT": await store.claim(f"S{number}USDT") for number in range(200)}
        before = store.statistics().pipelines
        async with trio.open_nursery() as nursery:
            for symbol, token in tokens.items():
                nursery.start_soon(partial(store.renew, symbol, report_of(store), token=token))
            nursery.start_soon(store.attend, Member("one"))
        assert store.statistics().pipelines - before <= 2


# --- who is there


async def test_only_what_has_changed_is_fetched_and_nothing_is_left_of_those_that_are_gone() -> None:
    async with redis_nodes(shared().url, 10, 0.5) as make:
        one, other, third = await make(), await make(), await make()
        asked = fetches_of(one)
        await third.attend(Member("third"))
        await other.attend(Member("other", {"BTCUSDT": (Interval.M1,)}))
        await one.attend(Member("one"))
        assert [set(nodes) for nodes in asked] == [{other.node, third.node}]
        for _ in range(3):
            assert len(await one.attend(Member("one", owns=("BTCUSDT",)))) == 3
        assert len(asked) == 1
        changed = Member("other", {"ETHUSDT": (Interval.M1,)})
        await other.attend(changed)
        assert (await one.attend(Member("one")))[other.node] == changed
        assert asked[1:] == [(other.node,)]
        await trio.sleep(0.6)
        assert await one.attend(Member("one")) == {one.node: Member("one")}
        client = shared().client()
        assert [client.zcard(one.keys.members[0]), *map(client.hlen, one.keys.members[1:])] == [1, 1, 1]
        await one.leave()
        assert client.exists(*one.keys.members) == 0


def fetches_of(store: RedisStore) -> list[tuple[object, ...]]:
    """Of which nodes it asks from now on what they say of themselves."""
    asked: list[tuple[object, ...]] = []
    execute = store._servers.execute

    def noted(calls: Sequence[Call]) -> list[Outcome]:
        asked.extend(call.arguments for call in calls if call.script == scripts.DESCRIBE)
        return execute(calls)

    store._servers.execute = noted  # type: ignore[method-assign] # to see what it is asked
    return asked


async def test_a_node_of_another_version_is_left_out_with_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    async with redis_nodes(shared().url, 10, 2.0) as make:
        one, other = await make(), await make()
        client = shared().client()
        await other.attend(Member("other"))
        _, versions, members = one.keys.members
        client.hset(versions, other.node, "later")
        client.hset(members, other.node, b"\x92\x07\x01")
        for _ in range(3):
            assert await one.attend(Member("one")) == {one.node: Member("one")}
        assert capsys.readouterr().out.count("left out") == 1
        await other.attend(Member("other"))
        assert await one.attend(Member("one")) == {one.node: Member("one"), other.node: Member("other")}


async def test_a_node_of_which_a_part_has_vanished_is_there_again_when_it_next_attends() -> None:
    async with redis_nodes(shared().url, 10, 2.0) as make:
        one, other = await make(), await make()
        client = shared().client()
        both = {one.node: Member("one"), other.node: Member("other")}
        for part in range(3):
            await other.attend(both[other.node])
            client.delete(one.keys.members[part])
            await one.attend(both[one.node])
            await other.attend(both[other.node])
            assert await one.attend(both[one.node]) == both
            third = await make()
            assert await third.attend(Member("third")) == both | {third.node: Member("third")}
            await third.leave()


# --- what a person is told


async def test_what_cannot_be_announced_is_done_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with run_server() as server:
        client = server.client()
        client.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "allkeys", "+@all", "resetchannels")
        async with redis_store(server.url.replace("//", "//mute:secret@")) as store:
            token = await store.claim("BTCUSDT")
            await store.renew("BTCUSDT", report_of(store), token=token)
            assert await store.attend(Member("one")) == {store.node: Member("one")}
            await store.leave()
            await store.release("BTCUSDT", Release(store.node), token=token)
            with pytest.raises(Fenced):
                await store.renew("BTCUSDT", report_of(store), token=token)
            assert store.statistics().unannounced == 4
    assert capsys.readouterr().out.count("cannot be announced") == 1


async def test_keys_of_another_type_are_named() -> None:
    async with redis_store(shared().url) as store:
        client = shared().client()
        client.rpush(store.keys.lease("BTCUSDT"), "somebody's")
        client.rpush(store.keys.members[0], "somebody's")
        before = dump(shared(), store.settings.prefix)
        with pytest.raises(StoreUnavailable, match="of another type, and so not ours") as failure:
            await store.claim("BTCUSDT")
        assert store.keys.lease("BTCUSDT") in str(failure.value)
        with pytest.raises(StoreUnavailable, match="of another type, and so not ours"):
            await store.attend(Member("one"))
        assert dump(shared(), store.settings.prefix) == before
