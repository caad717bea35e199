"""``scripts/mutate``: the command."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import click

from . import equivalents
from .equivalents import Key
from .mutants import Mutant, mutants_of
from .trial import KILLED, SURVIVED, TIMED_OUT, Survey, prepare, survey, try_all, try_imported
from .types import refused

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "mutation-report" / "report.json"
EQUIVALENT = "equivalent"
REFUSED = "mypy"
"""Of a mutant that no test notices, and mypy does."""
STATUSES = (KILLED, TIMED_OUT, REFUSED, EQUIVALENT, SURVIVED)

CORE = "candlesync/core"
SYNCHRONIZER = "candlesync/synchronizer.py"
TESTS = {
    CORE: ["tests/core"],
    SYNCHRONIZER: [
        "tests/test_synchronizer.py",
        "tests/test_synchronizer_prompt.py",
        "tests/test_synchronizer_record.py",
        "tests/test_synchronizer_store.py",
    ],
}
"""What is changed, and the tests that are to notice it: the core's own notice what is changed in the core."""


_FIRST = ("sync.py", "absorb.py", "merge.py", "gap.py", "pending.py", "replica.py")
"""Where a mistake would cost most."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1)
@click.option(
    "--left", "only_left", is_flag=True, help="Only what the last run left alive or had not tried; the rest as it was."
)
@click.option("--listed", is_flag=True, help="Also those listed as equivalent: none of them may fail a test.")
@click.option("--quick", is_flag=True, help="For each only the fastest tests, that take a second together.")
def main(files: tuple[str, ...], *, only_left: bool, listed: bool, quick: bool) -> None:
    """Change the core and the synchronizer a little in each place, and see whether the tests notice.

    FILES: some of them only, as paths or as names such as merge.py. The exit status is 0 when each mutant fails a test,
    is refused by mypy, or is listed in scripts/mutation/equivalent.toml with the reason. What was found is written to
    mutation-report/report.json, and to what it says of other files is added.
    """
    sys.path.insert(0, str(ROOT))
    prepare()
    outcomes: dict[Mutant, str] = {}
    reasons = equivalents.read()
    former = _read()
    troubles = []
    start = time.monotonic()
    for part, tests in TESTS.items():
        chosen = [file for file in _files(part) if not files or any(f"/{file}".endswith(f"/{name}") for name in files)]
        mutants = [mutant for file in chosen for mutant in mutants_of(ROOT, file)]
        troubles += [f"listed, and not there: {key}" for key in equivalents.vanished(reasons, mutants, chosen)]
        outcomes |= {mutant: EQUIVALENT for mutant in mutants if mutant.key in reasons}
        if only_left:
            known = {mutant: former.get(mutant.key, SURVIVED) for mutant in mutants if mutant not in outcomes}
            outcomes |= {
                mutant: outcome for mutant, outcome in known.items() if outcome in (KILLED, TIMED_OUT, REFUSED)
            }
        tried = [mutant for mutant in mutants if outcomes.get(mutant, SURVIVED) == SURVIVED]
        if listed:
            tried += [mutant for mutant, outcome in outcomes.items() if outcome == EQUIVALENT]
        if tried:
            found = survey(ROOT, chosen, tests)
            if found.failed or not found.seconds:
                raise SystemExit(f"these tests fail without a change: {found.failed}")
            if quick:
                found.most = 1.0
            troubles += _try(found, tests, tried, outcomes, former)
    left = [mutant for mutant, outcome in outcomes.items() if outcome == SURVIVED]
    outcomes |= dict.fromkeys(refused(ROOT, left, REPORT.parent / "mypy"), REFUSED)
    _write(former, outcomes)
    for mutant, outcome in outcomes.items():
        if outcome == SURVIVED:
            print(f"\n{mutant.file}:{mutant.lines[-1]} {mutant.function} ({mutant.nth})")
            print(f"  - {mutant.was}\n  + {mutant.now}")
    print(_table(outcomes))
    print(f"{time.monotonic() - start:.0f} s")
    for trouble in troubles:
        print(trouble)
    raise SystemExit(1 if troubles or SURVIVED in outcomes.values() or not outcomes else 0)


def _files(part: str) -> list[str]:
    path = ROOT / part
    files = [str(each.relative_to(ROOT)) for each in path.glob("*.py")] if path.is_dir() else [part]
    first = [file for name in _FIRST for file in files if file.endswith(f"/{name}")]
    return first + sorted(set(files) - set(first))


def _try(
    found: Survey, tests: list[str], mutants: list[Mutant], outcomes: dict[Mutant, str], former: dict[Key, str]
) -> list[str]:
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
            print(f"left? {mutant.function} ({mutant.nth})\n  - {mutant.was}\n  + {mutant.now}", file=sys.stderr)
        if tried % 50 == 0 or tried == len(mutants):
            left = sum(each == SURVIVED for each in outcomes.values())
            print(f"{tried} of {len(mutants)} mutants tried, {left} left", file=sys.stderr)
            _write(former, outcomes)

    try_all(ROOT, late, found, tests, tell)
    try_imported(ROOT, early, found, tell)
    return wrong


def _table(outcomes: dict[Mutant, str]) -> str:
    counts: dict[str, Counter[str]] = {}
    for mutant, outcome in sorted(outcomes.items(), key=lambda each: each[0].file):
        counts.setdefault(mutant.file, Counter())[outcome] += 1
    counts["all"] = sum(counts.values(), Counter())
    lines = [f"{'':34}{'mutants':>10}" + "".join(f"{name:>12}" for name in (*STATUSES[:-1], "left"))]
    lines += [
        f"{file:34}{count.total():10}" + "".join(f"{count[status]:12}" for status in STATUSES)
        for file, count in counts.items()
    ]
    return "\n".join(lines)


def _read() -> dict[Key, str]:
    """The outcomes of former runs."""
    if not REPORT.exists():
        return {}
    return {tuple(key): outcome for *key, outcome in json.loads(REPORT.read_text())}  # type: ignore[misc]


def _write(former: dict[Key, str], outcomes: dict[Mutant, str]) -> None:
    REPORT.parent.mkdir(exist_ok=True)
    former |= {mutant.key: outcome for mutant, outcome in outcomes.items()}
    lines = [json.dumps([*key, outcome]) for key, outcome in former.items()]
    REPORT.write_text("[\n" + ",\n".join(lines) + "\n]\n")


main()
