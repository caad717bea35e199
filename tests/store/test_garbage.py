"""What somebody else has written into our keys, or announced on our channels: an error of the contract, or nothing."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from candlesync.announcements import Announcements
from candlesync.core import wire
from candlesync.core.departure import Found, Stop
from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import State
from candlesync.errors import Fenced, Leased, NotContinuous, RevisionConflict, StoreUnavailable
from candlesync.follower import Follower
from candlesync.hub import Hub
from candlesync.store.announcing import decode_announced, encode_report
from candlesync.store.codec import Keys, encode_candle, encode_commit
from candlesync.store.memory import MemoryStore
from candlesync.store.redis import RedisStore
from tests.builders import BTC, candle, minute, minutes
from tests.store.contract import begin, follow
from tests.store.redis_server import redis_store, shared

OURS = (Fenced, Leased, NotContinuous, RevisionConflict, StoreUnavailable)
MEMBER = Member("node", {"BTCUSDT": (Interval.M1,)}, ("BTCUSDT",))
NOISE = [
    *(
        b"",
        b"0",
        b"-1",
        b"1",
        b"nan",
        b"inf",
        b"1e400",
        b"9" * 400,
        b"\xff\xfe",
        "é".encode(),
        b"a\r\nb",
        b"x" * 100_000,
    ),
    *(encode_candle(candle(minute(7)), 3), msgspec.msgpack.encode([1] * 14), msgspec.msgpack.encode({"a": [None]})),
    b"\x91" * 2000,
    msgspec.msgpack.encode([1, "1", "x", -5, None]),
]


def overwrite(client: Any, key: bytes, chance: random.Random) -> None:
    """Write something else where something of ours stands: of another type, or in one place of it."""
    noise = [chance.choice(NOISE) for _ in range(3)]
    kind = client.type(key)
    match chance.randrange(8):
        case 0:
            client.set(key, noise[0])
        case 1:
            client.delete(key)
            client.rpush(key, *noise)
        case 2:
            client.delete(key)
            client.hset(key, mapping=dict.fromkeys(noise, b"1"))
        case 3:
            client.delete(key)
            client.zadd(key, dict.fromkeys(noise, chance.choice([0, 1e300, -1])))
        case _ if kind == b"hash":
            field = chance.choice(list(client.hkeys(key)) or [b"x"])
            client.hset(key, field, noise[0])
        case _ if kind == b"list":
            client.lset(key, chance.randrange(client.llen(key)), noise[0])
        case _ if kind == b"zset":
            client.zadd(key, {noise[0]: chance.choice([1e300, 2**53, 1e15])})
        case _:
            client.set(key, noise[0])


def all_keys(client: Any) -> set[bytes]:
    return set(client.scan_iter())


async def all_calls(store: RedisStore, chance: random.Random) -> None:
    """Each method once, in any order; each may fail in the contract's words, and no other."""
    token = 0

    async def claim() -> None:
        nonlocal token
        token = await store.claim("BTCUSDT")

    async def read() -> None:
        snapshot = await store.read(BTC)
        if snapshot is not None:
            snapshot.check(BTC)

    calls: list[Callable[[], Awaitable[object]]] = [
        claim,
        read,
        lambda: store.position(BTC),
        lambda: store.commit(BTC, follow(2, candle(minute(10))), token=token),
        lambda: store.commit(BTC, begin(*minutes(0, 9), life="life1", replaces="life0"), token=token),
        lambda: store.renew("BTCUSDT", Report(store.node, {}), token=token),
        lambda: store.attend(MEMBER),
        lambda: store.keep_departures([Stop("a", 1, 1)], [Stop("b", 1, 1)]),
        lambda: store.take_departures(["a", "b"], 0),
        lambda: store.members(),  # noqa: PLW0108 - as the others
        lambda: store.release("BTCUSDT", Release(store.node, ""), token=token),
        lambda: store.forget(BTC, token=token),
        lambda: store.leave(),  # noqa: PLW0108 - as the others
    ]
    chance.shuffle(calls)
    for call in calls:
        said = ""
        try:
            await call()
        except OURS as error:
            said = str(error)
        assert len(said) < 1000, "what was found may be long"


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_stands_in_our_keys_is_an_error_of_the_contract_and_heals_when_it_is_gone(seed: int) -> None:
    chance = random.Random(seed)
    async with redis_store(shared().url, 10) as store:
        client = shared().client()
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(*minutes(0, 9)), token=token)
        await store.attend(MEMBER)
        await store.keep_departures([Stop("a", 1, 1)], [Stop("b", 1, 2)])
        keys = sorted(key for key in all_keys(client) if key.startswith(f"{store.settings.prefix}:".encode()))
        others = all_keys(client) - {*keys}
        assert len(keys) == 10
        for _ in range(chance.randint(1, 4)):
            overwrite(client, chance.choice(keys), chance)
        await all_calls(store, chance)
        await all_calls(store, chance)
        assert all_keys(client) - {*keys} <= others
        # And once what was written is gone, it is as on the first day.
        client.delete(*keys)
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(*minutes(0, 9), life="life9"), token=token)
        snapshot = await store.read(BTC)
        assert snapshot is not None
        assert [made for made, _ in snapshot.candles] == minutes(0, 9)
        assert (await store.attend(MEMBER))[store.node] == MEMBER
        assert await store.keep_departures([Stop("a", 1, 1)], [Stop("b", 2, 1)]) == 1
        assert (await store.take_departures(["b"], 0))[1] == [Found(2)]


