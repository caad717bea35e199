"""All series of a server, checked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import httpx
import trio

from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings, open_client
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.verify.check import Binance, Check
from candlesync.verify.findings import CannotCheck, Findings
from candlesync.verify.server import Server, open_socket

GOOD, DIFFERENT, UNCHECKED = 0, 1, 2
"""Exit statuses."""
_SHARE = 0.3
"""Of Binance's request weight: the server that is checked may live on the same address."""
_TIMEOUT = 30.0
"""Seconds for an answer of the server; a series that it has to start first takes it 10."""


class Task:
    """What is to be checked, as the command line says it."""

    def __init__(
        self, url: str, symbols: Sequence[str], intervals: Sequence[Interval], *, seconds: float, token: str = ""
    ) -> None:
        """Without ``symbols`` those that the server says it follows; of these the ``intervals``, if any are given."""
        self.url = url
        self.symbols = symbols
        self.intervals = intervals
        self.seconds = seconds
        self.token = token


def check_address(url: str, token: str) -> None:
    """Raise `CannotCheck` for what is no server's address, or no token."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CannotCheck(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.host or parts.query or parts.fragment:
        raise CannotCheck(f"{url!r} is not http:// or https://, a host, and perhaps a port and a path")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise CannotCheck("the token is not one: it is made of printable ASCII without spaces")


async def verify(task: Task, rest_url: str, stream_url: str, tell: Callable[[str], None]) -> list[Findings]:
    """Check a server over the network; ``tell`` is told what is done. Raises `CannotCheck`."""
    settings = RestSettings(base_url=rest_url)
    budget = WeightBudget(WeightSettings(share=_SHARE))
    client = httpx.AsyncClient(base_url=task.url, timeout=_TIMEOUT, follow_redirects=True)
    async with client, open_client(settings) as binance_client:
        binance = Binance(Rest(binance_client, budget, settings), open_socket, stream_url)
        return await verify_over(task, Server(client, task.token), binance, tell)


async def verify_over(task: Task, server: Server, binance: Binance, tell: Callable[[str], None]) -> list[Findings]:
    """Check a server. Raises `CannotCheck` when there is nothing to be checked."""
    series = list(wanted(task, [] if task.symbols else await server.followed()))
    if not series:
        raise CannotCheck("the server follows nothing from the start: name the SYMBOLs to check")
    tell(f"{len(series)} series, for {task.seconds:g} s …")
    checks = [Check(server, binance, one, measures=number < binance.most_streams) for number, one in enumerate(series)]
    async with trio.open_nursery() as nursery:
        for check in checks:
            nursery.start_soon(check.run, task.seconds)
    return [check.findings for check in checks]


def wanted(task: Task, followed: Iterable[Series]) -> Iterable[Series]:
    """The series to check."""
    if task.symbols:
        intervals = task.intervals or (Interval.M1,)
        return [Series(symbol, interval) for symbol in task.symbols for interval in intervals]
    return [series for series in followed if not task.intervals or series.interval in task.intervals]


def status_of(findings: Iterable[Findings]) -> int:
    """The exit status: a difference weighs more than what could not be checked."""
    statuses = [DIFFERENT if one.differences else UNCHECKED if one.unchecked else GOOD for one in findings]
    return DIFFERENT if DIFFERENT in statuses else max(statuses, default=UNCHECKED)
