"""``scripts/bench``: the command."""

from __future__ import annotations

import resource
import signal
import sys
import tempfile
from pathlib import Path

import click

from .findings import Findings, Settings
from .machine import describe
from .measure import measure
from .report import as_json, as_markdown
from .servers import CONTENDERS, Contender

_REPORT = Path("bench-report")
_MEASUREMENTS = ("broadcast", "rest")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="One short run with 50 clients: to see that it works, not to quote.")
@click.option("--clients", type=click.IntRange(1), help="WebSocket clients.  [default: 300]")
@click.option("--seconds", type=click.FloatRange(0.5), help="Length of the broadcast in each run.  [default: 6]")
@click.option("--runs", type=click.IntRange(1), help="How often each server is measured.  [default: 3]")
@click.option(
    "--rate", type=click.FloatRange(0.5), default=10.0, show_default=True, help="Updates a second of the broadcast."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*_MEASUREMENTS, *(contender.name for contender in CONTENDERS)]),
    help="Leave out other measurements, or other servers; give it again for more.",
)
def main(
    *, quick: bool, clients: int | None, seconds: float | None, runs: int | None, rate: float, only: tuple[str, ...]
) -> None:
    """Measure candlesync beside FastAPI + uvicorn, in one run, and write bench-report/report.md and report.json.

    Ends with status 1 if a server lost or garbled anything, or ended by itself.
    """
    chosen = [name for name in _MEASUREMENTS if name in only] or _MEASUREMENTS
    settings = Settings(
        clients=clients or (50 if quick else 300),
        seconds=seconds or (1.5 if quick else 6.0),
        rate=rate,
        broadcast="broadcast" in chosen,
        rest="rest" in chosen,
    )
    contenders = [contender for contender in CONTENDERS if contender.name in only] or list(CONTENDERS)
    # A terminal that is closed, or a `kill`, must end the servers, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    _allow_files()
    findings = Findings()
    _run(contenders, settings, runs or (1 if quick else 3), findings)
    text = as_markdown(settings, describe(), findings)
    _REPORT.mkdir(exist_ok=True)
    (_REPORT / "report.md").write_text(text, encoding="utf-8")
    (_REPORT / "report.json").write_text(as_json(settings, describe(), findings), encoding="utf-8")
    click.echo(text)
    click.echo(f"written to {_REPORT}/report.md and report.json")
    if findings.faults:
        sys.exit(1)


def _run(contenders: list[Contender], settings: Settings, runs: int, findings: Findings) -> None:
    with tempfile.TemporaryDirectory(prefix="candlesync-bench-") as logs:
        for run in range(1, runs + 1):
            # In another order each time: what else the machine does must not always meet the same one.
            turn = (run - 1) % len(contenders)
            for contender in contenders[turn:] + contenders[:turn]:
                click.echo(f"run {run} of {runs}: {contender.label} …", err=True)
                measure(contender, settings, run, Path(logs), findings)


def _allow_files() -> None:
    """As many open files as this user may have: each client is one here, and one in the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main(prog_name="scripts/bench")
