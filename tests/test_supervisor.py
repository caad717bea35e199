"""The supervisor over stand-in tasks, in virtual time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import cycle, pairwise
from typing import Any

import httpx
import pytest
import structlog.testing
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings
from candlesync.binance.symbols import Symbols
from candlesync.binance.venue import SPOT, USDM, Venue
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.replica import Commit
from candlesync.core.sync import State
from candlesync.errors import LocationRefused, TooMany, UnknownInterval, UnknownSymbol, UpstreamUnavailable
from candlesync.hub import Hub, Outbox, Topic
from candlesync.supervisor import Supervisor, SupervisorSettings, asked_by
from candlesync.symbol import SymbolTask
from tests.builders import BTC, candle, minute, unheard

BTC_5M = Series("BTCUSDT", Interval.M5)
ETH = Series("ETHUSDT", Interval.M1)


class Task(SymbolTask):
    """A stand-in: it does what `World.acts` says, then its series begin after `World.start_after` seconds each."""

    def __init__(self, world: World, symbol: str, intervals: set[Interval]) -> None:
        self.world = world
        self.symbol = symbol
        self.intervals = intervals
        self.removed: list[Interval] = []
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        world = self.world
        assert self.symbol not in world.running, "a symbol has one task"
        world.running[self.symbol] = self
        world.log.append((trio.current_time(), "start", self.symbol))
        try:
            act = world.acts.get(self.symbol)
            if act is not None:
                await act(self)
            async with trio.open_nursery() as self._nursery:
                for interval in self.intervals:
                    self._nursery.start_soon(self.begin, interval)
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(world.end_after)
            del world.running[self.symbol]
            world.log.append((trio.current_time(), "end", self.symbol))

    def add(self, interval: Interval) -> None:
        self.intervals.add(interval)
        if self._nursery is not None:
            self._nursery.start_soon(self.begin, interval)

    async def remove(self, interval: Interval) -> None:
        self.intervals.discard(interval)
        self.removed.append(interval)
        await trio.sleep(self.world.remove_for)

    async def begin(self, interval: Interval) -> None:
        await trio.sleep(self.world.start_after)
        topic = self.world.hub.get(Series(self.symbol, interval))
        if topic is not None and not topic.is_begun:
            show(topic)


class Held:
    """What a request holds: its connection."""


def show(topic: Topic) -> None:
    """The first candles of a series."""
    interval = topic.series.interval
    first = interval.floor(minute(0))
    candles = tuple(candle(interval.next(first, number), interval=interval) for number in range(5))
    topic.publish(Commit("life0", 1, candles, begins=True))
    topic.set_state(State.LIVE)


class World:
    """A supervisor and what is around it."""

    def __init__(
        self,
        *pinned: Series,
        listed: Iterable[str] = ("BTCUSDT", "ETHUSDT"),
        venue: Venue = SPOT,
        **settings: Any,
    ) -> None:
        self.hub = Hub(1000)
        self.listed = list(listed)
        self.status = 200
        self.requests = 0
        self.start_after = 0.5
        self.end_after = 0.0
        """How long a task takes to end: its connection has a close handshake."""
        self.remove_for = 0.0
        self.acts: dict[str, Callable[[Task], Awaitable[None]]] = {}
        self.running: dict[str, Task] = {}
        self.log: list[tuple[float, str, str]] = []
        self.wanted: list[dict[str, tuple[Interval, ...]]] = []
        """What the supervisor wanted, at each time that it said that this has changed."""
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._binance), base_url="http://binance")
        rest = Rest(client, WeightBudget(WeightSettings(spread=0)), RestSettings(venue=venue, attempts=1))
        self.supervisor = Supervisor(
            pinned,
            hub=self.hub,
            symbols=Symbols(rest),
            new_task=lambda symbol, intervals: Task(self, symbol, intervals),
            settings=SupervisorSettings(**settings),
            on_wants_changed=lambda: self.wanted.append(self.supervisor.wants),
        )

    async def _binance(self, _request: httpx.Request) -> httpx.Response:
        self.requests += 1
        await trio.lowlevel.checkpoint()
        return httpx.Response(self.status, json={"symbols": [{"symbol": symbol} for symbol in self.listed]})

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[Supervisor]:
        """The supervisor, running; in the end nothing of it is left."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.supervisor.run)
            yield self.supervisor
            nursery.cancel_scope.cancel()
        assert not self.running

    def starts(self, symbol: str) -> list[float]:
        """When tasks of a symbol were started."""
        return [time for time, what, of in self.log if (what, of) == ("start", symbol)]


