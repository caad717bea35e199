"""One run of one server: what is measured of it, and what says whether the figure may be believed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

from . import market
from .audience import Audience, audiences
from .cores import available_cores
from .crowd import Crowd
from .delivery import judge, percentile
from .findings import Findings, Settings, Spent
from .meter import Meter
from .notes import FULL, Notes
from .processes import UpstreamProcess, cpu_time
from .rest_load import load
from .servers import Contender, NotReady, Server
from .upstream import Order, Sent
from .valkey import Valkey

_WARM_UP = 0.5
"""Seconds of each kind of load before it counts."""
_REST_RATE = 2.0
"""Updates a second during the REST load, so that no server can answer the same bytes throughout."""
_CONNECTIONS = 4
_SETTLED_WITHIN = 60.0
_LOOK = 0.2
"""Seconds in which a server that has nothing to do uses no more of its core than `_IDLE`."""
_IDLE = 0.05
_SAME_SIZE = 0.05
"""The share by which messages may be longer or shorter, and still count as of one size."""
_WHOLE = 0.99
"""Of all updates to all clients: a server that has delivered as many has kept up."""


def measure(contender: Contender, settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Start the server and its upstream, measure, stop them; what was found goes to ``findings``.

    The server has a core of its own, if there are two.
    """
    notes = Notes(contender.label, run, findings)
    chosen = {name: one for name, one in audiences(settings).items() if name in settings.measurements}
    many, several = chosen.pop("many", None), chosen.pop("series", None)
    has_rest = "rest" in settings.measurements and bool(contender.rest_paths)

    def measure_one(server: Server, upstream: UpstreamProcess) -> None:
        for audience in chosen.values():
            _broadcast(server, upstream, audience, settings.seconds, notes)
        if has_rest:
            measure_rest(server, upstream, settings.seconds / 3, notes)
        if many:  # the last: what so many leave behind in a server's memory burdens nothing else
            _broadcast(server, upstream, many, settings.seconds, notes)

    if chosen or has_rest or many:
        _with_server(contender, [market.SYMBOL], logs / f"{contender.name}-{run}.log", notes, measure_one)
    if several:
        log = logs / f"{contender.name}-series-{run}.log"

        def measure_several(server: Server, upstream: UpstreamProcess) -> None:
            _broadcast(server, upstream, several, settings.seconds, notes)

        _with_server(contender, several.symbols, log, notes, measure_several)


def _with_server(
    contender: Contender,
    symbols: Sequence[str],
    log: Path,
    notes: Notes,
    measure_it: Callable[[Server, UpstreamProcess], None],
) -> None:
    cores = available_cores()
    with ExitStack() as stack:
        stack.enter_context(cores.apart())
        program = ("benchmark.upstream", str(len(symbols)))
        upstream = stack.enter_context(UpstreamProcess(log.with_name(f"upstream-{log.name}"), program))
        try:
            server = stack.enter_context(Server(contender, upstream.port, log, symbols=symbols))
        except NotReady as error:
            notes.fault(str(error))
            return
        cores.give(server.pid)
        try:
            measure_it(server, upstream)
        except (OSError, RuntimeError, HTTPException) as error:
            notes.fault(f"{error!r}")
        end(server, notes)


def measure_rest(
    server: Server,
    upstream: UpstreamProcess,
    seconds: float,
    notes: Notes,
    *,
    figure: str = "rest",
    redis: Valkey | None = None,
) -> None:
    """Requests a second for the whole history, so long in each way that the server has.

    The names of the figures begin with ``figure``.

    Raises `OSError`, `RuntimeError` or `HTTPException`.
    """
    for way, path in server.contender.rest_paths.items():
        load(server.port, path, _CONNECTIONS, _WARM_UP)
        upstream.order(Order(max(1, int(_REST_RATE * seconds)), _REST_RATE))
        meter = Meter([server.pid], upstream=upstream.pid, redis=redis.pid if redis else None)
        answered = load(server.port, path, _CONNECTIONS, seconds)
        spent = meter.read()
        sent = upstream.report()
        notes.add(figure, answered.requests / answered.seconds, spent, way=way)
        notes.add(f"{figure}_core", answered.requests / (spent.server * spent.seconds), spent, way=way)
        notes.add(f"{figure}_size", answered.size / 1000, spent, way=way)
        notes.findings.answers += answered.requests
        fault = fault_of_history(server, path, sent.last)
        if fault is not None:
            notes.fault(fault)
        if spent.server < FULL:
            notes.remark("it did not have a whole core for REST: what stands is the figure for each second of CPU")
        notes.judge_load(spent)


