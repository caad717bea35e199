"""A feed against the real application, in virtual time: every way in which the two may be parted."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.client.candles import Candle
from candlesync.client.feed import Feed, State
from candlesync.client.pauses import Pauses
from candlesync.client.server import Broken
from candlesync.core.sync import State as Truth
from candlesync.errors import FeedError
from tests.builders import candle, forming, minute, minutes
from tests.client.builders import Served, second, times, whole
from tests.web.builders import Web


async def collect(feed: Feed, into: list[int], since: int | None = None) -> None:
    async for one in feed.closed(since):
        assert one.closed
        into.append(one.time)


async def until_live(feed: Feed) -> None:
    with trio.fail_after(600):
        while feed.state is not State.LIVE:  # noqa: ASYNC110 - as an outsider
            await trio.sleep(0.05)


# --- what it gives


async def test_it_loads_and_follows(autojump_clock: MockClock) -> None:
    served = Served([*minutes(0, 8), forming(minute(9))])
    told: list[tuple[State, str]] = []
    async with served.followed(on_state=lambda state, reason: told.append((state, reason))) as feed:
        first = [await anext(feed) for _ in range(10)]
        assert [one.time for one in first] == times(0, 9)
        assert [one.closed for one in first] == [True] * 9 + [False]
        await until_live(feed)
        served.commit(forming(minute(9), "37013.00000000", trades=20))
        assert str((await anext(feed)).close) == "37013.00000000"
        served.commit(candle(minute(9), trades=30), forming(minute(10)))
        assert [(one.time, one.closed) for one in [await anext(feed), await anext(feed)]] == [
            (second(9), True),
            (second(10), False),
        ]
        served.commit(candle(minute(4), "36999.00000000"))
        corrected = await anext(feed)
        assert (corrected.time, str(corrected.close)) == (second(4), "36999.00000000")
        assert feed.at(second(4)) == corrected
        assert feed.newest == feed.candles[-1]
        assert feed.tally.corrections == 1
    assert told == [(State.SYNCING, "loading"), (State.SYNCING, "catching up"), (State.LIVE, "")]


async def test_who_is_slow_skips_changes_and_never_a_candle(autojump_clock: MockClock) -> None:
    served = Served([*minutes(0, 8), forming(minute(9))])
    async with served.followed(load=1) as feed:
        assert (await anext(feed)).time == second(9)
        await until_live(feed)
        for number in range(9, 40):
            served.commit(candle(minute(number), trades=20), forming(minute(number + 1)))
            for trades in range(11, 15):
                served.commit(forming(minute(number + 1), trades=trades))
                await trio.sleep(0.1)
        got = [await anext(feed) for _ in range(32)]
        assert [one.time for one in got] == times(9, 40)
        assert [one.closed for one in got] == [True] * 31 + [False]
        with trio.move_on_after(5):
            pytest.fail(f"given twice: {await anext(feed)}")


async def test_how_true_it_is(autojump_clock: MockClock) -> None:
    served = Served()
    told: list[tuple[State, str]] = []
    async with served.followed(on_state=lambda state, reason: told.append((state, reason))) as feed:
        await until_live(feed)
        told.clear()
        for state in (Truth.STALE, Truth.SYNCING, Truth.LIVE):
            served.topic.set_state(state)
            await trio.sleep(1)
        assert told == [
            (State.OFFLINE, "the server has no connection to the exchange"),
            (State.SYNCING, ""),
            (State.LIVE, ""),
        ]


@pytest.mark.parametrize("settings", [{"interval": "2m"}, {"load": 0}, {"load": 1001}, {"symbol": " "}])
async def test_what_cannot_be_followed(settings: dict[str, object], autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match=r"interval|load|symbol"):
        async with Served().followed(**settings):  # type: ignore[arg-type] # as wrong as it may be
            pass


# --- closed


async def test_closed_candles_come_once_and_in_order_also_the_one_that_was_forming(autojump_clock: MockClock) -> None:
    served = Served([*minutes(0, 8), forming(minute(9))])
    got: list[int] = []
    async with served.followed(load=3) as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got)
        await until_live(feed)
        assert got == times(7, 8)
        served.commit(candle(minute(9), trades=20))
        served.commit(candle(minute(5), "36999.00000000"))
        served.commit(candle(minute(8), "36999.00000000"))
        served.commit(forming(minute(10)))
        await trio.sleep(1)
        assert got == times(7, 9), "a correction is not given again"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("since", "first"), [(-3_000, -3_000), (-1_500, -1_500), (3, 3), (9, 9), (-3_490, -3_490)])
async def test_a_bot_goes_on_where_it_was_be_it_long_ago(since: int, first: int, autojump_clock: MockClock) -> None:
    served = Served()
    got: list[int] = []
    async with served.followed(load=1) as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got, second(since))
        await trio.sleep(30)
        assert got == times(first, 9)
        served.commit(*minutes(10, 11))
        await trio.sleep(1)
        assert got == times(first, 11)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("since", [0, second(-3_501) - 59, second(-3_500)])
async def test_from_before_the_series_began_it_begins_where_that_does(since: int, autojump_clock: MockClock) -> None:
    served = Served()
    got: list[int] = []
    async with served.followed() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got, since)
        await trio.sleep(60)
        assert got == times(-3_500, 9)
        assert len(served.loads) < 120
        nursery.cancel_scope.cancel()


async def test_between_two_open_times_the_next_one_is_meant(autojump_clock: MockClock) -> None:
    served = Served()
    got: list[int] = []
    async with served.followed() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got, second(4) + 1)
        await trio.sleep(1)
        assert got == times(5, 9)
        nursery.cancel_scope.cancel()


async def test_a_time_to_come_is_waited_for(autojump_clock: MockClock) -> None:
    served = Served()
    got: list[int] = []
    async with served.followed() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got, second(12))
        await until_live(feed)
        served.commit(*minutes(10, 13))
        await trio.sleep(1)
        assert got == times(12, 13)
        nursery.cancel_scope.cancel()


async def test_who_is_slower_than_all_that_is_held_asks_again(autojump_clock: MockClock) -> None:
    served = Served()
    got: list[int] = []
    async with served.followed(load=1, most=1) as feed:  # a thousand are held, at least
        closed, changes = feed.closed(), aiter(feed)
        got.append((await anext(closed)).time)
        assert (await anext(changes)).time == second(9)
        await until_live(feed)
        for number in range(10, 2_500, 10):
            served.commit(*minutes(number, number + 9))
            await trio.sleep(0.01)
            assert len(feed.candles) <= 1_100
        got += [(await anext(closed)).time for _ in range(10, 2_500)]
        assert got == times(9, 2_499)
        assert [(await anext(changes)).time for _ in range(10, 2_500)] == times(10, 2_499)
        assert {"limit": 1000, "before": second(1_010)} in served.loads


async def test_a_candle_that_the_server_has_no_more_is_never_left_out_silently(autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed() as feed:
        closed = feed.closed()
        for _ in range(10):
            await anext(closed)
            await anext(feed)
        served.start(minutes(2_000, 2_010), older=1_500)  # another Binance, which knows nothing of those between
        served.cut()
        with pytest.raises(FeedError, match=f"no candle of {second(10)}") as caught:
            await anext(closed)
        assert caught.value.code == "hole"
        with pytest.raises(FeedError, match=f"no candle of {second(10)}"):
            await anext(feed)


@pytest.mark.parametrize("since", [-1, 1_700_000_040_000])
async def test_a_time_in_milliseconds_is_refused_and_not_waited_for(since: int, autojump_clock: MockClock) -> None:
    async with Served().followed() as feed:
        with pytest.raises(ValueError, match="UNIX seconds"):
            feed.closed(since)


# --- breaks


async def test_after_a_break_it_is_sent_exactly_what_it_missed(autojump_clock: MockClock) -> None:
    served = Served([*minutes(0, 8), forming(minute(9))])
    got: list[int] = []
    async with served.followed() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got)
        await until_live(feed)
        messages = feed.tally.messages
        served.is_down = True
        served.cut()
        await trio.sleep(60)
        assert feed.state is State.OFFLINE
        assert feed.reason == "nobody is there"
        served.commit(candle(minute(9), trades=20), *minutes(10, 30), forming(minute(31)))
        served.commit(candle(minute(2), "36999.00000000"))
        served.is_down = False
        await until_live(feed)
        await trio.sleep(0.1)
        assert got == times(0, 30)
        assert whole(feed.candles)
        found = feed.at(second(2))
        assert found is not None
        assert str(found.close) == "36999.00000000"
        assert feed.tally.messages == messages + 2 + 24
        assert (feed.tally.breaks, feed.tally.gaps, feed.tally.missed, feed.tally.loads) == (1, 1, 21, 1)
        nursery.cancel_scope.cancel()


async def test_a_break_in_the_midst_of_a_catch_up_loses_nothing(autojump_clock: MockClock) -> None:
    served = Served()
    got: list[int] = []
    async with served.followed() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got)
        await until_live(feed)
        served.is_down = True
        served.cut()
        await trio.sleep(1)
        served.commit(candle(minute(3), "36999.00000000"), *minutes(10, 30))
        heard = Counter[str]()

        def break_at_the_fifth(message: bytes) -> bytes:
            heard["candles"] += b'"time"' in message
            if heard["candles"] == 5 and b'"time"' in message:
                raise Broken("in the midst")
            return message

        served.on_message = break_at_the_fifth
        served.is_down = False
        await until_live(feed)
        await trio.sleep(5)
        assert got == times(0, 30)
        assert whole(feed.candles)
        assert feed.tally.corrections == 1
        assert feed.tally.loads == 1
        assert (feed.tally.gaps, feed.tally.missed) == (1, 21), "from the first break on"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("missed", [0, 3, 900, 2_500])
@pytest.mark.parametrize("load", [1, 1000])
async def test_a_server_that_begins_another_life_while_candles_are_missed(
    missed: int, load: int, autojump_clock: MockClock
) -> None:
    served = Served([*minutes(0, 8), forming(minute(9))])
    closed: list[int] = []
    given_: list[Candle] = []
    async with served.followed(load=load) as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, closed)

        async def iterate() -> None:
            async for one in feed:
                given_.append(one)  # noqa: PERF401 - the same

        nursery.start_soon(iterate)
        await until_live(feed)
        first = closed[0] if closed else second(9)
        served.commit(forming(minute(9), trades=11))
        served.is_down = True
        served.cut()
        await trio.sleep(60)
        last = 9 + missed
        served.start([*minutes(max(0, last - 999), last), forming(minute(last + 1))], older=0)
        served.is_down = False
        await until_live(feed)
        served.commit(candle(minute(last + 1), trades=20), forming(minute(last + 2)))
        await trio.sleep(5)
        assert closed == list(range(first, second(last + 2), 60))
        assert sorted({one.time for one in given_}) == list(range(first, second(last + 3), 60))
        assert [one.time for one in given_ if one.closed and one.rev > 0][-1] == second(last + 1)
        assert whole(feed.candles)
        assert len(feed.candles) >= min(last + 3, 1001) or load == 1
        assert feed.tally.loads == 2
        assert feed.tally.missed == missed
        nursery.cancel_scope.cancel()


async def test_what_was_corrected_while_another_life_began_is_seen(autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed(load=1) as feed:
        assert (await anext(feed)).time == second(9)
        await until_live(feed)
        served.commit(*minutes(10, 19))
        for _ in range(10):
            await anext(feed)
        served.start([*minutes(0, 14), candle(minute(15), "36999.00000000"), *minutes(16, 19)])
        served.cut()
        with trio.fail_after(60):
            assert (await anext(feed)).time == second(15)
        await trio.sleep(1)
        assert [one.time for one in feed.candles] == times(9, 19), "and none before those that were wanted"


async def test_a_server_that_goes_down_says_so_and_is_found_again(autojump_clock: MockClock) -> None:
    served = Served()
    told: list[str] = []
    async with served.followed(on_state=lambda _state, reason: told.append(reason)) as feed:
        await until_live(feed)
        served.web.stopping.set()
        await trio.sleep(0.05)
        assert told[-1] == "going_down"
        served.start(minutes(0, 12))
        await until_live(feed)
        assert [one.time for one in feed.candles] == times(0, 12)


async def test_a_hole_is_never_taken(autojump_clock: MockClock) -> None:
    served = Served()
    served.on_message = lambda message: message.replace(
        f'"time":{second(10)}'.encode(), f'"time":{second(11)}'.encode()
    )
    async with served.followed() as feed:
        await until_live(feed)
        served.commit(*minutes(10, 10))
        await trio.sleep(1)
        assert [one.time for one in feed.candles] == times(0, 10), "it was loaded again"
        assert feed.tally.loads == 2


async def test_what_cannot_be_read_breaks_the_connection(autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed() as feed:
        await until_live(feed)
        served.on_message = lambda _message: b"[1]"
        served.commit(*minutes(10, 10))
        await trio.sleep(0.1)
        assert feed.reason.startswith("a message that cannot be read")
        served.on_message = lambda message: message
        await until_live(feed)
        assert whole(feed.candles)


async def test_a_connection_on_which_nothing_comes_is_given_up(autojump_clock: MockClock) -> None:
    served = Served()
    told: list[str] = []
    async with served.followed(on_state=lambda _state, reason: told.append(reason)) as feed:
        await until_live(feed)
        opened = len(served.opened)
        await trio.sleep(300)
        assert len(served.opened) == opened, "silence alone is no death: the server answers"
        hear = feed.tally.messages
        for scope in list(served._sockets):
            assert not scope.cancel_called

        deaf = trio.Event()

        async def nothing(_self: object) -> bytes:
            await deaf.wait()
            return b""

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.client.builders._Talk.hear", nothing)
            await trio.sleep(50)
            assert told[-2:] == ["the server says nothing", "catching up"]
            assert feed.tally.messages <= hear + 3
        await until_live(feed)


# --- refusals


@pytest.mark.parametrize("code", ["upstream_unavailable", "too_many"])
async def test_it_comes_again_when_the_server_says(code: str, autojump_clock: MockClock) -> None:
    served = Served()
    served.refusals = [FeedError(code, "later", retry_after=120)] * 2
    async with served.followed() as feed:
        await trio.sleep(1)
        assert feed.state is State.OFFLINE
        assert feed.reason == "later"
        began = trio.current_time()
        await until_live(feed)
        assert 239 < trio.current_time() - began < 250
    assert len(served.loads) == 3


async def test_it_comes_again_though_the_server_says_in_a_year(autojump_clock: MockClock) -> None:
    served = Served()
    served.refusals = [FeedError("too_many", "later", retry_after=3e7)]
    async with served.followed() as feed:
        await until_live(feed)
        assert trio.current_time() < Pauses.MOST + 10


async def test_an_outage_of_a_month_does_not_end_it_and_costs_the_server_little(autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed() as feed:
        await until_live(feed)
        served.is_down = True
        served.cut()
        with trio.fail_after(2_600_000):
            await trio.sleep(86_400)
        attempts = len(served.opened)
        assert 86_400 / 10 - 100 < attempts < 86_400 / 5 + 100
        served.is_down = False
        began = trio.current_time()
        await until_live(feed)
        assert trio.current_time() - began < 11
        assert feed.tally.breaks == 1


async def test_who_was_too_slow_comes_back_later(autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed() as feed:
        await until_live(feed)
        began = trio.current_time()
        served.cut(Broken("closed with 1013 too_slow", code=1013))
        await trio.sleep(1)
        assert feed.state is State.OFFLINE
        await until_live(feed)
        assert trio.current_time() - began >= 5


async def test_pauses_begin_anew_once_it_has_worked(autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed() as feed:
        for _ in range(20):
            await until_live(feed)
            served.commit(*minutes(len(feed.candles), len(feed.candles)))
            await trio.sleep(0.05)
            served.cut()
            await trio.sleep(0.05)
        gaps = [after - before for before, after in pairwise(served.opened)]
        assert max(gaps) < 0.6
        served.opened.clear()
        for _ in range(10):
            served.cut()
            await trio.sleep(30)
        assert max(after - before for before, after in pairwise(served.opened)) < 31


async def test_who_asks_for_no_states_finds_them_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "candlesync.client")
    served = Served()
    served.is_down = True
    async with served.followed() as feed:
        await trio.sleep(120)
        served.is_down = False
        await until_live(feed)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("INFO", "BTCUSDT 1m is syncing: loading"),
        ("WARNING", "BTCUSDT 1m is offline: nobody is there"),
        ("INFO", "BTCUSDT 1m is syncing: catching up"),
        ("INFO", "BTCUSDT 1m is live"),
    ]
    caplog.clear()
    async with Served().followed(on_state=lambda *_: None) as feed:
        await until_live(feed)
    assert caplog.records == []


@pytest.mark.parametrize(("name", "other"), [(b"BTCUSDT", b"ETHUSDT"), (b'"1m"', b'"1h"')])
async def test_a_candle_of_another_series_is_not_taken(name: bytes, other: bytes, autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed() as feed:
        await until_live(feed)
        served.on_message = lambda message: message.replace(name, other)
        served.commit(*minutes(10, 12))
        await trio.sleep(1)
        assert (feed.tally.breaks > 0, [one.time for one in feed.candles]) == (True, times(0, 9))
        served.on_message = lambda message: message
        await until_live(feed)
        assert [one.time for one in feed.candles] == times(0, 12)


@pytest.mark.parametrize("code", ["unknown_symbol", "unauthorized", "forbidden", "not_found"])
async def test_a_refusal_for_good_ends_it_after_the_last_candle(code: str, autojump_clock: MockClock) -> None:
    served = Served()
    async with served.followed() as feed:
        await until_live(feed)
        closed = feed.closed()
        served.web = Web()
        served.refusals = [FeedError(code, "no")]
        served.commit(*minutes(10, 12))
        await trio.sleep(0.1)
        served.web.supervisor.refusals = {}
        feed._position = ""
        served.cut()
        await trio.sleep(1)
        for gives in (closed, feed):
            assert [(await anext(gives)).time for _ in range(13)] == times(0, 12)
            with pytest.raises(FeedError, match="no"):
                await anext(gives)
        assert feed.state is State.OFFLINE


async def test_a_refusal_on_the_socket_ends_it_as_well(autojump_clock: MockClock) -> None:
    async with Served().followed("NOSUCH") as feed:
        with pytest.raises(FeedError, match="NOSUCH") as caught:
            await anext(feed)
        assert caught.value.code == "unknown_symbol"


async def test_older_candles_are_waited_for_when_they_cannot_be_had_now(autojump_clock: MockClock) -> None:
    served = Served()
    got: list[int] = []
    async with served.followed() as feed, trio.open_nursery() as nursery:
        await until_live(feed)
        served.refusals = [FeedError("upstream_unavailable", "later", retry_after=30)] * 2
        nursery.start_soon(collect, feed, got, second(-5))
        await trio.sleep(59)
        assert got == []
        await trio.sleep(5)
        assert got == times(-5, 9)
        nursery.cancel_scope.cancel()
    async with served.followed() as feed:
        await until_live(feed)
        served.refusals = [FeedError("unauthorized", "no")]
        with pytest.raises(FeedError, match="no"):
            await anext(feed.closed(second(-5)))


@pytest.mark.parametrize("answer", ["no position", "a hole", "forming"])
async def test_answers_that_cannot_be_are_asked_for_again(
    answer: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    served = Served()
    load, asked = served.load, Counter[str]()

    async def wrong_at_first(symbol: str, interval: str, **query: int) -> object:
        found = await load(symbol, interval, **query)
        asked["before" if "before" in query else "newest"] += 1
        if asked.total() == 1 and answer == "no position":
            return type(found)(found.candles, "")
        if answer == "a hole" and asked["before" if "before" in query else "newest"] == 1:
            return type(found)(found.candles[:1] + found.candles[2:], found.position)
        if answer == "forming" and asked["before"] == 1:
            shown = found.candles[-1]
            last = Candle(**{name: getattr(shown, name) for name in shown.__struct_fields__} | {"closed": False})
            return type(found)([*found.candles[:-1], last], found.position)
        return found

    monkeypatch.setattr(served, "load", wrong_at_first)
    got: list[int] = []
    async with served.followed() as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got, second(-20))
        await trio.sleep(20)
        assert got == times(-20, 9)
        nursery.cancel_scope.cancel()


# --- its end


async def test_what_the_block_raises_comes_out_as_it_is_and_nothing_runs_on(autojump_clock: MockClock) -> None:
    served = Served()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what is left of the block is the point
        async with served.followed() as feed:
            await until_live(feed)
            1 / 0  # noqa: B018 - it raises
    assert served._sockets == set()
    with pytest.raises(SystemExit):
        async with served.followed():
            raise SystemExit(3)


async def test_what_on_state_raises_comes_out_of_the_block(autojump_clock: MockClock) -> None:
    def fail(_state: State, _reason: str) -> None:
        raise RuntimeError("the bot's own")

    served = Served()
    with pytest.raises(RuntimeError, match="own"):
        async with served.followed(on_state=fail):
            await trio.sleep_forever()
    assert served._sockets == set()


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 3), st.booleans())
def test_it_can_be_cancelled_anywhere(seconds: float, is_down: bool) -> None:
    async def run() -> None:
        served = Served()
        served.is_down = is_down
        got: list[int] = []
        with trio.move_on_after(seconds) as scope:
            async with served.followed(load=1) as feed:
                served.start(minutes(5, 20))
                await collect(feed, got, second(-1_200))
        assert scope.cancelled_caught
        assert served._sockets == set()

    trio.run(run, clock=MockClock(autojump_threshold=0))


# --- all of it

STEPS = ["update", "move", "move many", "correct", "cut", "cut", "down", "up", "life", "half", "rest", "state"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=40), st.integers(0, 1_000_000))
def test_whatever_happens_closed_gives_each_once_in_order(steps: list[str], seed: int) -> None:
    trio.run(_story, steps, Random(seed), clock=MockClock(autojump_threshold=0))


async def _story(steps: list[str], random: Random) -> None:
    served = Served([*minutes(0, 8), forming(minute(9))])
    truth = {number: candle(minute(number), f"{37000 + number}.00000000") for number in range(9)}
    number, trades = 9, 10
    got: list[int] = []
    seen: dict[int, Candle] = {}

    async def iterate(feed: Feed) -> None:
        async for one in feed:
            known = seen.get(one.time)
            assert known is None or not known.closed or one.closed, "a closed candle became forming again"
            if known is None and seen:
                assert one.time == max(seen) + 60, "a candle was left out"
            seen[one.time] = one
            await trio.sleep(random.choice([0, 0, 0.5]))

    def break_sometimes(message: bytes) -> bytes:
        if random.random() < 0.2:
            raise Broken("in the midst")
        return message

    def close_some(count: int) -> None:
        nonlocal number, trades
        for _ in range(count):
            truth[number] = candle(minute(number), f"{37000 + number}.00000000", trades=99)
            served.commit(truth[number], forming(minute(number + 1)))
            number, trades = number + 1, 10

    async with served.followed(load=random.choice([1, 5, 1000])) as feed, trio.open_nursery() as nursery:
        nursery.start_soon(collect, feed, got)
        nursery.start_soon(iterate, feed)
        await until_live(feed)
        first = feed.candles[0].time
        for step in steps:
            match step:
                case "update":
                    trades += 1
                    served.commit(forming(minute(number), trades=trades))
                case "move":
                    close_some(1)
                case "move many":
                    close_some(random.choice([7, 1_100]))
                case "correct":
                    old = random.choice([one for one in truth if one > number - 900])
                    truth[old] = candle(minute(old), f"{random.randrange(36900, 37100)}.50000000", trades=100)
                    served.commit(truth[old])
                case "cut":
                    served.cut()
                case "down":
                    served.is_down = True
                    served.cut()
                case "up":
                    served.is_down = False
                case "life":
                    served.start(
                        [*[truth[one] for one in sorted(truth)[-999:]], forming(minute(number), trades=trades)]
                    )
                    served.cut()
                case "half":
                    served.on_message = random.choice([break_sometimes, lambda message: message])
                case "state":
                    served.topic.set_state(random.choice(list(Truth)))
                case _:
                    await trio.sleep(random.uniform(0, 30))
            await trio.sleep(random.choice([0, 0.01, 1]))
        served.is_down, served.on_message = False, lambda message: message
        served.topic.set_state(Truth.LIVE)
        close_some(1)
        await trio.sleep(15)
        await until_live(feed)
        with trio.fail_after(5_000):
            while len(seen) < (second(number) - first) // 60 + 1:  # noqa: ASYNC110 - it is slow on purpose
                await trio.sleep(1)
        assert got == list(range(first, second(number), 60))
        assert sorted(seen) == list(range(first, second(number) + 1, 60))
        assert whole(feed.candles)
        for one in feed.candles[-900:]:
            if one.closed:
                assert str(one.close) == truth[(one.time - second(0)) // 60].close
                assert seen[one.time].close == one.close
        nursery.cancel_scope.cancel()
