"""What a subscriber is sent, function by function, over a real topic."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.core import wire
from candlesync.core.position import Position, parse_position
from candlesync.core.sync import State
from candlesync.errors import TooMany
from candlesync.hub import Outbox, Topic
from candlesync.web.parameters import Replay, Resume, Since
from candlesync.web.refusal import Refusal
from candlesync.web.subscription import begin, check, follow, pull, pull_state
from tests.builders import BTC, candle, flat, forming, minute, minutes, unheard
from tests.web.builders import LIFE, Web, commit


def read(messages: Sequence[bytes]) -> list[dict[str, Any]]:
    return [json.loads(message) for message in messages]


def numbers(messages: Sequence[bytes]) -> list[int]:
    """The minutes that the candles are of."""
    return [(message["time"] * 1000 - minute(0)) // 60_000 for message in read(messages)]


def too_old(call: Any, *arguments: Any) -> None:
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    assert caught.value.code == "too_old"
    assert "REST" in caught.value.message


def ten_minutes(history: int = 1000) -> Topic:
    return Web(history=history).topic()


# --- replay


async def test_a_replay_is_the_last_candles_in_time_order_and_its_last_message_has_the_position() -> None:
    topic = ten_minutes()
    messages = begin(topic.subscribe(Outbox(unheard)), Replay(3))
    assert numbers(messages) == [7, 8, 9]
    assert ["position" in message for message in read(messages)] == [False, False, True]
    assert read(messages)[-1]["position"] == str(topic.replica.position)


async def test_a_replay_longer_than_the_history_is_the_history() -> None:
    assert numbers(begin(ten_minutes().subscribe(Outbox(unheard)), Replay(1000))) == list(range(10))


async def test_no_replay_starts_with_what_comes() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    assert begin(subscriber, Replay(0)) == []
    commit(topic, forming(minute(10)))
    messages = pull(subscriber)
    assert numbers(messages) == [10]
    assert read(messages)[0]["position"] == f"{LIFE}-2"


async def test_after_a_replay_each_live_candle_comes_once_with_its_position() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    begin(subscriber, Replay(5))
    for revision, trades in enumerate((11, 12, 13), start=2):
        commit(topic, forming(minute(10), trades=trades))
        (message,) = read(pull(subscriber))
        assert (message["rev"], message["position"]) == (revision, f"{LIFE}-{revision}")
    assert pull(subscriber) == []


async def test_what_is_committed_before_begin_is_part_of_it_and_not_lost() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    commit(topic, forming(minute(10)))
    assert numbers(begin(subscriber, Replay(2))) == [9, 10]
    assert pull(subscriber) == []


# --- since


async def test_since_is_inclusive() -> None:
    assert numbers(begin(ten_minutes().subscribe(Outbox(unheard)), Since(minute(7)))) == [7, 8, 9]


async def test_since_between_two_open_times_starts_with_the_later() -> None:
    assert numbers(begin(ten_minutes().subscribe(Outbox(unheard)), Since(minute(7) + 1000))) == [8, 9]


async def test_since_the_first_candle_is_the_whole_history() -> None:
    topic = ten_minutes()
    assert numbers(begin(topic.subscribe(Outbox(unheard)), Since(minute(0)))) == list(range(10))
    # The candle before the first would have to be known: it opened at or after this time.
    assert numbers(begin(topic.subscribe(Outbox(unheard)), Since(minute(-1) + 1000))) == list(range(10))
    too_old(begin, topic.subscribe(Outbox(unheard)), Since(minute(-1)))
    too_old(begin, topic.subscribe(Outbox(unheard)), Since(0))


async def test_since_after_the_tail_gives_none_yet_and_none_from_before_ever() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    assert begin(subscriber, Since(minute(11))) == []
    commit(topic, candle(minute(10)))
    assert pull(subscriber) == []
    commit(topic, candle(minute(4), "36000.00000000"), candle(minute(11)))
    assert numbers(pull(subscriber)) == [11]


async def test_since_then_follows_every_candle_from_then_on_corrections_included() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    begin(subscriber, Since(minute(8)))
    commit(topic, candle(minute(3), "1.00000000"), candle(minute(8), "2.00000000"), candle(minute(10)))
    messages = read(pull(subscriber))
    assert [message["close"] for message in messages] == [2.0, 37012.31]
    assert ["position" in message for message in messages] == [False, True]


# --- position


async def test_a_position_resumes_with_what_changed_after_it_corrections_included_and_nothing_twice() -> None:
    topic = ten_minutes()
    commit(topic, forming(minute(10), trades=1))
    held = topic.replica.position
    commit(topic, forming(minute(10), trades=2))
    commit(topic, candle(minute(10), trades=3))
    commit(topic, candle(minute(4), "36000.00000000"))
    commit(topic, forming(minute(11)))
    messages = begin(topic.subscribe(Outbox(unheard)), Resume(held))
    assert numbers(messages) == [4, 10, 11]
    assert [message["rev"] for message in read(messages)] == [5, 4, 6]
    assert ["position" in message for message in read(messages)] == [False, False, True]


async def test_a_position_that_has_everything_gets_nothing_but_what_comes() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    assert begin(subscriber, Resume(topic.replica.position)) == []
    commit(topic, forming(minute(10)))
    assert numbers(pull(subscriber)) == [10]


async def test_a_position_of_another_life_is_too_old() -> None:
    topic = ten_minutes()
    too_old(check, topic, Resume(Position("other", 1)))
    commit(topic, *minutes(0, 9), life="life1")
    too_old(check, topic, Resume(Position(LIFE, 1)))
    check(topic, Resume(Position("life1", 1)))


async def test_a_position_is_too_old_exactly_when_a_candle_changed_after_it_has_left_the_history() -> None:
    topic = ten_minutes(history=10)
    commit(topic, candle(minute(0), "1.00000000"))  # revision 2 changes the candle that leaves first
    commit(topic, candle(minute(10)))  # revision 3 pushes it out
    too_old(check, topic, Resume(Position(LIFE, 1)))
    assert numbers(begin(topic.subscribe(Outbox(unheard)), Resume(Position(LIFE, 2)))) == [10]


async def test_a_series_that_begins_again_within_its_life_makes_older_positions_too_old() -> None:
    topic = ten_minutes()
    commit(topic, *minutes(5000, 5009), begins=True)
    assert topic.replica.life == LIFE
    too_old(check, topic, Resume(Position(LIFE, 1)))
    assert begin(topic.subscribe(Outbox(unheard)), Resume(Position(LIFE, 2))) == []


async def test_a_position_of_the_future_is_never_honoured_in_part() -> None:
    too_old(check, ten_minutes(), Resume(Position(LIFE, 2)))


async def test_a_break_in_the_middle_of_a_catch_up_loses_nothing() -> None:
    topic = ten_minutes()
    held = topic.replica.position
    commit(topic, candle(minute(2), "1.00000000"), candle(minute(10)), candle(minute(11)))
    whole = read(begin(topic.subscribe(Outbox(unheard)), Resume(held)))
    for seen in range(3):  # messages that arrived before the break
        positions = [message["position"] for message in whole[:seen] if "position" in message]
        again = Resume(parse_position(positions[-1]) if positions else held)
        assert read(begin(topic.subscribe(Outbox(unheard)), again)) == whole


# --- behind


async def test_a_slow_client_skips_forming_updates_but_no_candle() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    begin(subscriber, Replay(0))
    for number in range(10, 14):
        for trades in range(1, 50):
            commit(topic, forming(minute(number), trades=trades))
        commit(topic, candle(minute(number), trades=50))
    commit(topic, forming(minute(14), trades=7))
    messages = read(pull(subscriber))
    assert [(message["closed"], message["volume"]) for message in messages] == [(True, 50.5)] * 4 + [(False, 7.5)]
    assert [message["time"] for message in messages] == sorted(message["time"] for message in messages)


async def test_a_fill_and_what_replaces_it_come_like_every_change() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    begin(subscriber, Replay(0))
    commit(topic, flat(minute(10), "37009.00000000"), candle(minute(11)))
    assert [message.get("filled") for message in read(pull(subscriber))] == [True, None]
    commit(topic, candle(minute(10)))
    (message,) = read(pull(subscriber))
    assert "filled" not in message


async def test_a_connected_client_that_falls_behind_the_history_is_too_old() -> None:
    topic = ten_minutes(history=10)
    subscriber = topic.subscribe(Outbox(unheard))
    begin(subscriber, Replay(0))
    for number in range(10, 20):
        commit(topic, candle(minute(number)))
    assert numbers(pull(subscriber)) == list(range(10, 20))  # just in time
    for number in range(20, 31):
        commit(topic, candle(minute(number)))
    too_old(pull, subscriber)


@pytest.mark.parametrize("again", ["within its life", "in a new one"])
async def test_a_connected_client_is_too_old_when_the_series_begins_again(again: str) -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    begin(subscriber, Replay(0))
    commit(topic, *minutes(5000, 5009), begins=True, life=None if again == "within its life" else "life1")
    too_old(pull, subscriber)


# --- states


async def test_a_state_is_told_once_for_each_change() -> None:
    topic = ten_minutes()
    subscriber = topic.subscribe(Outbox(unheard))
    assert pull_state(subscriber) is State.LIVE
    assert pull_state(subscriber) is None
    topic.set_state(State.SYNCING)
    assert pull_state(subscriber) is State.SYNCING
    assert pull_state(subscriber) is None


# --- a start that has to wait


async def test_a_position_ahead_of_the_replica_is_waited_for(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()

    async def catch_up() -> None:
        for number in range(10, 14):
            await trio.sleep(1)
            commit(topic, candle(minute(number)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(catch_up)
        assert await follow(web.supervisor, BTC, Resume(Position(LIFE, 5))) is topic
        assert trio.current_time() == 4
    assert topic.replica.revision == 5


async def test_a_position_ahead_of_the_replica_is_waited_for_5_seconds_at_most(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic()
    with pytest.raises(Refusal, match="REST"):
        await follow(web.supervisor, BTC, Resume(Position(LIFE, 2)))
    assert trio.current_time() == 5


async def test_a_position_of_another_life_is_not_waited_for(autojump_clock: MockClock) -> None:
    web = Web()
    web.topic()
    with pytest.raises(Refusal, match="REST"):
        await follow(web.supervisor, BTC, Resume(Position("other", 99)))
    assert trio.current_time() == 0


async def test_what_hinders_a_series_goes_through() -> None:
    web = Web()
    web.supervisor.refusals["BTCUSDT"] = TooMany("200 symbols")
    with pytest.raises(TooMany):
        await follow(web.supervisor, BTC, Replay())


# --- any client at any pace

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("form"), st.integers(1, 100)),
        st.tuples(st.just("close"), st.just(0)),
        st.tuples(st.just("correct"), st.integers(1, 12)),
        st.tuples(st.just("read"), st.just(0)),
        st.tuples(st.just("break"), st.integers(0, 3)),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_a_client_that_breaks_and_resumes_anywhere_ends_with_what_rest_shows(steps: list[Step]) -> None:
    """It loads over REST, follows, loses its connection in the middle of catch-ups, and resumes with its position."""
    trio.run(partial(_follow_and_break, steps))


async def _follow_and_break(steps: list[Step]) -> None:
    topic = ten_minutes(history=12)
    chart = _Chart(topic)
    chart.resume()
    for kind, number in steps:
        tail = topic.replica.newest(1)[0].candle
        if kind == "form":
            time = minute(0) + 60_000 * ((tail.open_time - minute(0)) // 60_000 + tail.closed)
            commit(topic, forming(time, trades=number))
        elif kind == "close" and not tail.closed:
            commit(topic, candle(tail.open_time))
        elif kind == "correct":
            oldest = topic.replica.newest(number)[0].candle
            commit(topic, msgspec.structs.replace(oldest, close=f"{number}.00000000"))
        elif kind == "read":
            chart.read()
        elif kind == "break":
            chart.read(number)
            chart.resume()
    chart.read()
    assert chart.newest(5) == [(entry.open_time, entry.revision) for entry in topic.replica.newest(5)]


class _Chart:
    """A client that holds candles and a position, and loads over REST when its position is too old."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._load()

    def read(self, count: int | None = None) -> None:
        """Read what there is, or only its first messages before a break."""
        self._take(partial(pull, self._subscriber), count)

    def resume(self) -> None:
        """Connect (again), with the position."""
        self._subscriber = self._topic.subscribe(Outbox(unheard))
        self._take(lambda: begin(self._subscriber, Resume(self._position)), None)

    def newest(self, count: int) -> list[tuple[int, int]]:
        """Open times and revisions of the newest candles."""
        return [(time * 1000, self._candles[time]["rev"]) for time in sorted(self._candles)[-count:]]

    def _load(self) -> None:
        self._position = self._topic.replica.position
        body = wire.history(BTC, self._topic.replica.newest(1000))
        self._candles: dict[int, dict[str, Any]] = {candle["time"]: candle for candle in json.loads(body)}

    def _take(self, source: Callable[[], list[bytes]], count: int | None) -> None:
        try:
            messages = source()
        except Refusal:
            self._load()
            self.resume()
            return
        for message in read(messages[:count]):
            known = self._candles.get(message["time"], message)
            assert message["rev"] >= known["rev"], "back in time"
            assert message["closed"] or not known["closed"], "a closed candle forms again"
            self._candles[message["time"]] = message
            if "position" in message:
                self._position = parse_position(message["position"])
        times = sorted(self._candles)
        assert times == list(range(times[0], times[-1] + 60, 60)), "a jump"
