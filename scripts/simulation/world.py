"""One simulation: the exchange, the network, the service and its clients, in one process and in virtual time."""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import count
from traceback import format_exception
from typing import Any, cast

import httpx
import msgspec
import trio

from candlesync.binance.stream import StreamSettings
from candlesync.config import Settings
from candlesync.core.audit import AuditSettings
from candlesync.core.candle import Series
from candlesync.core.healing import Healing
from candlesync.core.interval import Interval
from candlesync.core.sync import Rules, State
from candlesync.inspection import InspectionSettings
from candlesync.service import Service
from candlesync.simulator.settings import SimulatorSettings
from candlesync.store.base import Store
from candlesync.symbol import SymbolTask

from .cancelling import Cancelling, MortalTask
from .chance import run_alone
from .clients import KINDS, Chart, Client
from .clock import VirtualClock
from .director import Director
from .draw import INTERVALS, SYMBOLS
from .memory import Memory
from .network import ExchangeTransport, Network, WatchedExchange, Witness
from .schedule import Schedule, StoreFallsBack
from .store import PromptLedgerStore, RemoteStore
from .truth import Truth
from .verdict import Verdict, Violation
from .watch import Watch
from .watchdog import StoodStill, Watchdog

UPDATE_MS = 20_000
"""Between two updates of a forming candle. Binance has 2,000; the times that follow from it are ten times as long."""
SETTLE = 2_700.0
"""Seconds after the last trouble in which all is to be well: bans end within 20 minutes, and fills are looked at again
within ten."""
SILENCE = InspectionSettings(silence=70.0, silence_cap=240.0, silence_grace=25.0, fills_cap=600.0)
PINGS = StreamSettings(ping_interval=60.0, ping_timeout=30.0)
"""The service's; a half-open connection is noticed within these two."""
COLLECT_EACH = 3_600.0
COLLECT_ALL = 24
"""Every so many times all is looked through that has come since the start, not only what is young: that takes long, and
what is alive after an hour is what the series and the books hold. Then what the service keeps is looked at."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one simulation."""

    seed: int
    digest: str
    """Of the whole history."""
    violations: tuple[Violation, ...]
    seconds: float
    """Simulated, of the market's time."""
    counts: dict[str, int]
    faults: dict[str, int]
    """By kind: those that happened."""
    heals: dict[float, int]
    """Of the gaps that were healed: how many took so many seconds at most, from when they could be seen."""


class MortalService(Service):
    """The service, whose symbols' tasks can be made to die."""

    cancelling: Cancelling

    @property
    def healing(self) -> Healing:
        """What the service has counted of its gaps."""
        return self._means.record.healing

    def _new_task(self, symbol: str, intervals: set[Interval]) -> SymbolTask:
        return MortalTask(symbol, intervals, self._means, self.cancelling)


def simulate(schedule: Schedule) -> Outcome:
    """Run one simulation, to its end or to the first violation."""
    simulation = Simulation(schedule)
    watchdog = Watchdog(f"seed {schedule.seed}", simulation.stands_still)
    with watchdog.watching():
        try:
            run_alone(simulation.run, watchdog, seed=f"simulation/{schedule.seed}")
        except (StoodStill, BaseExceptionGroup, trio.TrioInternalError):
            if not watchdog.has_bitten:
                raise
    return simulation.world.outcome(round(simulation.now, 3))


class Simulation:
    """One simulation, whatever becomes of it."""

    world: World

    def __init__(self, schedule: Schedule) -> None:
        from .nodes import NodesWorld  # noqa: PLC0415 - which is a `World`

        self._schedule = schedule
        self._kind: type[World] = World if schedule.nodes == 1 else NodesWorld
        self._clock = VirtualClock()

    @property
    def now(self) -> float:
        """Seconds; also when it is over."""
        return self._clock.current_time()

    async def run(self, watchdog: Watchdog) -> None:
        """Let it all happen."""
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, VirtualClock), "see `run_alone`"  # noqa: S101 - for mypy; it cannot happen
        self._clock = clock
        with trio.CancelScope() as scope:
            self.world = world = self._kind(self._schedule, Verdict(scope.cancel))
            clock.when_livelocked(partial(world.watch.verdict.wrong, "alive"))
            clock.when_it_moves(watchdog.progressed)
            with world.watch.watching():
                try:
                    await world.run()
                except Exception as error:  # noqa: BLE001 - whatever it is, it is what this simulation has found
                    world.watch.verdict.wrong("alive", "".join(format_exception(error)))

    def stands_still(self, where: str) -> None:
        """The watchdog has found where; an exception is about to end it all."""
        self.world.watch.verdict.violations.append(Violation("alive", round(self.now, 6), where))