# --- starting


async def test_the_pinned_series_are_followed_from_the_start(autojump_clock: MockClock) -> None:
    world = World(BTC, BTC_5M, ETH)
    async with world.runs() as supervisor:
        await wait_all_tasks_blocked()
        assert {symbol: task.intervals for symbol, task in world.running.items()} == {
            "BTCUSDT": {Interval.M1, Interval.M5},
            "ETHUSDT": {Interval.M1},
        }
        assert supervisor.symbol_count == 2
        assert {task.symbol for task in supervisor.tasks} == {"BTCUSDT", "ETHUSDT"}
        assert supervisor.not_ready() == {
            "BTCUSDT 1m": "not synced yet",
            "BTCUSDT 5m": "not synced yet",
            "ETHUSDT 1m": "not synced yet",
        }
        await trio.sleep(1)
        assert supervisor.not_ready() == {}


async def test_who_is_not_ready_says_why_and_when_it_is_tried_again_as_of_now(autojump_clock: MockClock) -> None:
    world = World(BTC, ETH)
    async with world.runs() as supervisor:
        await trio.sleep(1)
        topics = {series: world.hub.open(series) for series in (BTC, ETH)}
        assert topics[BTC].is_pinned
        for topic in topics.values():
            topic.set_state(State.SYNCING)
        topics[BTC].failure = "Binance allows no requests"
        topics[BTC].failing_until = trio.current_time() + 1000
        await trio.sleep(40)
        assert supervisor.not_ready() == {
            "BTCUSDT 1m": "syncing, not live for 40 s: Binance allows no requests; tried again in 960 s",
            "ETHUSDT 1m": "syncing, not live for 40 s",
        }
        await trio.sleep(960)
        assert supervisor.not_ready()["BTCUSDT 1m"].endswith("Binance allows no requests")


async def test_a_series_is_started_by_who_asks_first_and_has_its_candles(autojump_clock: MockClock) -> None:
    world = World()
    async with world.runs() as supervisor:
        topic = await supervisor.ensure(BTC)
        assert trio.current_time() == 0.5
        assert len(topic.replica) == 5
        assert await supervisor.ensure(BTC) is topic
        assert trio.current_time() == 0.5, "and from then on at once"


async def test_two_at_once_start_it_once(autojump_clock: MockClock) -> None:
    world = World()
    topics = []

    async def ask(supervisor: Supervisor) -> None:
        topics.append(await supervisor.ensure(BTC))

    async with world.runs() as supervisor:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask, supervisor)
        assert world.starts("BTCUSDT") == [0]
        assert len(topics) == 20
        assert len({id(topic) for topic in topics}) == 1


async def test_what_a_request_has_started_does_not_keep_the_request(autojump_clock: MockClock) -> None:
    request: ContextVar[Held] = ContextVar("request")
    gone = []

    async def ask(supervisor: Supervisor) -> None:
        held = Held()
        gone.append(weakref.ref(held))
        request.set(held)
        await supervisor.ensure(BTC)

    world = World()
    async with world.runs() as supervisor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, supervisor)
        gc.collect()
        assert "BTCUSDT" in world.running
        assert gone[0]() is None, "its answer has been given"


async def test_another_interval_joins_the_symbol_s_task(autojump_clock: MockClock) -> None:
    world = World(BTC)
    async with world.runs() as supervisor:
        await supervisor.ensure(BTC)
        await supervisor.ensure(BTC_5M)
        assert world.starts("BTCUSDT") == [0]
        assert world.running["BTCUSDT"].intervals == {Interval.M1, Interval.M5}


async def test_before_it_runs_nothing_is_started() -> None:
    world = World()
    with pytest.raises(UpstreamUnavailable, match="starting") as caught:
        await world.supervisor.ensure(BTC)
    assert caught.value.retry_after > 0


