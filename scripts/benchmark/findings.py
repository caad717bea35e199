"""What is measured, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field

from .fit import Point


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    runs: int
    clients: int
    seconds: float
    """Of the broadcast; what else is measured gets a part of it."""
    rate: float
    """Updates a second of the broadcast."""
    commit_rate: float
    """Updates a second between two nodes."""
    commit_seconds: float
    """How long these are sent."""
    measurements: tuple[str, ...]
    many_clients: int = 5000
    """Of the broadcast to many."""
    many_rate: float = 1.0
    """Updates a second to them: so few that no server is at its limit, for what is measured is the cost of each."""
    series: int = 50
    """On one socket."""
    series_rate: float = 0.5
    """Updates a second of every one of them."""
    quick: bool = False
    """To see that it works: small sizes throughout."""


@dataclass(frozen=True)
class Spent:
    """Cores used while something was measured (1.0: one core, all the time)."""

    seconds: float
    server: float
    load: float
    """The bench's own clients."""
    upstream: float
    redis: float
    others: float
    """All other programs of this machine."""


@dataclass(frozen=True)
class Sample:
    """One figure of one run."""

    figure: str
    server: str
    run: int
    value: float
    spent: Spent


@dataclass(frozen=True)
class Remark:
    """Something to be known about one run of one server."""

    server: str
    run: int
    text: str


@dataclass
class Findings:
    """All that a run of the bench has found."""

    samples: list[Sample] = field(default_factory=list)
    faults: list[Remark] = field(default_factory=list)
    """What must not be: wrong or lost data, a server that died."""
    remarks: list[Remark] = field(default_factory=list)
    """What limits a figure: a load generator or a server at its limit, a late upstream."""
    messages: int = 0
    """WebSocket messages that were checked."""
    answers: int = 0
    """REST answers counted."""
    commits: int = 0
    """Commits to the store counted."""
    frames: int = 0
    """Frames of Binance in floods."""
    points: list[Point] = field(default_factory=list)
    """Cost against size."""