KEYS = Keys("p", 0)
things = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**63) | st.text(max_size=12) | st.binary(max_size=12) | st.floats(),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
reports = st.builds(
    lambda state, life, revision: encode_report(
        Report("other", {Interval.M1: SeriesReport(state, begin(candle(), life=life).position)})
    ).replace(b"\x01\x90", bytes([revision])),
    st.sampled_from(State),
    st.sampled_from(["", "life0", "life1", "é", "L", "a" * 40]),
    st.integers(0, 255),
)
commits = st.builds(
    lambda revision, life, replaces, begins, first, count, text: encode_commit(
        BTC,
        (begin if begins else follow)(
            *(() if begins else (revision,)),
            *(candle(minute(at), close=text) for at in range(first, first + count)),
            **({"life": life, "replaces": replaces} if begins else {"life": life}),
        ),
        "id",
    )[1],
    st.integers(1, 4),
    st.sampled_from(["life0", "life1", "é", "", "L", "a" * 40]),
    st.sampled_from(["", "life0", "life1", "é"]),
    st.booleans(),
    st.integers(5, 12),
    st.integers(1, 4),
    st.sampled_from(["37012.31000000", "1", "NaN", '1,"closed":false', "é", "-1", ""]),
)
announced = st.one_of(
    st.binary(max_size=40),
    things.map(msgspec.msgpack.encode),
    commits,
    reports,
    st.tuples(commits, st.integers(0, 9), things).map(
        lambda made: msgspec.msgpack.encode(
            [made[2] if at == made[1] else value for at, value in enumerate(msgspec.msgpack.decode(made[0]))]
        )
    ),
)
channels = st.sampled_from([b"p@0:{BTCUSDT}", b"p@0:{nodes}", b"p@0:{\xff}", b"p@0:{ETHUSDT}", b"p@0:{}"])


@given(st.lists(st.tuples(channels, announced), max_size=12))
def test_whatever_is_announced_a_follower_shows_a_series_that_can_be_sent(said: list[tuple[bytes, bytes]]) -> None:
    async def main() -> None:
        hub = Hub(1000)
        topic = hub.open(BTC)
        store = MemoryStore(1000)
        token = await store.claim("BTCUSDT")
        await store.commit(BTC, begin(*minutes(0, 9)), token=token)
        announcements = Announcements("me")
        follower = Follower(topic, store, fresh_for=2.0)
        async with trio.open_nursery() as nursery:
            with announcements.following(BTC, follower):
                nursery.start_soon(follower.run)
                announcements.listening()
                await topic.begun()
                for channel, message in said:
                    try:
                        tell = decode_announced(KEYS, channel, message)
                    except ValueError:
                        continue
                    tell(announcements)
                    await trio.lowlevel.checkpoint()
                    # What any client would be sent now.
                    entries = topic.replica.newest(1000)
                    topic.replica.snapshot().check(BTC)
                    msgspec.json.decode(wire.history(BTC, entries))
                    for frame in wire.catch_up(BTC, entries, topic.replica.position):
                        msgspec.json.decode(frame)
            nursery.cancel_scope.cancel()

    trio.run(main)
