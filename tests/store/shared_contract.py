"""What every store that nodes share has to do (`candlesync.store.base.SharedStore`), beside what every store has to.

    class TestSharedOnRedis(SharedStoreContract):
        open_nodes = staticmethod(redis_nodes)

``open_nodes`` gives an empty store and, of it, a function that makes one node after the other; they share the store
as processes would. Whether time is real or virtual is the module's own matter: the tests only sleep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
import trio

from candlesync.core.candle import Series
from candlesync.core.departure import Found, Stop
from candlesync.core.interval import Interval
from candlesync.core.placement import Member
from candlesync.core.position import Position
from candlesync.core.replica import Commit
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import State
from candlesync.errors import Fenced, Leased, NotContinuous
from candlesync.store.base import SharedStore
from tests.builders import BTC, candle, forming, minute, minutes
from tests.store.contract import begin, follow

ETH = Series("ETHUSDT", Interval.M1)
BTC5 = Series("BTCUSDT", Interval.M5)
HISTORY = 1000

MakeNode = Callable[[], Awaitable[SharedStore]]


class Ear:
    """An audience that writes down what it is told, each as a tuple that begins with the method's name."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def listening(self) -> None:
        self.heard.append(("listening",))

    def deaf(self, reason: str) -> None:
        self.heard.append(("deaf", reason))

    def committed(self, series: Series, commit: Commit) -> None:
        self.heard.append(("committed", series, commit))

    def moved(self, series: Series, position: Position) -> None:
        self.heard.append(("moved", series, position))

    def reported(self, symbol: str, report: Report) -> None:
        self.heard.append(("reported", symbol, report))

    def released(self, symbol: str, release: Release) -> None:
        self.heard.append(("released", symbol, release))

    def assembled(self) -> None:
        self.heard.append(("assembled",))

    def of(self, name: str) -> list[tuple[object, ...]]:
        """What one method was told."""
        return [told for told in self.heard if told[0] == name]

    async def until(self, count: int, name: str | None = None) -> None:
        """Wait until so much was told, to one method or in all."""
        with trio.fail_after(10):
            while len(self.heard if name is None else self.of(name)) < count:  # noqa: ASYNC110 - plain lists
                await trio.sleep(0.005)

    async def hears(self, *expected: tuple[object, ...]) -> None:
        """Wait for exactly this, and forget it."""
        await self.until(len(expected))
        assert self.heard == list(expected)
        self.heard.clear()


@asynccontextmanager
async def hearing(store: SharedStore, ear: Ear | None = None) -> AsyncIterator[Ear]:
    """What is announced while the block lasts, as a node hears it."""
    ear = ear or Ear()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.listen, ear)
        await ear.until(1)
        assert ear.heard == [("listening",)]
        ear.heard.clear()
        yield ear
        nursery.cancel_scope.cancel()


def report_of(store: SharedStore, state: State = State.LIVE, revision: int = 1) -> Report:
    return Report(store.node, {Interval.M1: SeriesReport(state, Position("life0", revision))})


