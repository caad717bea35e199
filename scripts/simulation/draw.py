"""Draws a schedule from a seed. Each kind of trouble is a line in a table: how often, and how it is made.

Troubles come alone, on top of each other, and in combinations that are known to hurt: what hides a minute from the
stream comes with what hides it from REST, and a reconnect with a REST that cannot confirm anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Literal, get_args

import msgspec

from candlesync.core.interval import MINUTE, Interval
from candlesync.simulator import faults
from candlesync.simulator.settings import DEFAULT_START

from . import schedule
from .schedule import Event, Schedule

SYMBOLS = ("BTCUSDT", "ETHUSDT")
"""Pinned."""
INTERVALS = (Interval.M1, Interval.M5)
OTHERS = ("SOLUSDT", "DOGEUSDT", "QUIETBTC", "YOUNGUSDT")
"""Symbols that only come when somebody asks for them."""

TROUBLES = 4.0
"""An hour, on average. A real feed sees one in a day or two."""
CALM = 300.0
"""Seconds at the start without trouble: each client has seen something then."""
REMEMBERED = 5 * 86_400.0
"""An outage's minutes are missing for good; after so many seconds no series is long enough to hold them."""

AUDITED_WITHIN = 3_600.0
"""Seconds before the end of trouble in which nothing is rewritten any more. So long it takes at most until a whole
series is compared again, and what is to be well at the end has then been compared."""

FOUND_WITHIN = 120.0
"""Seconds in which the owner of a series finds that the store is behind, and has begun a new life."""
SETTLED = 60.0
"""Seconds after which a node has got over its trouble."""

Make = Callable[[Random, float, str | None], Iterator[Event]]
"""Makes the events of one trouble that begins at a time, of a symbol or of all."""


def draw(seed: int, days: float, clients: int = 6, troubles: float = TROUBLES, nodes: int = 1) -> Schedule:
    """The schedule of a seed, with so many troubles an hour; with several nodes it is another one."""
    name = f"schedule/{seed}" if nodes == 1 else f"schedule/{seed}/nodes/{nodes}"
    random = Random(name)  # noqa: S311 - to be repeated, not to be secret
    remote = random.random() < 0.5 or nodes > 1
    history = random.choice((1000, 1000, 200, 60))
    connection_seconds = random.choice((86_400.0, 86_400.0, 10_800.0, 2_400.0, 1_200.0))
    lifetime = random.choice((None, 0.8 * connection_seconds, 0.8 * connection_seconds))
    makes = [make for make, _, needs_remote in _TROUBLES if remote or not needs_remote]
    weights = [weight for _, weight, needs_remote in _TROUBLES if remote or not needs_remote]
    if nodes > 1:
        makes += [make for make, _ in _OF_NODES]
        weights += [weight for _, weight in _OF_NODES]
    lease = random.choice(_LEASES) if nodes > 1 else _LEASES[0]
    end = days * 86_400.0
    events: list[Event] = []
    time = CALM
    while (time := time + random.expovariate(troubles / 3600.0)) < end:
        symbol = random.choice((*SYMBOLS, None))
        make = random.choices(makes, weights)[0]
        events += make(random, round(_aimed(random, time), 3), symbol)
    events = [event for event in (_within(event, end) for event in events) if event is not None]
    events = [event for event in events if not _leaves_nobody_who_knows(event, events)]
    events.sort(key=lambda event: event.at or 0.0)
    return Schedule(
        seed=seed,
        days=days,
        clients=clients,
        history=history,
        connection_seconds=connection_seconds,
        lifetime=lifetime,
        store="remote" if remote else "prompt",
        nodes=nodes,
        lease=lease,
        events=tuple(events),
    )


def _aimed(random: Random, time: float) -> float:
    """Half of all troubles begin at the end of a minute, where candles close."""
    if random.random() < 0.5:
        return time
    return max(CALM, time - time % 60 + random.choice((-0.5, -0.01, 0.0, 0.002, 0.005, 0.05, 0.5, 2.0)))


def _within(event: Event, end: float) -> Event | None:
    """An event that is over at the end, but for outages and what was rewritten: these are for ever."""
    at = event.at or 0.0
    if at >= end:
        return None
    if isinstance(event, faults.Rewritten):
        return event if at < end - AUDITED_WITHIN else None
    seconds = getattr(event, "seconds", None)
    if seconds is None or is_outage(event):
        return event
    return msgspec.structs.replace(event, seconds=round(min(seconds, end - at), 3))