async def test_what_needs_no_waiting_is_had_at_once(autojump_clock: MockClock) -> None:
    world = World(idle=600)
    async with world.runs() as supervisor:
        assert supervisor.at_once(BTC) is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.ensure, BTC)
            await trio.sleep(0.25)
            assert supervisor.at_once(BTC) is None, "started, but there are no candles yet"
        topic = supervisor.at_once(BTC)
        assert topic is await supervisor.ensure(BTC)
        for _ in range(5):
            await trio.sleep(500)
            assert supervisor.at_once(BTC) is topic, "and asking keeps it"
        assert world.starts("BTCUSDT") == [0]


async def test_what_is_not_followed_is_not_started_by_a_look_at_it(autojump_clock: MockClock) -> None:
    world = World()
    async with world.runs() as supervisor:
        assert supervisor.at_once(BTC) is None
        await trio.sleep(60)
        assert world.starts("BTCUSDT") == []


# --- what hinders a start


async def test_the_wait_is_bounded_and_the_series_starts_all_the_same(autojump_clock: MockClock) -> None:
    world = World()
    world.start_after = 15
    async with world.runs() as supervisor:
        with pytest.raises(UpstreamUnavailable, match="BTCUSDT 1m") as caught:
            await supervisor.ensure(BTC)
        assert trio.current_time() == 10
        assert caught.value.retry_after > 0
        await supervisor.ensure(BTC)
        assert trio.current_time() == 15
        assert world.starts("BTCUSDT") == [0]


async def test_why_it_takes_long_is_told(autojump_clock: MockClock) -> None:
    world = World()
    world.start_after = 100
    async with world.runs() as supervisor, trio.open_nursery() as nursery:

        async def explain() -> None:
            await trio.sleep(1)
            topic = world.hub.get(BTC)
            assert topic is not None
            topic.failure = "Binance answered 451"

        nursery.start_soon(explain)
        with pytest.raises(UpstreamUnavailable, match="Binance answered 451"):
            await supervisor.ensure(BTC)


async def test_what_is_listed_nowhere_is_unknown_and_nothing_is_started(autojump_clock: MockClock) -> None:
    world = World()
    async with world.runs() as supervisor:
        with pytest.raises(UnknownSymbol, match="NOPE"):
            await supervisor.ensure(Series("NOPE", Interval.M1))
        assert not world.log
        assert not len(world.hub)
        assert supervisor.symbol_count == 0


async def test_an_interval_that_the_venue_has_not_is_refused_and_nothing_is_started(autojump_clock: MockClock) -> None:
    world = World(venue=USDM)
    async with world.runs() as supervisor:
        with pytest.raises(UnknownInterval, match=r"one of 1m, 3m, .*: this venue has no 1s"):
            await supervisor.ensure(Series("BTCUSDT", Interval.S1))
        assert not world.log
        assert world.requests == 0
        await supervisor.ensure(BTC)


async def test_without_a_list_nothing_is_started(autojump_clock: MockClock) -> None:
    world = World()
    world.status = 451
    async with world.runs() as supervisor:
        with pytest.raises(LocationRefused):
            await supervisor.ensure(BTC)
        assert not world.log


async def test_a_pinned_series_needs_no_list(autojump_clock: MockClock) -> None:
    world = World(BTC)
    world.status = 451
    async with world.runs() as supervisor:
        assert len((await supervisor.ensure(BTC)).replica) == 5


async def deny(task: Task) -> None:
    """What a synchronizer does whose klines say -1121, as the nurseries around it pass it on."""
    await trio.sleep(2)
    error = UnknownSymbol(f"Binance does not know {task.symbol}")
    raise ExceptionGroup("nursery", [ExceptionGroup("nursery", [error])])


async def test_what_is_listed_but_has_no_klines_is_unknown_to_everybody_who_waits(autojump_clock: MockClock) -> None:
    world = World()
    world.acts["BTCUSDT"] = deny
    times = []

    async def ask(supervisor: Supervisor, series: Series) -> None:
        with pytest.raises(UnknownSymbol, match="does not know BTCUSDT"):
            await supervisor.ensure(series)
        times.append(trio.current_time())

    async with world.runs() as supervisor:
        async with trio.open_nursery() as nursery:
            for series in (BTC, BTC, BTC_5M):
                nursery.start_soon(ask, supervisor, series)
        assert times == [2, 2, 2], "nobody waits for the rest of the start timeout"
        await wait_all_tasks_blocked()
        assert supervisor.symbol_count == 0
        assert not len(world.hub)
        await trio.sleep(100)
        assert world.starts("BTCUSDT") == [0], "and it is not tried again by itself"
        del world.acts["BTCUSDT"]
        await supervisor.ensure(BTC)  # but when somebody asks
        assert supervisor.restarts == 1


