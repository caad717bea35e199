"""Two connections, whatever comes on which first, whatever ends, is followed and dropped meanwhile.

Binance is a truth of candles for each series. Each connection is sent all of it from the subscription on, in order, but
as late as the test likes (less than the grace). The sink is held to its contract, and to this: from each connected to
its lost no candle is missing, and none that was closed is lost.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed

from candlesync.binance.stream import stream_name
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import MINUTE
from tests.binance.connections import BTC, ETH, SETTINGS, SHUTDOWN, Run, Served, Told, kline, many, running

SERIES = (BTC, ETH, many(1)[0])
PER_MINUTE = 3
"""Updates of a candle, the last of which closes it."""
LATEST = 1.2
"""Seconds that a frame may be on its way."""

Action = tuple[str, int, int]

_which, _little = st.integers(0, 1), st.integers(1, 4)
_frames = [
    st.tuples(st.just("happen"), st.sampled_from((0, 0, 1)), _little),
    st.tuples(st.just("deliver"), _which, _little),
    st.tuples(st.just("sleep"), st.just(2), st.just(0)),
]
_changes = [
    st.tuples(st.just("sleep"), st.integers(5, 40), st.just(0)),
    st.tuples(st.just("shutdown"), _which, st.just(0)),
    st.tuples(st.just("cut"), _which, st.just(0)),
    st.tuples(st.just("follow"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("drop"), st.integers(0, 2), st.just(0)),
]
actions = st.lists(st.one_of(*_frames, *_frames, *_frames, *_changes), max_size=40)


class Truth:
    """What happens on the exchange, and what is on its way to each connection."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._happened: dict[Series, int] = defaultdict(int)
        self._outboxes: dict[Served, deque[tuple[float, str]]] = defaultdict(deque)

    @property
    def connections(self) -> list[Served]:
        """Those that are open: at most two."""
        halves = self._run.exchange.halves
        return [served for served, half in zip(self._run.exchange.served, halves, strict=True) if not half.closed]

    def happen(self, series: Series, times: int) -> None:
        for _ in range(times):
            minute, update = divmod(self._happened[series], PER_MINUTE)
            self._happened[series] += 1
            frame = kline(series, minute=minute, trades=update + 1, closed=update == PER_MINUTE - 1)
            for served in self.connections:
                if stream_name(series) in subscribed(served):
                    self._outboxes[served].append((trio.current_time(), frame))

    async def deliver(self, served: Served, count: int) -> None:
        outbox = self._outboxes[served]
        for _ in range(min(count, len(outbox))):
            with suppress(ConnectionClosed):
                await served.send(outbox.popleft()[1])

    async def sleep(self, seconds: float) -> None:
        """Let time pass; what has been on its way for long arrives."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            await trio.sleep(0.3)
            for served in self.connections:
                outbox = self._outboxes[served]
                while outbox and trio.current_time() - outbox[0][0] > LATEST:
                    await self.deliver(served, 1)


def subscribed(served: Served) -> set[str]:
    names = set(served.streams)
    for _, request in served.requests:
        names = names | set(request["params"]) if request["method"] == "SUBSCRIBE" else names - set(request["params"])
    return names


def periods(told: list[Told], series: Series) -> Iterator[list[Candle]]:
    """The candles between each connected and its lost."""
    frames: list[Candle] = []
    for one in told:
        if one.series != series:
            continue
        if one.kind == "frame":
            frames.append(one.detail)
        else:
            yield frames
            frames = []
    yield frames


def check(frames: list[Candle]) -> None:
    """No candle is missing among those that follow each other, and each but the last was closed."""
    tail: Candle | None = None
    for frame in frames:
        if tail is None or frame.open_time == tail.open_time:
            tail = tail if tail is not None and tail.closed else frame
        elif frame.open_time > tail.open_time:
            assert tail.closed, f"the close of {tail.open_time} is missing before {frame.open_time}"
            assert frame.open_time == tail.open_time + MINUTE
            tail = frame


async def act(run: Run, truth: Truth, action: Action) -> None:
    kind, which, count = action
    connections = truth.connections
    match kind:
        case "happen":
            truth.happen(SERIES[which], count)
        case "sleep":
            await truth.sleep(which / 5)
        case "follow":
            run.feed.follow(SERIES[which])
            await trio.testing.wait_all_tasks_blocked()
        case "drop" if len(run.feed.wanted) > 1:
            run.feed.drop(SERIES[which])
        case "deliver" if which < len(connections):
            await truth.deliver(connections[which], count)
        case "shutdown" if which < len(connections):
            with suppress(ConnectionClosed):
                await connections[which].send(SHUTDOWN)
        case "cut" if which < len(connections):
            await connections[which].cut()


# The new one is ahead of the old one, by a close and then by a whole minute; it has taken over, and is ahead again.
AHEAD = [("happen", 0, 2), ("deliver", 1, 2), ("sleep", 2, 0)]
MINUTES_AHEAD = [
    ("happen", 0, 4),
    ("deliver", 1, 4),
    ("happen", 0, 3),
    ("deliver", 1, 3),
    ("deliver", 0, 2),
    ("sleep", 2, 0),
]
AHEAD_AGAIN = [
    ("happen", 0, 1),
    ("deliver", 1, 1),
    ("deliver", 0, 9),
    ("happen", 0, 4),
    ("deliver", 1, 4),
    ("sleep", 2, 0),
]
# A series is dropped on its way, and comes back while frames of before are still held back.
COMES_BACK = [
    ("follow", 1, 0), ("happen", 1, 2), ("deliver", 1, 2), ("drop", 1, 0), ("happen", 1, 3), ("follow", 1, 0),
    ("happen", 1, 2), ("deliver", 1, 9), ("deliver", 0, 9), ("happen", 1, 4), ("deliver", 1, 4), ("sleep", 2, 0),
]  # fmt: skip
CUT_AHEAD = [("happen", 0, 4), ("deliver", 1, 4), ("cut", 0, 0), ("happen", 0, 3), ("sleep", 9, 0)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), actions)
@example(2, AHEAD)
@example(3, MINUTES_AHEAD)
@example(0, AHEAD_AGAIN)
@example(0, COMES_BACK)
@example(2, CUT_AHEAD)
def test_nothing_is_missing_and_the_contract_of_the_sink_holds(late: int, story: list[Action]) -> None:
    """``late``: so much is still on its way to the old connection when the new one is made."""
    renewals: list[int] = []

    async def tell() -> None:
        quick = replace(SETTINGS, settled_after=0.0, ping_interval=100.0, lifetime=20.0, lifetime_spread=0.0)
        async with running(BTC, settings=quick) as run:  # which looks at the end, and at the sink's contract
            truth = Truth(run)
            truth.happen(BTC, 1)
            await truth.deliver(run.served, 1)
            truth.happen(BTC, late)
            await run.served.send(SHUTDOWN)
            for action in story:
                await act(run, truth, action)
                assert len(truth.connections) <= 2
                assert run.sink.live <= run.feed.wanted
            await truth.sleep(30)
            for series in SERIES:  # in the end all is well again
                truth.happen(series, 4)
            await truth.sleep(30)
            assert run.sink.live == run.feed.wanted
            renewals.append(run.feed.statistics().renewals)
            for series in SERIES:
                for frames in periods(run.sink.told, series):
                    check(frames)

    trio.run(tell, clock=trio.testing.MockClock(autojump_threshold=0))
    assert renewals[0] > 0
