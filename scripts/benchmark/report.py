"""What was found: Markdown for people, also on the terminal, and JSON for programs. Nothing that was not measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from .findings import Findings, Remark, Sample, Settings, Spent
from .servers import CANDLESYNC


@dataclass(frozen=True)
class Figure:
    """Something that is measured of every server."""

    name: str
    title: str
    unit: str
    is_better: str
    """Which way is better, lower or higher; empty where it is only to be known."""
    cores: tuple[str, ...] = ("server", "load")
    """Whose cores stand beside it: names of `_CORES`."""


@dataclass(frozen=True)
class Part:
    """Figures of one kind."""

    title: str
    about: str
    """How they were measured; ``{clients}`` and so on are the `Settings`."""
    figures: tuple[Figure, ...]


_CORES = {"server": "server's cores", "nodes": "both nodes' cores", "load": "load's cores", "redis": "Redis's cores"}
_SHARED = ("server", "redis")
_BOTH = ("nodes", "redis", "load")
_FROM_FRAME = "From the upstream's sending a frame to a client's having read it"
_TO_OWNER = "From a commit's standing in Redis to a client of the node that made it"
_TO_FOLLOWER = "From a commit's standing in Redis to a client of the other node"

PARTS = (
    Part(
        "One server",
        "{clients} WebSocket clients, {rate:g} updates a second for {seconds:g} s.",
        (
            Figure("cpu", "Server CPU for each message delivered, all included", "µs", "lower"),
            Figure("p50", f"{_FROM_FRAME}, p50", "ms", "lower"),
            Figure("p99", f"{_FROM_FRAME}, p99", "ms", "lower"),
            Figure("rest", "REST, 1000 candles: requests a second", "1/s", "higher"),
            Figure("rest_core", "REST, 1000 candles: requests for each second of server CPU", "1/s", "higher"),
            Figure("delivered", "Messages delivered, of all updates to all clients", "%", ""),
            Figure("message_size", "Size of a WebSocket message", "bytes", ""),
            Figure("rest_size", "REST, 1000 candles: size of an answer", "kB", ""),
        ),
    ),
    Part(
        "Two nodes with one Redis",
        "A WebSocket client of each node, {commit_rate:g} updates a second for {commit_seconds:g} s; REST of the one "
        "that follows. A peer's REST reads Redis for each answer, candlesync's its own copy.",
        (
            Figure("commit_follower_p50", f"{_TO_FOLLOWER}, p50", "ms", "lower", _BOTH),
            Figure("commit_follower_p99", f"{_TO_FOLLOWER}, p99", "ms", "lower", _BOTH),
            Figure("commit_owner_p50", f"{_TO_OWNER}, p50", "ms", "lower", _BOTH),
            Figure("commit_owner_p99", f"{_TO_OWNER}, p99", "ms", "lower", _BOTH),
            Figure("frame_follower_p50", f"{_FROM_FRAME} on the other node, p50", "ms", "lower", _BOTH),
            Figure("frame_follower_p99", f"{_FROM_FRAME} on the other node, p99", "ms", "lower", _BOTH),
            Figure("nodes_cpu", "CPU of both nodes and Redis for each update", "µs", "lower", _BOTH),
            Figure("follower_rest", "REST, 1000 candles: requests a second", "1/s", "higher", (*_SHARED, "load")),
            Figure(
                "follower_rest_core",
                "REST, 1000 candles: requests for each second of the node's CPU",
                "1/s",
                "higher",
                (*_SHARED, "load"),
            ),
            Figure("follower_rest_size", "REST, 1000 candles: size of an answer", "kB", ""),
        ),
    ),
    Part(
        "The store in Redis",
        "500 series of 1000 candles, in one process; each commits again as soon as its last commit stands. The peers "
        "write and publish the same bytes, and check nothing.",
        (
            Figure("commits", "Commits a second", "1/s", "higher", _SHARED),
            Figure("commit_cpu", "CPU of the process for each commit", "µs", "lower", _SHARED),
            Figure("commit_redis", "CPU of Redis for each commit", "µs", "lower", _SHARED),
            Figure("alone_p50", "A commit when nothing else is committed, p50", "ms", "lower", _SHARED),
            Figure("alone_p99", "A commit when nothing else is committed, p99", "ms", "lower", _SHARED),
            Figure("read", "Reading a series, p50", "ms", ""),
            Figure("series_size", "Memory of Redis for a series", "kB", ""),
        ),
    ),
)


@dataclass(frozen=True)
class Line:
    """One figure of one server, over all runs."""

    server: str
    runs: list[float]
    ratios: list[float]
    """Candlesync's figure divided by this one, run by run."""
    cores: dict[str, float]
    """Median of the cores that each used meanwhile."""


