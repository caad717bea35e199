"""Who used how much of the processors while something was measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .findings import Spent
from .processes import cpu_time, machine_cpu_time


class Meter:
    """CPU time of everybody, from its making to `read`."""

    def __init__(self, servers: Sequence[int], *, upstream: int | None = None, redis: int | None = None) -> None:
        """Process ids: of what is measured, taken together, and of what serves it."""
        self._servers = servers
        self._upstream = () if upstream is None else (upstream,)
        self._redis = () if redis is None else (redis,)
        self._begin = self._now()

    def read(self) -> Spent:
        """What was used."""
        seconds, server, load, upstream, redis, machine = (
            end - begin for begin, end in zip(self._begin, self._now(), strict=True)
        )
        others = max(0.0, machine - server - load - upstream - redis)
        return Spent(
            seconds,
            server=server / seconds,
            load=load / seconds,
            upstream=upstream / seconds,
            redis=redis / seconds,
            others=others / seconds,
        )

    def _now(self) -> tuple[float, ...]:
        server, upstream, redis = (sum(map(cpu_time, pids)) for pids in (self._servers, self._upstream, self._redis))
        return time.monotonic(), server, time.process_time(), upstream, redis, machine_cpu_time()
