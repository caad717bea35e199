"""Who owns what where nodes share a store that has faults, and fail themselves, in virtual time."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.core.report import Report
from candlesync.leases import LeaseSettings
from tests.leasing import BEAT, LEASE, SETTINGS, SYMBOLS, Node, World, a_world
from tests.shared_store import NodeStore


async def test_a_node_that_is_stopped_for_longer_than_its_lease_ends_its_tenures(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        stopped = world.nodes["a"]
        stopped.store.frozen = True
        await trio.sleep(LEASE + 0.5)
        assert world.nodes["b"].owned == set(SYMBOLS)
        claims = world.server.calls["claim"]
        stopped.store.frozen = False
        await trio.sleep(0.05)
        assert stopped.owned == set()
        assert stopped.leases.losses == 6
        assert all("not the current one" in reason for reason in stopped.reasons)
        assert world.server.calls["claim"] == claims, "it waits for its turn"
        await trio.sleep(5)
        assert world.loads == [6, 6], "it takes its share again, handed over"
        assert world.nodes["b"].leases.hand_overs == 6
        assert world.nodes["b"].leases.losses == 0


async def test_a_node_that_is_stopped_for_less_than_its_lease_keeps_everything(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        for moment in range(10):
            await trio.sleep(5 + moment * 0.05)
            world.nodes["a"].store.frozen = True
            await trio.sleep(LEASE - BEAT - 0.1)
            world.nodes["a"].store.frozen = False
        await trio.sleep(5)
        assert [node.leases.claims for node in world.nodes.values()] == [6, 6]


async def test_after_a_stop_the_beats_that_were_missed_are_not_made_up_for(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        await trio.sleep(0.1)
        world.server.calls.clear()
        autojump_clock.jump(10)  # no task runs meanwhile
        await trio.sleep(BEAT / 2)
        assert world.server.calls["renew"] <= 2 * len(SYMBOLS)
        assert world.nodes["a"].owned == set(SYMBOLS)


async def test_a_node_that_is_cut_off_ends_its_tenures_after_the_hold(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        cut = world.nodes["a"]
        cut.store.cut_off = True
        await trio.sleep(SETTINGS.hold - 2 * BEAT)
        assert len(cut.owned) == 6
        assert world.nodes["b"].owned == set(SYMBOLS)
        assert cut.leases.last_error == "the node is cut off"
        assert set(cut.leases.members) == {"a", "b"}, "as it knew them"
        await trio.sleep(3 * BEAT)
        assert cut.owned == set()
        assert cut.reasons == ["the store has not confirmed the lease for 15 s"] * 6
        assert cut.leases.losses == 6
        cut.store.cut_off = False
        await trio.sleep(BEAT + 0.1)
        assert cut.leases.last_error == ""
        await trio.sleep(5)
        assert world.loads == [6, 6]


async def test_a_store_that_hangs_is_as_one_that_is_away(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        node = world.nodes["a"]
        node.store.cut_off, node.store.patience = True, 1000.0
        await trio.sleep(LEASE + 1)
        assert "in time" in node.leases.last_error
        await trio.sleep(SETTINGS.hold)
        assert node.owned == set()


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.25, 0.4])
async def test_calls_that_hang_do_not_keep_later_ones_from_being_made(autojump_clock: MockClock, moment: float) -> None:
    async with a_world("a", "b") as world:
        node = world.nodes["a"]
        await trio.sleep(moment)
        node.store.patience = 1000.0
        node.store.cut_off = True
        node.follow("NEWUSDT")
        await trio.sleep(0.9)
        node.store.cut_off = False
        await trio.sleep(4.5)
        assert node.leases.last_error == ""
        assert world.server.owner("NEWUSDT") == "a", "its claim was one of them"
        await trio.sleep(SETTINGS.hold)
        assert node.leases.losses == 0
        assert world.loads == [6, 7]


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.5, 1.9, 2.0, 2.1, 2.5, 3.0, 5.0, 12.0])
async def test_while_the_store_is_away_and_after_it_nobody_loses_anything(
    autojump_clock: MockClock, seconds: float
) -> None:
    for moment in range(8):
        async with a_world("a", "b", "c") as world:
            before = world.server.owners()
            await trio.sleep(moment * BEAT / 8)
            world.server.down = True
            await trio.sleep(seconds)
            world.server.down = False
            await trio.sleep(10)
            assert world.server.owners() == before
            assert [node.leases.losses for node in world.nodes.values()] == [0, 0, 0]
            assert world.server.calls["claim"] == len(SYMBOLS), "nobody even tried"


async def test_an_owner_that_dies_while_the_store_is_away_is_followed_a_lease_after_that(
    autojump_clock: MockClock,
) -> None:
    async with a_world("a", "b") as world:
        world.server.down = True
        await trio.sleep(3)
        world.nodes["a"].kill()
        world.server.down = False
        await trio.sleep(BEAT + LEASE + 0.1)
        assert world.nodes["b"].owned == set(SYMBOLS)


async def test_after_an_outage_longer_than_the_hold_all_is_owned_again(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        world.server.down = True
        await trio.sleep(60)
        assert world.owned == []
        world.server.down = False
        assert await world.until_all_owned(4) <= BEAT + LEASE + 0.1
        await trio.sleep(10)
        assert world.loads == [4, 4, 4]


async def test_after_a_wipe_each_owner_claims_its_own_again(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        before = world.server.owners()
        world.server.wipe()
        assert await world.until_all_owned(2) <= BEAT + 0.1
        assert world.server.owners() == before
        await trio.sleep(10)
        assert world.server.owners() == before
        assert [node.leases.claims for node in world.nodes.values()] == [8, 8, 8]


async def test_a_store_that_was_wiped_is_asked_again_before_the_next_beat(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        world.nodes["a"].store.misses = {"assembled"}
        world.nodes["a"].closing = 0.01  # so that it has given up after it attended
        await trio.sleep(BEAT - 0.1)
        world.server.wipe()
        assert await world.until_all_owned(2) <= 0.1 + BEAT / 2


async def test_after_a_store_comes_back_empty_each_owner_claims_its_own_again(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        before = world.server.owners()
        world.server.down = True
        world.server.wipe()
        await trio.sleep(5)
        world.server.down = False
        assert await world.until_all_owned(2) <= BEAT + 0.1
        assert world.server.owners() == before


async def test_after_an_old_replica_was_promoted_all_is_owned_again(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        old = world.server.snapshot()
        await world.start("c")
        await trio.sleep(5)
        world.server.rollback(old)
        await trio.sleep(2 * LEASE + 1)
        assert set(world.server.owners()) == set(SYMBOLS)
        assert world.owned == sorted(SYMBOLS)
        await trio.sleep(5)
        assert world.loads == [4, 4, 4]


async def test_a_release_that_was_not_heard_costs_the_rest_of_the_lease(autojump_clock: MockClock) -> None:
    async with a_world("a", "b") as world:
        world.nodes["b"].store.misses = {"released"}
        world.nodes["a"].leases.resign()
        await trio.sleep(LEASE + SETTINGS.stagger + 0.1)
        assert world.nodes["b"].owned == set(SYMBOLS)


async def test_a_node_that_hears_nothing_loses_nothing_and_takes_nothing(autojump_clock: MockClock) -> None:
    async with a_world("a", "b", "c") as world:
        before = world.server.owners()
        world.nodes["b"].store.misses = {"reported", "released", "assembled"}
        await trio.sleep(60)
        assert world.server.owners() == before
        assert world.nodes["b"].leases.claims == 4
        world.nodes["c"].kill()
        await trio.sleep(LEASE + 2 * SETTINGS.stagger + 0.1)
        assert world.loads == [6, 6]


async def test_a_node_that_hears_nothing_takes_its_share_all_the_same(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        node = Node(world.server, "b")
        node.store.misses = {"reported", "released", "assembled"}
        world.nodes["a"].store.announcement_delay = 0.1  # also of what it announces itself
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await trio.sleep(10)
            assert world.loads == [6, 6]
            assert node.leases.claims == 6, "what it was late to claim did not go back and forth"
            nursery.cancel_scope.cancel()


async def test_a_claim_whose_answer_was_lost_is_made_again(autojump_clock: MockClock) -> None:
    async with a_world() as world:
        node = await world.start("a")
        node.store.lose_answers = {"claim"}
        await trio.sleep(1)
        assert node.owned == set()
        node.store.lose_answers = set()
        await trio.sleep(BEAT + 0.1)
        assert node.owned == set(SYMBOLS)
        assert all(world.current(symbol) == [node.leases.tenures[symbol]] for symbol in SYMBOLS)


async def test_a_claim_that_another_was_heard_to_make_is_settled_at_once(autojump_clock: MockClock) -> None:
    async with a_world("a") as world:
        await trio.sleep(0.2)  # between two beats
        owner, usurper = world.nodes["a"], world.server.node("b")
        world.server.leases.clear()
        token = await usurper.claim("S0USDT")
        await trio.sleep(0.01)
        assert "S0USDT" in owner.owned
        await usurper.renew("S0USDT", Report("b", {}), token=token)
        await wait_all_tasks_blocked()
        assert "S0USDT" not in owner.owned


async def test_a_node_that_takes_nothing_is_offered_ever_less(autojump_clock: MockClock) -> None:
    """The store hears it, so it seems to be there; what it is answered does not reach it."""
    async with a_world("a") as world:
        owner = world.nodes["a"]
        numb = await world.start("b")
        numb.store.lose_answers = {"attend", "claim", "renew", "release"}
        await trio.sleep(300)
        assert owner.leases.hand_overs <= 6 * len(SYMBOLS), "not each few seconds"
        unowned = 0
        for _ in range(200):
            await trio.sleep(0.5)
            unowned += len(SYMBOLS) - len(owner.owned)
        assert unowned < 200 * len(SYMBOLS) / 20, "nearly all of the time all are owned"
        numb.store.lose_answers.clear()
        await trio.sleep(600)
        assert world.loads == [6, 6], "and yet it takes its share in the end"


async def test_the_tenure_of_a_wish_that_is_withdrawn_is_given_up(autojump_clock: MockClock) -> None:
    """A task that is cancelled while its claim is under way leaves a lease that ends by itself."""
    async with a_world("a", "b") as world:
        node = world.nodes["a"]
        node.store.latency = 1.0
        with trio.move_on_after(0.7):
            await node.leases.obtain("NEWUSDT", dict)
        assert world.server.owner("NEWUSDT") == "a"
        await trio.sleep(LEASE)
        assert world.server.owner("NEWUSDT") == ""
        assert "NEWUSDT" not in node.leases.tenures


# --- whatever happens


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_no_two_tenures_could_both_commit_and_in_the_end_all_is_owned(
    autojump_clock: MockClock, seed: int
) -> None:
    random = Random(seed)
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        settings = LeaseSettings(hold=random.choice([4.0, 15.0]))
        names = iter(f"node{number}" for number in range(1000))
        for _ in range(random.randint(1, 4)):
            await world.start(next(names), settings=settings)
        alive = list(world.nodes.values())
        saved = [world.server.snapshot()]
        nursery.start_soon(_watch, world)
        for node in alive:
            node.closing = random.choice([0.0, 0.3, 3.0])
        for _ in range(40):
            node = random.choice(alive)
            match random.randrange(13):
                case 0 | 1:
                    node.store.frozen = not node.store.frozen
                case 2 | 3:
                    node.store.cut_off = not node.store.cut_off
                case 4 if len(alive) < 6:
                    alive.append(await world.start(next(names), settings=settings))
                case 5 if len(alive) > 1:
                    alive.remove(node)
                    node.kill()
                case 6 if len(alive) > 1:
                    alive.remove(node)
                    node.leases.resign()
                case 7:
                    world.server.down = not world.server.down
                case 8:
                    world.server.wipe() if random.random() < 0.3 else saved.append(world.server.snapshot())
                case 9:
                    world.server.rollback(random.choice(saved))
                case 10:
                    node.store.misses = set(random.sample(["reported", "released", "assembled"], random.randint(0, 3)))
                case 11:
                    node.store.latency = random.choice([0.0, 0.01, 0.5, 1.5])
                case 12:
                    node.store.lose_answers = {random.choice(["claim", "renew", "release", "attend"])}
                case _:
                    pass
            await trio.sleep(random.choice([0.0, 0.1, 0.5, 2.0, 4.0]))
        _heal(world, alive)
        await trio.sleep(30)
        assert world.owned == sorted(SYMBOLS), "each has one owner, which believes so"
        assert set(world.server.owners().values()) == {node.identity for node in alive[: len(SYMBOLS)]}
        assert world.loads[-1] - world.loads[0] <= 1
        claims = world.server.calls["claim"]
        await trio.sleep(30)
        assert world.server.calls["claim"] == claims, "and it stays so"
        nursery.cancel_scope.cancel()


async def _watch(world: World) -> None:
    while True:
        for symbol in SYMBOLS:
            assert len(world.current(symbol)) <= 1
        await trio.sleep(0.05)


def _heal(world: World, alive: list[Node]) -> None:
    world.server.down = False
    for node in alive:
        store: NodeStore = node.store
        store.frozen = store.cut_off = False
        store.misses, store.lose_answers, store.latency = set(), set(), 0.01