def lines_of(figure: Figure, samples: Iterable[Sample]) -> list[Line]:
    """One line for each server that the figure was measured of, candlesync first."""
    chosen = sorted((sample for sample in samples if sample.figure == figure.name), key=lambda sample: sample.run)
    ours = {sample.run: sample.value for sample in chosen if sample.server == CANDLESYNC.label}
    found = []
    for server in dict.fromkeys(sample.server for sample in sorted(chosen, key=_place)):
        own = [sample for sample in chosen if sample.server == server]
        found.append(
            Line(
                server,
                runs=[sample.value for sample in own],
                ratios=[ours[sample.run] / sample.value for sample in own if sample.run in ours and sample.value],
                cores={name: median(_cores(sample.spent, name) for sample in own) for name in figure.cores},
            )
        )
    return found


def as_json(settings: Settings, machine: dict[str, str], findings: Findings) -> str:
    """Everything, each single run included."""
    figures = [
        {"part": part.title, **asdict(figure), "servers": [asdict(line) for line in lines_of(figure, findings.samples)]}
        for part in PARTS
        for figure in part.figures
    ]
    whole = {"machine": machine, "settings": asdict(settings), "figures": figures, **asdict(findings)}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def as_markdown(settings: Settings, machine: dict[str, str], findings: Findings) -> str:
    """Tables of medians, each with its spread."""
    runs = len({sample.run for sample in findings.samples})
    lines = [
        "# candlesync beside its peers",
        "",
        f"Runs: {runs}, each with servers started anew. Shown are medians; in brackets the lowest and the highest run.",
        "",
        *(f"- {name}: {text}" for name, text in machine.items()),
        "",
    ]
    for part in PARTS:
        tables = [
            (figure.title, _table(figure, found))
            for figure in part.figures
            if (found := lines_of(figure, findings.samples))
        ]
        if tables:
            lines += [f"## {part.title}", "", part.about.format_map(asdict(settings)), ""]
        for title, table in tables:
            lines += [f"### {title}", "", *table, ""]
    if findings.samples:
        others = [sample.spent.others for sample in findings.samples]
        lines += [f"Other programs used {median(others):.2f} cores meanwhile (median; at most {max(others):.2f})."]
    if findings.messages:
        lines.append(
            f"{findings.messages} WebSocket messages were checked: each client's in order, up to the last update sent."
        )
    if findings.answers:
        lines.append(f"{findings.answers} REST answers were counted.")
    if findings.commits:
        lines.append(
            f"{findings.commits} commits to the store were counted; at the end 50 series were read and checked."
        )
    lines.append("")
    for title, remarks in (("Faults", findings.faults), ("Remarks", findings.remarks)):
        if remarks:
            lines += [f"## {title}", "", *_gathered(remarks), ""]
    return "\n".join(lines)


def _cores(spent: Spent, name: str) -> float:
    cores: dict[str, float] = {"server": spent.server, "nodes": spent.server, "load": spent.load, "redis": spent.redis}
    return cores[name]


def _place(sample: Sample) -> tuple[bool, str]:
    return sample.server != CANDLESYNC.label, sample.server


def _table(figure: Figure, found: Sequence[Line]) -> list[str]:
    head = ["server", figure.unit]
    if figure.is_better:
        head = ["server", f"{figure.unit}, {figure.is_better} is better"]
        head += ["candlesync ÷ this", *(_CORES[name] for name in figure.cores)]
    rows = [head]
    for line in found:
        ratio = _spread(line.ratios) if line.ratios and line.server != CANDLESYNC.label else ""
        row = [line.server, _spread(line.runs), ratio, *(f"{cores:.2f}" for cores in line.cores.values())]
        rows.append(row[: len(head)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]


def _gathered(remarks: Iterable[Remark]) -> list[str]:
    """One line for each text, with the servers and runs of which it is said."""
    runs: dict[str, dict[str, list[int]]] = {}
    for remark in remarks:
        runs.setdefault(remark.text, {}).setdefault(remark.server, []).append(remark.run)
    lines = []
    for text, servers in runs.items():
        whose = "; ".join(
            f"{server} in run {', '.join(map(str, sorted(set(numbers))))}"
            for server, numbers in sorted(servers.items())
        )
        lines.append(f"- {text}: {whose}")
    return lines


def _spread(values: Sequence[float]) -> str:
    if _short(min(values)) == _short(max(values)):
        return _short(values[0])
    return f"{_short(median(values))} ({_short(min(values))} to {_short(max(values))})"


def _short(value: float) -> str:
    """Three digits: no run is better than that."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
