"""Who owns what where nodes share a store: what each gets, says and gives, in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.report import Report
from candlesync.core.sync import State
from candlesync.leases import LeaseSettings
from candlesync.store.base import SharedStore
from tests.leasing import BEAT, LEASE, SETTINGS, SYMBOLS, Node, World, a_world
from tests.shared_store import SharedMemory

# --- who gets what


async def test_nodes_that_start_together_share_from_the_start(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        for identity in "abc":
            await world.start(identity)
            await trio.sleep(0.1)
        await world.until_all_owned(BEAT + 0.1)
        assert world.loads == [4, 4, 4]
        await trio.sleep(60)
        assert world.loads == [4, 4, 4]
        assert sum(node.leases.claims for node in world.nodes.values()) == len(SYMBOLS), "nobody changed its mind"
        assert world.server.calls["claim"] == len(SYMBOLS)


async def test_a_node_alone_owns_everything_after_a_beat(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        node = await world.start("a")
        assert await world.until_all_owned(1) == pytest.approx(BEAT, abs=0.02)
        assert node.owned == set(SYMBOLS)
        assert node.leases.owners() == dict.fromkeys(sorted(SYMBOLS), "name of a")


async def test_each_node_knows_who_is_there_and_who_owns_what(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        expected = {symbol: f"name of {owner}" for symbol, owner in world.server.owners().items()}
        for node in world.nodes.values():
            assert node.leases.owners() == expected
            assert set(node.leases.members) == {"a", "b"}
            assert node.leases.tenures.keys() == node.owned
            assert node.leases.last_error == ""
            assert node.leases.members["b"] == Member(
                "name of b",
                dict.fromkeys(sorted(SYMBOLS), (Interval.M1,)),
                tuple(sorted(world.nodes["b"].owned)),
            )


async def test_a_symbol_that_somebody_asks_for_is_owned_at_once(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        world.nodes["a"].follow("NEWUSDT")
        await wait_all_tasks_blocked()
        assert world.server.owner("NEWUSDT") == "a"
        await trio.sleep(1)
        world.nodes["b"].follow("NEWUSDT")
        await trio.sleep(10)
        assert world.server.owner("NEWUSDT") == "a"
        assert world.nodes["b"].leases.claims == 6


async def test_a_symbol_that_two_nodes_are_asked_for_at_once_gets_one_owner(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        for node in world.nodes.values():
            node.follow("NEWUSDT")
        await wait_all_tasks_blocked()
        assert len(world.current("NEWUSDT")) == 1
        await trio.sleep(10)
        assert sum(node.leases.claims for node in world.nodes.values()) == 13


async def test_only_who_wants_a_symbol_owns_it(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        for identity, wants in {"a": SYMBOLS[:8], "b": SYMBOLS[6:], "c": []}.items():
            await world.start(identity, wants)
        await trio.sleep(10)
        assert world.loads == [6, 6]
        assert world.nodes["a"].owned <= set(SYMBOLS[:8])
        assert world.nodes["b"].owned <= set(SYMBOLS[6:])


async def test_a_node_whose_task_of_a_symbol_does_not_run_is_not_given_it(autojump_clock: MockClock) -> None:
    """It would be handed over, not be claimed, come back, and be handed over again."""
    async with a_world() as world:
        node = await world.start("a", SYMBOLS)
        await world.start("b", [])
        world.nodes["b"].wants.update(node.wants)  # followed, but their tasks have died
        await trio.sleep(60)
        assert node.leases.claims == len(SYMBOLS)
        assert node.reasons == []


# --- coming and going


async def test_a_node_that_joins_takes_its_share_and_no_more_moves_than_that(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        before = world.server.owners()
        node = await world.start("c")
        await trio.sleep(4)
        assert world.loads == [4, 4, 4]
        assert node.leases.claims == 4
        assert {before[symbol] for symbol in node.owned} == {"a", "b"}
        handed_over = [node.leases.hand_overs for node in world.nodes.values()]
        assert handed_over == [2, 2, 0]
        assert all(world.nodes[identity].reasons == ["the symbol goes to name of c"] * 2 for identity in "ab")
        assert node.leases.losses == world.nodes["a"].leases.losses == 0
        await trio.sleep(60)
        assert world.server.calls["claim"] == 16


async def test_a_symbol_that_is_handed_over_is_owned_again_at_once(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        node = await world.start("b")
        seconds_without = 0.0
        for _ in range(500):
            seconds_without += 0.01 * (len(SYMBOLS) - len(world.server.owners()))
            await trio.sleep(0.01)
        assert world.loads == [6, 6]
        assert seconds_without == 0
        assert node.leases.claims == 6


async def test_symbols_are_handed_over_a_few_at_a_beat(autojump_clock: MockClock) -> None:
    """Each has no feed until its new owner has connected, and Binance limits connections."""
    async with a_world() as world:
        few = LeaseSettings(hand_overs=2)
        await world.start("a", settings=few)
        await trio.sleep(2)
        node = await world.start("b", settings=few)
        counts = []
        for _ in range(10):
            await trio.sleep(BEAT)
            counts.append(len(node.owned))
        assert counts[-1] == 6
        assert {after - before for before, after in pairwise(counts)} == {0, 2}


async def test_a_node_that_leaves_gives_its_symbols_up_at_once_and_names_who_is_to_have_them(
    autojump_clock: MockClock,
) -> None:
    async with a_world("a", "b", "c") as world:
        leaving = world.nodes["a"]
        left = leaving.owned
        leaving.leases.resign()
        assert leaving.owned == set()
        await wait_all_tasks_blocked()
        assert set(world.server.owners()) == set(SYMBOLS)
        assert world.loads == [6, 6]
        assert leaving.reasons == ["the node is leaving"] * len(left)
        assert set(world.server.presences) == {"b", "c"}
        assert [node.leases.claims for node in world.nodes.values()] == [4, 6, 6]
        assert world.server.calls["claim"] == 16, "each was claimed by its successor, and nobody else tried"
        assert leaving.leases.losses == leaving.leases.hand_overs == 0
        await trio.sleep(60)
        assert world.loads == [6, 6]
        assert leaving.leases.claims == 4, "it claims nothing more"


async def test_a_node_that_leaves_while_it_claims_gives_that_up_too(autojump_clock: MockClock) -> None:
    async with a_world("b") as world:
        leaving = await world.start("a", ["NEWUSDT"])
        leaving.store.latency = 0.2
        leaving.wants = dict.fromkeys(["NEWUSDT"], (Interval.M1,))
        with trio.fail_after(5):
            while leaving.store.calls["claim"] == 0:  # noqa: ASYNC110 - looks at what gives no sign
                await trio.sleep(0.01)
        leaving.leases.resign()
        await trio.sleep(1)
        assert leaving.reasons == ["the node is leaving"]
        assert "NEWUSDT" not in world.server.tokens, "it is released"


async def test_a_node_that_leaves_while_the_store_is_away_does_so_in_a_bounded_time(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        node = world.nodes["a"]
        node.store.cut_off, node.store.patience = True, 60.0
        node.leases.resign()
        started = trio.current_time()
        with trio.fail_after(10):
            while node.leases.tenures:  # noqa: ASYNC110 - looks at what gives no sign
                await trio.sleep(0.01)
        assert trio.current_time() - started == pytest.approx(SETTINGS.farewell, abs=0.02)


async def test_that_an_owner_is_cancelled_does_not_keep_it_from_releasing(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        world.nodes["a"].store.latency = 0.1
        world.nodes["a"].stop()
        await trio.sleep(0.3)
        assert world.loads == [12]
        assert world.nodes["b"].leases.claims == 12


async def test_an_owner_that_is_killed_is_followed_by_the_preferred_at_the_end_of_its_lease(
    autojump_clock: MockClock,
) -> None:
    for moment in range(5):
        async with a_world("a", "b", "c") as world:
            await trio.sleep(moment * BEAT / 5)
            left = world.nodes["a"].owned
            world.nodes["a"].kill()
            assert await world.until_all_owned(LEASE + 0.1, []) == 0
            seconds = 0.0
            with trio.fail_after(LEASE + 0.1):
                while not left <= world.nodes["b"].owned | world.nodes["c"].owned:
                    await trio.sleep(0.01)
                    seconds += 0.01
            assert LEASE - BEAT <= seconds <= LEASE + 0.02
            assert world.loads == [6, 6]
            assert world.server.calls["claim"] == 16, "each was claimed once, by whom it was placed with"


async def test_of_two_that_die_together_the_third_takes_over_a_little_later(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        world.nodes["a"].kill()
        world.nodes["b"].kill()
        await trio.sleep(LEASE + SETTINGS.stagger + 0.1)
        assert world.nodes["c"].owned == set(SYMBOLS)


async def test_a_successor_that_died_costs_a_little_time(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        world.nodes["a"].kill()
        await trio.sleep(0.1)
        released = world.nodes["b"].owned
        world.nodes["b"].leases.resign()
        await trio.sleep(0.1 + SETTINGS.stagger)
        assert released <= world.nodes["c"].owned
        await trio.sleep(LEASE)
        assert world.nodes["c"].owned == set(SYMBOLS)


# --- renewals and reports


async def test_an_owner_reports_at_each_beat_and_at_once_when_a_state_changes(autojump_clock: MockClock) -> None:
    heard: list[tuple[float, State]] = []

    class Follower(Node):
        def reported(self, symbol: str, report: Report) -> None:
            super().reported(symbol, report)
            assert report.owner == "a"
            heard.append((trio.current_time(), report.series[Interval.M1].state))

    async with trio.open_nursery() as nursery:
        world = World(nursery)
        owner = await world.start("a", ["BTCUSDT"])
        await trio.sleep(2)
        await nursery.start(Follower(world.server, "b", ["BTCUSDT"]).run)
        await trio.sleep(5)
        gaps = {round(after - before, 6) for (before, _), (after, _) in pairwise(heard)}
        assert gaps == {BEAT}
        heard.clear()
        await trio.sleep(0.1)
        owner.state = State.STALE
        owner.leases.state_changed(owner.leases.tenures["BTCUSDT"])
        await wait_all_tasks_blocked()
        assert heard[-1] == (trio.current_time(), State.STALE)
        nursery.cancel_scope.cancel()


async def test_of_one_symbol_one_renewal_is_under_way_and_one_more_after_it(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        owner = await world.start("a", ["BTCUSDT"])
        await trio.sleep(2.01)
        owner.store.latency = 0.1
        before = owner.store.calls["renew"]
        for _ in range(10):
            owner.leases.state_changed(owner.leases.tenures["BTCUSDT"])
            await trio.sleep(0.001)
        assert owner.store.calls["renew"] == before + 1
        await trio.sleep(0.3)
        assert owner.store.calls["renew"] == before + 2


async def test_a_new_owner_says_so_at_once(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        node = await world.start("a")
        await world.until_all_owned(1)
        await wait_all_tasks_blocked()
        assert node.store.calls["renew"] == len(SYMBOLS)


async def test_at_most_a_second_renewal_is_under_way_while_the_first_is_not_answered(
    autojump_clock: MockClock,
) -> None:
    async with a_world() as world:
        node = await world.start("a", ["BTCUSDT"])
        await trio.sleep(2.1)
        node.store.latency = 1.2
        node.store.calls.clear()
        await trio.sleep(20)
        assert node.store.calls["renew"] <= 24
        node.store.cut_off, node.store.patience = True, 1000.0
        await trio.sleep(SETTINGS.hold - 1)
        assert node.leases._nursery is not None
        assert len(node.leases._nursery.child_tasks) <= 4, "each ends after a time"


async def test_a_slow_store_costs_no_lease(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        for node in world.nodes.values():
            node.store.latency = 1.2
        await trio.sleep(60)
        assert [node.leases.losses for node in world.nodes.values()] == [0, 0]
        assert [node.leases.claims for node in world.nodes.values()] == [6, 6]


async def test_what_a_tenure_that_was_given_up_says_is_ignored(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        leases = world.nodes["a"].leases
        old = leases.tenures["S0USDT"]
        old.end("by whoever owns it")
        await wait_all_tasks_blocked()
        new = leases.tenures["S0USDT"]
        assert new is not old
        before = world.server.calls.copy()
        leases.state_changed(old)
        await leases.give_up(old)
        await wait_all_tasks_blocked()
        assert world.server.calls == before
        assert leases.tenures["S0USDT"] is new


async def test_a_tenure_that_has_ended_is_renewed_no_more_and_not_handed_over_twice(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        node = world.nodes["a"]
        node.closing = 6.0
        await world.start("b")
        await trio.sleep(4)
        assert len(node.owned) == 6
        node.store.calls.clear()
        await trio.sleep(1)
        assert node.store.calls["renew"] == 12, "six of them at two beats"
        await trio.sleep(10)
        assert node.leases.hand_overs == 6


async def test_what_a_node_wants_it_says_at_once(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        node = world.nodes["a"]
        node.wants["NEWUSDT"] = (Interval.M1,)
        await trio.sleep(BEAT / 2)
        with trio.move_on_after(0.01):
            await node.leases.obtain("NEWUSDT", dict)
        await wait_all_tasks_blocked()
        assert "NEWUSDT" in world.server.presences["a"].member.wants


async def test_what_others_want_of_ones_own_symbols_is_kept(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        owner = await world.start("a", settings=LeaseSettings(hand_overs=0))
        other = await world.start("b", [])
        await trio.sleep(2)
        assert not owner.kept
        other.wants["S0USDT"] = (Interval.M1, Interval.H1)
        other.follow("S1USDT")
        other.wants["S0USDT"] = (Interval.M1, Interval.H1)
        assert other._nursery is not None
        other._nursery.start_soon(other._follow, "S0USDT")
        await trio.sleep(2 * BEAT)
        expected = {Series("S0USDT", Interval.M1), Series("S0USDT", Interval.H1), Series("S1USDT", Interval.M1)}
        assert owner.kept.keys() == expected
        assert not other.kept
        await trio.sleep(10)
        assert min(owner.kept.values()) >= 20, "at each beat"


def test_the_store_of_a_test_is_one_that_nodes_share() -> None:
    store: SharedStore = SharedMemory(10).node("a")
    assert store.lease == LEASE
