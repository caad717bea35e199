"""``scripts/simulate``: the command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from . import report
from .draw import TROUBLES, draw
from .runs import run_all
from .schedule import Schedule, read, write
from .shrink import shrink
from .world import Outcome, simulate

_FAILURES = Path("simulation-failures")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1), help="How many seeds, from --first on.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--seed", type=int, help="Only this seed.")
@click.option(
    "--days", default=1.0, show_default=True, type=click.FloatRange(0.01), help="Simulated days of each seed."
)
@click.option("--clients", default=6, show_default=True, type=click.IntRange(0), help="Clients of the service.")
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 8), help="Services that share a store.")
@click.option(
    "--troubles", default=TROUBLES, show_default=True, type=click.FloatRange(0.001), help="An hour, on average."
)
@click.option("--jobs", default=os.cpu_count() or 1, show_default="one for each core", type=click.IntRange(1))
@click.option(
    "--schedule",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Repeat what this file says, as a failure has left it, instead of what the seed would draw.",
)
@click.option("--print", "only_print", is_flag=True, help="Run nothing: print the schedule of --seed.")
@click.option("--keep-going", is_flag=True, help="Go on with the other seeds after a failure.")
@click.option(
    "--redis", "redis_seconds", type=click.FloatRange(10), metavar="SECONDS", help="A run over a real Valkey."
)
@click.option("--shrink/--no-shrink", "is_shrunk", default=True, help="Whether to look for what a failure takes.")
def main(
    *,
    seeds: int,
    first: int,
    seed: int | None,
    days: float,
    clients: int,
    nodes: int,
    troubles: float,
    jobs: int,
    path: Path | None,
    only_print: bool,
    keep_going: bool,
    redis_seconds: float | None,
    is_shrunk: bool,
) -> None:
    """Run the whole service in virtual time, let all go wrong that can, and check its promises after each step.

    A seed gives the same history on every run and in every process. A failure is shrunk to the faults that it takes,
    and can be repeated exactly with the command that is printed. Ends with status 1 when an invariant was broken.
    """
    if redis_seconds is not None:
        _run_redis(seed or 0, redis_seconds)
    if path is not None or seed is not None:
        schedule = draw(seed or 0, days, clients, troubles, nodes) if path is None else _read(path, seed)
        if only_print:
            click.echo(write(schedule).decode(), nl=False)
            return
        outcome = simulate(schedule)
        click.echo(report.tell(outcome))
        if path is None and outcome.violations:
            _tell_failure(schedule, outcome, is_shrunk=is_shrunk)
        sys.exit(bool(outcome.violations))
    progress = report.Progress(seeds)
    schedules = (draw(each, days, clients, troubles, nodes) for each in range(first, first + seeds))
    for schedule, outcome in run_all(schedules, jobs):
        progress.add(outcome)
        if outcome.violations:
            _tell_failure(schedule, outcome, is_shrunk=is_shrunk)
            if not keep_going:
                break
    click.echo(progress.summary())
    sys.exit(bool(progress.failed))


def _run_redis(seed: int, seconds: float) -> NoReturn:
    from .real_redis import simulate_redis  # noqa: PLC0415 - needs what the tests have installed, as nothing else here does

    progress = report.Progress(1)
    outcome = simulate_redis(seed, seconds)
    progress.add(outcome)
    click.echo(report.tell(outcome))
    click.echo(progress.summary())
    sys.exit(bool(outcome.violations))


def _read(path: Path, seed: int | None) -> Schedule:
    try:
        schedule = read(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is no schedule: {error}", param_hint="--schedule") from None
    if seed is not None and seed != schedule.seed:
        raise click.BadParameter(f"{path} is a schedule of seed {schedule.seed}", param_hint="--seed")
    return schedule


def _tell_failure(schedule: Schedule, outcome: Outcome, *, is_shrunk: bool) -> None:
    """Shrink a failure, keep its schedule in a file, and say how to repeat it."""
    invariant, at = outcome.violations[0].invariant, outcome.violations[0].at
    if is_shrunk:
        events = len(schedule.events)
        report.warn(f"seed {schedule.seed} breaks {invariant!r} after {at:.0f} s; shrinking its {events} events")

        def fails(candidate: Schedule) -> bool:
            found = simulate(candidate).violations
            return bool(found) and found[0].invariant == invariant

        schedule = shrink(schedule, fails, until=at)
        outcome = simulate(schedule)
    _FAILURES.mkdir(exist_ok=True)
    path = _FAILURES / f"seed-{schedule.seed}-{invariant.replace(' ', '-')}.json"
    path.write_bytes(write(schedule))
    click.echo(report.tell_failure(schedule, outcome, path))


if __name__ == "__main__":
    main()
