"""The shared store of the tests, and its faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.core.placement import Member
from candlesync.core.position import Position
from candlesync.core.replica import Commit
from candlesync.core.report import Release, Report
from candlesync.errors import Fenced, Leased, StoreUnavailable
from candlesync.store.base import SharedStore, Store
from tests.builders import BTC, candle, forming, minute, minutes
from tests.shared_store import NodeStore, SharedMemory
from tests.store.contract import StoreContract
from tests.store.shared_contract import Ear, MakeNode, SharedStoreContract

BEGIN = Commit("life0", 1, (forming(minute(0)),), begins=True)
NEXT = Commit("life0", 2, (candle(minute(0)),))
ALL = {"claim", "read", "position", "commit", "forget", "renew", "release", "attend", "leave"} | {
    "keep_departures",
    "take_departures",
}


class TestNodeStore(StoreContract):
    """As a store, like any other."""

    @staticmethod
    @asynccontextmanager
    async def open_store(history: int) -> AsyncIterator[Store]:
        yield SharedMemory(history).node("a")


class Nodes(SharedStoreContract):
    """As a store that nodes share: run by `test_contract`, in virtual time."""

    @staticmethod
    @asynccontextmanager
    async def open_nodes(history: int, lease: float) -> AsyncIterator[MakeNode]:
        server, names = SharedMemory(history, lease), iter("abcdefgh")

        async def make() -> SharedStore:
            return server.node(next(names))

        yield make


@pytest.mark.parametrize("name", [name for name in dir(Nodes) if name.startswith("test_")])
async def test_contract(autojump_clock: MockClock, name: str) -> None:
    await getattr(Nodes(), name)()


class Listener(Ear):
    """Writes down what is announced, one line each."""

    @property
    def lines(self) -> list[str]:
        return [" ".join(_short(word) for word in told) for told in self.heard]


def _short(word: object) -> str:
    match word:
        case Commit(revision=revision):
            return str(revision)
        case Report(owner=owner) | Release(owner=owner):
            return owner
        case _:
            return str(word)


async def call_all(node: SharedStore, token: int = 0) -> set[str]:
    """Every method once; those that gave `StoreUnavailable`."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "claim": lambda: node.claim("ETHUSDT"),
        "read": lambda: node.read(BTC),
        "position": lambda: node.position(BTC),
        "commit": lambda: node.commit(BTC, NEXT, token=token),
        "forget": lambda: node.forget(BTC, token=token),
        "renew": lambda: node.renew("BTCUSDT", Report(node.node, {}), token=token),
        "release": lambda: node.release("BTCUSDT", Release(node.node), token=token),
        "attend": lambda: node.attend(Member("a")),
        "leave": node.leave,
        "keep_departures": lambda: node.keep_departures([], []),
        "take_departures": lambda: node.take_departures([], 0),
    }
    assert set(calls) == ALL
    failed = set()
    for name, call in calls.items():
        try:
            await call()
        except StoreUnavailable:
            failed.add(name)
    return failed


async def begun(server: SharedMemory, identity: str = "a") -> tuple[NodeStore, int]:
    node = server.node(identity)
    token = await node.claim("BTCUSDT")
    await node.commit(BTC, BEGIN, token=token)
    return node, token


async def test_a_claim_waits_for_another_nodes_lease_to_end(autojump_clock: MockClock) -> None:
    server = SharedMemory(10, lease=2.0)
    one, other = server.node("a"), server.node("b")
    token = await one.claim("BTCUSDT")
    assert await one.claim("BTCUSDT") > token, "a node may claim again what it holds"
    await trio.sleep(1.5)
    with pytest.raises(Leased, match=r"owned by node a for 0\.5 s more") as refusal:
        await other.claim("BTCUSDT")
    await trio.sleep(refusal.value.seconds)
    assert server.owners() == {}
    token = await other.claim("BTCUSDT")
    assert server.owners() == {"BTCUSDT": "b"}
    with pytest.raises(Leased):
        await one.claim("BTCUSDT")
    await other.renew("BTCUSDT", Report("b", {}), token=token)
    await other.release("BTCUSDT", Release("b"), token=token)
    await one.claim("BTCUSDT")
    for void in (token, token - 1):
        with pytest.raises(Fenced):
            await other.renew("BTCUSDT", Report("b", {}), token=void)
        with pytest.raises(Fenced):
            await other.commit(BTC, BEGIN, token=void)
        with pytest.raises(Fenced):
            await other.release("BTCUSDT", Release("b"), token=void)
        with pytest.raises(Fenced):
            await other.forget(BTC, token=void)