def is_outage(event: Event) -> bool:
    """Whether the exchange itself never has the minutes."""
    return isinstance(event, faults.Missing) and event.stream and (event.seconds or 0.0) >= REMEMBERED


def _leaves_nobody_who_knows(event: Event, events: Sequence[Event]) -> bool:
    """Whether a store falls back while a node is in trouble: who has what was lost may not be there to say so.

    A new owner that never had it goes on in the same life then, with revisions that were others before, and a position
    cannot tell. That is known, and nothing that is promised; what has to be there finds the store behind at once.
    """
    if not isinstance(event, schedule.StoreFallsBack):
        return False
    return any(
        other.at - FOUND_WITHIN < event.at < other.at + _lasts(other) + SETTLED
        for other in events
        if isinstance(other, schedule.OfNodes)
    )


def _lasts(event: schedule.OfNodes) -> float:
    return event.after if isinstance(event, schedule.NodeDies | schedule.NodeStops) else event.seconds


# --- the troubles


def _some(random: Random, most: float) -> float:
    """A duration: mostly short, at times ``most`` seconds."""
    return float(round(most ** random.uniform(0.3, 1.0), 3))


def _drop(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    yield faults.Drop(
        at=at, symbol=symbol, close_frame=random.random() < 0.5, code=random.choice((1000, 1001, 1008, 1012))
    )
    if random.random() < 0.5:
        yield from _no_way(random, at, symbol)
    if random.random() < 0.5:
        yield from _rest_trouble(random, at, symbol)


def _no_way(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    """The connection cannot be made anew for a while."""
    seconds = _some(random, 1800)
    match random.randrange(3):
        case 0:
            yield faults.Refuse(at=at, symbol=symbol, seconds=seconds, status=random.choice((403, 429, 451, 502, 503)))
        case 1:
            yield faults.Refuse(at=at, symbol=symbol, seconds=seconds, hang=True)
        case _:
            yield schedule.NetworkDown(at=at, seconds=seconds)


def _rest_trouble(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    seconds = _some(random, 2400)
    shape = random.choice((*get_args(faults.BodyShape), None))
    yield random.choice(
        (
            faults.RestDown(at=at, symbol=symbol, seconds=seconds, status=random.choice((500, 502, 503, 504))),
            faults.RestDown(at=at, symbol=symbol, seconds=seconds, hang=True),
            faults.RestDown(at=at, symbol=symbol, seconds=seconds, status=None, delay=_some(random, 40)),
            faults.RestLimited(at=at, seconds=seconds, retry_after=random.choice((1, 10, 60, None))),
            faults.RestBanned(at=at, seconds=seconds, retry_after=random.choice((120, 300, 1200, None))),
            faults.RestBlocked(at=at, seconds=min(seconds, 300.0)),
            faults.RestBehind(
                at=at, symbol=symbol, seconds=seconds, by_ms=random.choice((500, 5_000, 70_000, 400_000))
            ),
            faults.RestGarbage(at=at, symbol=symbol, seconds=seconds, shape=shape),
        )
    )


def _silent(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    match random.randrange(3):
        case 0:
            yield faults.Silent(at=at, symbol=symbol, seconds=_some(random, 1500))
        case 1:
            yield faults.Deaf(at=at, symbol=symbol, seconds=_some(random, 300))
            yield faults.Drop(at=at + 1, symbol=symbol)
        case _:
            yield schedule.HalfOpen(at=at, symbol=symbol)


def _noise(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    """Frames twice, late, in another order, or unreadable."""
    seconds = _some(random, 1800)
    yield random.choice(
        (
            faults.Duplicates(at=at, symbol=symbol, seconds=seconds, times=random.choice((2, 3, 5))),
            faults.Late(at=at, symbol=symbol, seconds=seconds, by_ms=random.choice((1_000, 25_000, 90_000))),
            faults.DelayedClose(at=at, symbol=symbol, seconds=seconds, by_ms=random.choice((900, 3_000, 25_000))),
            faults.Garbage(at=at, symbol=symbol, seconds=seconds, replace=random.random() < 0.3),
        )
    )


def _hide_close(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    interval = random.choice(INTERVALS)
    yield faults.HideClose(
        at=at, symbol=symbol, interval=interval, before_ms=random.choice((100, 500, 15_000)), after_ms=3_000
    )
    if random.random() < 0.4:
        yield from _rest_trouble(random, at, symbol)


def _planned(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    yield faults.Shutdown(at=at, symbol=symbol, seconds=_some(random, 600))


def _outage(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    """The exchange itself has no candles for a while."""
    symbol = symbol or SYMBOLS[0]
    first, minutes = _minute_after(at), random.choice((1, 2, 5, 7, 20))
    missing = [first + number * MINUTE for number in range(minutes)]
    whole = [time for time in missing if Interval.M5.is_open_time(time) and time + 4 * MINUTE in missing]
    for interval, times in ((Interval.M1, missing), (Interval.M5, whole)):
        if times:
            yield faults.Missing(
                at=at, symbol=symbol, seconds=REMEMBERED, interval=interval, open_times=tuple(times), stream=True
            )


def _rewritten(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    """REST shows candles otherwise than the stream did: old ones, of late, or the next that close."""
    interval, steps = random.choice(INTERVALS), random.choice((1, 1, 3))
    first = interval.next(interval.floor(_minute_after(at)), random.choice((-45, -20, -5, -3, -2, -1, 0, 1)))
    times = tuple(interval.next(first, number) for number in range(steps))
    yield faults.Rewritten(
        at=at, symbol=symbol or random.choice(SYMBOLS), seconds=REMEMBERED, interval=interval, open_times=times
    )
    if random.random() < 0.4:
        yield from _rest_trouble(random, at, symbol)
    if random.random() < 0.3:
        yield faults.Late(at=at, symbol=symbol, seconds=_some(random, 1800), by_ms=random.choice((25_000, 90_000)))


def _lacking(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    """REST lacks minutes for a while; the stream does, too, or it has shown them, or nobody was there to see."""
    first = _minute_after(at)
    times = tuple(first + number * MINUTE for number in range(random.choice((1, 1, 2, 4))))
    stream = random.random() < 0.4
    yield faults.Missing(
        at=at, symbol=symbol or SYMBOLS[1], seconds=300 + _some(random, 1500), open_times=times, stream=stream
    )
    if not stream and random.random() < 0.7:
        begins = (first - DEFAULT_START) / 1000
        yield faults.Drop(at=round(begins - random.uniform(1, 20), 3), symbol=symbol)
        if random.random() < 0.6:
            yield faults.RestDown(at=round(begins - 21, 3), symbol=symbol, seconds=_some(random, 240) + 21)


def _minute_after(at: float) -> int:
    """The open time of the second minute that begins after a time of the simulation."""
    return Interval.M1.floor(DEFAULT_START + round(at * 1000)) + 2 * MINUTE


def _store(random: Random, at: float, symbol: str | None) -> Iterator[Event]:  # noqa: ARG001 - it has no symbols
    match random.randrange(6):
        case 0:
            yield schedule.StoreDown(at=at, seconds=_some(random, 600), hangs=random.random() < 0.5)
        case 1 | 2:
            happens, hangs = random.random() < 0.5, random.random() < 0.5
            yield schedule.StoreLosesAnswer(at=at, happens=happens, hangs=hangs, times=random.choice((1, 1, 2, 5)))
        case 3:
            yield schedule.StoreFallsBack(at=at, by=_some(random, 1800))
        case 4:
            yield schedule.StoreWiped(at=at)
        case _:
            yield schedule.StoreSlow(at=at, seconds=_some(random, 900), delay=random.choice((0.1, 1.0, 4.0)))


def _cancel(random: Random, at: float, symbol: str | None) -> Iterator[Event]:
    what: Literal["symbol", "series", "client"] = random.choice(("symbol", "series", "client"))
    if random.random() < 0.5:
        yield faults.Drop(at=max(CALM, at - random.choice((0.3, 1.0, 3.0))), symbol=symbol)
    for number in range(random.choice((1, 1, 3))):
        steps = random.choice((0, 1, 2, 3, 5, 8, 13, 30, 100))
        yield schedule.Cancel(at=round(at + number * 7.1, 3), what=what, which=random.randrange(12), steps=steps)


def _wanted(random: Random, at: float, symbol: str | None) -> Iterator[Event]:  # noqa: ARG001 - it may be another one
    interval = random.choice((Interval.M1, Interval.M3, Interval.M15))
    yield schedule.Wanted(
        at=at, symbol=random.choice((*OTHERS, *SYMBOLS)), interval=interval, seconds=_some(random, 2400)
    )


def _client(random: Random, at: float, symbol: str | None) -> Iterator[Event]:  # noqa: ARG001 - whatever it looks at
    client = random.randrange(64)
    match random.randrange(3):
        case 0:
            pause = random.choice((1.0, 7.0, 30.0))
            yield schedule.ClientSlow(at=at, client=client, seconds=_some(random, 3600), pause=pause)
        case 1:
            yield schedule.ClientStuck(at=at, client=client, seconds=_some(random, 3600))
        case _:
            yield schedule.ClientVanishes(at=at, client=client, after=_some(random, 7200))


def _node_goes(random: Random, at: float, symbol: str | None) -> Iterator[Event]:  # noqa: ARG001 - with all that it has
    node, after = random.randrange(64), _some(random, 1200)
    if random.random() < 0.6:
        yield schedule.NodeDies(at=at, node=node, after=after)
    else:
        yield schedule.NodeStops(at=at, node=node, after=after)
    if random.random() < 0.2:
        # The other one, when this one has just taken over, or just before.
        later = round(max(CALM, at + random.choice((-5.0, 0.0, 0.01, 19.0, 21.0, 26.0))), 3)
        yield schedule.NodeDies(at=later, node=node + 1, after=_some(random, 600))


def _node_paused(random: Random, at: float, symbol: str | None) -> Iterator[Event]:  # noqa: ARG001 - with all that it has
    node = random.randrange(64)
    yield schedule.NodePaused(at=at, node=node, seconds=_some(random, 300))
    if random.random() < 0.3:
        yield schedule.NodePaused(at=round(at + random.uniform(0, 40), 3), node=node + 1, seconds=_some(random, 60))


def _node_cut_off(random: Random, at: float, symbol: str | None) -> Iterator[Event]:  # noqa: ARG001 - with all that it has
    node, way = random.randrange(64), random.choice(_WAYS)
    yield schedule.NodeCutOff(at=at, node=node, way=way, seconds=_some(random, 1800), hangs=random.random() < 0.5)


def _node_hears_badly(random: Random, at: float, symbol: str | None) -> Iterator[Event]:  # noqa: ARG001 - of all symbols
    node, seconds = random.randrange(64), _some(random, 1800)
    match random.randrange(5):
        case 0 | 1:
            delay = random.choice((0.0005, 0.02, 0.5, 4.0))
            yield schedule.NodeHearsLate(at=at, node=node, seconds=seconds, delay=delay)
        case 2:
            yield schedule.NodeDeaf(at=at, node=node, seconds=seconds)
        case _:
            yield schedule.NodeMisses(at=at, node=node, seconds=seconds, what=random.choice(_MISSED))


_LEASES = (20.0, 20.0, 2.0)
"""Seconds. The short one is the default: other times of the service, as that for a commit, are longer then."""
_WAYS: tuple[Literal["store", "answers", "exchange"], ...] = ("store", "store", "answers", "exchange")
_MISSED: tuple[Literal["committed", "reported", "released", "assembled"], ...] = (
    "committed",
    "committed",
    "reported",
    "released",
    "assembled",
)
_OF_NODES: tuple[tuple[Make, float], ...] = (
    (_node_goes, 6.0),
    (_node_paused, 5.0),
    (_node_cut_off, 5.0),
    (_node_hears_badly, 4.0),
)
"""The same of what only comes where there are several nodes."""
_TROUBLES: tuple[tuple[Make, float, bool], ...] = (
    (_drop, 3.0, False),
    (_no_way, 1.0, False),
    (_rest_trouble, 2.0, False),
    (_silent, 2.0, False),
    (_noise, 2.0, False),
    (_hide_close, 2.0, False),
    (_planned, 1.0, False),
    (_outage, 1.0, False),
    (_lacking, 2.0, False),
    (_rewritten, 1.5, False),
    (_cancel, 3.0, False),
    (_wanted, 1.0, False),
    (_client, 3.0, False),
    (_store, 6.0, True),
)
"""How a trouble is made, how often it comes beside the others, and whether it needs a store outside of the process."""
