"""What candlesync is to reach, and whether it does: every target of the bench stands in `TARGETS`, and nowhere else.

A target is judged by the median over the runs; a ratio is taken run by run, so that both sides of it had the same
machine. One that was not measured is not reached, and says so. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from .findings import Sample

OURS = "candlesync"


@dataclass(frozen=True)
class Target:
    """One of them."""

    what: str
    figure: str
    """Which figure of candlesync's (`Sample.figure`)."""
    at_most: float | None = None
    at_least: float | None = None
    """One of the two."""
    peer: str = ""
    """The server by whose figure it is divided; empty for a target that is no ratio."""
    unit: str = ""
    noise: float = 0.0
    """The share by which it may be off and still count as reached: two runs of one thing differ by as much."""

    @property
    def bound(self) -> str:
        """In words."""
        sign, number = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{sign} {number:.3g} {'×' if self.peer else self.unit}".strip()

    def is_met(self, value: float, noise: float = 0.0) -> bool:
        """Whether a value reaches it, give or take a share of it."""
        if self.at_most is not None:
            return value <= self.at_most * (1 + noise)
        return self.at_least is not None and value >= self.at_least * (1 - noise)


@dataclass(frozen=True)
class Verdict:
    """What became of a target."""

    target: Target
    values: tuple[float, ...]
    """Of each run: the ratio, or the figure."""

    @property
    def measured(self) -> float | None:
        """The median; `None` when it was not measured."""
        return median(self.values) if self.values else None

    @property
    def word(self) -> str:
        """``met``, ``within noise``, ``missed`` or ``not measured``."""
        if self.measured is None:
            return "not measured"
        if self.target.is_met(self.measured):
            return "met"
        return "within noise" if self.target.is_met(self.measured, self.target.noise) else "missed"


def judge_targets(samples: Iterable[Sample], targets: Sequence[Target]) -> list[Verdict]:
    """A verdict for each target, in order."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for sample in samples:
        values.setdefault((sample.figure, sample.server), {})[sample.run] = sample.value
    found = []
    for target in targets:
        ours = values.get((target.figure, OURS), {})
        if target.peer:
            theirs = values.get((target.figure, target.peer), {})
            ours = {run: value / theirs[run] for run, value in ours.items() if theirs.get(run)}
        found.append(Verdict(target, tuple(ours[run] for run in sorted(ours))))
    return found


_NOISE = 0.15
_CPU = "CPU per delivered message"
_REST = "REST, 1000 candles, one core"
_BARE = "bare ASGI on Hypercorn, ready body"
_REDIS = "FastAPI with Redis"
_STREAM = "trio-websocket alone"

TARGETS = (
    Target(f"{_CPU}, 300 clients, beside FastAPI", "cpu", at_most=1 / 3, peer="FastAPI", noise=_NOISE),
    Target("Frame in → frame out, p50, beside FastAPI", "p50", at_most=0.5, peer="FastAPI"),
    Target(f"{_REST}, beside FastAPI reading Redis, list", "one_core", at_least=20, peer=f"{_REDIS} (list)"),
    Target(f"{_REST}, the same, typed list", "one_core", at_least=20, peer=f"{_REDIS} (typed list)"),
    Target(f"{_REST}, the same, JSONResponse", "one_core", at_least=20, peer=f"{_REDIS} (JSONResponse)"),
    Target(f"{_REST}, before the framework, beside bare ASGI", "one_core", at_least=0.9, peer=_BARE),
    Target(f"{_REST}, through Quart, beside bare ASGI", "one_core_quart", at_least=0.6, peer=_BARE),
    Target("Upstream frames a second, 1 series, beside trio-websocket", "frames_1", at_least=0.4, peer=_STREAM),
    Target("Upstream frames a second, 50 series, beside trio-websocket", "frames_50", at_least=0.4, peer=_STREAM),
    Target("Memory of a client, in all", "memory_client", at_most=56, unit="KiB"),
    Target("Memory of a series of 1000 candles, all told", "memory_series", at_most=600, unit="KiB"),
    Target("Cost of the largest sizes above what the smaller ones foretell", "cost_excess", at_most=25, unit="%"),
)
