"""A stream shows every close once and in order, and of the forming candle what it is now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from candlesync.core.candle import Candle
from candlesync.core.sync import State
from candlesync.doors.binance.departures import Departures, Key
from candlesync.doors.binance.stream import Missed, Stream, Texts
from candlesync.hub import Outbox, Topic
from tests.builders import candle, flat, forming, minute, unheard
from tests.web.builders import Web, commit

KEY = Key("", b"", "btcusdt@kline_1m")
CLOCK = 1_700_000_100_000


def texts() -> Texts:
    return Texts(lambda: CLOCK)


def ten_minutes(history: int = 1000, state: State = State.LIVE) -> Topic:
    return Web(history=history).topic(state=state)


def begin(topic: Topic) -> Stream:
    return Stream(topic, Outbox(unheard), texts())


def pull(stream: Stream, *, combined: bool = False) -> list[dict[str, Any]]:
    """What the client is sent, all of it."""
    events = []
    for place, event in stream.due(combined=combined):
        stream.place = place
        if event:
            events.append(json.loads(event))
    return events


def told(events: Sequence[dict[str, Any]]) -> list[tuple[int, bool]]:
    """The minutes of the events, and whether they are closed."""
    return [((event["k"]["t"] - minute(0)) // 60_000, event["k"]["x"]) for event in events]


# --- where it begins


async def test_it_begins_with_the_forming_candle_at_once_and_with_no_close_from_before() -> None:
    topic = ten_minutes()
    commit(topic, forming(minute(10)))
    assert told(pull(begin(topic))) == [(10, False)]


async def test_it_begins_with_nothing_between_two_candles() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    assert pull(stream) == []
    commit(topic, forming(minute(10)))
    assert told(pull(stream)) == [(10, False)]


async def test_what_closes_before_the_first_event_is_not_lost() -> None:
    topic = ten_minutes()
    commit(topic, forming(minute(10)))
    stream = begin(topic)
    commit(topic, candle(minute(10)), forming(minute(11)))
    assert told(pull(stream)) == [(10, True), (11, False)]


@pytest.mark.parametrize("state", [State.SYNCING, State.STALE])
async def test_an_old_forming_candle_is_not_shown_as_the_present_one(state: State) -> None:
    topic = ten_minutes(state=state)
    commit(topic, forming(minute(10)))
    stream = begin(topic)
    assert pull(stream) == []
    commit(topic, candle(minute(10)), candle(minute(11)))  # it is synced, and closed
    assert told(pull(stream)) == [(10, True), (11, True)]


# --- how it goes on


async def test_a_forming_candle_is_shown_once_for_each_change_that_is_read() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    for trades in (1, 2, 3):
        commit(topic, forming(minute(10), trades=trades))
    assert [event["k"]["n"] for event in pull(stream)] == [3]
    assert pull(stream) == []
    topic.set_state(State.SYNCING)
    assert pull(stream) == []


async def test_an_outage_is_not_shown_and_not_what_replaces_it_later() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    commit(topic, flat(minute(10), "37009.00000000"), flat(minute(11), "37009.00000000"), candle(minute(12)))
    assert told(pull(stream)) == [(12, True)]
    commit(topic, candle(minute(10)), candle(minute(11)))
    assert pull(stream) == []


async def test_no_correction_is_shown_be_it_of_the_newest_close() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    commit(topic, candle(minute(10)))
    assert told(pull(stream)) == [(10, True)]
    commit(topic, candle(minute(3), "1.00000000"), candle(minute(10), "2.00000000"))
    assert pull(stream) == []
    commit(topic, candle(minute(11)))
    assert told(pull(stream)) == [(11, True)]


async def test_what_was_corrected_before_it_was_read_is_shown_corrected() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    commit(topic, candle(minute(10)))
    commit(topic, candle(minute(10), "2.00000000"))
    assert [event["k"]["c"] for event in pull(stream)] == ["2.00000000"]


async def test_a_new_life_of_the_series_goes_unnoticed_where_the_candles_join() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    commit(topic, candle(minute(10)))
    pull(stream)
    commit(topic, *(candle(minute(number)) for number in range(5, 13)), life="life1")
    assert told(pull(stream)) == [(11, True), (12, True)]
    # A store that was found with less than was shown: what was shown is not shown again.
    commit(topic, *(candle(minute(number)) for number in range(5, 12)), forming(minute(12)), life="life2")
    assert pull(stream) == []
    commit(topic, candle(minute(12)), candle(minute(13)))
    assert told(pull(stream)) == [(13, True)]


async def test_closes_that_are_no_longer_held_are_not_skipped() -> None:
    topic = ten_minutes(history=10)
    stream = begin(topic)
    for number in range(10, 20):
        commit(topic, candle(minute(number)))
    slow = begin(topic)
    slow.place = minute(8)
    assert told(pull(stream)) == [(number, True) for number in range(10, 20)]  # just in time
    with pytest.raises(Missed, match="BTCUSDT 1m"):
        pull(slow)


async def test_a_series_that_begins_again_after_a_gap_is_missed() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    commit(topic, *(candle(minute(number)) for number in range(5000, 5010)), begins=True)
    with pytest.raises(Missed):
        pull(stream)


async def test_combined_events_are_wrapped_with_the_name_of_their_stream() -> None:
    topic = ten_minutes()
    stream = begin(topic)
    commit(topic, candle(minute(10)))
    ((_, event),) = stream.due(combined=True)
    ((_, raw),) = stream.due(combined=False)
    assert event == b'{"stream":"btcusdt@kline_1m","data":' + raw + b"}"


async def test_an_event_is_made_once_for_all_clients() -> None:
    topic, made = ten_minutes(), texts()
    streams = [Stream(topic, Outbox(unheard), made) for _ in range(3)]
    commit(topic, candle(minute(10)), forming(minute(11)))
    events = [[event for _, event in stream.due(combined=False)] for stream in streams]
    assert {id(event) for event in events[0]} == {id(event) for several in events for event in several}
    commit(topic, forming(minute(11), trades=11))
    ((_, closed), (_, changed)) = streams[0].due(combined=False)
    assert closed == events[0][0]
    assert changed != events[0][1]


# --- any client at any pace

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("form"), st.integers(1, 100)),
        st.tuples(st.just("close"), st.just(0)),
        st.tuples(st.just("catch up"), st.integers(1, 14)),
        st.tuples(st.just("fill"), st.integers(1, 3)),
        st.tuples(st.just("unfill"), st.just(0)),
        st.tuples(st.just("correct"), st.integers(1, 12)),
        st.tuples(st.just("new life"), st.just(0)),
        st.tuples(st.just("begin again"), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 2)),
        st.tuples(st.just("break"), st.integers(0, 2)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_each_client_gets_every_close_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """Clients read when they like, or break in the middle of what they are sent and come back later."""
    trio.run(partial(_go, steps))


async def _go(steps: list[tuple[str, int]]) -> None:
    market = _Market()
    clients = [_Client(market) for _ in range(3)]
    for kind, number in steps:
        match kind:
            case "read":
                clients[number].read()
            case "break":
                clients[number].break_off(after=number)
            case _:
                market.step(kind, number)
    for client in clients:
        client.read()
        client.read()
        assert client.stream.place >= market.last_close


class _Market:
    """A series of which commits of every kind are made, and what Binance closed of it."""

    def __init__(self) -> None:
        self.topic = ten_minutes(history=12)
        self.departures = Departures()
        self.closed: set[int] = set()
        """Open times of what was closed in its time; not of what replaced a fill later."""

    @property
    def last_close(self) -> int:
        return max(self.closed, default=0)

    def step(self, kind: str, number: int) -> None:
        tail = self.topic.replica.newest(1)[0].candle
        following = tail.open_time + 60_000 * tail.closed
        match kind:
            case "form":
                commit(self.topic, forming(following, trades=number))
            case "close":
                self._commit(candle(following))
            case "catch up":
                self._commit(*(candle(following + 60_000 * step) for step in range(min(number, 12))))
            case "fill" if tail.closed:
                fills = [flat(following + 60_000 * step) for step in range(number)]
                self._commit(*fills, candle(following + 60_000 * number))
            case "unfill" if self.topic.replica.filled:
                commit(self.topic, candle(min(self.topic.replica.filled)))
            case "correct":
                oldest = self.topic.replica.newest(number)[0].candle
                commit(self.topic, msgspec.structs.replace(oldest, close=f"{number}.00000000"))
            case "new life":
                held = [entry.candle for entry in self.topic.replica.newest(12)]
                commit(self.topic, *held, life=f"life{self.topic.commits}")
            case "begin again":
                self._commit(*(candle(following + 60_000 * (5000 + step)) for step in range(3)), begins=True)

    def _commit(self, *candles: Candle, begins: bool = False) -> None:
        commit(self.topic, *candles, begins=begins)
        self.closed |= {made.open_time for made in candles if not made.filled}


class _Client:
    """One that notes the closes, and knows which it must have."""

    def __init__(self, market: _Market) -> None:
        self._market = market
        self.stream: Stream
        self._begin()

    def read(self) -> None:
        self._take(None)

    def break_off(self, after: int) -> None:
        """Break after so many events, and come back in place of whoever left."""
        self._take(after)
        self.stream.end()
        self._market.departures.remember(KEY, self.stream.place, trio.current_time())
        place = self._market.departures.take(KEY, trio.current_time())
        assert place is not None
        self.stream = begin(self._market.topic)
        self.stream.place = place

    def _begin(self) -> None:
        self.stream = begin(self._market.topic)
        self._newest = self.stream.place

    def _take(self, most: int | None) -> None:
        held = self._market.topic.replica
        events = 0
        try:
            for place, event in self.stream.due(combined=False):
                if events == most:
                    return
                self.stream.place = place
                if event:
                    events += 1
                    self._see(json.loads(event)["k"])
        except Missed:
            first = held.newest(12)[0].open_time
            assert any(self._newest < time < first for time in [*self._market.closed, first - 60_000])
            self.stream.end()
            self._begin()

    def _see(self, seen: dict[str, Any]) -> None:
        time = seen["t"]
        assert time > self._newest, "again, or back in time"
        between = {closed for closed in self._market.closed if self._newest < closed < time}
        assert not between, "a close is missing"
        if seen["x"]:
            now = self._market.topic.replica.get(time)
            assert now is not None
            assert (seen["c"], now.closed, now.filled) == (now.close, True, False)
            self._newest = time
