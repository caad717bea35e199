"""The market data streams: when which frame arises, and who gets it.

A stream exists while somebody follows it. Two kinds of moments make its frames: at each update the forming candle is
shown if it has changed, and a little after its close time it is shown closed. All moments are in market time and
depend on nothing but the settings, so what is sent does not depend on how busy the machine is: when it is late,
updates are skipped, and close frames are sent late.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Protocol
from zlib import crc32

import trio

from candlesync.core.interval import INTERVALS, Interval
from candlesync.simulator.bars import Kline
from candlesync.simulator.clock import MarketClock
from candlesync.simulator.distortion import Distortion
from candlesync.simulator.frames import Frame, kline_frame, stream_name
from candlesync.simulator.market import Market
from candlesync.simulator.series import Series
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.symbols import SymbolSpec


class Follower(Protocol):
    """Who follows a stream."""

    def offer(self, frame: Frame) -> None:
        """Take a frame, at once and without waiting."""


class _Channel:
    """One stream that is followed."""

    def __init__(self, spec: SymbolSpec, series: Series, now: int) -> None:
        self.spec = spec
        self.series = series
        self.followers: dict[Follower, None] = {}  # in the order of arrival, which a set would not keep
        self.shown: tuple[int, int] | None = None
        """Open time and trades of the candle as it was last sent."""
        self.closing = self._first_to_close(now)
        """The candle whose close frame comes next; `None` when the market ends before."""

    def due(self, kline: Kline) -> int:
        """When the close frame of a final candle is sent."""
        return kline.row.close_time + 1 + self.spec.close_delay_ms

    def _first_to_close(self, now: int) -> Kline | None:
        seen = self.series.current(now - self.spec.close_delay_ms - 1)
        start = seen.row.open_time if seen is not None else now - self.spec.close_delay_ms
        found = self.series.first_from(start)
        while found is not None and self.due(found) < now:
            found = self.series.first_from(found.row.open_time + 1)
        return found


class Streams:
    """All streams that are followed now."""

    def __init__(self, market: Market, clock: MarketClock, settings: SimulatorSettings, distortion: Distortion) -> None:
        self._market = market
        self._clock = clock
        self._settings = settings
        self._distortion = distortion
        self._names = {
            stream_name(spec.name, interval): (spec, interval)
            for spec in market.symbols.values()
            for interval in INTERVALS
            if interval is not Interval.S1 or settings.of_venue.has_seconds
        }
        self._channels: dict[str, _Channel] = {}
        self._moments: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = count()
        self._woken = trio.Event()

    def symbol(self, name: str) -> str | None:
        """The symbol whose stream ``name`` is; `None` for a stream that does not exist."""
        known = self._names.get(name)
        return known[0].name if known else None

    def followed(self) -> dict[str, int]:
        """How many follow each stream."""
        return {name: len(channel.followers) for name, channel in self._channels.items()}

    def join(self, name: str, follower: Follower) -> None:
        """Send the frames of a stream to ``follower`` from now on; nothing ever comes of one that does not exist."""
        if name not in self._names:
            return
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = self._open(name)
        channel.followers[follower] = None

    def leave(self, name: str, follower: Follower) -> None:
        """Stop what `join` began."""
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.followers.pop(follower, None)
        if not channel.followers:
            del self._channels[name]  # its moments find out, and are not followed by others

    async def run(self) -> None:
        """Make frames for ever."""
        while True:
            deadline = self._clock.when(self._moments[0][0]) if self._moments else float("inf")
            with trio.move_on_at(deadline):
                await self._woken.wait()
            self._woken = trio.Event()
            now = self._clock.now()
            while self._moments and self._moments[0][0] <= now:
                due, _, act = heappop(self._moments)
                act(due)

    def _open(self, name: str) -> _Channel:
        spec, interval = self._names[name]
        now = self._clock.now()
        channel = _Channel(spec, self._market.series(spec.name, interval), now)
        period = self._period(interval)
        # Each stream has its own beat, so that not all of them are due in the same instant.
        phase = crc32(name.encode()) % period
        first = now + (phase - now) % period

        def update(due: int) -> None:
            if self._channels.get(name) is channel and channel.closing is not None:
                self._update(channel, channel.closing, due)
                behind = max(0, self._clock.now() - due)
                self._at(due + period + behind // period * period, update)

        def close(due: int) -> None:
            if self._channels.get(name) is channel and channel.closing is not None:
                self._close(channel, channel.closing, due)
                await_close()

        def await_close() -> None:
            if channel.closing is not None:
                self._at(channel.due(channel.closing), close)

        self._at(first, update)
        await_close()
        return channel

    def _update(self, channel: _Channel, closing: Kline, due: int) -> None:
        kline = channel.series.current(due)
        if kline is None or kline.closed or not kline.row.trades:
            return
        if kline.row.open_time > closing.row.open_time:
            return  # the candle before it is shown closed first
        state = kline.row.open_time, kline.row.trades
        if state != channel.shown:
            channel.shown = state
            self._arise(channel, kline, due)

    def _close(self, channel: _Channel, kline: Kline, due: int) -> None:
        channel.shown = kline.row.open_time, kline.row.trades
        channel.closing = channel.series.first_from(kline.row.open_time + 1)
        if kline.row.trades or not channel.spec.mute_when_idle:
            self._arise(channel, kline, due)

    def _arise(self, channel: _Channel, kline: Kline, due: int) -> None:
        frame = kline_frame(channel.spec.name, channel.series.interval, kline, due)
        for delay, delivered in self._distortion.deliveries(frame):
            if delay:
                self._at(due + delay, partial(self._send_late, delivered))
            else:
                self._send(delivered)

    def _send_late(self, frame: Frame, _: int) -> None:
        self._send(frame)

    def _send(self, frame: Frame) -> None:
        channel = self._channels.get(frame.stream)
        if channel is None or self._distortion.silenced(frame):
            return
        for follower in channel.followers:
            follower.offer(frame)

    def _at(self, due: int, act: Callable[[int], None]) -> None:
        moment = due, next(self._order), act
        heappush(self._moments, moment)
        if self._moments[0] is moment:
            self._woken.set()

    def _period(self, interval: Interval) -> int:
        settings = self._settings
        period = settings.update_ms_1s if interval is Interval.S1 else settings.update_ms
        return max(period, round(self._clock.milliseconds(settings.shortest_update)))
