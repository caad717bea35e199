"""What the hub writes itself: to whom, when, and what a client then has, whatever its connection takes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from candlesync.core import wire
from candlesync.core.candle import Candle
from candlesync.core.position import parse_position
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.core.sync import State
from candlesync.hub import Hub, Outbox, Subscriber, Topic
from candlesync.web.base import Channel
from candlesync.web.bundle import Bundle, Turn
from candlesync.web.parameters import Replay, Resume, Since, Start
from candlesync.web.session import OneSeries
from candlesync.web.subscription import begin, pull
from tests.builders import BTC, begun, candle, flat, forming, minute, minutes, then, unheard
from tests.pipe import Pipe, messages_of


def begin_topic() -> Topic:
    topic = Hub(100).open(BTC)
    topic.publish(Commit("life0", 1, (*minutes(0, 1), forming(minute(2))), begins=True))
    return topic


class Client:
    """One subscriber with its outbox and its connection, moved by the test."""

    def __init__(self, topic: Topic, start: Start | None = None, *, room: float = math.inf) -> None:
        self.topic = topic
        self.outbox = Outbox(unheard)
        self.pipe = Pipe(room)
        self.subscriber: Subscriber = topic.subscribe(self.outbox)
        self.replayed = begin(self.subscriber, start or Replay(0))

    def park(self) -> bool:
        self.topic.park(self.subscriber, self.pipe)
        return self.is_parked

    @property
    def is_parked(self) -> bool:
        return self.subscriber in self.topic._parked

    def pull(self) -> list[bytes]:
        """What is still to be sent, once it is woken."""
        assert self.outbox.take() == [self.subscriber]
        return pull(self.subscriber)


def parked(topic: Topic, start: Start | None = None, *, room: float = math.inf) -> Client:
    client = Client(topic, start, room=room)
    assert client.park()
    return client


# --- who is parked


async def test_a_commit_is_written_once_to_each_who_is_parked_and_wakes_nobody() -> None:
    topic = begin_topic()
    clients = [parked(topic) for _ in range(3)]
    expected = b""
    for trades in (11, 12, 13):
        entries = topic.publish(then(topic.replica, forming(minute(2), trades=trades)))
        expected += b"".join(map(wire.frame, wire.catch_up(BTC, entries, topic.replica.position)))
    for client in clients:
        assert client.pipe.got == expected
        assert client.is_parked
        assert not client.outbox.holds(client.subscriber)
    assert topic.written == 9
    assert topic._statistics.fan_outs.count == 3, "one fan-out a commit"
    one, *others = [client.pipe.offers[0] for client in clients]
    assert all(other is one for other in others), "the same bytes, made once"


async def test_what_is_written_is_what_a_pull_would_give() -> None:
    topic = begin_topic()
    written, pulling = parked(topic), Client(topic)
    for commit in (
        then(topic.replica, forming(minute(2), trades=11)),
        Commit("life0", 3, (candle(minute(2)), candle(minute(3)), forming(minute(4), trades=1))),
        Commit("life0", 4, (candle(minute(4)), flat(minute(5)))),
    ):
        topic.publish(commit)
        assert written.pipe.offers[-1] == b"".join(map(wire.frame, pulling.pull()))
    assert written.pipe.got == b"".join(written.pipe.offers)
    assert topic.written == 1 + 3 + 2


async def test_whoever_has_not_everything_is_not_parked() -> None:
    topic = begin_topic()
    behind = Client(topic)
    topic.publish(then(topic.replica, forming(minute(2), trades=11)))
    assert not behind.park(), "it is marked"
    behind.outbox.take()
    assert not behind.park(), "it has not pulled"
    pull(behind.subscriber)
    assert behind.park()
    other = Client(topic)
    topic.set_state(State.LIVE)
    assert not other.park(), "it was not told the state"


async def test_whoever_has_unsubscribed_is_not_parked_and_written_nothing() -> None:
    topic = begin_topic()
    gone, later = Client(topic), parked(topic)
    topic.unsubscribe(gone.subscriber)
    topic.unsubscribe(later.subscriber)
    assert not gone.park()
    assert topic.idle_since is not None
    topic.publish(then(topic.replica, candle(minute(2))))
    assert (gone.pipe.offers, later.pipe.offers, topic.written) == ([], [], 0)
    assert not later.outbox.holds(later.subscriber)


async def test_one_that_is_parked_is_a_subscriber() -> None:
    topic = begin_topic()
    client = parked(topic)
    assert topic.subscribers == {client.subscriber}
    assert topic.idle_since is None


async def test_a_client_of_a_later_time_is_parked_when_that_has_come() -> None:
    topic = begin_topic()
    client = Client(topic, Since(minute(4) // 1000 * 1000))
    assert client.replayed == []
    assert not client.park()
    topic.publish(then(topic.replica, candle(minute(2)), forming(minute(3))))
    assert client.pull() == []
    assert not client.park()
    topic.publish(then(topic.replica, candle(minute(3)), forming(minute(4))))
    (message,) = client.pull()
    assert json.loads(message)["time"] * 1000 == minute(4)
    assert client.park()
    topic.publish(then(topic.replica, candle(minute(3), trades=99)))
    assert client.pipe.offers == []
    assert client.pull() == [], "what was corrected is before what it asked for"


# --- what unparks


async def test_a_state_is_told_in_its_place_among_the_candles() -> None:
    topic = begin_topic()
    client = parked(topic)
    topic.publish(then(topic.replica, forming(minute(2), trades=11)))
    topic.set_state(State.LIVE)
    assert not client.is_parked
    topic.publish(then(topic.replica, forming(minute(2), trades=12)))
    assert len(client.pipe.offers) == 1
    assert [json.loads(message)["rev"] for message in client.pull()] == [3], "what came after, and only that"


async def test_a_correction_is_pulled() -> None:
    topic = begin_topic()
    client = parked(topic)
    topic.publish(then(topic.replica, candle(minute(1), trades=99)))
    assert client.pipe.offers == []
    assert [json.loads(message)["time"] * 1000 for message in client.pull()] == [minute(1)]
    assert client.park()


@pytest.mark.parametrize("begins", ["a new life", "again"])
async def test_a_series_that_begins_again_is_to_be_loaded_again(begins: str) -> None:
    topic = begin_topic()
    client = parked(topic)
    if begins == "again":
        topic.publish(then(topic.replica, *minutes(50, 53), begins=True))
    else:
        topic.publish(Commit("life1", 1, tuple(minutes(0, 3)), begins=True, replaces="life0"))
    assert client.pipe.offers == []
    with pytest.raises(Exception, match="load it over REST again"):
        client.pull()


async def test_what_is_adopted_is_pulled() -> None:
    topic = begin_topic()
    client = parked(topic)
    topic.publish(then(topic.replica, forming(minute(2), trades=11)))
    stored = begun([*minutes(0, 1), forming(minute(2))])
    stored.apply(then(stored, forming(minute(2), trades=11)))
    stored.apply(then(stored, candle(minute(2)), candle(minute(3))))
    topic.adopt(stored.snapshot())
    assert len(client.pipe.offers) == 1
    assert [json.loads(message)["rev"] for message in client.pull()] == [3, 3]


async def test_who_was_written_more_than_a_store_that_went_back_loads_again() -> None:
    topic = begin_topic()
    old = topic.replica.snapshot()
    client = parked(topic)
    topic.publish(then(topic.replica, forming(minute(2), trades=11)))
    topic.adopt(old)
    with pytest.raises(Exception, match="load it over REST again"):
        client.pull()


async def test_a_commit_that_does_not_stay_in_the_history_whole_is_not_written() -> None:
    topic = Hub(3).open(BTC)
    topic.publish(Commit("life0", 1, (*minutes(0, 1), forming(minute(2))), begins=True))
    client = parked(topic)
    topic.publish(then(topic.replica, *minutes(2, 9)))
    assert client.pipe.offers == []
    with pytest.raises(Exception, match="load it over REST again"):
        client.pull()


async def test_a_commit_of_more_than_a_batch_is_pulled() -> None:
    """So that what waits for a client that takes a part of it is bounded."""
    topic = begin_topic()
    client = parked(topic)
    topic.publish(then(topic.replica, *minutes(2, 95)))
    assert client.pipe.offers == []
    assert len(client.pull()) == 94


async def test_a_commit_that_is_refused_unparks_nobody() -> None:
    topic = begin_topic()
    client = parked(topic)
    with pytest.raises(Exception, match="does not follow"):
        topic.publish(then(topic.replica, candle(minute(2)), candle(minute(9))))
    assert client.is_parked
    topic.publish(then(topic.replica, candle(minute(2))))
    assert len(client.pipe.offers) == 1


# --- what the connection takes


async def test_of_what_was_not_taken_nothing_is_lost() -> None:
    topic = begin_topic()
    full, free = parked(topic, room=0), parked(topic)
    topic.publish(then(topic.replica, forming(minute(2), trades=11)))
    topic.publish(then(topic.replica, candle(minute(2)), forming(minute(3), trades=1)))
    assert len(full.pipe.offers) == 1, "it is asked once, and then left to pull"
    assert (full.pipe.got, topic.written) == (b"", 3)
    assert [json.loads(message)["rev"] for message in full.pull()] == [3, 3]
    assert free.is_parked


async def test_of_what_was_begun_the_rest_goes_out_and_nothing_twice() -> None:
    topic = begin_topic()
    client = parked(topic, room=1)
    topic.publish(then(topic.replica, candle(minute(2)), forming(minute(3), trades=1)))
    assert len(client.pipe.got) == 1
    topic.publish(then(topic.replica, forming(minute(3), trades=2)))
    later = client.pull()
    assert [json.loads(message)["rev"] for message in later] == [3]
    client.pipe.widen(math.inf)
    await client.pipe.push(b"".join(map(wire.frame, later)))
    messages, size = messages_of(client.pipe.got)
    assert size == len(client.pipe.got)
    assert [json.loads(message)["rev"] for message in messages] == [2, 2, 3]
    assert topic.written == 2, "what was begun is sent"


async def test_a_connection_that_takes_nothing_does_not_hold_up_the_next() -> None:
    topic = begin_topic()
    clients = [parked(topic, room=0 if number % 2 else math.inf) for number in range(10)]
    topic.publish(then(topic.replica, forming(minute(2), trades=11)))
    assert [bool(client.pipe.got) for client in clients] == [True, False] * 5
    assert [client.is_parked for client in clients] == [True, False] * 5
    assert topic.written == 5


async def test_what_was_written_is_counted_when_the_series_is_gone_too() -> None:
    hub = Hub(100)
    topic = hub.open(BTC)
    topic.publish(Commit("life0", 1, (*minutes(0, 1), forming(minute(2))), begins=True))
    client = parked(topic)
    topic.publish(then(topic.replica, candle(minute(2)), forming(minute(3))))
    assert hub.written == 2
    topic.unsubscribe(client.subscriber)
    hub.close(BTC)
    hub.close(BTC)
    hub.open(BTC)
    assert hub.written == 2


# --- any sequence at all


class Viewer:
    """A chart on a real session: what it holds, and whether what it was told of its position was true."""

    def __init__(self, world: World, start: Start) -> None:
        self.world = world
        self.pipe = Pipe()
        self.candles: dict[int, bytes] = {}
        self.begins = 0
        """It holds the series from this open time on."""
        self.position: str | None = None
        self.read = 0
        self.code: int | None = None
        match start:
            case Resume():
                # It has loaded over REST.
                self.candles = dict(world.shown[str(start.position)][-1])
                self.position = str(start.position)
                self.begins = min(self.candles)
            case Replay():
                self.begins = -1  # until the first has come
            case Since(open_time):
                self.begins = open_time
        channel = Channel(trio.sleep_forever, self.send, self.pipe)
        self.session = OneSeries(channel, world.topic, start)
        if world.turn is not None:
            self.session._line = Bundle(self.pipe, world.turn, self.session._fall_behind)

    async def send(self, _message: str) -> None:
        raise AssertionError("the line is there to be written to")

    async def run(self) -> None:
        self.code = (await self.session.run()).code
        await self.pipe.push(b"")  # as the close frame does, which goes out behind it

    def look(self) -> None:
        """Take what has come; a position has to be true of all that is held."""
        messages, size = messages_of(self.pipe.got[self.read :])
        self.read += size
        for message in messages:
            value: dict[str, Any] = json.loads(message)
            position = value.pop("position", None)
            open_time = value["time"] * 1000
            bare = message if position is None else message[: message.index(b',"position"')] + b"}"
            if self.begins < 0:
                self.begins = open_time
            held = self.candles.get(open_time)
            if held is not None:
                assert json.loads(held)["rev"] < value["rev"], "nothing comes twice, or goes back"
            self.candles[open_time] = bare
            assert open_time >= self.begins or not isinstance(self.session._start, Since)
            if position is not None:
                self.check(position)
                self.position = position

    def check(self, position: str) -> None:
        """From its first candle on it has what the series was at the position."""
        wanted = [
            {open_time: encoded for open_time, encoded in shown.items() if open_time >= self.begins}
            for shown in self.world.shown[position]
        ]
        assert any(each.items() <= self.candles.items() for each in wanted), position


class World:
    """A series that changes at random, and its viewers."""

    def __init__(self, history: int, turn: Turn | None) -> None:
        self.topic = Hub(history).open(BTC)
        self.turn = turn
        self.shown: dict[str, list[dict[int, bytes]]] = {}
        """The series at each position that it ever had; at several, if it went back and came there again."""
        self.went_back = False
        self.trades = 10
        self.lives = 0
        self.viewers: list[Viewer] = []
        self.past: list[Snapshot] = []
        self.topic.publish(Commit("life0", 1, (*minutes(0, 19), forming(minute(20))), begins=True))
        self.note()

    @property
    def replica(self) -> Replica:
        return self.topic.replica

    def note(self) -> None:
        entries = self.replica.newest(10_000)
        states = self.shown.setdefault(str(self.replica.position), [])
        states.append({entry.open_time: wire.encode(BTC, entry) for entry in entries})
        self.past.append(self.replica.snapshot())

    def candles(self, count: int) -> list[Candle]:
        return self.candles_after(self.replica, count)

    @staticmethod
    def candles_after(replica: Replica, count: int) -> list[Candle]:
        """The tail closed, and so many more behind it, the last one forming."""
        tail = replica.tail
        assert tail is not None
        trades = tail.trades + 1
        last = (tail.open_time - minute(0)) // 60_000
        made = [candle(minute(last + number), trades=trades) for number in range(count + 1)]
        made[-1] = forming(made[-1].open_time, trades=trades)
        return made if not tail.closed else made[1:] or [candle(minute(last), trades=trades)]

    def change(self, kind: str, number: int) -> None:
        replica = self.replica
        match kind:
            case "forming":
                self.topic.publish(then(replica, *self.candles(0)))
            case "close":
                self.topic.publish(then(replica, *self.candles(1 + number % 3)))
            case "many":
                self.topic.publish(then(replica, *self.candles(85)))
            case "correct" | "correct and close":
                older = replica.newest(1 + 5)[0].candle
                self.trades += 1
                corrected = candle(older.open_time, trades=self.trades + 1000)
                more = self.candles(1) if kind == "correct and close" else []
                self.topic.publish(then(replica, *(row for row in (corrected, *more) if row is not older)))
            case "begin again":
                tail = replica.tail
                assert tail is not None
                first = (tail.open_time - minute(0)) // 60_000 + 100
                self.topic.publish(then(replica, *minutes(first, first + 5), begins=True))
            case "new life":
                self.lives += 1
                first = 5 + number % 10
                life = f"life{self.lives}"
                commit = Commit(life, 1, tuple(minutes(first, first + 15)), begins=True, replaces=replica.life)
                self.topic.publish(commit)
            case "state":
                self.topic.set_state(list(State)[number % 3])
                return
            case "adopt":
                # Another node has written, and this one reads it all at once.
                stored = Replica(BTC, replica.history)
                stored.restore(replica.snapshot())
                for _ in range(1 + number % 3):
                    stored.apply(then(stored, *World.candles_after(stored, 1)))
                self.topic.adopt(stored.snapshot())
            case "go back":
                # A store that was restored goes back, and its revisions will mean something else.
                self.went_back = True
                same_life = [past for past in self.past if past.life == replica.life]
                self.topic.adopt(same_life[max(0, len(same_life) - 1 - number % 4)])
        self.note()

    def start(self, kind: str, number: int) -> Start:
        if kind == "position":
            return Resume(self.replica.position)
        if kind == "since":
            tail = self.replica.tail
            assert tail is not None
            return Since(tail.open_time + (number % 5 - 2) * 60_000)
        return Replay(1 + number % 5)


CHANGES = ["forming"] * 5 + ["close", "close", "correct", "correct and close", "many", "state", "adopt"]
RARE = ["begin again", "new life", "go back"]
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(CHANGES + RARE), st.integers(0, 20)),
    st.tuples(st.just("room"), st.integers(0, 20)),
    st.tuples(st.just("full"), st.integers(0, 20)),
    st.tuples(st.just("some room"), st.integers(1, 400)),
    st.tuples(st.just("turn"), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["position", "since", "replay"]), st.integers(0, 20)),
)


@settings(max_examples=300, deadline=None)
@given(
    actions=st.lists(ACTIONS, min_size=5, max_size=60),
    history=st.sampled_from([25, 100, 1000]),
    turn=st.sampled_from([None, Turn]),
)
def test_whatever_happens_a_chart_has_what_its_position_says(
    actions: list[tuple[str, int]], history: int, turn: type[Turn] | None
) -> None:
    """Real sessions on connections that take all, nothing, or a part; looked at after each turn, or after several.
    With a turn, what one turn brings goes out together."""

    async def main() -> None:
        world = World(history, None if turn is None else turn())
        async with trio.open_nursery() as nursery:
            if world.turn is not None:
                await nursery.start(world.turn.run)

            def join(kind: str, number: int) -> None:
                viewer = Viewer(world, world.start(kind, number))
                world.viewers.append(viewer)
                nursery.start_soon(viewer.run)

            join("position", 0)
            join("replay", 3)
            for kind, number in [("turn", 0), *actions]:
                viewer = world.viewers[number % len(world.viewers)]
                if kind == "room":
                    viewer.pipe.widen(math.inf)
                elif kind == "full":
                    viewer.pipe.room = 0
                elif kind == "some room":
                    viewer.pipe.room = 0 if viewer.pipe.room == math.inf else viewer.pipe.room
                    viewer.pipe.widen(number)
                elif kind == "turn":
                    await trio.testing.wait_all_tasks_blocked()
                elif kind == "leave":
                    viewer.session._scope.cancel()
                elif kind in {"position", "since", "replay"}:
                    join(kind, number)
                else:
                    world.change(kind, number)
                for each in world.viewers:
                    each.look()
            for viewer in world.viewers:
                viewer.pipe.widen(math.inf)
            await trio.testing.wait_all_tasks_blocked()
            for viewer in world.viewers:
                viewer.look()
                assert messages_of(viewer.pipe.got)[1] == len(viewer.pipe.got), "no frame was begun and not ended"
                if viewer.code is None:
                    viewer.check(str(world.replica.position))
                    tail = world.replica.tail
                    assert tail is not None
                    assert viewer.session._subscriber in world.topic._parked or tail.open_time < viewer.begins
                else:
                    assert viewer.code in {1000, 4410}
                # It resumes from where it says that it was.
                if viewer.position is not None and not world.went_back:
                    position = parse_position(viewer.position)
                    if world.replica.can_resume(position) and position.revision <= world.replica.revision:
                        for entry in world.replica.changed_since(position.revision):
                            viewer.candles[entry.open_time] = wire.encode(BTC, entry)
                        viewer.check(str(world.replica.position))
            nursery.cancel_scope.cancel()

    trio.run(main)
