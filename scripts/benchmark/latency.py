"""From Binance's frame to 300 clients: candlesync beside FastAPI, at the rate that takes FastAPI half a core.

That rate is found in each run, from what an update costs the peer at the rate tried before. Both servers run at the
same time on the same core, and only one is sent anything. Then candlesync alone, at a rate of its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from .audience import Audience
from .cores import available_cores
from .delivery import judge, percentile
from .findings import Findings, Settings, Spent
from .measure import broadcast, end, judge_share, judge_upstream
from .notes import Notes
from .processes import UpstreamProcess
from .servers import CANDLESYNC, FASTAPI, FASTAPI_UVLOOP, Contender, NotReady, Server
from .upstream import Sent

ALONE_RATE = 150.0
"""Updates a second to candlesync by itself."""
HALF = 0.5
"""Of a core: what the peer is to use."""
PEERS = (FASTAPI, FASTAPI_UVLOOP)
_NEAR = 0.05
"""Of a core: as near to the half as a rate must come."""
_TRIES = 4
_FIRST_RATE = 20.0


def _turns(run: int, ours: _Listened, theirs: _Listened) -> tuple[_Listened, _Listened]:
    return (ours, theirs) if run % 2 else (theirs, ours)


def figures_of(peer: Contender) -> str:
    """Begins the names of the figures at the rate that takes this peer half a core."""
    return f"half_{peer.name}_"


def measure_latency(settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Start the servers, measure, stop them; what was found goes to ``findings``."""
    notes = Notes(CANDLESYNC.label, run, findings)
    cores = available_cores()
    with ExitStack() as stack:
        stack.enter_context(cores.apart())
        try:
            ours = stack.enter_context(_Listened(CANDLESYNC, logs / f"latency-{run}.log", notes))
            cores.give(ours.server.pid)
            for peer in PEERS:
                theirs_notes = Notes(peer.label, run, findings)
                with _Listened(peer, logs / f"latency-{peer.name}-{run}.log", theirs_notes) as theirs:
                    cores.give(theirs.server.pid)
                    rate = theirs.rate_for_half(settings)
                    # In another order each time: neither always comes first.
                    used = {one: one.note(rate, settings, figures_of(peer)) for one in _turns(run, ours, theirs)}
                    if abs(used[theirs] - HALF) > 2 * _NEAR:
                        theirs_notes.remark(
                            f"the rate of the latency took {used[theirs]:.2f} of a core, not half of it"
                        )
                    end(theirs.server, theirs_notes)
            ours.note(ALONE_RATE, settings, "only_")
            end(ours.server, notes)
        except (NotReady, OSError, RuntimeError, HTTPException) as error:
            notes.fault(f"latency: {error!r}")


class _Listened:
    """A server, an upstream of its own, and what is noted of both; a context that ends them."""

    def __init__(self, contender: Contender, log: Path, notes: Notes) -> None:
        """Raises `NotReady`."""
        self._stack = ExitStack()
        self._notes = notes
        self.upstream = self._stack.enter_context(UpstreamProcess(log.with_name(f"upstream-{log.name}")))
        try:
            self.server = self._stack.enter_context(Server(contender, self.upstream.port, log))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def rate_for_half(self, settings: Settings) -> float:
        """Updates a second that take this server half a core. Raises `OSError` or `RuntimeError`."""
        rate = min(settings.rate, _FIRST_RATE)
        for _ in range(_TRIES):
            with Audience(settings.clients, rate).gather(self.server) as crowd:
                sent, spent = broadcast(crowd, self.upstream, rate, settings.seconds / 3, servers=[self.server.pid])
            used = _used(sent, spent, rate)
            if abs(used - HALF) <= _NEAR:
                break
            rate *= HALF / used
        return rate

    def note(self, rate: float, settings: Settings, figures: str) -> float:
        """Measure the delays at a rate; how much of a core it took. Raises `OSError` or `RuntimeError`."""
        notes = self._notes
        with Audience(settings.clients, rate).gather(self.server) as crowd:
            sent, spent = broadcast(crowd, self.upstream, rate, settings.seconds, servers=[self.server.pid])
            delivery = judge(sent, crowd.messages())
            if crowd.lost:
                notes.fault(f"{crowd.lost} of {settings.clients} clients were cut off")
        for fault in delivery.faults:
            notes.fault(fault)
        notes.findings.messages += delivery.messages
        used = _used(sent, spent, rate)
        if not delivery.delays:
            return used
        share = delivery.messages / (len(sent.sent_at) * settings.clients)
        notes.add(f"{figures}p50", percentile(delivery.delays, 0.50) * 1e3, spent)
        notes.add(f"{figures}p99", percentile(delivery.delays, 0.99) * 1e3, spent)
        notes.add(f"{figures}rate", rate, spent)
        notes.add(f"{figures}delivered", share * 100, spent)
        judge_share(share, notes)
        judge_upstream(sent, rate, notes)
        notes.judge_load(spent)
        return used


def _used(sent: Sent, spent: Spent, rate: float) -> float:
    """Of a core, while updates came: what is read after the last one is not counted as time."""
    return spent.server * spent.seconds / len(sent.sent_at) * rate
