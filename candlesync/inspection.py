"""Two questions put to REST about a series that seems whole: is its stream dead, and does what REST lacked still stand?

Silence is not death: on a thin pair no frame may come for minutes. A connection that answers pings but sends nothing is
dead when REST knows newer trades than it has shown. And a minute that REST lacked, so that it was filled or closed as
the stream had last shown it, may appear there later.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
import trio

from candlesync.core.sync import State
from candlesync.errors import UpstreamUnavailable
from candlesync.synchronizer import Synchronizer

_log = structlog.get_logger(__name__)


class InspectionSettings(msgspec.Struct, frozen=True):
    """Times in seconds."""

    silence: float = 10.0
    """Without a frame for so long, REST is asked. Binance sends an update every two seconds while there are trades."""
    silence_cap: float = 120.0
    """While REST confirms that a pair is just thin, it is asked ever more seldom, down to once in so long."""
    silence_grace: float = 3.0
    """A frame may be on its way when REST shows its trades: so long it has to arrive."""
    fills_first: float = 30.0
    """A minute that REST lacked is looked at again after so long, then ever more seldom."""
    fills_cap: float = 3600.0


async def watch_silence(
    synchronizer: Synchronizer, settings: InspectionSettings, reconnect: Callable[[str], None]
) -> None:
    """Call ``reconnect`` with the reason when the series' stream is dead. Runs until cancelled."""
    pause, heard = settings.silence, synchronizer.frame_time
    while True:
        await trio.sleep_until(max(synchronizer.frame_time, heard) + pause)
        if synchronizer.frame_time > heard:
            pause, heard = settings.silence, synchronizer.frame_time
            continue
        if not synchronizer.sync.is_whole or synchronizer.sync.state is State.STALE:
            pause = settings.silence  # it is asking REST anyway, or has no connection that could be dead
        elif await _has_unshown_trades(synchronizer, settings):
            silence = trio.current_time() - synchronizer.frame_time
            # Invariant 10: a connection made anew says nothing of whether this one is better.
            synchronizer.sync.muted()
            reconnect(f"{synchronizer.series} sent nothing for {silence:.0f} s while REST knows newer trades")
            pause = settings.silence
        else:
            pause = min(pause * 2, settings.silence_cap)
        heard = trio.current_time()


async def _has_unshown_trades(synchronizer: Synchronizer, settings: InspectionSettings) -> bool:
    tail = synchronizer.topic.replica.tail
    if tail is None:
        return False
    frame_time = synchronizer.frame_time
    try:
        unshown = await synchronizer.inspect(tail.open_time)
    except UpstreamUnavailable:
        return False  # nothing is known, and the next turn asks again
    if unshown:
        await trio.sleep(settings.silence_grace)
    return unshown and synchronizer.frame_time == frame_time


async def watch_fills(synchronizer: Synchronizer, settings: InspectionSettings) -> None:
    """Ask REST again for the minutes that it lacked, ever more seldom. Runs until cancelled."""
    pause, newest = settings.fills_first, 0
    while True:
        await trio.sleep(pause)
        doubtful = synchronizer.sync.doubtful
        if not doubtful or not synchronizer.sync.is_whole:
            pause = settings.fills_first
            continue
        pause = settings.fills_first if max(doubtful) > newest else min(pause * 2, settings.fills_cap)
        newest = max(doubtful)
        try:
            await synchronizer.inspect(min(doubtful))
        except UpstreamUnavailable:
            continue
        _log.debug("fills inspected", series=str(synchronizer.series), minutes=len(doubtful))
