"""``scripts/mutate``: the command."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import click

from . import equivalents
from .mutants import Mutant, mutants_of
from .trial import KILLED, SURVIVED, TIMED_OUT, Survey, prepare, survey, try_all, try_imported

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "mutation-report" / "report.json"
EQUIVALENT = "equivalent"
STATUSES = (KILLED, TIMED_OUT, EQUIVALENT, SURVIVED)

CORE = "candlesync/core"
SYNCHRONIZER = "candlesync/synchronizer.py"
TESTS = {
    CORE: ["tests/core"],
    SYNCHRONIZER: [
        "tests/test_synchronizer.py",
        "tests/test_synchronizer_prompt.py",
        "tests/test_synchronizer_store.py",
    ],
}
"""What is changed, and the tests that are to notice it: the core's own notice what is changed in the core."""


_FIRST = ("sync.py", "absorb.py", "merge.py", "gap.py", "pending.py", "replica.py")
"""Where a mistake would cost most."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1)
@click.option("--left", "only_left", is_flag=True, help="Only what the last run left alive.")
@click.option("--listed", is_flag=True, help="Also those listed as equivalent: none of them may fail a test.")
@click.option("--quick", is_flag=True, help="For each only the fastest tests, that take a second together.")
def main(files: tuple[str, ...], *, only_left: bool, listed: bool, quick: bool) -> None:
    """Change the core and the synchronizer a little in each place, and see whether the tests notice.

    FILES: some of them only, as paths or as names such as merge.py. The exit status is 0 when each mutant fails a test
    or is listed in scripts/mutation/equivalent.toml, with the reason. mutation-report/report.json holds what was found.
    """
    sys.path.insert(0, str(ROOT))
    prepare()
    outcomes: dict[Mutant, str] = {}
    reasons = equivalents.read()
    troubles = []
    start = time.monotonic()
    for part, tests in TESTS.items():
        chosen = [file for file in _files(part) if not files or any(file.endswith(name) for name in files)]
        mutants = [mutant for file in chosen for mutant in mutants_of(ROOT, file)]
        troubles += [f"listed, and not there: {key}" for key in equivalents.vanished(reasons, mutants, chosen)]
        if only_left:
            left = {tuple(each["key"]) for each in json.loads(REPORT.read_text())["left"]}
            mutants = [mutant for mutant in mutants if mutant.key in left]
        outcomes |= {mutant: EQUIVALENT for mutant in mutants if mutant.key in reasons}
        tried = [mutant for mutant in mutants if listed or mutant.key not in reasons]
        if tried:
            found = survey(ROOT, chosen, tests)
            if found.failed or not found.seconds:
                raise SystemExit(f"these tests fail without a change: {found.failed}")
            if quick:
                found.most = 1.0
            troubles += _try(found, tests, tried, outcomes)
    print(_table(outcomes))
    print(f"{time.monotonic() - start:.0f} s")
    _write(outcomes)
    for trouble in troubles:
        print(trouble)
    raise SystemExit(1 if troubles or SURVIVED in outcomes.values() or not outcomes else 0)


def _files(part: str) -> list[str]:
    path = ROOT / part
    files = [str(each.relative_to(ROOT)) for each in path.glob("*.py")] if path.is_dir() else [part]
    first = [file for name in _FIRST for file in files if file.endswith(f"/{name}")]
    return first + sorted(set(files) - set(first))


def _try(found: Survey, tests: list[str], mutants: list[Mutant], outcomes: dict[Mutant, str]) -> list[str]:
    """Try the mutants; returns what is wrong with the list of the equivalent ones."""
    early = [mutant for mutant in mutants if found.runs_at_import(mutant)]
    late = [mutant for mutant in mutants if not found.runs_at_import(mutant)]
    wrong = []
    tried = 0

    def tell(mutant: Mutant, outcome: str) -> None:
        nonlocal tried
        tried += 1
        if outcomes.get(mutant) != EQUIVALENT:
            outcomes[mutant] = outcome
        elif outcome != SURVIVED:
            wrong.append(f"listed as equivalent, and {outcome}: {mutant.key}")
        if outcome == SURVIVED and outcomes[mutant] != EQUIVALENT:
            print(f"\n{mutant.file}:{mutant.lines[-1]} {mutant.function} ({mutant.nth})", flush=True)
            print(f"  - {mutant.was}\n  + {mutant.now}", flush=True)
        if tried % 50 == 0 or tried == len(mutants):
            print(f"{tried} of {len(mutants)} mutants tried, {_count(outcomes, SURVIVED)} left", file=sys.stderr)

    try_all(ROOT, late, found, tests, tell)
    for mutant in early:
        tell(mutant, try_imported(ROOT, mutant, found))
    return wrong


def _count(outcomes: dict[Mutant, str], status: str) -> int:
    return sum(each == status for each in outcomes.values())


def _table(outcomes: dict[Mutant, str]) -> str:
    counts: dict[str, Counter[str]] = {}
    for mutant, outcome in outcomes.items():
        counts.setdefault(mutant.file, Counter())[outcome] += 1
    counts["all"] = sum(counts.values(), Counter())
    lines = [f"{'':34}{'mutants':>10}" + "".join(f"{name:>12}" for name in (*STATUSES[:-1], "left"))]
    lines += [
        f"{file:34}{count.total():10}" + "".join(f"{count[status]:12}" for status in STATUSES)
        for file, count in counts.items()
    ]
    return "\n".join(lines)


def _write(outcomes: dict[Mutant, str]) -> None:
    REPORT.parent.mkdir(exist_ok=True)
    counts = Counter((mutant.file, outcome) for mutant, outcome in outcomes.items())
    left = [
        {"key": mutant.key, "line": mutant.lines[-1]} for mutant, outcome in outcomes.items() if outcome == SURVIVED
    ]
    timed_out = [mutant.key for mutant, outcome in outcomes.items() if outcome == TIMED_OUT]
    counted = [{"file": file, "outcome": outcome, "count": count} for (file, outcome), count in counts.items()]
    REPORT.write_text(json.dumps({"counts": counted, "left": left, "timed_out": timed_out}, indent=1) + "\n")


main()
