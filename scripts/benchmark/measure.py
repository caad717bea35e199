"""One run of one server: what is measured of it, and what says whether the figure may be believed."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

from . import market
from .crowd import Crowd
from .delivery import Delivery, judge, percentile
from .findings import Findings, Remark, Sample, Settings, Spent
from .processes import UpstreamProcess, cpu_time, machine_cpu_time
from .rest_load import load
from .servers import Contender, NotReady, Server
from .upstream import Order, Sent

_WARM_UP = 0.5
"""Seconds of each kind of load before it counts."""
_REST_RATE = 2.0
"""Updates a second during the REST load, so that no server can answer the same bytes throughout."""
_CONNECTIONS = 4
_FULL = 0.9
"""Of a core: what uses more is at its limit, as the bench and the servers are one thread each."""
_WHOLE = 0.99
"""Of all updates to all clients: a server that has delivered as many has kept up."""


class _Meter:
    """CPU time of everybody, from its making to `read`."""

    def __init__(self, server: int, upstream: int) -> None:
        self._server, self._upstream = server, upstream
        self._begin = self._now()

    def _now(self) -> tuple[float, float, float, float, float]:
        server, upstream = cpu_time(self._server), cpu_time(self._upstream)
        return time.monotonic(), server, time.process_time(), upstream, machine_cpu_time()

    def read(self) -> Spent:
        seconds, server, own, upstream, machine = (
            end - begin for begin, end in zip(self._begin, self._now(), strict=True)
        )
        others = max(0.0, machine - server - own - upstream)
        return Spent(seconds, server / seconds, own / seconds, upstream / seconds, others / seconds)


def measure(contender: Contender, settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Start the server and its upstream, measure, stop them; what was found goes to ``findings``."""
    log = logs / f"{contender.name}-{run}.log"
    with ExitStack() as stack:
        upstream = stack.enter_context(UpstreamProcess(logs / f"upstream-{contender.name}-{run}.log"))
        try:
            server = stack.enter_context(Server(contender, upstream.port, log))
        except NotReady as error:
            findings.faults.append(Remark(contender.label, run, str(error)))
            return
        bench = _Run(server, upstream, settings, run, findings)
        try:
            if settings.broadcast:
                bench.broadcast()
            if settings.rest:
                for way, path in contender.rest_paths.items():
                    bench.rest(way, path)
        except (OSError, RuntimeError, HTTPException) as error:
            bench.fault(f"{error!r}")
        if not server.is_alive:
            bench.fault("the server has ended by itself")
        status = server.stop()
        if contender.ends_with_zero and status != 0:
            bench.fault(f"ended with status {status} on SIGTERM")
        if "Traceback" in server.excerpt():
            bench.fault(f"a traceback in its log:\n{server.excerpt()}")


class _Run:
    """One server, started."""

    def __init__(
        self, server: Server, upstream: UpstreamProcess, settings: Settings, run: int, findings: Findings
    ) -> None:
        self._server = server
        self._upstream = upstream
        self._settings = settings
        self._run = run
        self._findings = findings
        self._label = server.contender.label

    def fault(self, text: str) -> None:
        """Note what must not be."""
        self._findings.faults.append(Remark(self._label, self._run, text))

    def broadcast(self) -> None:
        """CPU per message, and delays, with all clients listening."""
        settings, rate = self._settings, self._settings.rate
        with Crowd(self._server.port, self._server.contender.socket_path, settings.clients) as crowd:
            crowd.hear(self._upstream, Order(max(1, int(rate * _WARM_UP)), rate))
            crowd.messages()
            # The bench keeps all that it reads; looking through it for cycles would only delay it.
            gc.collect()
            gc.disable()
            meter = _Meter(self._server.pid, self._upstream.pid)
            sent = crowd.hear(self._upstream, Order(max(1, int(rate * settings.seconds)), rate))
            spent = meter.read()
            gc.enable()
            delivery = judge(sent, crowd.messages())
            if crowd.lost:
                self.fault(f"{crowd.lost} of {settings.clients} clients were cut off")
        self._note(sent, delivery, spent)
        if sent.connections != 1:
            self.fault(f"{sent.connections} connections to the upstream")
        if sent.late > 0.5 / rate:
            self._remark("the upstream sent an update more than half its interval late")
        if spent.server > _FULL:
            self._remark(f"{rate:g} updates a second were all that it could do")
        self._judge_load(spent)

    def _note(self, sent: Sent, delivery: Delivery, spent: Spent) -> None:
        for fault in delivery.faults:
            self.fault(fault)
        self._findings.messages += delivery.messages
        if not delivery.messages:
            return
        share = delivery.messages / (len(sent.sent_at) * self._settings.clients)
        self._add("cpu", "", spent.server * spent.seconds / delivery.messages * 1e6, spent)
        self._add("p50", "", percentile(delivery.delays, 0.50) * 1e3, spent)
        self._add("p99", "", percentile(delivery.delays, 0.99) * 1e3, spent)
        self._add("delivered", "", share * 100, spent)
        self._add("message_size", "", delivery.size, spent)
        if share < _WHOLE:
            self._remark("it skipped updates for clients that were behind: the rate was too high for it")

    def rest(self, way: str, path: str) -> None:
        """Requests a second for the whole history."""
        seconds = self._settings.seconds / 3
        load(self._server.port, path, _CONNECTIONS, _WARM_UP)
        self._upstream.order(Order(max(1, int(_REST_RATE * seconds)), _REST_RATE))
        meter = _Meter(self._server.pid, self._upstream.pid)
        answered = load(self._server.port, path, _CONNECTIONS, seconds)
        spent = meter.read()
        sent = self._upstream.report()
        self._add("rest", way, answered.requests / answered.seconds, spent)
        self._add("rest_core", way, answered.requests / (spent.server * spent.seconds), spent)
        self._add("rest_size", way, answered.size / 1000, spent)
        self._findings.answers += answered.requests
        self._check_history(path, sent.last)
        if spent.server < _FULL:
            self._remark("it did not have a whole core for REST: what stands is the figure for each second of CPU")
        self._judge_load(spent)

    def _check_history(self, path: str, update: int) -> None:
        # The last update may still be on its way.
        fault: str | None = None
        for _ in range(10):
            status, body = self._server.get(path)
            fault = f"REST status {status}" if status != 200 else market.fault_of_history(body, update)
            if fault is None:
                return
            time.sleep(0.1)
        if fault is not None:
            self.fault(fault)

    def _judge_load(self, spent: Spent) -> None:
        if spent.load > _FULL:
            self._remark("the load generator was the bottleneck: the figure is the bench's, not the server's")

    def _remark(self, text: str) -> None:
        self._findings.remarks.append(Remark(self._label, self._run, text))

    def _add(self, figure: str, way: str, value: float, spent: Spent) -> None:
        server = f"{self._label} ({way})" if way else self._label
        self._findings.samples.append(Sample(figure, server, self._run, value, spent))
