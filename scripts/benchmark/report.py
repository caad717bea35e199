"""What was found: Markdown for people, also on the terminal, and JSON for programs. Nothing that was not measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from .findings import Findings, Remark, Sample, Settings, Spent
from .fit import Point, far_end, fit, medians
from .machine import Commit
from .servers import CANDLESYNC
from .targets import TARGETS, judge_targets
from .text import short, spread, table


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
_CORES["upstream"] = "exchange's cores"
_COST = "Cost against size"
_SHARED = ("server", "redis")
_BOTH = ("nodes", "redis", "load")
_FLOOD = ("server", "upstream")
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
    Part(
        "REST on one core",
        "Each server pinned to a core of its own, 4 connections; requests for each second of the server's CPU. FastAPI "
        "reads its thousand items from Redis, whose CPU is not counted; the bare ASGI application has candlesync's own "
        "body ready.",
        (
            Figure("one_core", "1000 candles", "1/s", "higher", (*_SHARED, "load")),
            Figure("one_core_quart", "1000 candles, by a request that goes through Quart", "1/s", "higher"),
            Figure("one_core_gzip", "1000 candles as gzip", "1/s", "higher"),
            Figure("one_core_304", "1000 candles that the client has already: 304", "1/s", "higher"),
            Figure("one_core_size", "Size of an answer", "kB", ""),
            Figure("one_core_gzip_size", "Size of an answer as gzip", "kB", ""),
        ),
    ),
    Part(
        "From Binance's frame to a commit",
        "No clients; each server pinned to a core of its own. Frames as fast as they are taken, on one connection: all "
        "of one series, or of 50 in turn. Counted is what was committed and published, of trio-websocket alone what it "
        "has read.",
        (
            Figure("frames_1", "1 series: frames a second", "1/s", "higher", _FLOOD),
            Figure("frames_50", "50 series: frames a second", "1/s", "higher", _FLOOD),
            Figure(
                "frames_read_1",
                "1 series: frames a second, those that were replaced before a commit included",
                "1/s",
                "",
            ),
            Figure("frames_cpu_1", "1 series: CPU for each frame", "µs", "lower", _FLOOD),
            Figure("frames_cpu_50", "50 series: CPU for each frame", "µs", "lower", _FLOOD),
            Figure("frames_done_1", "1 series: committed, of all frames", "%", ""),
            Figure("frames_done_50", "50 series: committed, of all frames", "%", ""),
        ),
    ),
    Part(
        "Memory",
        "Growth of the server's resident set, divided by the clients or the series that came. Candlesync's clients have "
        "had a replay and updates, Quart's nothing; the series have been asked for, updated, and asked for again.",
        (
            Figure("memory_client", "A client", "KiB", "lower", ("server",)),
            Figure("memory_series", "A series of 1000 candles", "KiB", "lower", ("server",)),
        ),
    ),
    Part(
        _COST,
        "The server pinned to a core of its own. Each client follows one series. ``CPU = a × commits + b × messages``, "
        "fitted over all sizes by the least sum of squares of relative errors.",
        (
            Figure("cost_commit", "a: CPU for each commit", "µs", "lower"),
            Figure("cost_message", "b: CPU for each message", "µs", "lower"),
            Figure("cost_worst", "The largest difference of a size from the fit", "%", ""),
            Figure("cost_excess", "The largest sizes above what the smaller ones alone foretell", "%", ""),
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
                ratios=[ours[sample.run] / sample.value for sample in own if sample.run in ours],
                cores={name: median(_cores(sample.spent, name) for sample in own) for name in figure.cores},
            )
        )
    return found


def as_json(settings: Settings, machine: dict[str, str], commit: Commit, findings: Findings) -> str:
    """Everything, each single run included."""
    targets = [
        {**asdict(verdict.target), "runs": verdict.values, "measured": verdict.measured, "verdict": verdict.word}
        for verdict in judge_targets(findings.samples, TARGETS)
    ]
    figures = [
        {"part": part.title, **asdict(figure), "servers": [asdict(line) for line in lines_of(figure, findings.samples)]}
        for part in PARTS
        for figure in part.figures
    ]
    whole = {
        "commit": asdict(commit),
        "machine": machine,
        "settings": asdict(settings),
        "targets": targets,
        "figures": figures,
        **asdict(findings),
    }
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
        *_targets(findings.samples),
    ]
    for part in PARTS:
        tables = [
            (figure.title, _table(figure, found))
            for figure in part.figures
            if (found := lines_of(figure, findings.samples))
        ]
        if tables:
            lines += [f"## {part.title}", "", part.about.format_map(asdict(settings)), ""]
        for title, rows in tables:
            lines += [f"### {title}", "", *rows, ""]
        if tables and part.title == _COST:
            lines += _sizes(findings.points)
    lines += [*_counts(findings), ""]
    for title, remarks in (("Faults", findings.faults), ("Remarks", findings.remarks)):
        if remarks:
            lines += [f"## {title}", "", *_gathered(remarks), ""]
    return "\n".join(lines)


def _counts(findings: Findings) -> list[str]:
    """How much it was that was measured, and what was checked of it."""
    lines = []
    if findings.samples:
        others = [sample.spent.others for sample in findings.samples]
        lines.append(f"Other programs used {median(others):.2f} cores meanwhile (median; at most {max(others):.2f}).")
    if findings.messages:
        lines.append(
            f"{findings.messages} WebSocket messages were checked: each client's in order, up to the last update sent."
        )
    if findings.answers:
        lines.append(f"{findings.answers} REST answers were counted.")
    if findings.frames:
        lines.append(f"{findings.frames} frames of Binance were sent in floods.")
    if findings.commits:
        lines.append(
            f"{findings.commits} commits to the store were counted; at the end 50 series were read and checked."
        )
    return lines


def _targets(samples: Sequence[Sample]) -> list[str]:
    """Of each target whether it is reached; nothing when none was measured."""
    verdicts = judge_targets(samples, TARGETS)
    if not any(verdict.values for verdict in verdicts):
        return []
    rows = [["what", "target", "measured", ""]]
    for verdict in verdicts:
        measured = f"{spread(verdict.values)} {verdict.target.unit or '×'}" if verdict.values else ""
        rows.append([verdict.target.what, verdict.target.bound, measured, verdict.word])
    return ["## Targets", "", "Candlesync's figure, divided by the peer's of the same run (×).", "", *table(rows), ""]


def _sizes(points: Sequence[Point]) -> list[str]:
    """Each size beside what the fit says of it, and whether the largest are above it."""
    model = fit(points)
    rows = [
        ["series", "clients", "updates/s of a series", "commits/s", "messages/s", "CPU ms/s", "fit ms/s", "above it"]
    ]
    for point in medians(points):
        each = [point.commits, point.messages, point.cpu * 1e3, model.cpu(point) * 1e3]
        numbers = [point.series, point.clients, point.rate, *(value / point.seconds for value in each)]
        rows.append([*(short(number) for number in numbers), f"{model.residual(point) * 100:+.1f} %"])
    largest = [model.residual(point) * 100 for point in far_end(medians(points))]
    above = sum(residual > 0 for residual in largest)
    said = (
        f"Over all runs a = {model.a * 1e6:.1f} µs and b = {model.b * 1e6:.2f} µs. Of the {len(largest)} sizes with "
        f"the most series or the most clients {above} are above the fit: {min(largest):+.1f} % to "
        f"{max(largest):+.1f} %. The table has the median run of each size."
    )
    return ["### Each size", "", said, "", *table(rows), "", "![cost against size](cost.png)", ""]


def _cores(spent: Spent, name: str) -> float:
    cores: float = getattr(spent, "server" if name == "nodes" else name)
    return cores


def _place(sample: Sample) -> tuple[bool, str]:
    return sample.server != CANDLESYNC.label, sample.server


def _table(figure: Figure, found: Sequence[Line]) -> list[str]:
    head = ["server", figure.unit]
    if figure.is_better:
        head = ["server", f"{figure.unit}, {figure.is_better} is better"]
        head += ["candlesync ÷ this", *(_CORES[name] for name in figure.cores)]
    rows = [head]
    for line in found:
        ratio = spread(line.ratios) if line.ratios and line.server != CANDLESYNC.label else ""
        row = [line.server, spread(line.runs), ratio, *(f"{cores:.2f}" for cores in line.cores.values())]
        rows.append(row[: len(head)])
    return table(rows)


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
