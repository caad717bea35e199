# ruff: noqa: ARG002 - a hook and a transport have the arguments that they have
"""Feeds of their own and shared ones, against a small Binance in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from hypothesis import example, given, settings
from hypothesis import strategies as st

from candlesync.binance.pace import ConnectionPace
from candlesync.binance.parse import Kline, parse_frame
from candlesync.binance.pool import FeedPool, _Connected, _Frame, _Lost, _Mailbox
from candlesync.binance.stream import StreamSettings, stream_name
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.websocket import open_websocket

M1 = Interval.M1
BTC = Series("BTCUSDT", M1)
ETH = Series("ETHUSDT", M1)
SOL = Series("SOLUSDT", M1)
OWN = StreamSettings(stream_url="ws://binance.test")
SHARED = replace(OWN, symbols_per_connection=2)
Clock = trio.testing.MockClock


def kline(series: Series, trades: int = 1) -> str:
    """A frame as Binance documents it."""
    bar = {
        "t": 1700000040000, "T": 1700000099999, "s": series.symbol, "i": str(series.interval), "f": 1, "L": trades,
        "o": "37012.31000000", "c": "37012.32000000", "h": "37012.33000000", "l": "37012.30000000", "v": "1.00000000",
        "n": trades, "x": False, "q": "37012.31000000", "V": "0.50000000", "Q": "18506.15500000", "B": "0",
    }  # fmt: skip
    data = {"e": "kline", "E": 1700000041000, "s": series.symbol, "k": bar}
    return json.dumps({"stream": stream_name(series), "data": data})


def candle(trades: int) -> Candle:
    frame = parse_frame(kline(BTC, trades))
    assert isinstance(frame, Kline)
    return frame.candle


class Recorder:
    """A sink that keeps what it is told, and holds the feed to the order that it promises."""

    def __init__(self, *, raises_at: str = "") -> None:
        self.told: list[tuple[str, Series, Any]] = []
        self.live: set[Series] = set()
        self._raises_at = raises_at

    def stream_connected(self, series: Series) -> None:
        assert series not in self.live
        self.live.add(series)
        self._note("connected", series, None)

    def stream_frame(self, series: Series, candle: Candle) -> None:
        assert series in self.live
        self._note("frame", series, candle.trades)

    def stream_lost(self, series: Series, reason: str) -> None:
        self.live.remove(series)
        self._note("lost", series, reason)

    def _note(self, kind: str, series: Series, detail: object) -> None:
        self.told.append((kind, series, detail))
        if kind == self._raises_at:
            raise LookupError("a bug of ours")

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.told]


class Exchange:
    """A Binance in memory: grants what it is asked, and sends what the test says."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.open: list[trio_websocket.WebSocketConnection] = []
        self.paths: list[str] = []
        self.requests: list[dict[str, Any]] = []

    async def transport(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        client, server = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, server)
        return client

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse, await trio_websocket.wrap_server_stream(nursery, stream))

    async def _converse(self, request: trio_websocket.WebSocketRequest) -> None:
        self.paths.append(request.path)
        with suppress(trio_websocket.ConnectionClosed):
            socket = await request.accept()
            self.open.append(socket)
            try:
                while True:
                    asked = json.loads(await socket.get_message())
                    self.requests.append(asked)
                    await socket.send_message(json.dumps({"result": None, "id": asked["id"]}))
            finally:
                self.open.remove(socket)

    async def send(self, *frames: str) -> None:
        """On every connection, as no Binance does: what is not followed there must not pass."""
        for socket in self.open:
            for frame in frames:
                await socket.send_message(frame)
        await trio.testing.wait_all_tasks_blocked()


class Run:
    """A pool that runs, and its exchange."""

    def __init__(self, exchange: Exchange, settings: StreamSettings) -> None:
        self.exchange = exchange
        connect = partial(open_websocket, open_transport=exchange.transport)
        self.pool = FeedPool(settings, ConnectionPace(settings), connect=connect)

    @asynccontextmanager
    async def following(self, *followed: Series, sink: Recorder | None = None) -> AsyncIterator[Recorder]:
        """Subscriptions to the symbols of ``followed``, settled, all into one sink."""
        sink = sink or Recorder()
        async with AsyncExitStack() as stack:
            for series in followed:
                feed = await stack.enter_async_context(self.pool.subscription(series.symbol, sink))
                feed.follow(series.interval)
            await trio.testing.wait_all_tasks_blocked()
            yield sink
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def running(settings: StreamSettings) -> AsyncIterator[Run]:
    async with trio.open_nursery() as servers:
        run = Run(Exchange(servers), settings)
        async with trio.open_nursery() as nursery:
            await nursery.start(run.pool.run)
            yield run
            await trio.testing.wait_all_tasks_blocked()
            assert run.exchange.open == []  # nobody is subscribed: nothing is connected
            assert run.pool.statistics().feeds == ()
            nursery.cancel_scope.cancel()
        servers.cancel_scope.cancel()


