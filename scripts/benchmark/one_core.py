"""REST on one core: the whole history, as it is, as gzip, and as 304 for a client that has it already.

Beside it stand FastAPI, which reads a thousand items from Redis for each answer, and bare ASGI on Hypercorn, whose body
is ready: it is candlesync's own answer, taken when the run begins. All servers run at the same time, one of them is
asked at a time, and each in several turns: what else the machine does then meets them all. The updates of the market go
to all of them, so that nobody can answer the same for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .cores import available_cores
from .findings import Findings, Settings, Spent
from .following import UNLIMITED
from .hypercorn_peers import BARE
from .measure import end, fault_of_history
from .meter import Meter
from .notes import FULL, Notes
from .processes import UpstreamProcess
from .rest_load import Answered, load
from .servers import CANDLESYNC, NODES, Contender, NotReady, Server
from .upstream import Order
from .valkey import Valkey

_WARM_UP = 0.2
"""Seconds of each turn before it counts."""
_TURNS = 3
_RATE = 2.0
"""Updates a second."""
_CONNECTIONS = 4
_NOT_PLAIN = "limit=100%30"
"""A query that asks for the same, but in a way that no short cut before a framework reads."""
_GZIP = {"Accept-Encoding": "gzip"}


@dataclass(frozen=True)
class _Way:
    """One kind of request to one server."""

    server: Server
    figure: str
    path: str
    way: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    turns: list[tuple[Answered, Spent]] = field(default_factory=list)

    def note(self, notes: Notes) -> None:
        """What came of all turns."""
        if not self.turns:
            return
        spent = _sum([spent for _, spent in self.turns])
        requests = sum(answered.requests for answered, _ in self.turns)
        notes.add(self.figure, requests / (spent.server * spent.seconds), spent, way=self.way)
        notes.add(f"{self.figure}_size", self.turns[-1][0].size / 1000, spent, way=self.way)
        notes.findings.answers += requests
        if spent.server < FULL:
            notes.remark("it did not have a whole core for REST: what stands is the figure for each second of its CPU")
        notes.judge_load(spent)


def measure_one_core(settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Measure all of them; what was found goes to ``findings``."""
    cores = available_cores()
    notes = Notes(CANDLESYNC.label, run, findings)
    if not cores.are_apart:
        notes.remark("there is only one core: servers and load share it")
    with cores.apart(), ExitStack() as stack:
        upstream = stack.enter_context(UpstreamProcess(logs / f"upstream-one-core-{run}.log"))
        redis = stack.enter_context(Valkey(logs / f"valkey-one-core-{run}.log"))
        servers: list[Server] = []

        def start(contender: Contender) -> Server:
            log = logs / f"one-core-{contender.name}-{run}.log"
            server = Server(contender, upstream.port, log, redis=redis.port, name=contender.name)
            servers.append(stack.enter_context(server))
            cores.give(server.pid)
            return server

        try:
            ours = start(replace(CANDLESYNC, settings={**CANDLESYNC.settings, **UNLIMITED}))
            body = logs / f"body-{run}"
            (path,) = CANDLESYNC.rest_paths.values()
            body.write_bytes(ours.get(path)[1])
            start(replace(BARE, settings={"PEER_BODY": str(body)}))
            for peer in NODES[1:]:
                start(replace(peer, label=peer.label.replace("FastAPI", "FastAPI with Redis")))
            ways = [(way, Notes(way.server.contender.label, run, findings)) for way in _ways(servers)]
            ways = [(way, about) for way, about in ways if _is_possible(way, about)]
            for _ in range(_TURNS):
                for way, about in ways:
                    _turn(way, upstream, redis, settings.seconds / 2 / _TURNS, about)
            for way, about in ways:
                way.note(about)
        except (NotReady, OSError, RuntimeError, HTTPException) as error:
            notes.fault(f"{error!r}")
        for server in servers:
            end(server, Notes(server.contender.label, run, findings))


def _ways(servers: list[Server]) -> Iterator[_Way]:
    ours, bare, *peers = servers
    for server in (ours, bare):
        (path,) = server.contender.rest_paths.values()
        yield _Way(server, "one_core", path)
        yield _Way(server, "one_core_quart", f"{path}?{_NOT_PLAIN}")
        yield _Way(server, "one_core_gzip", path, headers=_GZIP)
        yield _Way(server, "one_core_304", path, status=304)
    for peer in peers:
        for way in ("plain", "typed", "parsed", "joined"):
            yield _Way(peer, "one_core", f"/candles/{way}", _LABELS[way])


_LABELS = {"plain": "list", "typed": "typed list", "parsed": "JSONResponse", "joined": "joined texts"}


def _is_possible(way: _Way, notes: Notes) -> bool:
    """Whether the server has what is to be measured; remarks on it when not. Raises `OSError` or `HTTPException`."""
    shown, tag = _look(way.server, way.path, way.headers)
    if way.headers == _GZIP and shown != "gzip":
        notes.remark("it has no gzip: not measured")
        return False
    if way.status == 304 and not tag:
        notes.remark("it has no ETag: 304 is not measured")
        return False
    return True


def _turn(way: _Way, upstream: UpstreamProcess, redis: Valkey, seconds: float, notes: Notes) -> None:
    """Ask for so long. Raises `OSError`, `RuntimeError` or `HTTPException`."""
    server, headers, is_updated = way.server, dict(way.headers), way.status == 200
    if not is_updated:  # an update would end the 304s
        headers["If-None-Match"] = _look(server, way.path, headers)[1]
    load(server.port, way.path, _CONNECTIONS, _WARM_UP, headers=headers, status=way.status)
    if is_updated:
        upstream.order(Order(max(1, int(_RATE * seconds)), _RATE))
    meter = Meter([server.pid], upstream=upstream.pid, redis=redis.pid)
    answered = load(server.port, way.path, _CONNECTIONS, seconds, headers=headers, status=way.status)
    way.turns.append((answered, meter.read()))
    if is_updated:
        update = upstream.report().last
        fault = None if server.contender.label == BARE.label else fault_of_history(server, way.path, update)
        if fault is not None:
            notes.fault(fault)


def _sum(parts: Sequence[Spent]) -> Spent:
    """What was used in all of these times together."""
    seconds = sum(part.seconds for part in parts)
    names = ("server", "load", "upstream", "redis", "others")
    return Spent(
        seconds, **{name: sum(getattr(part, name) * part.seconds for part in parts) / seconds for name in names}
    )


def _look(server: Server, path: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """How the body is encoded that answers such a request, and its ETag. Raises `OSError` or `HTTPException`."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10.0)
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        response.read()
        return response.getheader("Content-Encoding", ""), response.getheader("ETag", "")
    finally:
        connection.close()
