"""Work that is done once, for all who want its result at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from candlesync.errors import CandlesyncError, UpstreamUnavailable

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
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work for those who ask, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    @property
    def is_open(self) -> bool:
        """Whether `run` runs."""
        return self._nursery is not None

    def is_under_way(self, key: Key) -> bool:
        """Whether somebody waits for this already."""
        return key in self._under_way

    async def get(self, key: Key, act: Callable[[], Awaitable[Result]]) -> Result:
        """The result of the work that is under way for ``key``, or of ``act``, which is begun if there is none.

        Raises the `CandlesyncError` that the work raises, and `UpstreamUnavailable` while nobody works.
        """
        work = self._under_way.get(key)
        if work is None:
            if self._nursery is None:
                raise UpstreamUnavailable("the server is going down")
            work = self._under_way[key] = _Work()
            self._nursery.start_soon(self._do, key, act, work)
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
