"""``scripts/bench``: the command."""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
from pathlib import Path

import click

from .compare import compare
from .cost import measure_cost
from .findings import Findings, Remark, Settings
from .frames import measure_frames
from .latency import measure_latency
from .machine import describe, measured_commit
from .measure import measure
from .memory import measure_memory
from .nodes import measure_nodes
from .one_core import measure_one_core
from .plot import plot
from .report import as_json, as_markdown
from .servers import CONTENDERS, NODES
from .store import measure_store

_REPORT = Path("bench-report")
_ALONE = {
    "latency": measure_latency,
    "store": measure_store,
    "one-core": measure_one_core,
    "frames": measure_frames,
    "memory": measure_memory,
    "cost": measure_cost,
}
"""What brings its own servers, once in each run."""
_WITH_SERVER = ("broadcast", "deflate", "many", "series", "rest")
"""What is measured of every server."""
_MEASUREMENTS = (*_WITH_SERVER, "nodes", *_ALONE)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="One short run with 50 clients: to see that it works, not to quote.")
@click.option("--clients", type=click.IntRange(1), help="WebSocket clients.  [default: 300]")
@click.option("--seconds", type=click.FloatRange(0.5), help="Length of a broadcast in each run.  [default: 6]")
@click.option("--runs", type=click.IntRange(1), help="How often each server is measured.  [default: 3]")
@click.option(
    "--rate",
    type=click.FloatRange(0.5),
    help="Updates a second.  [default: 10 to all clients, 50 between two nodes]",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*_MEASUREMENTS, *(contender.name for contender in CONTENDERS)]),
    help="Leave out other measurements, or other servers; give it again for more.",
)
@click.option(
    "--compare",
    "compared",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="OLD.json NEW.json",
    help="Measure nothing: say what has changed from one report.json to another.",
)
def main(
    *,
    compared: tuple[Path, Path] | None,
    quick: bool,
    clients: int | None,
    seconds: float | None,
    runs: int | None,
    rate: float | None,
    only: tuple[str, ...],
) -> None:
    """Measure candlesync beside its peers, in one run, and write bench-report/report.md and report.json.

    One server beside FastAPI + uvicorn, websockets, node's ws and a plain socket.send: a broadcast to 300 clients, to
    clients that offer compression (deflate), to 5,000 (many), of 50 series on each socket (series); and beside FastAPI
    alone REST, and the delays at a higher rate (latency). Its store in Redis beside redis-py without any checks. Two
    nodes with one Redis beside FastAPI with Redis' publish and subscribe: from a commit on the one to a frame on the
    other, and the other's REST. And by themselves, pinned to one core: REST beside bare ASGI and FastAPI with Redis
    (one-core), the way from Binance's frame to a commit beside trio-websocket alone (frames), memory beside Quart alone
    (memory), and what each size costs (cost; bench-report/cost.png).

    Ends with status 1 if a server lost or garbled anything, or ended by itself.
    """
    if compared:
        click.echo(compare(*(json.loads(path.read_text(encoding="utf-8")) for path in compared)))
        return
    seconds = seconds or (1.5 if quick else 6.0)
    settings = Settings(
        clients=clients or (50 if quick else 300),
        seconds=seconds,
        runs=runs or (1 if quick else 3),
        rate=rate or 10.0,
        commit_rate=rate or 50.0,
        commit_seconds=seconds * 2 / 3,
        measurements=tuple(name for name in _MEASUREMENTS if name in only) or _MEASUREMENTS,
        many_clients=500 if quick else 5000,
        series_rate=2.0 if quick else 0.5,
        quick=quick,
    )
    servers = [contender.name for contender in CONTENDERS]
    servers = [name for name in servers if name in only] or servers
    # A terminal that is closed, or a `kill`, must end the servers, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    _allow_files()
    findings = Findings()
    for contender in CONTENDERS:
        missing = contender.missing() if contender.name in servers else None
        if missing is not None:
            servers.remove(contender.name)
            findings.remarks += [
                Remark(contender.label, run, f"left out: {missing}") for run in range(1, settings.runs + 1)
            ]
    _run(servers, settings, findings)
    _REPORT.mkdir(exist_ok=True)
    if findings.points:
        plot(findings.points, _REPORT / "cost.png")
    text = as_markdown(settings, describe(), findings)
    (_REPORT / "report.md").write_text(text, encoding="utf-8")
    (_REPORT / "report.json").write_text(as_json(settings, describe(), measured_commit(), findings), encoding="utf-8")
    click.echo(text)
    click.echo(f"written to {_REPORT}/report.md and report.json")
    if findings.faults:
        sys.exit(1)


def _run(servers: list[str], settings: Settings, findings: Findings) -> None:
    with tempfile.TemporaryDirectory(prefix="candlesync-bench-") as folder:
        logs = Path(folder)
        for run in range(1, settings.runs + 1):
            # In another order each time: what else the machine does must not always meet the same one.
            turn = (run - 1) % len(servers)
            for name in servers[turn:] + servers[:turn]:
                _measure(name, settings, run, logs, findings)
            for name, alone in _ALONE.items():
                if name in settings.measurements:
                    click.echo(f"run {run} of {settings.runs}: {name} …", err=True)
                    alone(settings, run, logs, findings)


def _measure(name: str, settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    alone = next(one for one in CONTENDERS if one.name == name)
    node = next((one for one in NODES if one.name == name), None)
    about = f"run {run} of {settings.runs}: {alone.label}"
    if set(_WITH_SERVER) & set(settings.measurements):
        click.echo(f"{about} …", err=True)
        measure(alone, settings, run, logs, findings)
    if node and "nodes" in settings.measurements:
        click.echo(f"{about}, two nodes …", err=True)
        measure_nodes(node, settings, run, logs, findings)


def _allow_files() -> None:
    """As many open files as this user may have: each client is one here, and one in the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main(prog_name="scripts/bench")