def end(server: Server, notes: Notes) -> None:
    """Stop it, and note how it ended."""
    if not server.is_alive:
        notes.fault("the server has ended by itself")
    status = server.stop()
    if server.contender.ends_with_zero and status != 0:
        notes.fault(f"ended with status {status} on SIGTERM")
    if "Traceback" in server.excerpt():
        notes.fault(f"a traceback in its log:\n{server.excerpt()}")


def broadcast(
    crowd: Crowd,
    upstream: UpstreamProcess,
    rate: float,
    seconds: float,
    *,
    servers: Sequence[int],
    redis: Valkey | None = None,
    warm_up: float = _WARM_UP,
) -> tuple[Sent, Spent]:
    """Warm up, then have updates sent for so long and read until every client has the last; what was used meanwhile.

    What the clients got of these updates is kept for `Crowd.messages`. ``servers`` are process ids.
    """
    crowd.hear(upstream, Order(max(1, int(rate * warm_up)), rate))
    crowd.messages()
    # The bench keeps all that it reads; looking through it for cycles would only delay it.
    gc.collect()
    gc.disable()
    try:
        meter = Meter(servers, upstream=upstream.pid, redis=redis.pid if redis else None)
        sent = crowd.hear(upstream, Order(max(1, int(rate * seconds)), rate))
        return sent, meter.read()
    finally:
        gc.enable()


def _broadcast(server: Server, upstream: UpstreamProcess, audience: Audience, seconds: float, notes: Notes) -> None:
    """CPU per message, and delays, with all clients listening."""
    with audience.gather(server) as crowd:
        _settle(server)
        # Half as long as what counts: node compiles what it has done some thousand times.
        sent, spent = broadcast(crowd, upstream, audience.rate, seconds, servers=[server.pid], warm_up=seconds / 2)
        size = crowd.size
        delivery = judge(sent, crowd.messages(), audience.symbols)
        deflated = crowd.deflated / audience.clients
        if crowd.lost:
            notes.fault(f"{crowd.lost} of {audience.clients} clients were cut off")
    _settle(server)
    for fault in delivery.faults:
        notes.fault(fault)
    notes.findings.messages += delivery.messages
    if not delivery.messages:
        return
    share = delivery.messages / (len(sent.sent_at) * audience.clients * audience.series)
    figures = {
        "cpu": spent.server * spent.seconds / delivery.messages * 1e6,
        "p50": percentile(delivery.delays, 0.50) * 1e3,
        "p99": percentile(delivery.delays, 0.99) * 1e3,
        "delivered": share * 100,
        "message_size": delivery.size,
        "wire_size": size / delivery.messages,
        "deflated": deflated * 100,
    }
    for figure, value in figures.items():
        notes.add(f"{audience.figures}{figure}", value, spent)
    judge_share(share, notes)
    judge_upstream(sent, audience.rate, notes)
    if abs(delivery.size / market.MESSAGE_SIZE - 1) > _SAME_SIZE:
        notes.remark(f"its messages are of {delivery.size:.0f} bytes, not of {market.MESSAGE_SIZE}")
    if spent.server > FULL:
        notes.remark(f"{audience.rate:g} updates a second to {audience.clients} clients were all that it could do")
    notes.judge_load(spent)


def _settle(server: Server) -> None:
    """Wait until it is done with clients that came or left: that is no part of what is measured next."""
    deadline = time.monotonic() + _SETTLED_WITHIN
    while time.monotonic() < deadline:
        before = cpu_time(server.pid)
        time.sleep(_LOOK)
        if cpu_time(server.pid) - before < _LOOK * _IDLE:
            return


def judge_share(share: float, notes: Notes) -> None:
    """Remark on it when not every update was delivered by itself."""
    if share < _WHOLE:
        notes.remark("it skipped updates for clients that were behind: the rate was too high for it")


def judge_upstream(sent: Sent, rate: float, notes: Notes) -> None:
    """Note what was wrong with the connection to the upstream, or with the upstream itself."""
    if sent.connections != 1:
        notes.fault(f"{sent.connections} connections to the upstream")
    if sent.late > 0.5 / rate:
        notes.remark("the upstream sent an update more than half its interval late")


def fault_of_history(server: Server, path: str, update: int) -> str | None:
    """What is wrong with the candles of a server that has been sent ``update`` last. Raises `OSError`."""
    # The last update may still be on its way.
    fault: str | None = None
    for _ in range(10):
        status, body = server.get(path)
        fault = f"REST status {status}" if status != 200 else market.fault_of_history(body, update)
        if fault is None:
            break
        time.sleep(0.1)
    return fault