async def test_a_pinned_symbol_that_is_unknown_is_said_to_be_and_tried_again(autojump_clock: MockClock) -> None:
    world = World(BTC)
    world.acts["BTCUSDT"] = deny
    with structlog.testing.capture_logs() as events:
        async with world.runs() as supervisor:
            with pytest.raises(UnknownSymbol, match="does not know BTCUSDT"):
                await supervisor.ensure(BTC)
            assert trio.current_time() == 10
            for series in (BTC, BTC_5M):
                with pytest.raises(UnknownSymbol, match="does not know BTCUSDT"):
                    await supervisor.ensure(series)
            assert trio.current_time() == 10, "once it is known to be unknown, nobody waits"
            assert supervisor.not_ready() == {"BTCUSDT 1m": "Binance does not know BTCUSDT"}
            await trio.sleep(30)
            assert world.starts("BTCUSDT")[:4] == [0, 3, 7, 13]
            del world.acts["BTCUSDT"]
            await trio.sleep(60)
            assert len((await supervisor.ensure(BTC)).replica) == 5
            assert supervisor.not_ready() == {}
    told = [event for event in events if event["event"] == "unknown symbol"]
    assert told
    assert not any("exc_info" in event for event in told)


# --- the cap


async def test_the_cap_on_symbols(autojump_clock: MockClock) -> None:
    world = World(BTC, listed=["BTCUSDT", "ETHUSDT", "LTCUSDT", "BNBUSDT"], max_symbols=3)
    async with world.runs() as supervisor:
        await supervisor.ensure(ETH)
        await supervisor.ensure(Series("LTCUSDT", Interval.M1))
        with pytest.raises(TooMany, match="3 symbols"):
            await supervisor.ensure(Series("BNBUSDT", Interval.M1))
        assert world.hub.get(Series("BNBUSDT", Interval.M1)) is None
        await supervisor.ensure(Series("LTCUSDT", Interval.M1))
        await supervisor.ensure(BTC_5M)
        assert supervisor.symbol_count == 3


async def test_the_pinned_are_followed_whatever_the_cap(autojump_clock: MockClock) -> None:
    world = World(BTC, ETH, listed=["LTCUSDT"], max_symbols=1)
    async with world.runs() as supervisor:
        await supervisor.ensure(ETH)
        assert supervisor.symbol_count == 2
        with pytest.raises(TooMany):
            await supervisor.ensure(Series("LTCUSDT", Interval.M1))


async def test_what_is_let_go_makes_room(autojump_clock: MockClock) -> None:
    world = World(max_symbols=1, idle=60)
    async with world.runs() as supervisor:
        await supervisor.ensure(BTC)
        await trio.sleep(100)
        await supervisor.ensure(ETH)


# --- how fast clients may make series start

MANY = [f"S{number:03}USDT" for number in range(400)]


async def start(supervisor: Supervisor, address: str, *wanted: Series) -> list[TooMany]:
    """Ask for series on behalf of an address; the refusals."""
    token = asked_by.set(address)
    refusals = []
    try:
        for series in wanted:
            try:
                await supervisor.ensure(series)
            except TooMany as refusal:
                refusals.append(refusal)
    finally:
        asked_by.reset(token)
    return refusals


def of_symbols(names: Iterable[str]) -> list[Series]:
    return [Series(name, Interval.M1) for name in names]


async def test_a_page_that_opens_some_new_series_does_not_notice(autojump_clock: MockClock) -> None:
    world = World(listed=MANY)
    async with world.runs() as supervisor:
        for address in ("a", "b", "c"):
            wanted = [Series(name, interval) for name in MANY[:3] for interval in INTERVALS]
            assert await start(supervisor, address, *wanted) == []


async def test_one_address_cannot_make_any_number_of_series_start(autojump_clock: MockClock) -> None:
    world = World(listed=MANY, start_rate_of_one=0.5, start_burst_of_one=10)
    world.start_after = 0
    async with world.runs() as supervisor:
        wanted = of_symbols(MANY[:12])
        refusals = await start(supervisor, "a", *wanted)
        assert [str(refusal).startswith("this address") for refusal in refusals] == [True, True]
        assert 0 < refusals[0].retry_after <= 2
        assert supervisor.symbol_count == 10
        assert await start(supervisor, "a", *wanted[:10]) == [], "what is followed is served"
        assert await start(supervisor, "b", *of_symbols(MANY[20:30])) == []
        assert await start(supervisor, "", *of_symbols(MANY[30:45])) == [], "this machine's own"
        await trio.sleep(2)
        assert len(await start(supervisor, "a", *wanted)) == 1
        assert supervisor.refused_starts == 3