async def test_a_lease_that_has_ended_is_renewed_unless_somebody_has_claimed(autojump_clock: MockClock) -> None:
    server = SharedMemory(10, lease=2.0)
    one, other = server.node("a"), server.node("b")
    token = await one.claim("BTCUSDT")
    await trio.sleep(10)
    await one.renew("BTCUSDT", Report("a", {}), token=token)
    with pytest.raises(Leased):
        await other.claim("BTCUSDT")
    await trio.sleep(10)
    await other.claim("BTCUSDT")
    with pytest.raises(Fenced):
        await one.renew("BTCUSDT", Report("a", {}), token=token)


async def test_who_does_not_attend_is_not_there(autojump_clock: MockClock) -> None:
    server = SharedMemory(10, lease=2.0)
    one, other = server.node("a"), server.node("b")
    listener = Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(other.listen, listener)
        await wait_all_tasks_blocked()
        assert await one.attend(Member("one")) == {"a": Member("one")}
        await trio.sleep(1.5)
        assert await other.attend(Member("other")) == {"a": Member("one"), "b": Member("other")}
        await other.attend(Member("other"))
        await trio.sleep(1)
        assert await other.attend(Member("other", owns=("BTCUSDT",))) == {"b": Member("other", owns=("BTCUSDT",))}
        await one.attend(Member("one"))
        await one.leave()
        assert set(await other.attend(Member("other"))) == {"b"}
        assert listener.lines == ["listening", *["assembled"] * 6]
        nursery.cancel_scope.cancel()


async def test_each_node_hears_in_order_what_happens(autojump_clock: MockClock) -> None:
    server = SharedMemory(100)
    node, token = await begun(server)
    late, early = Listener(), Listener()
    distant = server.node("b")
    distant.announcement_delay = 1.0
    distant.misses = {"reported"}
    async with trio.open_nursery() as nursery:
        await nursery.start(node.listen, early)
        await nursery.start(distant.listen, late)
        await wait_all_tasks_blocked()
        await node.commit(BTC, NEXT, token=token)
        await node.commit(BTC, Commit("life0", 3, tuple(minutes(1, 17))), token=token)
        await node.renew("BTCUSDT", Report("a", {}), token=token)
        expected = ["listening", "committed BTCUSDT 1m 2", "moved BTCUSDT 1m life0-3", "reported BTCUSDT a"]
        assert early.lines == expected
        await trio.sleep(0.5)
        distant.announcement_delay = 0.0
        await node.release("BTCUSDT", Release("a"), token=token)
        assert early.lines[-1] == "released BTCUSDT a"
        assert late.lines == ["listening"]
        await trio.sleep(0.51)
        assert late.lines == [*expected[:3], "released BTCUSDT a"]
        nursery.cancel_scope.cancel()


