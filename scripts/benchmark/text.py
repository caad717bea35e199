"""How figures and tables are written."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def short(value: float) -> str:
    """Three digits: no run is better than that."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """The median, and in brackets the lowest and the highest."""
    if short(min(values)) == short(max(values)):
        return short(values[0])
    return f"{short(median(values))} ({short(min(values))} to {short(max(values))})"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, of which the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in lines]