async def test_many_addresses_together_cannot_either(autojump_clock: MockClock) -> None:
    world = World(listed=MANY, start_rate=2.0, start_burst=20, max_symbols=1000, symbol_rate=100)
    world.start_after = 0
    async with world.runs() as supervisor:
        wanted = [Series(name, interval) for name in MANY[:10] for interval in INTERVALS]
        refused = [
            refusal for number, series in enumerate(wanted) for refusal in await start(supervisor, f"{number}", series)
        ]
        assert len(refused) == 160 - 20
        assert 0 < refused[0].retry_after <= 0.5
        before = sum(map(len, supervisor.wants.values()))
        for second in range(100):
            await trio.sleep(1)
            for series in wanted:
                await start(supervisor, f"{second} {series}", series)
        assert before == 20
        assert sum(map(len, supervisor.wants.values())) == 160
        assert supervisor.refused_starts > 140


async def test_connections_to_Binance_are_left_for_those_that_must_connect_again(  # noqa: N802 - a name
    autojump_clock: MockClock,
) -> None:
    # The worst that clients can do: as many new symbols as they get, while those that went make room at once.
    world = World(listed=MANY, start_rate=1000, start_burst=1000, start_timeout=1, idle=1, max_symbols=1000)
    world.start_after = 0
    async with world.runs() as supervisor, trio.open_nursery() as nursery:

        async def churn() -> None:
            for name in cycle(MANY):
                if await start(supervisor, "", Series(name, Interval.M1)):
                    await trio.sleep(1)

        nursery.start_soon(churn)
        await trio.sleep(600)
        nursery.cancel_scope.cancel()
    moments = [time for time, what, _ in world.log if what == "start"]
    assert len(moments) == pytest.approx(100 + 200, abs=5)
    for index, moment in enumerate(moments):
        assert sum(moment <= other < moment + 300 for other in moments[index:]) <= 205, "of 300 in 5 minutes"


async def test_another_interval_needs_no_connection(autojump_clock: MockClock) -> None:
    world = World(listed=MANY, symbol_rate=0.01, symbol_burst=1)
    async with world.runs() as supervisor:
        first, second = MANY[:2]
        refusals = await start(supervisor, "a", *(Series(first, interval) for interval in INTERVALS))
        assert refusals == []
        (refusal,) = await start(supervisor, "a", Series(second, Interval.M1))
        assert 90 < refusal.retry_after <= 100


async def test_what_is_refused_for_another_reason_takes_nothing(autojump_clock: MockClock) -> None:
    world = World(listed=MANY, max_symbols=1, start_burst_of_one=5, start_rate_of_one=0.001)
    async with world.runs() as supervisor:
        refusals = await start(supervisor, "a", *of_symbols(MANY[:50]))
        assert {str(refusal) for refusal in refusals} == {"this server follows at most 1 symbols at once"}
        with pytest.raises(UnknownSymbol):
            await start(supervisor, "a", Series("NOSUCH", Interval.M1))
        more = [Series(MANY[0], interval) for interval in INTERVALS[:6]]
        assert len(await start(supervisor, "a", *more)) == 1


async def test_a_storm_of_unknown_symbols_costs_Binance_one_request_a_minute(  # noqa: N802 - a name
    autojump_clock: MockClock,
) -> None:
    world = World(BTC)
    asked = 0

    async def ask(supervisor: Supervisor, number: int) -> None:
        nonlocal asked
        with pytest.raises(UnknownSymbol):
            await supervisor.ensure(Series(f"X{number}", Interval.M1))
        asked += 1

    async with world.runs() as supervisor:
        for second in range(300):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask, supervisor, 20 * second + number)
            await trio.sleep(1)
    assert asked == 6000
    assert world.requests <= 6
    assert supervisor.refused_starts == 0


