"""What was found: Markdown for people, also on the terminal, and JSON for programs. Nothing that was not measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from .findings import Findings, Remark, Sample, Settings
from .servers import CANDLESYNC


@dataclass(frozen=True)
class Figure:
    """Something that is measured of every server."""

    name: str
    title: str
    unit: str
    is_better: str
    """Which way is better, lower or higher; empty where it is only to be known."""


FIGURES = (
    Figure("cpu", "Server CPU for each message delivered, all included", "µs", "lower"),
    Figure("p50", "From the upstream's sending a frame to a client's having read it, p50", "ms", "lower"),
    Figure("p99", "From the upstream's sending a frame to a client's having read it, p99", "ms", "lower"),
    Figure("rest", "REST, 1000 candles: requests a second", "1/s", "higher"),
    Figure("rest_core", "REST, 1000 candles: requests for each second of server CPU", "1/s", "higher"),
    Figure("delivered", "Messages delivered, of all updates to all clients", "%", ""),
    Figure("message_size", "Size of a WebSocket message", "bytes", ""),
    Figure("rest_size", "REST, 1000 candles: size of an answer", "kB", ""),
)


@dataclass(frozen=True)
class Line:
    """One figure of one server, over all runs."""

    server: str
    runs: list[float]
    ratios: list[float]
    """Candlesync's figure divided by this one, run by run."""
    server_cores: float
    """Median of the cores that the server used meanwhile."""
    load_cores: float
    """The same of the bench's clients."""


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
                server_cores=median(sample.spent.server for sample in own),
                load_cores=median(sample.spent.load for sample in own),
            )
        )
    return found


def as_json(settings: Settings, machine: dict[str, str], findings: Findings) -> str:
    """Everything, each single run included."""
    figures = [
        {**asdict(figure), "servers": [asdict(line) for line in lines_of(figure, findings.samples)]}
        for figure in FIGURES
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
        f"{settings.clients} WebSocket clients, {settings.rate:g} updates a second for {settings.seconds:g} s.",
        "",
        *(f"- {name}: {text}" for name, text in machine.items()),
        "",
    ]
    for figure in FIGURES:
        found = lines_of(figure, findings.samples)
        if found:
            lines += [f"## {figure.title}", "", *_table(figure, found), ""]
    if findings.samples:
        others = [sample.spent.others for sample in findings.samples]
        lines += [
            f"Other programs used {median(others):.2f} cores meanwhile (median; at most {max(others):.2f}).",
            f"{findings.messages} WebSocket messages were checked: each client's in order, up to the last update sent.",
            f"{findings.answers} REST answers were counted.",
            "",
        ]
    for title, remarks in (("Faults", findings.faults), ("Remarks", findings.remarks)):
        if remarks:
            lines += [f"## {title}", "", *_gathered(remarks), ""]
    return "\n".join(lines)


def _place(sample: Sample) -> tuple[bool, str]:
    return sample.server != CANDLESYNC.label, sample.server


def _table(figure: Figure, found: Sequence[Line]) -> list[str]:
    head = ["server", figure.unit]
    if figure.is_better:
        head = ["server", f"{figure.unit}, {figure.is_better} is better"]
        head += ["candlesync ÷ this", "server's cores", "load's cores"]
    rows = [head]
    for line in found:
        ratio = _spread(line.ratios) if line.ratios and line.server != CANDLESYNC.label else ""
        row = [line.server, _spread(line.runs), ratio, f"{line.server_cores:.2f}", f"{line.load_cores:.2f}"]
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
