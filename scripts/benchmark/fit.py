"""What a commit and a message cost, from points of many sizes, and whether anything grows faster than they. Pure.

The model is ``cpu = a × commits + b × messages``. The points differ in size by far more than they are sure to, so each
counts by its relative error: the sum that is made least is that of ``(model ÷ cpu - 1)²``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One size, measured."""

    series: int
    clients: int
    rate: float
    """Updates a second of each series."""
    run: int
    commits: int
    messages: int
    cpu: float
    """Seconds of the server."""
    seconds: float


@dataclass(frozen=True)
class Model:
    """What was found, in seconds of CPU."""

    a: float
    """A commit."""
    b: float
    """A message."""

    def cpu(self, point: Point) -> float:
        """What the model says of a point."""
        return self.a * point.commits + self.b * point.messages

    def residual(self, point: Point) -> float:
        """How much more the point took than the model says, as a share of what it says."""
        return point.cpu / self.cpu(point) - 1


def fit(points: Sequence[Point]) -> Model:
    """The model of these points, with neither cost below nothing.

    Raises `ValueError` when they do not tell the two costs apart.
    """
    rows = [(point.commits / point.cpu, point.messages / point.cpu) for point in points]
    cc, cm, mm = (sum(row[i] * row[k] for row in rows) for i, k in ((0, 0), (0, 1), (1, 1)))
    c, m = (sum(row[i] for row in rows) for i in (0, 1))
    determinant = cc * mm - cm * cm
    if determinant <= 1e-9 * cc * mm:
        raise ValueError("the points do not tell commits and messages apart: the one is a multiple of the other")
    a, b = (c * mm - m * cm) / determinant, (m * cc - c * cm) / determinant
    # Where one of them would be negative, the best that is not has it at nothing (the sum is convex).
    if a < 0:
        return Model(0.0, m / mm)
    if b < 0:
        return Model(c / cc, 0.0)
    return Model(a, b)


def far_end(points: Sequence[Point]) -> list[Point]:
    """The largest: those with the most series, or the most clients."""
    series, clients = max(point.series for point in points), max(point.clients for point in points)
    return [point for point in points if point.series == series or point.clients == clients]


def excess(points: Sequence[Point]) -> float:
    """By how much the dearest of the largest points is above what all the smaller ones foretell, as a share of that.

    What grows faster than the number of commits and messages shows here, however well a fit through all of the points
    would hide it. Raises `ValueError` as `fit` does.
    """
    largest = far_end(points)
    foretold = fit([point for point in points if point not in largest])
    return max(foretold.residual(point) for point in largest)


def medians(points: Sequence[Point]) -> list[Point]:
    """One point for each size: of its runs, the one in the middle by what a model of all points leaves over."""
    model = fit(points)
    sizes: dict[tuple[int, int, float], list[Point]] = {}
    for point in points:
        sizes.setdefault((point.series, point.clients, point.rate), []).append(point)
    return [sorted(runs, key=model.residual)[(len(runs) - 1) // 2] for runs in sizes.values()]
