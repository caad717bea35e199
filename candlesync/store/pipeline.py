"""Group commit: calls that are ready together go to the server as one pipeline, in one worker thread.

A call to Redis costs a thread's turn and a round trip, some 150 µs, whether it carries one commit or a hundred. While
one pipeline is under way the next calls gather; each waiter then gets its own outcome. The task that sends belongs to
the store, not to any caller: who is cancelled leaves the others nothing to wait for in vain.

What becomes of a call whose waiter is cancelled: as long as it has not been sent it is withdrawn, and has not happened;
once it has been sent its outcome is unknown, as that of every call when the answer does not come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import trio

from candlesync.errors import StoreUnavailable
from candlesync.store.reasons import NoAnswer
from candlesync.store.scripts import Call
from candlesync.store.server import Outcome


class Limits(msgspec.Struct, frozen=True):
    """Of one pipeline."""

    deadline: float = 4.0
    """Seconds after which it is given up, whatever its thread does (resolving a name, say, has no timeout)."""
    calls: int = 256
    size: int = 1_000_000
    """Bytes sent, one call's excess aside: a thousand candles are 90,000."""


class Lane:
    """Pipelines one after the other."""

    def __init__(
        self, execute: Callable[[Sequence[Call]], list[Outcome]], limits: Limits, limiter: trio.CapacityLimiter
    ) -> None:
        """``execute`` runs in a thread that ``limiter`` admits."""
        self._execute = execute
        self._limits = limits
        self._limiter = limiter
        self._waiting: dict[_Waiter, None] = {}
        self._under_way: list[_Waiter] = []
        self._arrived = trio.Event()
        self._closed = False
        self.pipelines = 0
        self.largest = 0
        """Calls in the largest pipeline."""
        self.failures = 0
        """Calls that got no answer of use."""

    async def call(self, call: Call) -> object:
        """What the script gave; raises `StoreUnavailable`."""
        await trio.lowlevel.checkpoint_if_cancelled()  # or it might be sent before it is withdrawn
        if self._closed:
            raise StoreUnavailable("the store is closed")
        waiter = _Waiter(call)
        self._waiting[waiter] = None
        self._arrived.set()
        try:
            await waiter.done.wait()
        finally:
            self._waiting.pop(waiter, None)
        if isinstance(waiter.outcome, StoreUnavailable):
            # One error may stand for a whole pipeline, and each of its waiters raises one of its own.
            raise StoreUnavailable(*waiter.outcome.args) from waiter.outcome.__cause__
        return waiter.outcome

    @property
    def waiting(self) -> int:
        """How many calls have not been answered yet."""
        return len(self._waiting) + len(self._under_way)

    async def run(self) -> None:
        """Send what there is until cancelled; then whoever still waits gets `StoreUnavailable`."""
        try:
            while True:
                await self._arrived.wait()
                self._under_way = self._take()
                if self._under_way:
                    self._answer(await self._send([waiter.call for waiter in self._under_way]))
                else:
                    self._arrived = trio.Event()
        finally:
            self._closed = True
            self._refuse(NoAnswer("the store was closed"))
            self._answer([NoAnswer("the store was closed before it answered")] * len(self._under_way))

    def _take(self) -> list[_Waiter]:
        taken: list[_Waiter] = []
        size = 0
        for waiter in self._waiting:
            if len(taken) == self._limits.calls or size >= self._limits.size:
                break
            taken.append(waiter)
            size += waiter.call.size
        for waiter in taken:
            del self._waiting[waiter]
        return taken

    async def _send(self, calls: list[Call]) -> list[Outcome]:
        self.pipelines += 1
        self.largest = max(self.largest, len(calls))
        try:
            with trio.fail_after(self._limits.deadline):
                # Abandoned when given up: a thread cannot be stopped, and those who wait must not wait for it. It ends
                # by its sockets' timeouts; until then it keeps its place in the limiter and its connection, which
                # nobody else is given.
                return await trio.to_thread.run_sync(
                    self._execute, calls, abandon_on_cancel=True, limiter=self._limiter
                )
        except trio.TooSlowError:
            reason = f"the store did not answer within {self._limits.deadline:g} s; what was asked may have happened"
            return [NoAnswer(reason)] * len(calls)

    def _answer(self, outcomes: Sequence[Outcome]) -> None:
        for waiter, outcome in zip(self._under_way, outcomes, strict=True):
            self.failures += isinstance(outcome, StoreUnavailable)
            waiter.outcome = outcome
            waiter.done.set()
        self._under_way = []
        # What waited behind a server that is silent would only wait for the same again, one pipeline after the other.
        silence = next((outcome for outcome in outcomes if isinstance(outcome, NoAnswer)), None)
        if silence is not None:
            self._refuse(silence)

    def _refuse(self, reason: StoreUnavailable) -> None:
        """Answer all that has not been sent."""
        for waiter in self._waiting:
            waiter.outcome = reason
            waiter.done.set()
        self.failures += len(self._waiting)
        self._waiting.clear()


class _Waiter:
    """Somebody who waits for what comes of a call."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.done = trio.Event()
        self.outcome: Outcome = None