async def test_what_is_asked_for_at_once_is_started_once(autojump_clock: MockClock) -> None:
    world = World(listed=MANY, start_burst_of_one=1, start_rate_of_one=0.001)
    async with world.runs() as supervisor, trio.open_nursery() as nursery:
        refusals: list[TooMany] = []

        async def ask() -> None:
            refusals.extend(await start(supervisor, "a", Series(MANY[0], Interval.M1)))

        for _ in range(50):
            nursery.start_soon(ask)
        await trio.sleep(5)
        assert refusals == []
        nursery.cancel_scope.cancel()


# --- letting go


async def test_a_series_that_nobody_wants_is_let_go_after_the_idle_time(autojump_clock: MockClock) -> None:
    world = World(idle=600)
    async with world.runs() as supervisor:
        first = await supervisor.ensure(BTC)
        await trio.sleep(599)
        assert world.hub.get(BTC) is first
        await trio.sleep(1 + 60)
        assert world.hub.get(BTC) is None
        assert not world.running
        assert supervisor.symbol_count == 0
        again = await supervisor.ensure(BTC)
        assert again is not first
        assert len(world.starts("BTCUSDT")) == 2


async def test_asking_keeps_a_series(autojump_clock: MockClock) -> None:
    world = World(idle=600)
    async with world.runs() as supervisor:
        topic = await supervisor.ensure(BTC)
        for _ in range(5):
            await trio.sleep(500)
            assert await supervisor.ensure(BTC) is topic
        assert world.starts("BTCUSDT") == [0]


async def test_a_series_that_somebody_subscribes_to_is_kept(autojump_clock: MockClock) -> None:
    world = World(idle=600)
    async with world.runs() as supervisor:
        topic = await supervisor.ensure(BTC)
        subscriber = topic.subscribe(Outbox(unheard))
        await trio.sleep(10_000)
        assert world.hub.get(BTC) is topic
        topic.unsubscribe(subscriber)
        await trio.sleep(599)
        assert world.hub.get(BTC) is topic, "the time begins when the last one leaves"
        await trio.sleep(1 + 60)
        assert world.hub.get(BTC) is None


async def test_the_pinned_are_kept(autojump_clock: MockClock) -> None:
    world = World(BTC, idle=600)
    async with world.runs() as supervisor:
        await supervisor.ensure(BTC_5M)
        await trio.sleep(10_000)
        assert world.hub.get(BTC) is not None
        assert world.hub.get(BTC_5M) is None, "an interval of a pinned symbol that is not pinned itself is let go"
        assert world.running["BTCUSDT"].removed == [Interval.M5]
        assert world.starts("BTCUSDT") == [0]


async def test_one_interval_is_let_go_and_the_other_kept(autojump_clock: MockClock) -> None:
    world = World(idle=600)
    async with world.runs() as supervisor:
        await supervisor.ensure(BTC)
        topic = await supervisor.ensure(BTC_5M)
        topic.subscribe(Outbox(unheard))
        await trio.sleep(1000)
        assert world.hub.get(BTC) is None
        assert world.hub.get(BTC_5M) is topic
        assert world.running["BTCUSDT"].removed == [Interval.M1]


async def test_who_waits_for_the_first_candles_is_not_let_go_however_short_the_idle_time(
    autojump_clock: MockClock,
) -> None:
    world = World(idle=1)
    world.start_after = 9
    async with world.runs() as supervisor:
        assert len((await supervisor.ensure(BTC)).replica) == 5
        assert world.starts("BTCUSDT") == [0]


async def test_a_series_is_wanted_again_while_its_task_still_ends(autojump_clock: MockClock) -> None:
    world = World(idle=60)
    world.end_after = 3
    async with world.runs() as supervisor:
        await supervisor.ensure(BTC)
        with trio.fail_after(200):
            while world.hub.get(BTC) is not None:  # noqa: ASYNC110 - nothing tells that a series was let go
                await trio.sleep(0.1)
        assert "BTCUSDT" in world.running, "the task takes its time to end"
        await supervisor.ensure(BTC)
        ends = [time for time, what, _ in world.log if what == "end"]
        assert world.starts("BTCUSDT")[1] == ends[0], "the next one does not start before"
        assert supervisor.restarts == 0, "and nothing died of it"


