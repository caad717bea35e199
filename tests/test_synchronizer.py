"""The synchronizer: its critical section cancelled at every await, and everything that can come in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from candlesync.core.candle import Candle
from candlesync.core.position import parse_position
from candlesync.core.replica import Commit
from candlesync.core.sync import State
from candlesync.errors import Fenced, UnknownSymbol, UpstreamUnavailable
from candlesync.hub import Outbox
from tests.builders import BTC, candle, flat, forming, minute, minutes, unheard
from tests.upstream import RULES, WatchedTopic, World

# --- cancelled at every await


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when `cancellable_run` has come to its n-th await, and is waiting there."""

    def __init__(self, world: World, step: int, scope: trio.CancelScope) -> None:
        self._world = world
        self._scope = scope
        self._left = step
        self.torn_apart = 0
        """Awaits at which a commit was known to stand and was not published."""
        self.begun: int | None = None
        """How many commits had been begun when it was cancelled."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == f"{__name__}.cancellable_run":
            self.torn_apart += self._world.store.told != len(self._world.topic.published_commits)
            self._left -= 1
            if self._left == 0:
                self.begun = len(self._world.store.attempts)
                self._scope.cancel()


TRUTH = [*minutes(0, 7), *minutes(10, 12)]
"""What the exchange has in the end: minutes 8 and 9 are an outage."""
WHOLE = [*minutes(0, 7), flat(minute(8), "37007.00000000"), flat(minute(9), "37007.00000000"), *minutes(10, 11)]


async def eventful(world: World, trouble: Callable[[World], None]) -> None:
    """Everything that can happen to a series, in two minutes; and ``trouble`` of the store in the midst of it."""
    synchronizer, upstream = world.synchronizer, world.upstream

    async def show(*frames: Candle) -> None:
        for frame in frames:
            synchronizer.frame(frame)
            upstream.candles = [row for row in TRUTH if row.open_time <= frame.open_time]
            await trio.sleep(0.3)

    upstream.candles = minutes(0, 2)
    await trio.sleep(1)
    synchronizer.connected()
    await trio.sleep(1)
    await show(forming(minute(2), trades=11), *minutes(2, 2), forming(minute(3)))
    trouble(world)
    await show(*minutes(3, 3))
    upstream.behind = 1
    await show(forming(minute(5)))  # the close of minute 4 is lost, and REST is behind
    upstream.behind = 0
    await trio.sleep(2)
    upstream.failure = UpstreamUnavailable("down")
    synchronizer.lost()
    upstream.candles = minutes(0, 6)
    synchronizer.connected()
    await trio.sleep(2)
    upstream.failure = None
    await trio.sleep(20)
    await show(forming(minute(7)), *minutes(7, 7))
    await show(forming(minute(10)))  # after an outage
    await trio.sleep(20)
    await show(*minutes(10, 10), forming(minute(11)))


async def heal(world: World) -> None:
    """A restarted task on the same store and topic brings everything to the truth."""
    world.upstream.candles = TRUTH
    world.upstream.failure = None
    world.upstream.behind = 0
    async with world.running():
        await trio.sleep(60)
        assert world.topic.state is State.LIVE
        assert world.candles[:-1] == WHOLE
        await world.check_store_and_topic_agree()


async def cancellable_run(world: World, scope: trio.CancelScope, story: trio.CancelScope) -> None:
    with scope:
        await world.synchronizer.run()
    story.cancel()  # a feed tells nothing to a synchronizer that is gone


def check_continuous(candles: Sequence[Candle]) -> None:
    for before, after in pairwise(candles):
        assert after.open_time == before.open_time + 60_000
        assert before.closed


async def cancel_at_each_await(
    check: Callable[[World], Awaitable[None]], trouble: Callable[[World], None] = lambda _: None
) -> int:
    """Play `eventful` again and again, cancelled at one await later each time; how many there were."""
    step = 0
    while True:
        step += 1
        world = World([], checkpoints=2)
        await world.make()
        scope = trio.CancelScope()
        cancel = CancelAtStep(world, step, scope)
        trio.lowlevel.add_instrument(cancel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancellable_run, world, scope, nursery.cancel_scope)
            await eventful(world, trouble)
            scope.cancel()
        trio.lowlevel.remove_instrument(cancel)
        assert cancel.torn_apart == 0
        assert cancel.begun in (None, len(world.store.attempts)), "none is begun any more"
        assert world.topic.state is State.STALE
        check_continuous(world.candles)
        await check(world)
        await heal(world)
        if not nursery.cancel_scope.cancelled_caught:
            return step


async def test_cancelled_at_any_await_commit_and_publish_are_one_act(autojump_clock: MockClock) -> None:
    """Invariant 2: both or neither, wherever it is cancelled; and a restart heals the rest."""

    async def check(world: World) -> None:
        assert world.topic.published_commits == world.store.commits
        if world.store.commits:
            await world.check_store_and_topic_agree()

    awaits = await cancel_at_each_await(check)
    assert awaits > 150, "the story is long enough"


def hang(world: World) -> None:
    """The next commit happens, but its answer never comes."""
    world.store.hang_after.add(world.topic.replica.revision + 1)


def lose(world: World) -> None:
    """The next commit happens, and the connection breaks before its answer."""
    world.store.lose_after.add(world.topic.replica.revision + 1)


def undo(world: World) -> None:
    """The connection breaks before the next commit has happened."""
    world.store.lose_before.add(world.topic.replica.revision + 1)


def wipe(world: World) -> None:
    """The store loses everything."""
    world.store.fall_back(None)


def wipe_and_lose(world: World) -> None:
    """And of the new life that is begun therefore the answer is lost."""
    world.store.fall_back(None)
    world.store.lose_after.add(1)


@pytest.mark.parametrize("trouble", [hang, lose, undo, wipe, wipe_and_lose])
async def test_cancelled_at_any_await_in_trouble_a_restart_settles_it(
    autojump_clock: MockClock, trouble: Callable[[World], None]
) -> None:
    """Invariant 2 again. Cancelled before the outcome is known, what was committed may stay unpublished; never the
    other way round."""
    unpublished = 0

    async def check(world: World) -> None:
        nonlocal unpublished
        published = world.topic.published_commits
        assert all(made in world.store.commits for made in published), "nothing is published without its commit"
        stored = await world.store.read(BTC)
        if stored is None:
            assert not world.topic.is_begun or trouble in (wipe, wipe_and_lose)
        elif stored.life == world.topic.replica.life:
            behind = stored.revision - world.topic.replica.revision
            assert behind in (0, 1)
            unpublished += behind
        else:
            assert stored.revision == 1, "a new life that is not published yet"
            unpublished += 1

    await cancel_at_each_await(check, trouble)
    assert (unpublished > 0) is (trouble in (hang, lose, wipe_and_lose)), "it was cancelled there too"


# --- commits whose outcome is not known


@pytest.mark.parametrize("happened", [True, False])
async def test_a_commit_that_timed_out_is_settled_by_reading(autojump_clock: MockClock, happened: bool) -> None:
    world = World(minutes(0, 3))
    hanging = world.store.hang_after if happened else world.store.hang_before
    async with world.running() as synchronizer:
        hanging.add(2)
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(4.9)
        assert world.topic.replica.revision == 1, "nothing is published whose commit is not known to stand"
        await trio.sleep(5)
        assert world.candles[-1] == candle(minute(3))
        assert world.topic.state is State.LIVE
        await world.check_store_and_topic_agree()
        assert [made.revision for made in world.store.commits] == [1, 2], "it was made once"
        assert world.store.attempts == ([1, 2] if happened else [1, 2, 2]), "it was read before it was tried again"


async def test_frames_go_on_while_a_commit_hangs(autojump_clock: MockClock) -> None:
    """Invariant 8: and what they show is there as soon as it ends."""
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        world.store.hang_before.add(2)
        for closed in minutes(3, 7):
            synchronizer.frame(closed)
            synchronizer.frame(forming(minute(8)))
            await trio.sleep(0.5)
        assert world.topic.replica.revision == 1
        world.upstream.candles = minutes(0, 4)
        await trio.sleep(10)
        assert world.candles[3:] == [*minutes(3, 7), forming(minute(8))]


async def test_another_writer_is_noticed_and_what_it_wrote_is_published(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        outbox = Outbox(unheard)
        subscriber = world.topic.subscribe(outbox)
        foreign = Commit(world.topic.replica.life, 2, (candle(minute(3), "3.00"), candle(minute(4), "4.00")))
        await world.store.commit(BTC, foreign, token=world.token)
        world.upstream.candles = [*minutes(0, 2), *foreign.candles, *minutes(5, 6)]
        synchronizer.frame(candle(minute(3)))
        synchronizer.frame(forming(minute(4)))
        await trio.sleep(1)
        assert outbox.take() == [subscriber]
        assert [made.close for made in world.candles[3:]] == ["3.00", "4.00", "37005.00000000", "37006.00000000"]
        assert world.topic.state is State.LIVE
        await world.check_store_and_topic_agree()
    assert State.SYNCING in world.topic.states[-4:]


async def test_whoever_is_fenced_off_stops_and_publishes_nothing(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    with pytest.RaisesGroup(Fenced):
        async with world.running() as synchronizer:
            published = list(world.topic.published_commits)
            await world.store.claim("BTCUSDT")
            synchronizer.frame(candle(minute(3)))
            await trio.sleep(1)
    assert world.topic.published_commits == published == world.store.commits
    assert world.topic.state is State.STALE


async def test_a_store_that_does_not_answer_in_time_is_asked_again_until_it_does(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    world.store.unreadable = True
    async with world.running() as synchronizer:
        await trio.sleep(12)
        assert world.topic.states[-1:] == [State.SYNCING]
        assert world.topic.failure == "the store did not answer within 5 s"
        assert world.candles == []
        synchronizer.frame(candle(minute(4)))
        world.upstream.candles = minutes(0, 5)
        world.store.unreadable = False
        await trio.sleep(12)
        assert world.topic.state is State.LIVE
        assert world.topic.failure == ""
        assert [made.open_time for made in world.candles] == [minute(number) for number in range(6)]
        await world.check_store_and_topic_agree()


async def test_a_restarted_task_shows_what_the_store_holds_before_rest_answers(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running():
        pass
    world.topic = WatchedTopic()
    world.upstream.failure = UpstreamUnavailable("down")
    async with world.running():
        assert [made.open_time for made in world.candles] == [minute(number) for number in range(4)]
        assert world.topic.state is State.SYNCING
        assert world.topic.published_commits == []


# --- REST


async def test_rest_is_asked_about_the_series_from_its_tail_on_and_with_a_bounded_patience(
    autojump_clock: MockClock,
) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        assert world.upstream.questions == [(BTC, RULES.history, 10.0)]
        synchronizer.connected()
        await trio.sleep(1)
        await synchronizer.inspect(minute(2))
        assert world.upstream.questions[1:] == [(BTC, minute(3), 10.0), (BTC, minute(2), 10.0)]


async def test_an_inspection_tells_of_unshown_trades_and_takes_what_it_corrects(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        assert not await synchronizer.inspect(minute(0))
        world.upstream.candles = [candle(minute(0), "1.00"), *minutes(1, 3)]
        assert not await synchronizer.inspect(minute(0))
        await trio.sleep(0.1)
        assert world.candles[0] == candle(minute(0), "1.00")
        world.upstream.candles = minutes(0, 4)
        assert await synchronizer.inspect(minute(3))


async def test_an_inspection_holds_nobody_up(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer, trio.open_nursery() as nursery:
        world.upstream.delay = 5.0
        nursery.start_soon(synchronizer.inspect, minute(0))
        await trio.sleep(1)
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(0.1)
        assert world.candles[-1] == candle(minute(3))


async def test_while_rest_is_down_it_is_asked_with_growing_pauses_and_the_reason_is_told(
    autojump_clock: MockClock,
) -> None:
    world = World(minutes(0, 3))
    world.upstream.failure = UpstreamUnavailable("no route to host")
    async with world.running():
        await trio.sleep(40)
        pauses = [after - before for before, after in pairwise(world.upstream.asked_at)]
        assert pauses == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0, 15.0])
        assert world.topic.failure == "no route to host"
        world.upstream.failure = None
        await trio.sleep(20)
        assert world.topic.failure == ""
        assert world.topic.state is State.LIVE


async def test_what_goes_on_failing_is_logged_once(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    world.upstream.failure = UpstreamUnavailable("no route to host")
    with capture_logs() as logged:
        async with world.running():
            await trio.sleep(40)
            assert len(world.upstream.asked_at) > 3
    assert [entry["event"] for entry in logged] == ["backfill failed"]


async def test_rest_that_says_how_long_to_wait_is_not_asked_before(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    world.upstream.failure = UpstreamUnavailable("banned", retry_after=120.0)
    async with world.running():
        await trio.sleep(20)
        assert world.topic.reason == "banned; tried again in 100 s"
        await trio.sleep(130)
        first, second = world.upstream.asked_at
        assert second - first == pytest.approx(122.0), "nobody looks at it: others go first"
    assert world.topic.reason == "banned", "nobody tries again"


async def test_rest_that_hangs_is_given_its_patience_and_asked_again(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    world.upstream.delay = 1_000.0
    async with world.running():
        await trio.sleep(12)
        first, second = world.upstream.asked_at
        assert second - first == pytest.approx(10.5), "the patience of 10 s, and a pause"
        world.upstream.delay = 0.0
        await trio.sleep(30)
        assert world.topic.state is State.LIVE


async def test_no_candles_yet_is_said_as_it_is(autojump_clock: MockClock) -> None:
    world = World([])
    async with world.running():
        await trio.sleep(5)
        assert world.topic.failure == "Binance shows no candles of it yet"
        assert not world.topic.is_begun


async def test_an_unknown_symbol_ends_the_task(autojump_clock: MockClock) -> None:
    world = World([])
    world.upstream.failure = UnknownSymbol("BTCUSDT")
    await world.make()
    with pytest.raises(UnknownSymbol):
        await world.synchronizer.run()


async def test_frames_that_arrive_during_a_backfill_are_put_behind_it(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        world.upstream.candles = minutes(0, 6)
        world.upstream.delay = 3.0
        synchronizer.frame(forming(minute(6)))
        await trio.sleep(1)
        synchronizer.frame(forming(minute(6), trades=50))
        synchronizer.frame(candle(minute(6), trades=60))
        synchronizer.frame(forming(minute(7), trades=1))
        synchronizer.frame(forming(minute(7), trades=2))
        assert world.topic.replica.revision == 1
        await trio.sleep(3)
        assert world.candles[3:] == [*minutes(3, 5), candle(minute(6), trades=60), forming(minute(7), trades=2)]
        assert world.topic.replica.revision == 2, "one commit"
        assert len(world.upstream.asked_at) == 2


# --- what is told at once


async def test_each_life_has_a_random_name_that_clients_can_send_back(autojump_clock: MockClock) -> None:
    lives = set()
    for _ in range(3):
        world = World(minutes(0, 3))
        async with world.running():
            position = world.topic.replica.position
        assert parse_position(str(position)) == position
        assert len(position.life) == 10
        lives.add(position.life)
    assert len(lives) == 3


async def test_what_the_feed_does_is_told_before_the_task_has_its_turn(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    await trio.sleep(7)
    synchronizer = await world.make()
    assert synchronizer.frame_time == trio.current_time()
    await trio.sleep(7)
    synchronizer.connected()
    assert synchronizer.frame_time == trio.current_time(), "silence is counted from then"
    assert world.topic.state is State.SYNCING
    synchronizer.lost()
    assert world.topic.states[-1:] == [State.STALE]
    await trio.sleep(7)
    synchronizer.frame(forming(minute(3)))
    assert synchronizer.frame_time == trio.current_time()


async def test_a_store_that_has_always_answered_does_not_answer_again(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    with capture_logs() as logged:
        async with world.running():
            assert world.topic.state is State.LIVE
    assert logged == []


# --- waits


async def test_a_wait_that_an_event_cuts_short_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    """A frame every second does not put off the second look at an outage, nor bring it forward."""
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(0.1)
        world.upstream.candles = [*minutes(0, 3), candle(minute(6))]
        asked = len(world.upstream.asked_at)
        for trades in range(11, 24):
            synchronizer.frame(forming(minute(6), trades=trades))
            await trio.sleep(0.7)
        first, second = world.upstream.asked_at[asked:]
        assert second - first == pytest.approx(RULES.outage_pause)
        assert [made.filled for made in world.candles[-3:]] == [True, True, False]
        assert world.candles[-1].trades == 23


async def test_a_reconnect_asks_at_once(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        world.upstream.failure = UpstreamUnavailable("banned", retry_after=1_000.0)
        synchronizer.connected()
        await trio.sleep(1)
        world.upstream.failure = None
        synchronizer.lost()
        synchronizer.connected()
        await trio.sleep(0.1)
        assert world.topic.state is State.LIVE


async def test_what_the_stream_has_shown_is_known_when_the_task_begins_again(autojump_clock: MockClock) -> None:
    """Found by simulation: REST was behind, and the series was called live at a candle long past."""
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        world.upstream.failure = UpstreamUnavailable("down")
        synchronizer.frame(minutes(6, 6)[0])
        await trio.sleep(0.1)
        assert world.topic.state is State.SYNCING
    world.upstream.failure = None
    states = []
    async with world.running():
        for candles in (world.upstream.candles, [*minutes(0, 5), forming(minute(6))]):
            world.upstream.candles = candles
            await trio.sleep(5)
            states.append(world.topic.state)
        assert states == [State.SYNCING, State.LIVE]
        assert world.candles[-2:] == minutes(5, 6)


# --- states


async def test_a_series_is_said_to_be_live_while_frames_come_faster_than_commits(
    autojump_clock: MockClock,
) -> None:
    world = World([*minutes(0, 3), forming(minute(4))])
    async with world.running() as synchronizer:
        world.store.delay = 0.5
        world.upstream.candles = [*minutes(0, 3), forming(minute(4), trades=60)]
        synchronizer.lost()
        synchronizer.connected()
        states = set()
        for trades in range(61, 121):
            await trio.sleep(0.25)
            synchronizer.frame(forming(minute(4), trades=trades))
            states.add(world.topic.state)
        assert State.LIVE in states


async def test_subscribers_are_told_each_state(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    told = [world.topic.state]

    def listen() -> None:
        outbox.take()
        told.append(world.topic.state)

    outbox = Outbox(listen)
    world.topic.subscribe(outbox)
    async with world.running(connected=False) as synchronizer:
        await trio.sleep(1)
        synchronizer.connected()
        await trio.sleep(1)
        synchronizer.frame(forming(minute(5)))
        world.upstream.candles = minutes(0, 4)
        await trio.sleep(1)
        world.upstream.candles = minutes(0, 5)
        await trio.sleep(5)
        synchronizer.lost()
        await trio.sleep(1)
        synchronizer.connected()
        await trio.sleep(1)
    changes = [state for before, state in pairwise([None, *told]) if state is not before]
    assert changes == [
        State.STALE,
        State.SYNCING,
        State.LIVE,
        State.SYNCING,
        State.LIVE,
        State.STALE,
        State.SYNCING,
        State.LIVE,
        State.STALE,  # nobody keeps it any more
    ]


async def test_it_is_live_only_when_what_it_waited_for_stands_in_the_store(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        synchronizer.lost()
        world.upstream.candles = minutes(0, 5)
        world.store.delay = 2.0
        synchronizer.connected()
        await trio.sleep(1)
        assert (world.topic.state, world.topic.replica.revision) == (State.SYNCING, 1)
        await trio.sleep(2)
        assert (world.topic.state, world.topic.replica.revision) == (State.LIVE, 2)


# --- inspection


async def test_live_candles_go_on_while_rest_is_asked_about_them(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer, trio.open_nursery() as nursery:
        synchronizer.frame(candle(minute(3)))
        await trio.sleep(0.1)
        world.upstream.candles = [*minutes(0, 2), candle(minute(3), "1.00"), candle(minute(4))]
        world.upstream.delay = 5.0
        nursery.start_soon(synchronizer.inspect, minute(2))
        await trio.sleep(1)
        synchronizer.frame(forming(minute(4), trades=99))
        await trio.sleep(0.1)
        assert world.candles[-2:] == [candle(minute(3)), forming(minute(4), trades=99)]
        await trio.sleep(5)
        assert world.candles[-2:] == [candle(minute(3), "1.00"), forming(minute(4), trades=99)]
        assert world.topic.state is State.LIVE


async def test_an_inspection_that_fails_says_so_and_changes_nothing(autojump_clock: MockClock) -> None:
    world = World(minutes(0, 3))
    async with world.running() as synchronizer:
        world.upstream.failure = UpstreamUnavailable("down")
        with pytest.raises(UpstreamUnavailable, match="down"):
            await synchronizer.inspect(minute(0))
        assert world.topic.state is State.LIVE
        assert world.topic.failure == ""
