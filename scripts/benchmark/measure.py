"""One run of one server: what is measured of it, and what says whether the figure may be believed."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

from . import market
from .crowd import Crowd
from .delivery import Delivery, judge, percentile
from .findings import Findings, Settings, Spent
from .meter import Meter
from .notes import FULL, Notes
from .processes import UpstreamProcess
from .rest_load import load
from .servers import Contender, NotReady, Server
from .upstream import Order, Sent
from .valkey import Valkey

_WARM_UP = 0.5
"""Seconds of each kind of load before it counts."""
_REST_RATE = 2.0
"""Updates a second during the REST load, so that no server can answer the same bytes throughout."""
_CONNECTIONS = 4
_WHOLE = 0.99
"""Of all updates to all clients: a server that has delivered as many has kept up."""


def measure(contender: Contender, settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Start the server and its upstream, measure, stop them; what was found goes to ``findings``."""
    notes = Notes(contender.label, run, findings)
    with ExitStack() as stack:
        upstream = stack.enter_context(UpstreamProcess(logs / f"upstream-{contender.name}-{run}.log"))
        try:
            server = stack.enter_context(Server(contender, upstream.port, logs / f"{contender.name}-{run}.log"))
        except NotReady as error:
            notes.fault(str(error))
            return
        try:
            if "broadcast" in settings.measurements:
                _broadcast(server, upstream, settings, notes)
            if "rest" in settings.measurements:
                measure_rest(server, upstream, settings.seconds / 3, notes)
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
        fault = _fault_of_history(server, path, sent.last)
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
) -> tuple[Sent, Spent]:
    """Warm up, then have updates sent for so long and read until every client has the last; what was used meanwhile.

    What the clients got of these updates is kept for `Crowd.messages`. ``servers`` are process ids.
    """
    crowd.hear(upstream, Order(max(1, int(rate * _WARM_UP)), rate))
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


def _broadcast(server: Server, upstream: UpstreamProcess, settings: Settings, notes: Notes) -> None:
    """CPU per message, and delays, with all clients listening."""
    rate = settings.rate
    with Crowd([server.port] * settings.clients, server.contender.socket_path) as crowd:
        sent, spent = broadcast(crowd, upstream, rate, settings.seconds, servers=[server.pid])
        delivery = judge(sent, crowd.messages())
        if crowd.lost:
            notes.fault(f"{crowd.lost} of {settings.clients} clients were cut off")
    _note(sent, delivery, spent, settings.clients, notes)
    judge_upstream(sent, rate, notes)
    if spent.server > FULL:
        notes.remark(f"{rate:g} updates a second were all that it could do")
    notes.judge_load(spent)


def _note(sent: Sent, delivery: Delivery, spent: Spent, clients: int, notes: Notes) -> None:
    for fault in delivery.faults:
        notes.fault(fault)
    notes.findings.messages += delivery.messages
    if not delivery.messages:
        return
    share = delivery.messages / (len(sent.sent_at) * clients)
    notes.add("cpu", spent.server * spent.seconds / delivery.messages * 1e6, spent)
    notes.add("p50", percentile(delivery.delays, 0.50) * 1e3, spent)
    notes.add("p99", percentile(delivery.delays, 0.99) * 1e3, spent)
    notes.add("delivered", share * 100, spent)
    notes.add("message_size", delivery.size, spent)
    judge_share(share, notes)


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


def _fault_of_history(server: Server, path: str, update: int) -> str | None:
    # The last update may still be on its way.
    fault: str | None = None
    for _ in range(10):
        status, body = server.get(path)
        fault = f"REST status {status}" if status != 200 else market.fault_of_history(body, update)
        if fault is None:
            break
        time.sleep(0.1)
    return fault