async def test_it_is_wanted_and_let_go_and_wanted_again_while_its_first_task_still_ends(
    autojump_clock: MockClock,
) -> None:
    world = World(idle=60)
    world.end_after = 500
    async with world.runs() as supervisor:
        for _ in range(3):
            with trio.move_on_after(1):
                await supervisor.ensure(BTC)
            await trio.sleep(90)
            assert world.hub.get(BTC) is None
        world.end_after = 0
        await trio.sleep(500)
        await supervisor.ensure(BTC)
        assert supervisor.restarts == 0


async def test_a_series_that_is_started_anew_while_others_are_let_go_is_kept(autojump_clock: MockClock) -> None:
    """Letting go takes time, one after the other; when a topic's turn comes, its series may have another topic."""
    world = World(idle=60)
    world.remove_for = 30

    async def turn_unknown(task: Task) -> None:
        del world.acts["ETHUSDT"]
        await task.begin(Interval.M1)
        await trio.sleep_until(80)
        raise UnknownSymbol("ETHUSDT")

    world.acts["ETHUSDT"] = turn_unknown
    async with world.runs() as supervisor:
        await supervisor.ensure(BTC)
        first = await supervisor.ensure(ETH)
        await trio.sleep_until(79)
        assert world.hub.get(BTC) is None, "it is being let go"
        assert world.hub.get(ETH) is first
        await trio.sleep_until(81)
        topic = await supervisor.ensure(ETH)
        assert topic is not first
        topic.subscribe(Outbox(unheard))
        await trio.sleep(100)
        assert world.hub.get(ETH) is topic


# --- among other nodes


async def test_what_it_wants_is_all_that_it_follows(autojump_clock: MockClock) -> None:
    world = World(BTC, idle=60)
    async with world.runs() as supervisor:
        assert supervisor.wants == {"BTCUSDT": (Interval.M1,)}
        await supervisor.ensure(ETH)
        await supervisor.ensure(BTC_5M)
        await supervisor.ensure(BTC_5M)
        await supervisor.ensure(Series("BTCUSDT", Interval.S1))
        await trio.sleep(200)
        assert supervisor.wants == {"BTCUSDT": (Interval.M1,)}
    assert world.wanted == [
        {"BTCUSDT": (Interval.M1,)},
        {"BTCUSDT": (Interval.M1,), "ETHUSDT": (Interval.M1,)},
        {"BTCUSDT": (Interval.M1, Interval.M5), "ETHUSDT": (Interval.M1,)},
        {"BTCUSDT": (Interval.S1, Interval.M1, Interval.M5), "ETHUSDT": (Interval.M1,)},
        *world.wanted[4:],
    ]
    assert len(world.wanted) == 7, "each change once"


async def test_what_other_nodes_want_of_a_symbol_is_kept(autojump_clock: MockClock) -> None:
    world = World(BTC, idle=60)
    async with world.runs() as supervisor:
        await supervisor.ensure(ETH)
        for _ in range(400):
            supervisor.keep(BTC_5M)
            supervisor.keep(ETH)
            await trio.sleep(0.5)
        kept = world.hub.get(BTC_5M)
        assert kept is not None
        assert kept.is_begun
        assert world.hub.get(ETH) is not None
        assert supervisor.wants == {"BTCUSDT": (Interval.M1, Interval.M5), "ETHUSDT": (Interval.M1,)}
        await trio.sleep(100)
        assert supervisor.wants == {"BTCUSDT": (Interval.M1,)}, "once they want it no more, it is let go"


async def test_a_symbol_that_is_not_followed_here_is_nothing_to_keep(autojump_clock: MockClock) -> None:
    world = World(BTC)
    world.supervisor.keep(BTC)
    async with world.runs() as supervisor:
        supervisor.keep(ETH)
        assert supervisor.symbol_count == 1
        assert world.hub.get(ETH) is None


# --- a task that dies


async def die(_task: Task) -> None:
    await trio.sleep(1)
    raise ValueError("a bug")


