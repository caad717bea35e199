"""What every store has to do (`candlesync.store.base`); each one's own test module runs it by one line.

    class TestMemoryStore(StoreContract):
        open_store = staticmethod(memory_store)

``open_store`` makes an empty store that keeps so many candles a series, and takes it down afterwards.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from random import Random

import pytest
import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.replica import Commit, Replica
from candlesync.errors import CommitRefused, Fenced, NotContinuous, RevisionConflict
from candlesync.store.base import Store
from tests.builders import BTC, T0, candle, flat, forming, minute, minutes

ETH = Series("ETHUSDT", Interval.M1)
BTC5 = Series("BTCUSDT", Interval.M5)
HISTORY = 6


def begin(*candles: Candle, life: str = "life0", revision: int = 1, replaces: str = "") -> Commit:
    return Commit(life, revision, candles, begins=True, replaces=replaces)


def follow(revision: int, *candles: Candle, life: str = "life0") -> Commit:
    return Commit(life, revision, candles)


class StoreContract:
    """The contract, one sentence a test."""

    @staticmethod
    def open_store(history: int) -> AbstractAsyncContextManager[Store]:
        """An empty store."""
        raise NotImplementedError(history)

    # --- reading what was committed

    async def test_a_series_that_nobody_wrote_is_none(self) -> None:
        async with self.open_store(HISTORY) as store:
            assert await store.read(BTC) is None

    async def test_what_was_committed_is_read_with_its_revisions(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 2), forming(minute(3))), token=token)
            await store.commit(BTC, follow(2, candle(minute(1), "1.00"), candle(minute(3))), token=token)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert (snapshot.life, snapshot.revision) == ("life0", 2)
            zero, _, two = minutes(0, 2)
            assert snapshot.candles == (
                (zero, 1),
                (candle(minute(1), "1.00"), 2),
                (two, 1),
                (candle(minute(3)), 2),
            )

    @pytest.mark.parametrize("interval", [Interval.S1, Interval.D3, Interval.W1, Interval.MO1], ids=str)
    async def test_all_that_a_candle_says_is_kept_digit_for_digit(self, interval: Interval) -> None:
        start = interval.floor(T0)
        odd = candle(
            start,
            "0.00000001",
            interval=interval,
            open="99999999999999999999.12345678",
            high="99999999999999999999.5",
            quote_volume="33325956531334570393.5",
            taker_quote_volume="1",
            volume="0",
            unused="7887.63551305",
            trades=2**53 + 1,
        )
        fill = flat(interval.next(start), "0.00000001", interval=interval)
        series = Series("BTCUSDT", interval)
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(series, begin(odd, fill), token=token)
            snapshot = await store.read(series)
            assert snapshot is not None
            assert snapshot.candles == ((odd, 1), (fill, 1))

    async def test_a_snapshot_is_not_changed_by_later_commits(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(forming(minute(0))), token=token)
            snapshot = await store.read(BTC)
            await store.commit(BTC, follow(2, candle(minute(0))), token=token)
            assert snapshot is not None
            assert snapshot.candles == ((forming(minute(0)), 1),)

    async def test_series_are_apart(self) -> None:
        async with self.open_store(HISTORY) as store:
            bitcoin, ether = await store.claim("BTCUSDT"), await store.claim("ETHUSDT")
            await store.commit(BTC, begin(candle(minute(0))), token=bitcoin)
            await store.commit(ETH, begin(candle(minute(1)), life="life1"), token=ether)
            start = Interval.M5.floor(T0)
            await store.commit(BTC5, begin(candle(start, interval=Interval.M5), life="life2"), token=bitcoin)
            lives = []
            for series in (BTC, ETH, BTC5):
                snapshot = await store.read(series)
                assert snapshot is not None
                lives.append(snapshot.life)
            assert lives == ["life0", "life1", "life2"]

    # --- revisions

    @pytest.mark.parametrize(
        "commit",
        [
            follow(1, candle(minute(2))),
            follow(3, candle(minute(2))),
            follow(2, candle(minute(2)), life="life1"),
            begin(candle(minute(2))),
            begin(candle(minute(2)), life="life1"),
            begin(candle(minute(2)), life="life1", replaces="life2"),
            begin(candle(minute(2)), life="life1", revision=2, replaces="life0"),
        ],
        ids=["same", "one too far", "another life", "begun", "unnamed", "misnamed", "a life begins with 1"],
    )
    async def test_acommit_for_another_life_or_revision_conflicts_and_changes_nothing(self, commit: Commit) -> None:
        await self._refused(commit, RevisionConflict)

    async def test_the_first_commit_begins_a_life_with_revision_1(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            for commit in (
                follow(1, candle()),
                follow(2, candle()),
                begin(candle(), revision=2),
                begin(candle(), life=""),
            ):
                with pytest.raises(RevisionConflict):
                    await store.commit(BTC, commit, token=token)
            assert await store.read(BTC) is None
            await store.commit(BTC, begin(candle()), token=token)

    async def test_of_two_commits_for_one_revision_one_wins(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(forming(minute(0))), token=token)
            outcomes: list[str] = []

            async def write(close: str) -> None:
                try:
                    await store.commit(BTC, follow(2, candle(minute(0), close)), token=token)
                except RevisionConflict:
                    outcomes.append("conflict")
                else:
                    outcomes.append(close)

            async with trio.open_nursery() as nursery:
                for close in ("1.00", "2.00", "3.00"):
                    nursery.start_soon(write, close)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert sorted(outcomes) == sorted([snapshot.candles[0][0].close, "conflict", "conflict"])

    async def test_a_new_life_begins_in_place_of_the_one_it_names(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 2)), token=token)
            await store.commit(BTC, begin(candle(minute(9)), life="life1", replaces="life0"), token=token)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert (snapshot.life, snapshot.revision, snapshot.candles) == ("life1", 1, ((candle(minute(9)), 1),))

    async def test_within_a_life_to_begin_again_takes_the_next_revision_and_leaves_only_its_own(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 2)), token=token)
            await store.commit(BTC, begin(*minutes(900, 901), revision=2), token=token)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert (snapshot.life, snapshot.revision, snapshot.trimmed) == ("life0", 2, 2)
            assert [made for made, _ in snapshot.candles] == minutes(900, 901)

    # --- continuity

    @pytest.mark.parametrize(
        "commit",
        [
            follow(2),
            begin(revision=2),
            follow(2, candle(minute(1)), candle(minute(3))),
            follow(2, candle(minute(2))),
            follow(2, candle(minute(1)), forming(minute(2)), candle(minute(3))),
            follow(2, forming(minute(0))),
            follow(2, candle(minute(-1))),
            follow(2, candle(minute(1)), candle(minute(0))),
            follow(2, candle(minute(1)), candle(minute(1))),
            follow(2, candle(minute(1) + 1)),
            begin(candle(minute(1) + 1), revision=2),
            begin(candle(minute(5)), candle(minute(7)), revision=2),
        ],
        ids=[
            "no candles",
            "nothing to begin with",
            "gap",
            "after a forming one",
            "forming in the middle",
            "closed becomes forming",
            "before the history",
            "descending",
            "twice",
            "off the grid",
            "begins off the grid",
            "begins with a gap",
        ],
    )
    async def test_a_commit_that_breaks_continuity_is_refused_and_changes_nothing(self, commit: Commit) -> None:
        await self._refused(commit, NotContinuous)

    # --- fencing

    async def test_without_a_token_nothing_is_written(self) -> None:
        async with self.open_store(HISTORY) as store:
            with pytest.raises(Fenced):
                await store.commit(BTC, begin(candle()), token=0)
            assert await store.read(BTC) is None

    async def test_who_claims_fences_off_whoever_had_it(self) -> None:
        async with self.open_store(HISTORY) as store:
            first = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(candle(minute(0))), token=first)
            second = await store.claim("BTCUSDT")
            with pytest.raises(Fenced):
                await store.commit(BTC, follow(2, candle(minute(1))), token=first)
            with pytest.raises(Fenced):
                await store.forget(BTC, token=first)
            await store.commit(BTC, follow(2, candle(minute(1))), token=second)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert snapshot.revision == 2

    async def test_a_token_is_of_one_symbol_and_never_used_twice(self) -> None:
        async with self.open_store(HISTORY) as store:
            tokens = [await store.claim(symbol) for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT", "ETHUSDT")]
            assert len(set(tokens[0::2])) == len(set(tokens[1::2])) == 2
            with pytest.raises(Fenced):
                await store.commit(BTC, begin(candle()), token=tokens[3] if tokens[3] != tokens[2] else tokens[0])

    async def test_a_greater_token_is_no_better_than_another(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            with pytest.raises(Fenced):
                await store.commit(BTC, begin(candle()), token=token + 1)

    # --- history

    async def test_beyond_the_history_the_oldest_leave_and_the_snapshot_says_what_can_no_longer_be_resumed(
        self,
    ) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 5)), token=token)
            await store.commit(BTC, follow(2, candle(minute(0), "1.00")), token=token)
            await store.commit(BTC, follow(3, candle(minute(6))), token=token)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert [made.open_time for made, _ in snapshot.candles] == [minute(number) for number in range(1, 7)]
            assert snapshot.trimmed == 2
            await store.commit(BTC, follow(4, candle(minute(7))), token=token)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert snapshot.trimmed == 2, "the greatest of all that ever left"

    async def test_more_than_the_history_at_once_leaves_its_end(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(*minutes(0, 9)), token=token)
            snapshot = await store.read(BTC)
            assert snapshot is not None
            assert [made for made, _ in snapshot.candles] == minutes(4, 9)

    # --- forgetting

    async def test_what_is_forgotten_may_be_begun_anew_or_was_kept_whole(self) -> None:
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(candle(minute(0))), token=token)
            await store.forget(BTC, token=token)
            await store.forget(BTC, token=token)
            snapshot = await store.read(BTC)
            if snapshot is None:
                await store.commit(BTC, begin(candle(minute(9)), life="life1"), token=token)
            else:
                await store.commit(BTC, follow(2, candle(minute(1))), token=token)

    # --- as a whole

    async def test_a_commit_that_is_cancelled_happened_whole_or_not_at_all(self) -> None:
        for turns in range(200):
            async with self.open_store(HISTORY) as store:
                token = await store.claim("BTCUSDT")
                await store.commit(BTC, begin(*minutes(0, 2)), token=token)
                change = follow(2, *(candle(minute(number), "1.00") for number in range(6)))
                finished = await commit_for(turns, store, change, token)
                snapshot = await store.read(BTC)
                assert snapshot is not None
                closes = [made.close for made, _ in snapshot.candles]
                if snapshot.revision == 2:
                    assert closes == ["1.00"] * 6
                else:
                    assert not finished
                    assert (snapshot.revision, closes) == (1, [made.close for made in minutes(0, 2)])
                if finished:
                    return
        raise AssertionError("it is never done")

    async def test_it_takes_and_refuses_what_a_replica_does(self) -> None:
        """`Replica.apply` is the rule; a store that has its own implementation of it must not differ."""
        random = Random(1)
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            replica = Replica(BTC, HISTORY)
            outcomes: list[str] = []
            for number in range(300):
                commit = _some_commit(replica, random, number)
                expected = _outcome(replica, commit)
                try:
                    await store.commit(BTC, commit, token=token)
                except CommitRefused as refusal:
                    outcomes.append(type(refusal).__name__)
                else:
                    outcomes.append("")
                assert outcomes[-1] == expected
                assert await store.read(BTC) == (replica.snapshot() if len(replica) else None)
            assert {"", "NotContinuous", "RevisionConflict"} == set(outcomes)

    async def _refused(self, commit: Commit, why: type[CommitRefused]) -> None:
        """By a series of a closed candle and a forming one."""
        async with self.open_store(HISTORY) as store:
            token = await store.claim("BTCUSDT")
            await store.commit(BTC, begin(candle(minute(0)), forming(minute(1))), token=token)
            before = await store.read(BTC)
            with pytest.raises(why):
                await store.commit(BTC, commit, token=token)
            assert await store.read(BTC) == before


async def commit_for(turns: int, store: Store, commit: Commit, token: int) -> bool:
    """Commit, cancelled after so many turns of the scheduler, or some time; whether it came to its end."""
    finished = False

    async def write(scope: trio.CancelScope) -> None:
        nonlocal finished
        with scope:
            await store.commit(BTC, commit, token=token)
            finished = True

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(write, scope)
        for _ in range(min(turns, 10)):
            await trio.lowlevel.checkpoint()
        if turns > 10:
            await trio.sleep(turns / 5_000)
        scope.cancel()
    return finished


def _some_commit(replica: Replica, random: Random, number: int) -> Commit:
    tail = replica.tail
    time = T0 if tail is None else tail.open_time
    first = minute(0) + 60_000 * ((time - minute(0)) // 60_000 + random.choice([-7, -3, -1, 0, 0, 0, 1, 1, 2]))
    candles = []
    for step in range(random.randint(0, 4)):
        at = first + 60_000 * (step + (random.random() < 0.05))
        candles.append(candle(at, trades=number, closed=random.random() < 0.8, filled=random.random() < 0.1))
    life = random.choice([replica.life] * 9 + ["other"])
    if not replica.life or random.random() < 0.1:
        new = f"life{number}"
        return Commit(new, random.choice([1, 1, 2]), tuple(candles), begins=True, replaces=life)
    revision = replica.revision + random.choice([1] * 9 + [0, 2])
    return Commit(life, revision, tuple(candles), begins=random.random() < 0.1)


def _outcome(replica: Replica, commit: Commit) -> str:
    try:
        replica.apply(commit)
    except CommitRefused as refusal:
        return type(refusal).__name__
    return ""