# One connection each


async def test_alone_each_symbol_has_its_own_connection(autojump_clock: Clock) -> None:
    async with running(OWN) as run, run.following(BTC) as btc:
        async with run.following(ETH) as eth:
            assert run.exchange.paths == ["/stream?streams=btcusdt@kline_1m", "/stream?streams=ethusdt@kline_1m"]
            await run.exchange.send(kline(BTC), kline(ETH))
            assert btc.told == [("connected", BTC, None), ("frame", BTC, 1)]
            assert eth.told == [("connected", ETH, None), ("frame", ETH, 1)]
            assert {feed.name: feed.frames for feed in run.pool.statistics().feeds} == {"BTCUSDT": 2, "ETHUSDT": 2}
        assert eth.told[-1] == ("lost", ETH, "stopped")
        assert len(run.exchange.open) == 1
        assert btc.live == {BTC}


async def test_alone_it_needs_no_pool_that_runs(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as servers:
        run = Run(Exchange(servers), OWN)
        async with run.following(BTC) as btc:
            assert btc.live == {BTC}
        servers.cancel_scope.cancel()


@pytest.mark.parametrize("settings", [OWN, SHARED], ids=["own", "shared"])
@pytest.mark.parametrize("call", ["connected", "frame", "lost"])
async def test_a_sink_that_raises_takes_down_its_own_task_alone(
    settings: StreamSettings, call: str, autojump_clock: Clock
) -> None:
    async with running(settings) as run, run.following(BTC) as btc:
        broken = Recorder(raises_at=call)
        with pytest.RaisesGroup(LookupError, flatten_subgroups=True):
            async with run.following(ETH, sink=broken):
                await run.exchange.send(kline(ETH))
                await trio.sleep(1)
        assert "lost" in broken.kinds
        assert len(run.exchange.open) == 1
        await run.exchange.send(kline(BTC), kline(ETH))
        assert btc.kinds == ["connected", "frame"]
        async with run.following(ETH) as again:
            await run.exchange.send(kline(ETH))
            assert again.kinds == ["connected", "frame"]
        assert btc.live == {BTC}


@pytest.mark.parametrize("settings", [OWN, SHARED], ids=["own", "shared"])
async def test_an_error_of_the_block_itself_closes_its_connection(
    settings: StreamSettings, autojump_clock: Clock
) -> None:
    async with running(settings) as run:
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with run.following(BTC) as btc:
                raise ZeroDivisionError
        await trio.testing.wait_all_tasks_blocked()
        assert btc.kinds == ["connected", "lost"]
        assert run.exchange.open == []


@pytest.mark.parametrize("settings", [OWN, SHARED], ids=["own", "shared"])
async def test_follow_drop_and_reconnect(settings: StreamSettings, autojump_clock: Clock) -> None:
    sink = Recorder()
    hour = Series("BTCUSDT", Interval.H1)
    async with running(settings) as run:
        async with run.pool.subscription("BTCUSDT", sink) as feed:
            feed.follow(Interval.M1)
            await trio.testing.wait_all_tasks_blocked()
            feed.follow(Interval.H1)
            await run.exchange.send(kline(BTC))
            assert sink.live == {BTC, hour}
            feed.drop(Interval.H1)
            assert sink.told[-1] == ("lost", hour, "dropped")  # already
            await run.exchange.send(kline(hour))
            assert sink.told[-1] == ("lost", hour, "dropped")
            assert [asked["method"] for asked in run.exchange.requests] == ["SUBSCRIBE", "UNSUBSCRIBE"]
            feed.reconnect("silent")
            await trio.sleep(1)
            assert sink.told[-2:] == [("lost", BTC, "silent"), ("connected", BTC, None)]
            assert len(run.exchange.paths) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert sink.told[-1] == ("lost", BTC, "stopped")


@pytest.mark.parametrize("settings", [OWN, SHARED], ids=["own", "shared"])
async def test_a_symbol_has_one_subscription_at_a_time(settings: StreamSettings, autojump_clock: Clock) -> None:
    async with running(settings) as run:
        async with run.following(BTC) as btc:
            with pytest.raises(ValueError, match="BTCUSDT has a subscription already"):
                async with run.pool.subscription("BTCUSDT", Recorder()):
                    pytest.fail("a second one")
            assert btc.live == {BTC}
        async with run.following(BTC) as again:
            assert again.live == {BTC}


# Shared connections


async def test_shared_the_symbols_of_a_connection_get_each_its_own(autojump_clock: Clock) -> None:
    async with running(SHARED) as run, run.following(BTC) as btc, run.following(ETH) as eth, run.following(SOL) as sol:
        assert run.exchange.paths == ["/stream?streams=btcusdt@kline_1m", "/stream?streams=solusdt@kline_1m"]
        await run.exchange.send(kline(BTC), kline(ETH, 7), kline(SOL))
        assert btc.told == [("connected", BTC, None), ("frame", BTC, 1)]
        assert eth.told == [("connected", ETH, None), ("frame", ETH, 7)]
        assert sol.told == [("connected", SOL, None), ("frame", SOL, 1)]
        feeds = run.pool.statistics().feeds
        assert [(feed.name, feed.followed, feed.unwanted) for feed in feeds] == [("shared-1", 2, 1), ("shared-2", 1, 2)]
        assert run.pool.statistics().dropped == 0


async def test_a_symbol_that_leaves_makes_room(autojump_clock: Clock) -> None:
    async with running(SHARED) as run, run.following(BTC) as btc:
        async with run.following(ETH):
            pass
        assert [(asked["method"], asked["params"]) for asked in run.exchange.requests] == [
            ("SUBSCRIBE", ["ethusdt@kline_1m"]),
            ("UNSUBSCRIBE", ["ethusdt@kline_1m"]),
        ]
        async with run.following(SOL) as sol:
            assert sol.live == {SOL}
            assert len(run.exchange.open) == 1
        assert btc.kinds == ["connected"]
    assert len(run.exchange.paths) == 1


async def test_shared_another_connection_takes_over_for_all_symbols_without_a_break(autojump_clock: Clock) -> None:
    async with running(SHARED) as run, run.following(BTC, ETH) as sink:
        await run.exchange.send(kline(BTC), kline(ETH))
        await trio.sleep(60)
        await run.exchange.send('{"e":"serverShutdown","E":1}')
        assert len(run.exchange.open) == 2
        old, new = run.exchange.open
        for socket in (old, new):
            await socket.send_message(kline(BTC, 2))
        await trio.sleep(1)
        assert run.exchange.open == [old, new]  # of ETH nothing is known yet
        await trio.sleep(6)
        assert run.exchange.open == [new]
        await run.exchange.send(kline(BTC, 3), kline(ETH, 3))
        frames = [("frame", BTC, 2), ("frame", BTC, 3), ("frame", ETH, 3)]
        assert sink.told[4:] == frames
        (feed,) = run.pool.statistics().feeds
        assert (feed.renewals, feed.failures, feed.streams) == (1, 0, 2)
    assert sink.live == set()


async def test_shared_it_needs_a_pool_that_runs(autojump_clock: Clock) -> None:
    pool = FeedPool(SHARED, ConnectionPace(SHARED))
    with pytest.raises(RuntimeError, match="does not run"):
        async with pool.subscription("BTCUSDT", Recorder()):
            pytest.fail("no pool")
    assert pool.statistics().feeds == ()


async def test_a_full_connection_carries_1024_streams_of_64_symbols(autojump_clock: Clock) -> None:
    async with running(replace(OWN, symbols_per_connection=64)) as run, AsyncExitStack() as stack:
        sink = Recorder()
        for number in range(65):
            feed = await stack.enter_async_context(run.pool.subscription(f"S{number}USDT", sink))
            for interval in INTERVALS:
                feed.follow(interval)
        await trio.sleep(30)
        assert [feed.streams for feed in run.pool.statistics().feeds] == [1024, 16]
        assert len(sink.live) == 65 * 16


async def test_a_symbol_that_is_not_served_costs_the_others_nothing(autojump_clock: Clock) -> None:
    """The loop of a shared feed runs on while a symbol's task does not get its turn."""
    settings = replace(SHARED, symbol_queue_size=3)
    async with running(settings) as run, run.following(BTC) as btc, run.following(ETH) as eth:
        (shared,) = run.pool._shared
        # Without a checkpoint in between, no symbol's task runs: this is a burst as the loop sees it.
        for trades in range(1, 11):
            shared.stream_frame(BTC, candle(trades))
        for _ in range(1000):
            shared.stream_lost(BTC, "cut")
            shared.stream_connected(BTC)
        shared.stream_frame(BTC, candle(99))
        shared.stream_frame(ETH, candle(7))
        # Four were taken: one by the task that waited for it, three by the channel.
        assert run.pool.statistics().dropped == 7
        await trio.testing.wait_all_tasks_blocked()
        assert btc.told[1:] == [
            ("frame", BTC, 1),
            ("frame", BTC, 2),
            ("frame", BTC, 3),
            ("frame", BTC, 4),
            ("lost", BTC, "cut"),
            ("connected", BTC, None),
        ]
        assert eth.told[1:] == [("frame", ETH, 7)]
        await run.exchange.send(kline(BTC, 100))
        assert btc.told[-1] == ("frame", BTC, 100)
    assert run.pool.statistics().dropped == 7  # also after the symbol has gone


class Wary(Recorder):
    """Takes nothing from before a drop."""

    def __init__(self) -> None:
        super().__init__()
        self.oldest: dict[Series, int] = {}
        """The first frame after the last drop."""
        self.dropped: set[Series] = set()
        """Not connected again since."""

    def stream_connected(self, series: Series) -> None:
        super().stream_connected(series)
        assert series not in self.dropped

    def stream_frame(self, series: Series, candle: Candle) -> None:
        super().stream_frame(series, candle)
        assert candle.trades >= self.oldest.get(series, 0)

    def stream_lost(self, series: Series, reason: str) -> None:
        super().stream_lost(series, reason)
        if reason.isdigit():  # the frames sent before it
            assert all(trades <= int(reason) for kind, one, trades in self.told if (kind, one) == ("frame", series))


STEPS = ["change", "frame", "frame", "frame", "drop", "turn", "turn", "serve"]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1)), max_size=60))
@example(3, [("change", 0), *[("frame", 0)] * 3, ("change", 0), ("turn", 0), ("turn", 0), ("change", 0)])
@example(3, [("change", 0), *[("frame", 0)] * 3, *[("change", 0)] * 2, ("turn", 0), ("turn", 0), ("frame", 0)])
@example(1, [("change", 0), ("frame", 0), ("change", 1), ("drop", 1)])
def test_a_mailbox_loses_no_change_and_keeps_the_order(size: int, steps: list[tuple[str, int]]) -> None:
    """Whatever comes while the task is or is not served: the sink ends up knowing what is true."""

    async def main() -> None:
        sink = Wary()  # which asserts (connected frame* lost)* for each series
        mailbox = _Mailbox(sink, size)
        live: set[Series] = set()
        sent = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mailbox.deliver)
            await trio.testing.wait_all_tasks_blocked()
            for step, number in steps:
                series = (BTC, ETH)[number]
                match step:
                    case "serve":
                        await trio.testing.wait_all_tasks_blocked()
                        assert sink.live == live
                    case "turn":
                        await trio.lowlevel.checkpoint()
                    case "change":
                        live ^= {series}
                        if series in live:
                            sink.dropped.discard(series)
                            mailbox.put_change(_Connected(series))
                        else:
                            mailbox.put_change(_Lost(series, str(sent)))
                    case "drop":
                        sink.dropped.add(series)
                        mailbox.forget(series)
                        assert series not in sink.live
                        sink.oldest[series] = sent + 1
                        if series in live:
                            live.remove(series)
                            mailbox.put_change(_Lost(series, "dropped"))
                    case "frame" if series in live:
                        sent += 1
                        mailbox.put_frame(_Frame(series, candle(sent)))
                assert all(len(changes) <= 2 for changes in mailbox._beside.values())
            await trio.testing.wait_all_tasks_blocked()
            assert sink.live == live
            frames = [trades for kind, _, trades in sink.told if kind == "frame"]
            assert frames == sorted(frames)
            if not sink.oldest:
                assert len(frames) + mailbox.dropped == sent
            nursery.cancel_scope.cancel()
        assert sink.live == set()

    trio.run(main)


