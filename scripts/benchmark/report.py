"""What was found: Markdown for people, also on the terminal, and JSON for programs. Nothing that was not measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from .figures import CORES, COST, PARTS, Figure
from .findings import Findings, Remark, Sample, Settings, Spent
from .fit import Point, far_end, fit, medians
from .machine import Commit
from .servers import CANDLESYNC
from .targets import TARGET_CLIENTS, TARGET_RUNS, TARGETS, judge_targets
from .text import short, spread, table


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
        *_targets(settings, findings.samples),
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
        if tables and part.title == COST:
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


def _targets(settings: Settings, samples: Sequence[Sample]) -> list[str]:
    """Of each target whether it is reached; nothing when none was measured."""
    about = "Candlesync's figure, divided by the peer's of the same run (×)."
    if settings.quick or settings.clients != TARGET_CLIENTS or settings.runs < TARGET_RUNS:
        about += (
            f" **Not to be judged by**: the targets are for {TARGET_CLIENTS} clients (and 5,000, and 500 series), and "
            f"medians of {TARGET_RUNS} runs; this was{' --quick,' if settings.quick else ''} {settings.clients} "
            f"clients, {settings.runs} runs."
        )
    verdicts = judge_targets(samples, TARGETS)
    if not any(verdict.values for verdict in verdicts):
        return []
    rows = [["what", "beside", "target", "measured", ""]]
    for verdict in verdicts:
        measured = f"{spread(verdict.values)} {verdict.target.unit or '×'}" if verdict.values else ""
        rows.append([verdict.target.what, verdict.target.peer, verdict.target.bound, measured, verdict.word])
    return ["## Targets", "", about, "", *table(rows), ""]


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
        head += ["candlesync ÷ this", *(CORES[name] for name in figure.cores)]
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
