"""What the way from a Binance frame to a published commit takes, without clients, beside trio-websocket alone.

    exchange ──flood──▶ candlesync: parse, sync, commit, publish
    exchange ──flood──▶ trio-websocket alone: read, and forget

What counts are commits. A server that let updates of one candle replace each other before they were committed would
read frames faster, and not gain anything here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from . import market
from .cores import Cores, available_cores
from .findings import Findings, Settings
from .following import FAILURES, counters, following, served
from .market import symbols
from .measure import end
from .meter import Meter
from .notes import FULL, Notes
from .processes import Child, UpstreamProcess
from .servers import CANDLESYNC
from .upstream import Order, Sent

_SERIES = (1, 50)
"""On one connection."""
_WARM_UP = 2000
"""Frames before it counts."""
_FRAMES = 5000
"""In a flood, for each second of the settings."""
_WHOLE = 0.99
"""Of all frames, as commits: with less, updates have replaced each other."""
PEER = "trio-websocket alone"


@dataclass(frozen=True)
class _Flood:
    """What one of them is flooded with."""

    exchange: UpstreamProcess
    series: int
    frames: int

    def warm_up(self) -> int:
        """Send some that do not count; how many."""
        rounds = max(1, _WARM_UP // self.series)
        self.make(rounds)
        self.pour()
        return rounds * self.series

    def make(self, rounds: int) -> Sent:
        """Make it ready."""
        self.exchange.order(Order(rounds, 0.0))
        return self.exchange.report()

    def pour(self) -> Sent:
        """Send it, and wait until it has been read."""
        self.exchange.order(Order(0, 0.0))
        return self.exchange.report()

    def measure(self, pid: int, count: Callable[[], int], notes: Notes) -> Sent:
        """What the process does with it. ``count`` is how many frames it is done with, ever."""
        rounds = max(1, self.frames // self.series)
        frames = rounds * self.series
        self.make(rounds)
        before = _settled(count)
        meter = Meter([pid], upstream=self.exchange.pid)
        sent = self.pour()
        spent = meter.read()
        done = _settled(count) - before
        seconds = (sent.ended_at - sent.sent_at[0]) / 1e9
        cpu = spent.server * spent.seconds
        notes.add(f"frames_{self.series}", done / cpu, spent)
        notes.add(f"frames_read_{self.series}", frames / cpu, spent)
        notes.add(f"frames_wall_{self.series}", done / seconds, spent)
        notes.add(f"frames_done_{self.series}", done / frames * 100, spent)
        notes.findings.frames += frames
        way = f"{self.series} series on one connection"
        if sent.connections != 1:
            notes.fault(f"{way}: {sent.connections} connections to the exchange")
        if done > frames:
            notes.fault(f"{way}: more was done than there were frames ({done} of {frames})")
        if done < _WHOLE * frames:
            notes.remark(f"{way}: updates replaced each other before they were committed; what was committed counts")
        if spent.server < FULL:
            notes.remark(f"{way}: it did not have a whole core: what stands is the figure for each second of its CPU")
        return sent


def measure_frames(settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Measure both, in each of two sizes; what was found goes to ``findings``."""
    cores = available_cores()
    with cores.apart():
        for series in _SERIES:
            for label, measure in ((CANDLESYNC.label, _candlesync), (PEER, _peer)):
                notes = Notes(label, run, findings)
                log = logs / f"frames-{label.partition('-')[0]}-{series}-{run}"
                try:
                    measure(series, round(_FRAMES * settings.seconds), log, cores, notes)
                except FAILURES as error:
                    notes.fault(f"{series} series: {error!r}")


def _candlesync(series: int, frames: int, log: Path, cores: Cores, notes: Notes) -> None:
    with served(following(series), series, log) as (server, exchange):
        flood = _Flood(exchange, series, frames)
        cores.give(server.pid)
        sent_frames = flood.warm_up()
        sent = flood.measure(server.pid, lambda: counters(server, "candlesync_commits_total")[0], notes)
        sent_frames += frames // series * series
        received, unreadable = counters(
            server, "candlesync_stream_frames_total", "candlesync_stream_unreadable_frames_total"
        )
        if received < sent_frames or unreadable:
            notes.fault(f"{received} of {sent_frames} frames were received, {unreadable} of them unreadable")
        for symbol in {symbols(series)[0], symbols(series)[-1]}:
            fault = market.fault_of_history(server.get(f"/candles/{symbol}/1m")[1], sent.last)
            if fault is not None:
                notes.fault(f"after a flood: {symbol}: {fault}")
        end(server, notes)


def _peer(series: int, frames: int, log: Path, cores: Cores, notes: Notes) -> None:
    names = "/".join(f"{symbol.lower()}@kline_1m" for symbol in symbols(series))
    with ExitStack() as stack:
        program = ("benchmark.exchange", str(series))
        exchange = stack.enter_context(UpstreamProcess(log.with_suffix(".exchange"), program))
        url = f"ws://127.0.0.1:{exchange.port}/stream?streams={names}"
        peer = stack.enter_context(Child([sys.executable, "-m", "benchmark.stream_peer", url], log))
        flood = _Flood(exchange, series, frames)
        peer.hear()
        cores.give(peer.pid)

        def read() -> int:
            peer.tell(Order(0, 0.0))  # whatever it is told, it answers
            messages: int = peer.hear()["messages"]
            return messages

        flood.warm_up()
        flood.measure(peer.pid, read, notes)


def _settled(count: Callable[[], int]) -> int:
    """The count, when it does not change any more: the pong comes while some frames are still in a queue."""
    before = -1
    while (now := count()) != before:
        before = now
        time.sleep(0.1)
    return now
