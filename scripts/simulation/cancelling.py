"""Cancels what runs at any await: after so many more steps of its tasks, whatever these are waiting for then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from candlesync.core.interval import Interval
from candlesync.symbol import Means, SymbolTask

from .pausing import is_below
from .watch import Crash

if TYPE_CHECKING:
    from .clients import Client
    from .schedule import Cancel


class _Fuse(trio.abc.Instrument):
    """Cancels a scope once the tasks below a task have made so many steps."""

    def __init__(self, scope: trio.CancelScope, task: trio.lowlevel.Task, steps: int) -> None:
        self._scope = scope
        self._task = task
        self._left = steps

    def light(self) -> None:
        """Begin to count."""
        if self._left <= 0:
            self._scope.cancel()
        else:
            trio.lowlevel.add_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        if is_below(task, self._task):
            self._left -= 1
            if self._left <= 0:
                trio.lowlevel.remove_instrument(self)
                self._scope.cancel()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        if task is self._task and self._left > 0:
            self._left = 0
            trio.lowlevel.remove_instrument(self)


class Cancelling:
    """Knows what can be cancelled."""

    def __init__(self) -> None:
        self.mortals: dict[str, dict[str, tuple[trio.CancelScope, trio.lowlevel.Task]]] = {"symbol": {}, "series": {}}
        """By kind and name: the scope around what runs, and its task."""

    def arm(self, event: Cancel, clients: Sequence[Client]) -> None:
        """Cancel one of those that run now, when it has made its steps; nothing if there is none."""
        if event.what == "client":
            if clients:
                client = clients[event.which % len(clients)]
                if client.task is not None:
                    _Fuse(client.scope, client.task, event.steps).light()
            return
        mortals = self.mortals[event.what]
        if mortals:
            name = sorted(mortals)[event.which % len(mortals)]
            scope, task = mortals[name]
            _Fuse(scope, task, event.steps).light()


class MortalTask(SymbolTask):
    """A symbol's task that can be made to die, as a whole or by one of its synchronizers."""

    def __init__(self, symbol: str, intervals: set[Interval], means: Means, cancelling: Cancelling) -> None:
        super().__init__(symbol, intervals, means)
        self._mortals = cancelling.mortals

    async def run(self) -> None:
        """See `SymbolTask.run`."""
        with trio.CancelScope() as scope:
            self._mortals["symbol"][self.symbol] = scope, trio.lowlevel.current_task()
            try:
                await super().run()
            finally:
                del self._mortals["symbol"][self.symbol]
        raise Crash(self.symbol)

    async def _keep(self, interval: Interval) -> None:
        name = f"{self.symbol} {interval}"
        with trio.CancelScope() as scope:
            self._mortals["series"][name] = scope, trio.lowlevel.current_task()
            try:
                await super()._keep(interval)
            finally:
                self._mortals["series"].pop(name, None)
        if scope.cancelled_caught:
            raise Crash(name)
