"""Which mutants mypy refuses: ``scripts/test`` runs it beside the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .mutants import Mutant, changed_lines

_ERROR = re.compile(r"([^:]+):(\d+): error: ")


def refused(root: Path, mutants: Iterable[Mutant], work: Path) -> set[Mutant]:
    """The mutants for which mypy reports an error in a changed line. Many are looked at in one run of it."""
    left = list(mutants)
    found: set[Mutant] = set()
    while left:
        chosen = _beside(left, root)
        left = [mutant for mutant in left if mutant not in chosen]
        found |= _refused(root, chosen, work)
    return found


def _beside(mutants: Sequence[Mutant], root: Path) -> list[Mutant]:
    """As many as can stand in one text of their files."""
    taken: dict[str, set[int]] = {}
    chosen = []
    for mutant in mutants:
        first, last, _ = changed_lines((root / mutant.file).read_text(), mutant.source)
        lines = set(range(first - 1, last + 2))
        if not lines & taken.setdefault(mutant.file, set()):
            taken[mutant.file] |= lines
            chosen.append(mutant)
    return chosen


def _refused(root: Path, mutants: Sequence[Mutant], work: Path) -> set[Mutant]:
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(work / "cache"), "--no-error-summary", "--no-pretty"]
    places: dict[tuple[str, int], Mutant] = {}
    files = sorted({mutant.file for mutant in mutants})
    for file in files:
        text = (root / file).read_text()
        lines = text.splitlines()
        changes = [(changed_lines(text, mutant.source), mutant) for mutant in mutants if mutant.file == file]
        moved = 0
        for (first, last, new), mutant in sorted(changes, key=lambda change: change[0][0]):
            lines[first - 1 + moved : last + moved] = new
            places |= {(file, first + moved + line): mutant for line in range(len(new))}
            moved += len(new) - (last - first + 1)
        shadow = work / file.replace("/", ".")
        shadow.write_text("\n".join(lines) + "\n")
        command += ["--shadow-file", file, str(shadow)]
    told = subprocess.run([*command, *files], cwd=root, capture_output=True, text=True, check=False).stdout
    errors = (_ERROR.match(line) for line in told.splitlines())
    return {places[place] for error in errors if error and (place := (error[1], int(error[2]))) in places}
