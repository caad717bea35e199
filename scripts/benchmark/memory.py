"""What a client and a series cost in memory: the growth of the server's resident set, divided by what made it grow."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from . import market
from .crowd import Crowd
from .exchange import symbols
from .findings import Findings, Settings
from .following import counters, following
from .hypercorn_peers import QUART
from .measure import end
from .meter import Meter
from .notes import Notes
from .processes import UpstreamProcess
from .servers import CANDLESYNC, Contender, NotReady, Server
from .upstream import Order

_RESIDENT = re.compile(r"^Rss:\s+(\d+) kB$", re.MULTILINE)
_SETTLING = 1.0
"""Seconds before a reading: what a connection's beginning and end leave to be done is done by then."""
_UPDATES = Order(3, 2.0)
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
        with ExitStack() as stack:
            log = logs / f"memory-{contender.name}-{run}"
            try:
                exchange = stack.enter_context(
                    UpstreamProcess(log.with_suffix(".exchange"), ("benchmark.exchange", "1"))
                )
                server = stack.enter_context(Server(contender, exchange.port, log))
                _clients(server, exchange, size, notes)
                end(server, notes)
            except (NotReady, OSError, RuntimeError, HTTPException) as error:
                notes.fault(f"{error!r}")
    notes = Notes(CANDLESYNC.label, run, findings)
    with ExitStack() as stack:
        log = logs / f"memory-series-{run}"
        try:
            program = ("benchmark.exchange", str(size.series))
            exchange = stack.enter_context(UpstreamProcess(log.with_suffix(".exchange"), program))
            server = stack.enter_context(Server(_one_connection_each(), exchange.port, log))
            _series(server, exchange, size, notes)
            end(server, notes)
        except (NotReady, OSError, RuntimeError, HTTPException) as error:
            notes.fault(f"{error!r}")


def _one_connection_each() -> Contender:
    """As it is by default, one series pinned: the others are asked for, and each brings its own connection."""
    return replace(following(1, sharing=1), name="memory")


def _clients(server: Server, exchange: UpstreamProcess, size: Size, notes: Notes) -> None:
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
    notes.add("memory_client", (after - before) / more / 1024, meter.read())


def _series(server: Server, exchange: UpstreamProcess, size: Size, notes: Notes) -> None:
    names, readings, update = symbols(size.series), list[int](), 0
    meter = Meter([server.pid])
    for chosen in (names[: size.first_series], names[size.first_series :]):
        for name in chosen:
            _load(server, name, update, notes)  # begins it
        exchange.order(_UPDATES)
        update = exchange.report().last
        time.sleep(_SETTLING)
        for name in chosen:
            _load(server, name, update, notes)
        readings.append(_resident(server.pid))
    before, after = readings
    notes.add("memory_series", (after - before) / (size.series - size.first_series) / 1024, meter.read())
    (followed,) = counters(server, "candlesync_series")
    if followed != size.series:
        notes.fault(f"memory: {followed} series are followed, not {size.series}")


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
