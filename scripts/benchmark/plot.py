"""The plot of cost against size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from .fit import Point, fit, medians

mpl.use("Agg")  # before pyplot: there is no screen

from matplotlib import pyplot as plt


def plot(points: Sequence[Point], path: Path) -> None:
    """Write what was measured of each size against what the model says of it, and by how much they differ."""
    model, points = fit(points), medians(points)
    figure, (cost, difference) = plt.subplots(1, 2, figsize=(12, 5.5), layout="constrained")
    said = [model.cpu(point) / point.seconds * 1e3 for point in points]
    seen = [point.cpu / point.seconds * 1e3 for point in points]
    ends = [min(said + seen) / 1.5, max(said + seen) * 1.5]
    cost.loglog(ends, ends, color="grey", linewidth=1)
    cost.set_xlabel(f"{model.a * 1e6:.0f} µs × commits + {model.b * 1e6:.1f} µs × messages, ms each second")
    cost.set_ylabel("measured: ms of CPU each second")
    difference.axhline(0, color="grey", linewidth=1)
    difference.set_xscale("log")
    difference.set_xlabel("commits and messages each second")
    difference.set_ylabel("measured, above what the model says, %")
    for point, x, y in zip(points, said, seen, strict=True):
        name = f"{point.series} × {point.clients}"
        cost.plot(x, y, "o")
        cost.annotate(name, (x, y), xytext=(5, -9), textcoords="offset points", fontsize=8)
        load, share = (point.commits + point.messages) / point.seconds, model.residual(point) * 100
        difference.plot(load, share, "o")
        difference.annotate(name, (load, share), xytext=(5, 4), textcoords="offset points", fontsize=8)
    figure.suptitle("Cost against size: series × clients")
    figure.savefig(path, dpi=110)
    plt.close(figure)
