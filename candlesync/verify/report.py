"""What a check has found, for people: a table or aligned lines, and then a line for each difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from candlesync.verify.findings import Findings

SHOWN = 50
"""Differences of one series that are said; of a wrong history there are a thousand."""
_HEAD = ("series", "state", "candles", "filled", "messages", "closes", "delay", "longest", "result")
_TEXTS = (0, 1, 8)
"""Columns that are no numbers."""


def rows_of(findings: Sequence[Findings]) -> list[tuple[str, ...]]:
    """The table, without its head."""
    return [
        (
            one.series,
            one.state,
            str(one.candles),
            str(one.filled),
            str(one.live),
            str(one.closes),
            f"{median(one.delays):.3f} s" if one.delays else "-",
            f"{max(one.delays):.3f} s" if one.delays else "-",
            result_of(one),
        )
        for one in findings
    ]


def result_of(one: Findings) -> str:
    """In a word or two."""
    if one.differences:
        return f"{len(one.differences)} {'difference' if len(one.differences) == 1 else 'differences'}"
    return "not checked" if one.unchecked else "good"


def show(findings: Sequence[Findings], say: Callable[[str], None], *, terminal: Console | None = None) -> None:
    """Say it; to a ``terminal``, as a table with colours."""
    rows = rows_of(findings)
    if terminal is None:
        widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
        for row in (_HEAD, *rows):
            cells = [
                text.ljust(width) if number in _TEXTS else text.rjust(width)
                for number, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            say("  ".join(cells).rstrip())
    else:
        table = Table()
        for number, name in enumerate(_HEAD):
            table.add_column(name, justify="left" if number in _TEXTS else "right", no_wrap=number == 0)
        for row in rows:
            colour = {"good": "green", "not checked": "yellow"}.get(row[-1], "red")
            table.add_row(*row[:-1], f"[{colour}]{row[-1]}[/]")
        terminal.print(table)
    for one in findings:
        if one.unchecked:
            say(f"{one.series}  not checked: {one.unchecked}")
        for difference in one.differences[:SHOWN]:
            say(difference.line(one.series))
        if len(one.differences) > SHOWN:
            say(f"{one.series}  and {len(one.differences) - SHOWN} more")