class SharedStoreContract:
    """The contract, one sentence a test."""

    lease = 1.2
    """Seconds. Real time needs some length, lest a busy machine let a lease end in the middle of a test."""

    @staticmethod
    def open_nodes(history: int, lease: float) -> AbstractAsyncContextManager[MakeNode]:
        """A function that makes nodes over one empty store."""
        raise NotImplementedError(history, lease)

    @asynccontextmanager
    async def two(self) -> AsyncIterator[tuple[SharedStore, SharedStore]]:
        """Two nodes over an empty store."""
        async with self.open_nodes(HISTORY, self.lease) as make:
            yield await make(), await make()

    # --- nodes

    async def test_each_node_has_an_identity_of_its_own(self) -> None:
        async with self.two() as (one, other):
            assert one.node
            assert one.node != other.node
            assert one.lease == other.lease == self.lease

    # --- leases

    async def test_while_a_node_holds_the_lease_no_other_can_claim(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            with pytest.raises(Leased) as refused:
                await other.claim("BTCUSDT")
            assert refused.value.owner == one.node
            assert 0 < refused.value.seconds <= self.lease
            await one.commit(BTC, begin(candle()), token=token)
            await one.renew("BTCUSDT", report_of(one), token=token)

    async def test_a_lease_ends_by_itself_when_it_was_said_to(self) -> None:
        async with self.two() as (one, other):
            old = await one.claim("BTCUSDT")
            with pytest.raises(Leased) as refused:
                await other.claim("BTCUSDT")
            await trio.sleep(refused.value.seconds + 0.02)
            new = await other.claim("BTCUSDT")
            with pytest.raises(Fenced):
                await one.commit(BTC, begin(candle()), token=old)
            await other.commit(BTC, begin(candle()), token=new)

    async def test_that_a_lease_has_ended_is_no_reason_to_refuse_a_commit(self) -> None:
        async with self.two() as (one, _):
            token = await one.claim("BTCUSDT")
            await trio.sleep(1.2 * self.lease)
            await one.commit(BTC, begin(candle()), token=token)

    async def test_a_node_may_claim_again_what_it_holds(self) -> None:
        async with self.two() as (one, other):
            old = await one.claim("BTCUSDT")
            new = await one.claim("BTCUSDT")
            assert old != new
            with pytest.raises(Fenced):
                await one.commit(BTC, begin(candle()), token=old)
            with pytest.raises(Fenced):
                await one.renew("BTCUSDT", report_of(one), token=old)
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")
            await one.commit(BTC, begin(candle()), token=new)

    async def test_a_claim_takes_the_lease_for_its_full_length(self) -> None:
        async with self.two() as (one, other):
            await one.claim("BTCUSDT")
            await trio.sleep(0.7 * self.lease)
            await one.claim("BTCUSDT")
            await trio.sleep(0.5 * self.lease)
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")

    async def test_a_renewal_keeps_the_lease_for_its_full_length_from_then_on(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            await trio.sleep(0.7 * self.lease)
            await one.renew("BTCUSDT", report_of(one), token=token)
            with pytest.raises(Leased) as refused:
                await other.claim("BTCUSDT")
            assert 0.5 * self.lease < refused.value.seconds <= self.lease
            await trio.sleep(0.5 * self.lease)
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")
            await trio.sleep(0.6 * self.lease)
            await other.claim("BTCUSDT")

    async def test_a_lease_that_has_ended_is_taken_again_by_a_renewal_when_nobody_claimed(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            await trio.sleep(1.2 * self.lease)
            await one.renew("BTCUSDT", report_of(one), token=token)
            with pytest.raises(Leased) as refused:
                await other.claim("BTCUSDT")
            assert refused.value.owner == one.node
            await trio.sleep(refused.value.seconds + 0.02)
            await other.claim("BTCUSDT")

    async def test_whoever_was_replaced_can_neither_renew_nor_release(self) -> None:
        async with self.two() as (one, other):
            old = await one.claim("BTCUSDT")
            await trio.sleep(1.1 * self.lease)
            new = await other.claim("BTCUSDT")
            with pytest.raises(Fenced):
                await one.renew("BTCUSDT", report_of(one), token=old)
            with pytest.raises(Fenced):
                await one.release("BTCUSDT", Release(one.node), token=old)
            with pytest.raises(Leased) as refused:
                await one.claim("BTCUSDT")
            assert refused.value.owner == other.node
            await other.commit(BTC, begin(candle()), token=new)

    async def test_a_symbol_that_was_released_can_be_claimed_at_once(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            await one.release("BTCUSDT", Release(one.node), token=token)
            await other.claim("BTCUSDT")

    async def test_the_token_of_a_release_is_void(self) -> None:
        async with self.two() as (one, _):
            token = await one.claim("BTCUSDT")
            await one.commit(BTC, begin(candle()), token=token)
            await one.release("BTCUSDT", Release(one.node), token=token)
            with pytest.raises(Fenced):
                await one.commit(BTC, follow(2, candle(minute(1))), token=token)
            with pytest.raises(Fenced):
                await one.renew("BTCUSDT", report_of(one), token=token)
            with pytest.raises(Fenced):
                await one.release("BTCUSDT", Release(one.node), token=token)
            with pytest.raises(Fenced):
                await one.forget(BTC, token=token)
            again = await one.claim("BTCUSDT")
            assert again != token
            await one.commit(BTC, follow(2, candle(minute(1))), token=again)

    async def test_a_lease_that_has_ended_can_be_released(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            await trio.sleep(1.1 * self.lease)
            await one.release("BTCUSDT", Release(one.node), token=token)
            with pytest.raises(Fenced):
                await one.renew("BTCUSDT", report_of(one), token=token)
            await other.claim("BTCUSDT")

    async def test_a_token_is_compared_for_equality_not_for_greatness(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            for wrong in (token + 1, token - 1, 0):
                with pytest.raises(Fenced):
                    await one.renew("BTCUSDT", report_of(one), token=wrong)
                with pytest.raises(Fenced):
                    await one.release("BTCUSDT", Release(one.node), token=wrong)
                with pytest.raises(Fenced):
                    await one.commit(BTC, begin(candle()), token=wrong)
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")
            await one.commit(BTC, begin(candle()), token=token)

    async def test_what_nobody_ever_claimed_can_neither_be_renewed_nor_released(self) -> None:
        async with self.two() as (one, other):
            with pytest.raises(Fenced):
                await one.renew("BTCUSDT", report_of(one), token=0)
            with pytest.raises(Fenced):
                await one.release("BTCUSDT", Release(one.node), token=0)
            await other.claim("BTCUSDT")

    async def test_each_symbol_has_its_own_lease(self) -> None:
        async with self.two() as (one, other):
            bitcoin = await one.claim("BTCUSDT")
            ether = await other.claim("ETHUSDT")
            await one.release("BTCUSDT", Release(one.node), token=bitcoin)
            with pytest.raises(Leased):
                await one.claim("ETHUSDT")
            await other.renew("ETHUSDT", report_of(other), token=ether)

    async def test_of_all_who_claim_at_once_one_gets_it(self) -> None:
        async with self.open_nodes(HISTORY, self.lease) as make:
            nodes = [await make() for _ in range(5)]
            tokens: dict[str, int] = {}

            async def claim(node: SharedStore) -> None:
                try:
                    tokens[node.node] = await node.claim("BTCUSDT")
                except Leased as refused:
                    owners.add(refused.owner)

            owners: set[str] = set()
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(claim, node)
            assert tokens.keys() == owners
            assert len(tokens) == 1

    # --- where a series is

    async def test_every_node_can_ask_where_a_series_is(self) -> None:
        async with self.two() as (one, other):
            assert await other.position(BTC) is None
            token = await one.claim("BTCUSDT")
            await one.commit(BTC, begin(*minutes(0, 2)), token=token)
            assert await other.position(BTC) == Position("life0", 1)
            assert await other.position(ETH) is None
            await one.commit(BTC, follow(2, candle(minute(3))), token=token)
            assert await other.position(BTC) == await one.position(BTC) == Position("life0", 2)
            await one.commit(BTC, begin(candle(minute(9)), life="life1", replaces="life0"), token=token)
            assert await other.position(BTC) == Position("life1", 1)

    # --- announcements

    async def test_commits_are_heard_in_order_with_their_candles(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            token = await one.claim("BTCUSDT")
            commits = [
                begin(*minutes(0, 2), forming(minute(3))),
                follow(2, candle(minute(1), "1.00"), candle(minute(3)), forming(minute(4), filled=True)),
                begin(candle(minute(900)), revision=3),
                begin(candle(minute(901)), life="life1", replaces="life0"),
            ]
            for commit in commits:
                await one.commit(BTC, commit, token=token)
            await ear.hears(*(("committed", BTC, commit) for commit in commits))

    async def test_a_large_commit_is_heard_of_by_its_position(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            token = await one.claim("BTCUSDT")
            await one.commit(BTC, begin(*minutes(0, 999)), token=token)
            await one.commit(BTC, follow(2, candle(minute(1000))), token=token)
            await ear.hears(
                ("moved", BTC, Position("life0", 1)),
                ("committed", BTC, follow(2, candle(minute(1000)))),
            )

    async def test_commits_of_many_series_are_heard_each_series_in_order(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            tokens = {symbol: await one.claim(symbol) for symbol in ("BTCUSDT", "ETHUSDT")}

            async def write(series: Series) -> None:
                start = series.interval.floor(minute(0))
                for revision in range(1, 41):
                    made = candle(series.interval.next(start, revision), interval=series.interval)
                    commit = begin(made) if revision == 1 else follow(revision, made)
                    await one.commit(series, commit, token=tokens[series.symbol])

            async with trio.open_nursery() as nursery:
                for series in (BTC, ETH, BTC5):
                    nursery.start_soon(write, series)
            await ear.until(120)
            for series in (BTC, ETH, BTC5):
                commits = [told[2] for told in ear.heard if told[1] == series]
                assert [made.revision for made in commits if isinstance(made, Commit)] == list(range(1, 41))

    async def test_what_is_refused_is_not_heard_of(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            token = await one.claim("BTCUSDT")
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")
            with pytest.raises(NotContinuous):
                await one.commit(BTC, begin(candle(minute(0)), candle(minute(2))), token=token)
            with pytest.raises(Fenced):
                await one.commit(BTC, begin(candle()), token=token + 1)
            with pytest.raises(Fenced):
                await one.renew("BTCUSDT", report_of(one), token=token + 1)
            with pytest.raises(Fenced):
                await one.release("BTCUSDT", Release(one.node), token=token + 1)
            await one.commit(BTC, begin(candle()), token=token)
            await ear.hears(("committed", BTC, begin(candle())))

    async def test_a_report_is_heard_after_the_commits_that_it_speaks_of(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            token = await one.claim("BTCUSDT")
            report = Report(
                one.node,
                {
                    Interval.M1: SeriesReport(State.LIVE, Position("life0", 1)),
                    Interval.MO1: SeriesReport(State.SYNCING, Position("", 0)),
                    Interval.M5: SeriesReport(State.STALE, Position("life7", 2**40)),
                },
            )
            await one.commit(BTC, begin(candle()), token=token)
            await one.renew("BTCUSDT", report, token=token)
            await one.renew("BTCUSDT", Report(one.node, {}), token=token)
            await ear.hears(
                ("committed", BTC, begin(candle())),
                ("reported", "BTCUSDT", report),
                ("reported", "BTCUSDT", Report(one.node, {})),
            )

    async def test_a_release_is_heard_with_its_successor(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            for successor in ("", other.node):
                token = await one.claim("BTCUSDT")
                await one.release("BTCUSDT", Release(one.node, successor), token=token)
                await ear.hears(("released", "BTCUSDT", Release(one.node, successor)))

    async def test_a_node_hears_itself_too(self) -> None:
        async with self.two() as (one, _), hearing(one) as ear:
            token = await one.claim("BTCUSDT")
            await one.commit(BTC, begin(candle()), token=token)
            await one.renew("BTCUSDT", report_of(one), token=token)
            await ear.hears(("committed", BTC, begin(candle())), ("reported", "BTCUSDT", report_of(one)))

    async def test_what_was_announced_while_nobody_listened_is_not_heard(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            async with hearing(other) as ear:
                await one.commit(BTC, begin(candle(minute(0))), token=token)
                await ear.until(1)
            await one.commit(BTC, follow(2, candle(minute(1))), token=token)
            await trio.sleep(0.05)  # servers of a cluster tell each other later than they tell the owner
            async with hearing(other) as ear:
                await one.commit(BTC, follow(3, candle(minute(2))), token=token)
                await ear.hears(("committed", BTC, follow(3, candle(minute(2)))))

    async def test_an_audience_that_fails_is_not_kept_quiet_about(self) -> None:
        class Failing(Ear):
            def committed(self, series: Series, commit: Commit) -> None:
                raise LookupError(f"a mistake about {series} {commit}")

        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            with pytest.RaisesGroup(LookupError):
                async with hearing(other, Failing()):
                    await one.commit(BTC, begin(candle()), token=token)
                    await trio.sleep(10)

    # --- who is there

    async def test_nodes_that_attend_see_each_other_as_they_describe_themselves(self) -> None:
        async with self.two() as (one, other):
            first = Member("first/1", {"BTCUSDT": (Interval.M1, Interval.MO1), "ETHUSDT": ()}, ("BTCUSDT",))
            second = Member("zweiter/2 ✓")
            assert await one.attend(first) == {one.node: first}
            assert await other.attend(second) == {one.node: first, other.node: second}
            assert await one.attend(first) == {one.node: first, other.node: second}

    async def test_many_symbols_can_be_wanted(self) -> None:
        async with self.two() as (one, other):
            symbols = [f"S{number}USDT" for number in range(600)]
            member = Member("host/1", dict.fromkeys(symbols, (Interval.M1, Interval.M5)), tuple(symbols[:300]))
            await one.attend(member)
            assert (await other.attend(Member("host/2")))[one.node] == member

    async def test_that_a_node_comes_changes_or_leaves_is_announced_and_nothing_else_is(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            await one.attend(Member("one"))
            await ear.hears(("assembled",))
            await one.attend(Member("one"))
            await one.attend(Member("one"))
            changed = Member("one", {"BTCUSDT": (Interval.M1,)})
            await one.attend(changed)
            await ear.hears(("assembled",))
            assert await other.attend(Member("other")) == {one.node: changed, other.node: Member("other")}
            await ear.hears(("assembled",))
            await one.leave()
            await ear.hears(("assembled",))
            await one.leave()
            assert await other.attend(Member("other")) == {other.node: Member("other")}
            await other.attend(Member("other", owns=("BTCUSDT",)))
            await ear.hears(("assembled",))

    async def test_a_node_that_left_can_come_again(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            await one.attend(Member("one"))
            await one.leave()
            assert await one.attend(Member("one")) == {one.node: Member("one")}
            await ear.hears(*[("assembled",)] * 3)

    async def test_a_node_that_has_not_attended_for_a_lease_is_not_there(self) -> None:
        async with self.two() as (one, other):
            await one.attend(Member("one"))
            for _ in range(4):
                await trio.sleep(0.3 * self.lease)
                there = await other.attend(Member("other"))
            assert there == {other.node: Member("other")}

    async def test_a_node_that_attends_in_time_stays(self) -> None:
        async with self.two() as (one, other):
            await one.attend(Member("one"))
            for _ in range(4):
                await trio.sleep(0.4 * self.lease)
                there = await one.attend(Member("one"))
                assert there.keys() <= {one.node, other.node}
                assert (await other.attend(Member("other"))).keys() == {one.node, other.node}

    async def test_a_node_that_comes_back_from_the_dead_is_announced(self) -> None:
        async with self.two() as (one, other), hearing(other) as ear:
            await one.attend(Member("one"))
            await ear.hears(("assembled",))
            await trio.sleep(1.2 * self.lease)
            assert await one.attend(Member("one")) == {one.node: Member("one")}
            await ear.hears(("assembled",))

    async def test_a_node_is_there_whether_or_not_it_holds_a_lease(self) -> None:
        async with self.two() as (one, other):
            token = await one.claim("BTCUSDT")
            await one.attend(Member("one"))
            await one.leave()
            with pytest.raises(Leased):
                await other.claim("BTCUSDT")
            await one.release("BTCUSDT", Release(one.node), token=token)
            assert await other.attend(Member("other")) == {other.node: Member("other")}

    # --- where streams are, and stopped

    async def test_a_departed_stream_is_given_once_to_whichever_node_asks(self) -> None:
        async with self.two() as (one, other):
            assert (await other.take_departures(["a"], 0))[1] == [Found(None)]
            assert await one.keep_departures([Stop("a", 100, 1), Stop("b", 100, 2)], []) == 2
            assert await one.keep_departures([Stop("a", 0, 0)], [Stop("a", 160_000, 1)]) == 1
            for asks in (other, one):
                await one.keep_departures([], [Stop("c", 7, 1)])
                _, found = await asks.take_departures(["c", "x"], 0)
                assert found == [Found(7), Found(None)]
            assert (await other.take_departures(["a"], 0))[1] == [Found(160_000)]
            assert (await one.take_departures(["a", "c"], 0))[1] == [Found(None), Found(None)]

    async def test_those_that_left_together_get_the_earliest_place_each(self) -> None:
        async with self.two() as (one, other):
            await one.keep_departures([], [Stop("a", 200, 1)])
            await other.keep_departures([], [Stop("a", 100, 2)])
            await one.keep_departures([], [Stop("a", 300, 1)])
            taken = [(await asks.take_departures(["a"], 0))[1][0].place for asks in (one, other, one, other, one)]
            assert taken == [100, 100, 100, 100, None]

    async def test_a_present_stream_is_nobodys_while_its_node_says_that_it_is_there(self) -> None:
        async with self.two() as (one, other):
            await one.keep_departures([Stop("a", 100, 1)], [])
            asked_at, found = await other.take_departures(["a"], 0)
            assert found == [Found(None, is_doubtful=True)], "the client may be back before its end has been noticed"
            assert (await one.take_departures(["a"], 0))[1] == [Found(None)], "a node knows its own"
            await trio.sleep(0.15)
            await one.keep_departures([], [])
            assert await other.take_departures(["a"], asked_at) == (asked_at, [Found(None)])

    async def test_the_streams_of_a_node_that_has_died_have_departed(self) -> None:
        async with self.two() as (one, other):
            await one.keep_departures([Stop("a", 100, 1), Stop("b", 100, 2)], [])
            await one.keep_departures([Stop("a", 160_000, 1)], [])
            asked_at, found = await other.take_departures(["a", "b"], 0)
            assert found == [Found(None, is_doubtful=True)] * 2
            await trio.sleep(1.3 * self.lease)
            assert (await other.take_departures(["a", "b"], asked_at))[1] == [Found(160_000), Found(100)]
            assert (await other.take_departures(["a", "b"], 0))[1] == [Found(None), Found(100)]
            assert (await other.take_departures(["b"], 0))[1] == [Found(None)]

    async def test_the_streams_of_a_node_that_ends_have_departed_at_once(self) -> None:
        async with self.two() as (one, other):
            await one.keep_departures([Stop("a", 100, 1)], [])
            await one.keep_departures([Stop("b", 200, 1)], [], ends=True)
            assert (await other.take_departures(["a", "b", "a"], 0))[1] == [Found(100), Found(200), Found(None)]

    async def test_many_are_kept_and_taken_at_once(self) -> None:
        async with self.two() as (one, other):
            stops = [Stop(f"{number:032x}", 1_700_000_000_000 + number, 1 + number % 3) for number in range(2000)]
            assert await one.keep_departures(stops[:1000], stops[1000:]) == 1000
            assert await one.keep_departures([stop._replace(streams=0) for stop in stops[:999]], []) == 1
            some = stops[1000:1100]
            found = (await other.take_departures([stop.key for stop in some], 0))[1]
            assert found == [Found(stop.place) for stop in some]

    # --- cancellation

    async def test_whoever_listens_can_be_cancelled_at_once(self) -> None:
        async with self.two() as (one, other):
            await one.claim("BTCUSDT")
            with trio.fail_after(2):
                for turns in range(5):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(partial(other.listen, Ear()))
                        for _ in range(turns):
                            await trio.lowlevel.checkpoint()
                        nursery.cancel_scope.cancel()