async def test_a_task_that_dies_is_started_again_with_growing_pauses_and_reported(autojump_clock: MockClock) -> None:
    world = World(BTC, ETH)
    world.acts["BTCUSDT"] = die
    with structlog.testing.capture_logs() as events:
        async with world.runs() as supervisor:
            await trio.sleep(400)
            starts = world.starts("BTCUSDT")
            pauses = [later - earlier - 1 for earlier, later in pairwise(starts)]
            assert pauses[:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
            assert world.starts("ETHUSDT") == [0], "the others go on"
            assert supervisor.not_ready() == {"BTCUSDT 1m": "its task died and is started again"}
    deaths = [event for event in events if event["event"] == "symbol task died"]
    assert [event["deaths"] for event in deaths] == list(range(1, supervisor.restarts + 1))
    assert len(pauses) <= len(deaths) <= len(starts)
    assert all(event["log_level"] == "error" and event["symbol"] == "BTCUSDT" for event in deaths)
    assert all(isinstance(event["exc_info"], ValueError) for event in deaths)


async def test_the_pause_is_short_again_after_a_long_life(autojump_clock: MockClock) -> None:
    world = World(BTC)
    lives = [1.0, 1.0, 100.0, 1.0, 1.0]

    async def live_and_die(_task: Task) -> None:
        await trio.sleep(lives.pop(0) if lives else 1e9)
        raise ValueError("a bug")

    world.acts["BTCUSDT"] = live_and_die
    async with world.runs():
        await trio.sleep(200)
    assert world.starts("BTCUSDT") == [0, 2, 5, 106, 109, 114]


async def test_what_the_replica_holds_is_served_while_its_task_is_dead(autojump_clock: MockClock) -> None:
    world = World(BTC)

    async def die_later(task: Task) -> None:
        await task.begin(Interval.M1)
        await trio.sleep(5)
        raise ValueError("a bug")

    world.acts["BTCUSDT"] = die_later
    async with world.runs() as supervisor:
        topic = await supervisor.ensure(BTC)
        await trio.sleep(5.5)
        assert not world.running
        assert await supervisor.ensure(BTC) is topic
        assert len(topic.replica) == 5
        assert topic.failure == "its task died and is started again"


async def test_an_interval_that_joins_while_the_task_is_dead_is_followed_when_it_lives(
    autojump_clock: MockClock,
) -> None:
    world = World(BTC)

    async def die_once(task: Task) -> None:
        del world.acts["BTCUSDT"]
        await die(task)

    world.acts["BTCUSDT"] = die_once
    async with world.runs() as supervisor:
        await trio.sleep(1.5)
        assert not world.running
        assert (await supervisor.ensure(BTC_5M)).is_begun
        assert world.running["BTCUSDT"].intervals == {Interval.M1, Interval.M5}


async def test_a_series_whose_task_is_dead_can_be_let_go(autojump_clock: MockClock) -> None:
    world = World(idle=60, restart_first=1000, restart_cap=1000)

    async def begin_and_die(task: Task) -> None:
        await task.begin(Interval.M1)
        await die(task)

    world.acts["BTCUSDT"] = begin_and_die
    async with world.runs() as supervisor:
        await supervisor.ensure(BTC)
        await trio.sleep(100)
        assert world.hub.get(BTC) is None
        assert supervisor.symbol_count == 0


async def test_deaths_are_counted_for_ever(autojump_clock: MockClock) -> None:
    world = World(idle=60, restart_first=1000, restart_cap=1000)
    world.acts["BTCUSDT"] = die
    async with world.runs() as supervisor:
        with pytest.raises(UpstreamUnavailable, match="its task died"):
            await supervisor.ensure(BTC)
        await trio.sleep(200)
        assert supervisor.symbol_count == 0
        assert supervisor.restarts == 1, "a counter does not go down with the symbol"


# --- the end


async def test_cancelling_leaves_nothing(autojump_clock: MockClock) -> None:
    world = World(BTC, ETH, idle=600)
    world.acts["ETHUSDT"] = die
    async with world.runs() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(_ask_in_vain, supervisor)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert not world.running
    assert [what for _, what, symbol in world.log if symbol == "BTCUSDT"] == ["start", "end"]


async def _ask_in_vain(supervisor: Supervisor) -> None:
    await supervisor.ensure(Series("ETHUSDT", Interval.M5))


async def test_an_error_beside_a_cancellation_is_not_swallowed_and_nothing_is_started_again(
    autojump_clock: MockClock,
) -> None:
    world = World(BTC)

    async def fail_at_the_end(_task: Task) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("a bug at the end")

    world.acts["BTCUSDT"] = fail_at_the_end
    with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(5):
        async with world.runs():
            await trio.sleep_forever()
    assert caught.group_contains(ValueError, match="a bug at the end")
    assert world.starts("BTCUSDT") == [0]
