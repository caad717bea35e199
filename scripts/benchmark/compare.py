"""What has changed from one report to another: both are ``report.json`` files, each of one commit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .text import short, table

Report = Mapping[str, Any]

_SAME_MACHINE = ("processor", "system", "python", "packages")
"""Of a report's machine: where they differ, so may all figures."""


@dataclass(frozen=True)
class Change:
    """One figure of one server, in both reports."""

    title: str
    server: str
    unit: str
    is_better: str
    old: Sequence[float]
    new: Sequence[float]
    """Of each run."""

    @property
    def percent(self) -> float | None:
        """From median to median; `None` where there was nothing to grow from."""
        old = median(self.old)
        return (median(self.new) / old - 1) * 100 if old else None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``changed`` when each run of the one is beyond all runs of the other.

        Empty when they overlap, or when it cannot be known: one run has no spread.
        """
        if min(len(self.old), len(self.new)) < 2:
            return ""
        if max(self.old) >= min(self.new) and max(self.new) >= min(self.old):
            return ""
        is_higher = min(self.new) > max(self.old)
        if not self.is_better:
            return "changed"
        return "better" if is_higher == (self.is_better == "higher") else "worse"


def changes(old: Report, new: Report) -> Iterator[Change]:
    """Every figure of every server that both reports have, in the order of the new one."""
    known = {(figure["name"], line["server"]): line["runs"] for figure, line in _lines(old)}
    for figure, line in _lines(new):
        runs = known.get((figure["name"], line["server"]))
        if runs and line["runs"]:
            yield Change(
                figure["title"], line["server"], figure["unit"], figure["is_better"], old=runs, new=line["runs"]
            )


def compare(old: Report, new: Report) -> str:
    """Markdown: the two commits, what makes them hard to compare, and a table for each part of the report."""
    lines = [f"old: {_commit(old)}", f"new: {_commit(new)}", ""]
    lines += [
        f"Not the same {name}: {old['machine'].get(name)} / {new['machine'].get(name)}"
        for name in _SAME_MACHINE
        if old["machine"].get(name) != new["machine"].get(name)
    ]
    lines += [
        f"Not the same {name}: {old['settings'].get(name)} / {value}"
        for name, value in new["settings"].items()
        if name != "measurements" and old["settings"].get(name) != value
    ]
    for word, report in (("old", old), ("new", new)):
        if report.get("faults"):
            lines.append(
                f"The {word} report has {len(report['faults'])} faults: its figures may be those of a failure."
            )
    rows = [["figure", "server", "unit", "old", "new", "change", "beyond the runs' spread"]]
    for change in changes(old, new):
        percent = "" if change.percent is None else f"{change.percent:+.1f} %"
        medians = (short(median(change.old)), short(median(change.new)))
        rows.append([change.title, change.server, change.unit, *medians, percent, change.verdict])
    if len(rows) == 1:
        return "\n".join([*lines, "The two reports have no figure in common."])
    if any(min(len(change.old), len(change.new)) < 2 for change in changes(old, new)):
        lines.append("Of one run nobody knows the spread: such changes are not marked.")
    return "\n".join([*lines, "", *table(rows)])


def _lines(report: Report) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for figure in report["figures"]:
        for line in figure["servers"]:
            yield figure, line


def _commit(report: Report) -> str:
    commit = report.get("commit")
    if commit is None:  # of a report from before it had one
        return str(report["machine"].get("commit", "unknown"))
    return f"{commit['describe']} ({commit['sha']}{', with changes' if commit['dirty'] else ''})"
