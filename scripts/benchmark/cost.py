"""Cost against size: the server's CPU at sizes from one series and ten clients to 500 series and 5,000 clients.

Each client follows one series; series ``n`` modulo their number is that of client ``n``. All series of a size are
updated at the same rate, evenly spread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

from . import market
from .cores import available_cores
from .crowd import Crowd
from .findings import Findings, Settings, Spent
from .fit import Point, excess, fit
from .following import FAILURES, counters, following, served, wait_until_empty
from .market import symbols
from .measure import broadcast, end
from .notes import FULL, Notes
from .processes import UpstreamProcess
from .servers import CANDLESYNC, Server
from .upstream import Order, Sent

_SIZES = (
    # series, clients, updates a second of each series
    (1, 10, 50.0),
    (1, 300, 10.0),
    (1, 5000, 1.0),
    (10, 10, 20.0),
    (10, 1000, 2.0),
    (50, 50, 5.0),
    (50, 1000, 2.0),
    (100, 10, 4.0),
    (100, 5000, 0.5),
    (500, 10, 1.0),
    (500, 500, 1.0),
    (500, 5000, 0.5),
)
_QUICK = ((1, 10, 50.0), (1, 100, 10.0), (5, 10, 20.0), (20, 10, 10.0), (20, 100, 5.0))


def measure_cost(settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Measure each size; the points go to ``findings``, and what a commit and a message cost in this run."""
    notes = Notes(CANDLESYNC.label, run, findings)
    cores = available_cores()
    found: list[tuple[Point, Spent]] = []
    with cores.apart():
        for series, sizes in groupby(_QUICK if settings.quick else _SIZES, key=lambda size: size[0]):
            try:
                with served(following(series), series, logs / f"cost-{series}-{run}") as (server, exchange):
                    cores.give(server.pid)
                    for size in sizes:
                        # Two rounds at least, however slow.
                        seconds = max(settings.seconds / 2, 2 / size[2])
                        found.append(_point(server, exchange, size, seconds, notes))
                        wait_until_empty(server)
                    end(server, notes)
            except FAILURES as error:
                notes.fault(f"{series} series: {error!r}")
    points = [point for point, _ in found]
    findings.points += points
    if not found:
        return
    try:
        model, above = fit(points), excess(points)
    except ValueError as error:
        notes.fault(str(error))
        return
    spent = max((spent for _, spent in found), key=lambda spent: spent.load)
    notes.add("cost_commit", model.a * 1e6, spent)
    notes.add("cost_message", model.b * 1e6, spent)
    notes.add("cost_worst", max(abs(model.residual(point)) for point in points) * 100, spent)
    notes.add("cost_excess", above * 100, spent)


def _point(
    server: Server, exchange: UpstreamProcess, size: tuple[int, int, float], seconds: float, notes: Notes
) -> tuple[Point, Spent]:
    series, clients, rate = size
    names = symbols(series)
    paths = [f"/ws/candles/{names[client % series]}?replay=0" for client in range(clients)]
    (before,) = counters(server, "candlesync_commits_total")
    exchange.order(Order(0, 1.0))
    shown = exchange.report().last
    with Crowd([server.port] * clients, paths) as crowd:
        sent, spent = broadcast(crowd, exchange, rate, seconds, servers=[server.pid])
        messages, faults = _judge(sent, crowd.messages(), [names[client % series] for client in range(clients)])
        if crowd.lost:
            faults.append(f"{crowd.lost} clients were cut off")
    (after,) = counters(server, "candlesync_commits_total")
    about = f"{series} series, {clients} clients"
    for fault in faults:
        notes.fault(f"{about}: {fault}")
    if spent.server > FULL:
        notes.remark(f"{about}: more than it could do")
    notes.judge_load(spent)
    notes.findings.messages += messages
    # Of the commits, some were the warm-up's, as many for each update as of those that count.
    commits = round((after - before) * len(sent.sent_at) / (sent.last - shown))
    cpu = spent.server * spent.seconds
    return Point(series, clients, rate, notes.run, commits, messages, cpu, spent.seconds), spent


def _judge(
    sent: Sent, received: Sequence[Sequence[tuple[int, bytes]]], followed: Sequence[str]
) -> tuple[int, list[str]]:
    """How many messages the clients got, and what was wrong with them. ``followed`` is each client's series."""
    faults = Counter[str]()
    for got, symbol in zip(received, followed, strict=True):
        updates = [market.update_of(message) or 0 for _, message in got]
        faults["a candle of another series"] += sum(f'"{symbol}"'.encode() not in message for _, message in got)
        faults["an update that was out of order"] += sum(later <= update for update, later in pairwise(updates))
        faults["no last update"] += not updates or updates[-1] != sent.last
    return sum(map(len, received)), [f"{fault} ({count} times)" for fault, count in faults.items() if count]
