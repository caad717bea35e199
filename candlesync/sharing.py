"""Work that is done once, for all who want its result at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Never, TypeVar

import trio

from candlesync.errors import CandlesyncError, UpstreamUnavailable
from candlesync.nursery import HeldNursery

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class _Work(Generic[Result]):
    def __init__(self) -> None:
        self.done = trio.Event()
        self.results: list[Result] = []
        """One, once the work is done."""
        self.error: CandlesyncError = UpstreamUnavailable("the server is going down")
        """Why there is no result, if there is none."""


class Sharing(Generic[Key, Result]):
    """`run` owns the work: a client that leaves does not end what others wait for."""

    def __init__(self) -> None:
        self._under_way: dict[Key, _Work[Result]] = {}
        self._work = HeldNursery()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> Never:
        """Work for those who ask, until cancelled."""
        await self._work.run(task_status=task_status)

    @property
    def is_open(self) -> bool:
        """Whether `run` runs."""
        return self._work.nursery is not None

    def is_under_way(self, key: Key) -> bool:
        """Whether somebody waits for this already."""
        return key in self._under_way

    async def get(self, key: Key, act: Callable[[], Awaitable[Result]]) -> Result:
        """The result of the work that is under way for ``key``, or of ``act``, which is begun if there is none.

        Raises the `CandlesyncError` that the work raises, and `UpstreamUnavailable` while nobody works.
        """
        work = self._under_way.get(key)
        if work is None:
            if self._work.nursery is None:
                raise UpstreamUnavailable("the server is going down")
            work = self._under_way[key] = _Work()
            self._work.nursery.start_soon(self._do, key, act, work)
        await work.done.wait()
        if work.results:
            return work.results[0]
        raise work.error.with_traceback(None)

    async def _do(self, key: Key, act: Callable[[], Awaitable[Result]], work: _Work[Result]) -> None:
        try:
            work.results.append(await act())
        except CandlesyncError as error:
            work.error = error  # theirs who wait; the next who asks tries again
        finally:
            del self._under_way[key]
            work.done.set()
