"""The mutants that no test can tell from the code, each with the reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from .mutants import Mutant

LIST = Path(__file__).with_name("equivalent.toml")
Key = tuple[str, str, str, str, int]


def read() -> dict[Key, str]:
    """The reasons, by `Mutant.key`. Raises `ValueError` for an entry that lacks something."""
    reasons: dict[Key, str] = {}
    for entry in tomllib.loads(LIST.read_text())["mutant"]:
        reason = entry.get("reason", "")
        if not reason.strip():
            raise ValueError(f"no reason is given: {entry}")
        for now in [entry["now"]] if isinstance(entry["now"], str) else entry["now"]:
            key = (entry["file"], entry.get("function", ""), entry["was"], now, entry.get("nth", 1))
            if key in reasons:
                raise ValueError(f"listed twice: {key}")
            reasons[key] = reason
    return reasons


def vanished(listed: Iterable[Key], mutants: Iterable[Mutant], files: Iterable[str]) -> list[Key]:
    """What is listed of these files, and is no mutant of theirs any more."""
    known = {mutant.key for mutant in mutants}
    return [key for key in listed if key[0] in set(files) and key not in known]
