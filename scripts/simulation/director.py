"""Lets happen what the schedule says, when it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.simulator import faults

from . import schedule
from .schedule import Event, kind_of
from .store import RemoteStore

if TYPE_CHECKING:
    from .world import World

_OF_THE_EXCHANGE = get_args(faults.Fault)


class Director:
    """Goes through the events of a schedule."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self._world = world
        self._nursery = nursery

    async def run(self) -> None:
        """Let all events happen."""
        began = trio.current_time()
        for event in sorted(self._world.schedule.events, key=lambda event: event.at or 0.0):
            await trio.sleep_until(began + (event.at or 0.0))
            self._world.faults[kind_of(event)] += 1
            self._world.watch.record("event", msgspec.json.encode(event).decode())
            self._enact(event)

    def _enact(self, event: Event) -> None:
        world = self._world
        if isinstance(event, _OF_THE_EXCHANGE):
            world.exchange.add_fault(msgspec.structs.replace(event, at=None))
            return
        match event:
            case schedule.HalfOpen():
                world.network.cut(event.symbol)
            case schedule.NetworkDown():
                world.network.go_down(event.seconds)
            case schedule.Cancel():
                world.cancelling.arm(event, world.clients)
            case schedule.Wanted():
                self._nursery.start_soon(self._visit, event)
            case schedule.ClientSlow() | schedule.ClientStuck() | schedule.ClientVanishes():
                self._trouble_client(event)
            case _:
                self._trouble_store(event)

    async def _visit(self, wanted: schedule.Wanted) -> None:
        world = self._world
        visitor = world.visitor(Series(wanted.symbol, wanted.interval))
        world.visitors += 1
        try:
            with trio.move_on_after(wanted.seconds):
                await visitor.run()
        finally:
            world.visitors -= 1

    def _trouble_client(self, event: Event) -> None:
        world, now = self._world, trio.current_time()
        number = getattr(event, "client", 0)
        if not world.clients:
            return
        client = world.clients[number % len(world.clients)]
        match event:
            case schedule.ClientSlow():
                client.pause_until, client.pause = now + event.seconds, event.pause
            case schedule.ClientStuck():
                client.stuck_until = now + event.seconds
            case schedule.ClientVanishes():
                client.away_until = now + event.after
                client.scope.cancel()

    def _trouble_store(self, event: Event) -> None:
        store, now = self._world.store, trio.current_time()
        if not isinstance(store, RemoteStore):
            return
        match event:
            case schedule.StoreDown():
                store.down_until, store.hangs = now + event.seconds, event.hangs
            case schedule.StoreLosesAnswer():
                store.to_lose.extend([(event.happens, event.hangs)] * event.times)
            case schedule.StoreFallsBack():
                store.fall_back(event.at - event.by)
            case schedule.StoreWiped():
                store.wipe()
            case schedule.StoreSlow():
                store.be_slow(event.delay, event.seconds)