class World:
    """All parts of one simulation."""

    minute_seconds = 60.0
    """Seconds that a minute of the market lasts."""
    behind = 60_000
    """Milliseconds of the market by which a client may be behind at the end."""
    kinds = KINDS

    def __init__(self, schedule: Schedule, verdict: Verdict) -> None:
        self.schedule = schedule
        rules = Rules(history=schedule.history)
        settings = SimulatorSettings(
            seed=schedule.seed,
            minute_seconds=self.minute_seconds,
            update_ms=UPDATE_MS,
            ping_seconds=60.0,
            connection_seconds=schedule.connection_seconds,
        )
        self.witness = Witness()
        self.exchange = WatchedExchange(settings)
        self.exchange.witness = self.witness
        self.truth = Truth(self.exchange, schedule.events, rules.outage_pause)
        self.watch = self._open_watch(verdict, rules.history)
        self._open(rules)
        pinned = [Series(symbol, interval) for symbol in SYMBOLS for interval in INTERVALS]
        for series in pinned:
            self.witness.watched[series] = self.truth.lacking(series)
        self.clients = [self._client(number, pinned) for number in range(schedule.clients)]
        self.pinned = pinned
        self.visitors = 0
        """How many look at a series for a while."""
        self.memory = Memory(self.watch.verdict, rules.history)
        self.faults: Counter[str] = Counter()

    async def run(self) -> None:
        """Let it all happen."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.exchange.run)
            await self._begin(nursery)
            async with trio.open_nursery() as service_nursery:
                await self._start(service_nursery)
                async with trio.open_nursery() as clients:
                    for client in self.clients:
                        clients.start_soon(client.run)
                    await self._live(clients)
                    clients.cancel_scope.cancel()
                service_nursery.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def _live(self, clients: trio.Nursery) -> None:
        """From the first trouble to the end, and its check."""
        clients.start_soon(self._direct(clients).run)
        await trio.sleep_until(self.schedule.seconds)
        self._calm()
        end = self.schedule.seconds + SETTLE
        await trio.sleep_until(end - end % 60 + 50)
        if not self.watch.verdict.violations:
            await self.check_end()
            gc.collect()
            self.memory.look(self._present())

    def visitor(self, series: Series) -> Client:
        """Somebody who looks at a series that is not pinned."""
        return Chart(100 + self.faults["wanted"], self.app, self.watch, self.schedule.seed, [series])

    def outcome(self, seconds: float) -> Outcome:
        """What has become of it in so many seconds of the market's time."""
        watch, ledger = self.watch, self.watch.ledger
        counts = {
            "commits": ledger.commits,
            "messages": watch.messages,
            "frames": self.witness.frames,
            "rest": sum(sum(counts.values()) for counts in self.exchange.tally.rest.values()),
            "fills": ledger.fills,
            "corrections": ledger.corrections,
            "lives": ledger.lives,
            "connections": self.exchange.tally.connections,
            "renewals": watch.logged["stream renewed"],
            "deaths": watch.logged["symbol task died"],
            "history": watch.events,
        }
        violations = tuple(watch.verdict.violations)
        return Outcome(self.schedule.seed, watch.digest, violations, seconds, counts, dict(self.faults), self._heals())

    # --- what is another with several services

    def _open_watch(self, verdict: Verdict, history: int) -> Watch:
        return Watch(verdict, self.witness, self.truth, history)

    def _open(self, rules: Rules) -> None:
        """Make the store and the service."""
        self.network = Network(self.exchange, self.witness)
        self.cancelling = Cancelling()
        self.store: Store = self._open_store(rules.history)
        self.service = self._open_service(rules)
        self.app: Any = self.service.app

    async def _begin(self, nursery: trio.Nursery) -> None:
        """Start what runs beside the service."""
        if isinstance(self.store, RemoteStore):
            nursery.start_soon(self.store.run)
        nursery.start_soon(self._collect)

    async def _start(self, nursery: trio.Nursery) -> None:
        """Run the service."""
        await nursery.start(self.service.run)
        self.memory.begin()
        nursery.start_soon(self.watch.run, self.service)

    def _direct(self, nursery: trio.Nursery) -> Director:
        return Director(self, nursery)

    def _calm(self) -> None:
        """Let go on well what the schedule has troubled."""
        for client in self.clients:
            client.calm()

    def _services(self) -> Iterable[Service]:
        """Those that run now."""
        return [self.service]

    def _heals(self) -> dict[float, int]:
        return dict(self.service.healing.times.cumulative())

    def _check_live(self, series: Series) -> None:
        topic = self.service.hub.get(series)
        if topic is None or topic.state is not State.LIVE:
            self.watch.verdict.wrong("settled", f"{series} is {topic and topic.state}: {topic and topic.failure}")

    # --- the parts

    def _open_service(self, rules: Rules) -> MortalService:
        client = httpx.AsyncClient(transport=ExchangeTransport(self.exchange), base_url="http://binance.test")
        service = MortalService(
            self._settings(rules), client=client, connect=cast("Any", self.network.connect), **self._stores()
        )
        service.cancelling = self.cancelling
        return service

    def _settings(self, rules: Rules) -> Settings:
        return Settings(
            symbols=SYMBOLS,
            intervals=INTERVALS,
            rules=rules,
            inspection=SILENCE,
            stream=self._stream(),
            audit=AuditSettings() if self.schedule.audited else AuditSettings(share=0),
        )

    def _stream(self) -> StreamSettings:
        lifetime = self.schedule.lifetime
        if lifetime is None:
            return PINGS
        return dataclasses.replace(PINGS, lifetime=lifetime, lifetime_spread=lifetime / 10)

    def _open_store(self, history: int) -> Store:
        ledger, schedule = self.watch.ledger, self.schedule
        if schedule.store == "prompt":
            return PromptLedgerStore(history, ledger)
        copied_at = [event.at - event.by for event in schedule.events if isinstance(event, StoreFallsBack)]
        return RemoteStore(history, ledger, copied_at)

    def _stores(self) -> dict[str, Any]:
        """What the service is told of its store."""
        return {"store": self.store}

    def _client(self, number: int, pinned: list[Series]) -> Client:
        kind = self.kinds[number % len(self.kinds)]
        series = pinned if kind.__name__ == "Many" else [pinned[(number * 5 + number // len(self.kinds)) % len(pinned)]]
        return kind(number, self.app, self.watch, self.schedule.seed, series)

    async def _collect(self) -> None:
        """Collect garbage at moments of the simulation: see `chance`."""
        for number in count(1):
            await trio.sleep(COLLECT_EACH)
            if number % COLLECT_ALL:
                gc.collect(1)
            else:
                gc.collect()
                self.memory.look(self._present())

    def _present(self) -> int:
        """How many series and symbols are followed now, and how many clients there are."""
        followed = sum(len(service.hub) + len(service.supervisor.tasks) for service in self._services())
        return followed + len(self.clients) + self.visitors

    async def check_end(self) -> None:
        wrong = partial(self.watch.verdict.wrong, "settled")
        for series in self.pinned:
            self._check_live(series)
            self._check_book(series)
        last = self.exchange.now() - self.behind
        for client in self.clients:
            for view in client.views.values():
                for difference in view.compare()[:3]:
                    wrong(f"{view.name}: {difference}")
                if view.newest + view.series.interval.next(0) < last:
                    wrong(f"{view.name} is behind: {view.newest} at {last}")

    def _check_book(self, series: Series) -> None:
        """What is stored is the truth, in each field."""
        wrong = partial(self.watch.verdict.wrong, "settled")
        for time, (candle, _) in self.watch.ledger.book(series).candles.items():
            final = self.truth.final(series, time)
            is_outage = self.truth.is_outage(series, time)
            if candle.filled != is_outage or (
                candle.closed and not candle.filled and (final is None or not self.truth.is_same(candle, final))
            ):
                wrong(f"{series}: {candle} is stored, and the exchange has {final}")