async def test_nothing_works_while_the_server_is_down(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    node, token = await begun(server)
    listener = Listener()
    async with trio.open_nursery() as nursery:
        server.down = True
        await nursery.start(node.listen, listener)
        await wait_all_tasks_blocked()
        assert await call_all(node, token) == ALL
        server.down = False
        assert await call_all(node, token) == set()
        assert listener.lines[:3] == ["deaf the store is down", "listening", "committed BTCUSDT 1m 2"]
        server.down = True
        assert listener.lines[-1] == "deaf the store is down"
        nursery.cancel_scope.cancel()


async def test_a_node_that_is_cut_off_is_so_alone(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    node, token = await begun(server)
    listener = Listener()
    cut = server.node("b")
    async with trio.open_nursery() as nursery:
        await nursery.start(cut.listen, listener)
        await wait_all_tasks_blocked()
        cut.announcement_delay = 1.0
        await node.commit(BTC, NEXT, token=token)
        cut.cut_off, cut.patience = True, 3.0
        started = trio.current_time()
        assert await call_all(cut) == ALL
        assert trio.current_time() - started == pytest.approx(33)
        cut.cut_off = False
        await trio.sleep(2)
        assert listener.lines == ["listening", "deaf the node is cut off", "listening"], "what was on its way is lost"
        nursery.cancel_scope.cancel()


async def test_a_listener_that_has_lost_its_connection_hears_nothing_and_the_node_can_ask(
    autojump_clock: MockClock,
) -> None:
    server = SharedMemory(10)
    node, token = await begun(server)
    listener = Listener()
    other = server.node("b")
    other.deafened = True
    async with trio.open_nursery() as nursery:
        await nursery.start(other.listen, listener)
        await wait_all_tasks_blocked()
        await node.commit(BTC, NEXT, token=token)
        assert (await other.position(BTC)) == Position("life0", 2)
        server.down = True
        server.down = other.deafened = False
        assert listener.lines == ["deaf the listener has lost its connection", "listening"]
        nursery.cancel_scope.cancel()


async def test_a_frozen_nodes_calls_happen_when_it_is_thawed(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    node, token = await begun(server)
    frozen = server.node("b")
    listener = Listener()
    claimed: list[float] = []

    async def claim() -> None:
        await frozen.claim("ETHUSDT")
        claimed.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        await nursery.start(frozen.listen, listener)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        frozen.frozen = True
        nursery.start_soon(claim)
        await node.commit(BTC, NEXT, token=token)
        with trio.move_on_after(1) as scope:
            await frozen.read(BTC)
        assert scope.cancelled_caught
        assert (claimed, listener.lines, server.owners()) == ([], ["listening"], {"BTCUSDT": "a"})
        frozen.frozen = False
        await wait_all_tasks_blocked()
        assert (claimed, listener.lines[1:]) == ([started + 1], ["committed BTCUSDT 1m 2"])
        assert server.owners() == {"BTCUSDT": "a", "ETHUSDT": "b"}
        nursery.cancel_scope.cancel()


async def test_an_answer_that_is_lost_is_no_sign_that_nothing_happened(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    node, token = await begun(server)
    node.lose_answers = ALL
    assert await call_all(node, token) == ALL
    assert server.owners() == {"ETHUSDT": "a"}
    assert server.series[BTC].revision == 2
    assert node.calls == server.calls == dict.fromkeys(ALL, 1) | {"claim": 2, "commit": 2}


async def test_an_old_replica_promoted_has_its_old_tokens_and_gives_out_new_ones(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    node, token = await begun(server)
    old = server.snapshot()
    await node.commit(BTC, NEXT, token=token)
    newer = await node.claim("BTCUSDT")
    server.rollback(old)
    assert await node.position(BTC) == Position("life0", 1)
    with pytest.raises(Fenced):
        await node.commit(BTC, NEXT, token=newer)
    await node.commit(BTC, NEXT, token=token)
    assert await node.claim("BTCUSDT") > newer
    server.wipe()
    assert await node.read(BTC) is None
    with pytest.raises(Fenced):
        await node.commit(BTC, BEGIN, token=token)
    server.rollback(old)
    assert await node.position(BTC) == Position("life0", 1), "a snapshot does not change"


async def test_latency_is_half_before_and_half_after(autojump_clock: MockClock) -> None:
    server = SharedMemory(10)
    node, token = await begun(server)
    node.latency = 1.0
    with trio.move_on_after(0.4):
        await node.commit(BTC, NEXT, token=token)
    assert server.series[BTC].revision == 1
    with trio.move_on_after(0.6):
        await node.commit(BTC, NEXT, token=token)
    assert server.series[BTC].revision == 2