class CancelAt(trio.abc.Instrument):
    """Cancels a scope after a number of steps of any task: in the end, at each await of a story."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._steps = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps == 0:
            self._scope.cancel()


@pytest.mark.parametrize("settings", [OWN, SHARED], ids=["own", "shared"])
async def test_cancelled_at_any_await_a_subscription_leaves_nothing(
    settings: StreamSettings, autojump_clock: Clock
) -> None:
    steps = 0
    finished = False
    while not finished:
        steps += 1
        async with running(settings) as run, run.following(BTC) as btc:
            eth = Recorder()
            with trio.CancelScope() as scope:
                instrument = CancelAt(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                async with run.pool.subscription("ETHUSDT", eth) as feed:
                    feed.follow(M1)
                    await trio.testing.wait_all_tasks_blocked()
                    await run.exchange.send(kline(ETH), kline(BTC))
                    feed.reconnect("story")
                    await trio.sleep(1)
                    feed.drop(M1)
                    await trio.sleep(1)
                finished = True
            trio.lowlevel.remove_instrument(instrument)
            assert eth.live == set()
            await trio.sleep(1)
            assert btc.live == {BTC}
            assert len(run.exchange.open) == 1
            assert len(run.pool.statistics().feeds) == 1
            assert run.pool.statistics().feeds[0].followed == 1
    assert steps > 50
