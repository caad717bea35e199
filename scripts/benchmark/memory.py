"""What a client and a series cost in memory: the growth of the server's resident set, divided by what made it grow."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from . import market
from .crowd import Crowd
from .findings import Findings, Settings, Spent
from .following import FAILURES, counters, following, served, wait_until_empty
from .hypercorn_peers import QUART
from .market import symbols
from .measure import end
from .meter import Meter
from .notes import Notes
from .processes import UpstreamProcess
from .servers import CANDLESYNC, Server
from .upstream import Order

_RESIDENT = re.compile(r"^Rss:\s+(\d+) kB$", re.MULTILINE)
_SETTLING = 1.0
"""Seconds before a reading: what a connection's beginning and end leave to be done is done by then."""
_UPDATES = Order(3, 1.0)
"""That all have had when it is read."""


@dataclass(frozen=True)
class Size:
    """How much of it is measured."""

    clients: int = 5000
    first_clients: int = 200
    """That are there at the first reading: what the first client ever costs is not a client's."""
    series: int = 110
    first_series: int = 10


_QUICK = Size(clients=200, first_clients=50, series=30)


def measure_memory(settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Measure clients of candlesync and of Quart alone, then series; what was found goes to ``findings``."""
    size = _QUICK if settings.quick else Size()
    for contender in (following(1), QUART):
        notes = Notes(contender.label, run, findings)
        try:
            with served(contender, 1, logs / f"memory-{contender.name}-{run}") as (server, exchange):
                value, spent = _client(server, exchange, size, notes)
                notes.add("memory_client", value / 1024, spent)
                end(server, notes)
        except FAILURES as error:
            notes.fault(f"memory of clients: {error!r}")
    notes, readings = Notes(CANDLESYNC.label, run, findings), list[int]()
    try:
        for series in (size.first_series, size.series):
            # Each with a connection of its own, as it is by default.
            with served(following(series, sharing=1), series, logs / f"memory-{series}-{run}") as (server, exchange):
                resident, spent = _all_series(server, exchange, series, notes)
                readings.append(resident)
                end(server, notes)
        value = (readings[1] - readings[0]) / (size.series - size.first_series)
        notes.add("memory_series", value / 1024, spent)
    except FAILURES as error:
        notes.fault(f"memory of series: {error!r}")


def _client(server: Server, exchange: UpstreamProcess, size: Size, notes: Notes) -> tuple[float, Spent]:
    """Bytes of a client."""
    is_ours = server.contender.label == CANDLESYNC.label
    # One candle of replay: the forming one, whose update is known.
    path = f"/ws/candles/{market.SYMBOL}?replay=1" if is_ours else server.contender.socket_path
    more = size.clients - size.first_clients
    # The first stay: what one that leaves lets go of would be there for the next.
    with Crowd([server.port] * size.first_clients, path) as first:
        if is_ours:
            first.hear(exchange, _UPDATES)
        time.sleep(_SETTLING)
        meter = Meter([server.pid])
        before = _resident(server.pid)
        with Crowd([server.port] * more, path) as crowd:
            if is_ours:
                sent = crowd.hear(exchange, _UPDATES)
                last = [market.update_of(got[-1][1]) if got else None for got in crowd.messages()]
                if behind := sum(update != sent.last for update in last):
                    notes.fault(f"memory: {behind} of {more} clients did not get the last update")
            time.sleep(_SETTLING)
            after = _resident(server.pid)
            if lost := crowd.lost + first.lost:
                notes.fault(f"memory: {lost} of {size.clients} clients were cut off")
    spent = meter.read()
    if is_ours:
        wait_until_empty(server)
    return (after - before) / more, spent


def _all_series(server: Server, exchange: UpstreamProcess, series: int, notes: Notes) -> tuple[int, Spent]:
    """The resident set with so many series, each updated and asked for."""
    meter = Meter([server.pid])
    exchange.order(_UPDATES)
    update = exchange.report().last
    time.sleep(_SETTLING)
    for name in symbols(series):
        _load(server, name, update, notes)
    (followed,) = counters(server, "candlesync_series")
    if followed != series:
        notes.fault(f"memory: {followed} series are followed, not {series}")
    return _resident(server.pid), meter.read()


def _load(server: Server, symbol: str, update: int, notes: Notes) -> None:
    """Ask for a series as a browser does, in each form that it may have."""
    path = f"/candles/{symbol}/1m"
    fault = market.fault_of_history(server.get(path)[1], update)
    if fault is not None:
        notes.fault(f"memory: {symbol}: {fault}")
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10.0)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        connection.getresponse().read()
    finally:
        connection.close()


def _resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    found = _RESIDENT.search(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError("a kernel that does not say how much of a process is in memory")
    return int(found[1]) * 1024
