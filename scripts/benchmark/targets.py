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


TARGET_CLIENTS = 300
"""Of the broadcasts that do not say another number."""
TARGET_RUNS = 3
"""At least: a median of fewer is none."""
_NOISE = 0.15
_FASTAPI = "FastAPI"
_PEERS = (
    # Each peer's label in the bench, and how much of its CPU is allowed.
    (_FASTAPI, 1 / 3),
    ("websockets.broadcast, uvloop", 2 / 3),
    ("node ws", 0.8),
    ("raw socket.send", 2.2),
)
_AUDIENCES = (
    # What begins the names of the figures, and who listens.
    ("", "300 clients"),
    ("deflate_", "300 clients that offer permessage-deflate"),
    ("many_", "5,000 clients"),
    ("series_", "300 clients, 50 series on each socket"),
)
_REST = "REST, 1000 candles, one core"
_BARE = "bare ASGI on Hypercorn, ready body"
_STREAM = "trio-websocket alone"

TARGETS = (
    *(
        Target(f"CPU per delivered message, {who}", f"{figures}cpu", at_most=share, peer=peer, noise=_NOISE)
        for figures, who in _AUDIENCES
        for peer, share in _PEERS
    ),
    # The way that the target was set by. Those that leave more to pydantic or to `json.dumps` stand in the report, too:
    # twenty times those would be more than Hypercorn itself can answer.
    Target(f"{_REST}, serialised by FastAPI", "one_core", at_least=20, peer="FastAPI with Redis (list)"),
    Target(f"{_REST}, before the framework", "one_core", at_least=0.9, peer=_BARE),
    Target(f"{_REST}, through Quart", "one_core_quart", at_least=0.6, peer=_BARE),
    Target(
        "Frame in → frame out, p50, where it takes the peer half a core", "half_fastapi_p50", at_most=0.5, peer=_FASTAPI
    ),
    Target("Frame in → frame out, p99, alone at 150 updates a second", "only_p99", at_most=10, unit="ms"),
    Target("Upstream frames a second, 1 series", "frames_1", at_least=0.4, peer=_STREAM),
    Target("Upstream frames a second, 50 series", "frames_50", at_least=0.4, peer=_STREAM),
    Target("Memory of a client, in all", "memory_client", at_most=56, unit="KiB"),
    Target("Memory of a series of 1000 candles, all told", "memory_series", at_most=600, unit="KiB"),
    Target("Cost of the largest sizes above what the smaller ones foretell", "cost_excess", at_most=25, unit="%"),
)
