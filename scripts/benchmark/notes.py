"""What one run of one server adds to the findings."""

from __future__ import annotations

from .findings import Findings, Remark, Sample, Spent

FULL = 0.9
"""Of a core: what uses more is at its limit, as the bench and the servers are one thread each."""


class Notes:
    """Where it is written down."""

    def __init__(self, label: str, run: int, findings: Findings) -> None:
        self._label = label
        self.run = run
        self.findings = findings

    def fault(self, text: str) -> None:
        """Note what must not be."""
        self.findings.faults.append(Remark(self._label, self.run, text))

    def remark(self, text: str) -> None:
        """Note what limits a figure."""
        self.findings.remarks.append(Remark(self._label, self.run, text))

    def add(self, figure: str, value: float, spent: Spent, *, way: str = "") -> None:
        """Note a figure; a server that does one thing in several ways has one for each."""
        server = f"{self._label} ({way})" if way else self._label
        self.findings.samples.append(Sample(figure, server, self.run, value, spent))

    def judge_load(self, spent: Spent) -> None:
        """Remark on it when the bench itself was too slow to measure."""
        if spent.load > FULL:
            self.remark("the load generator was the bottleneck: the figure is the bench's, not the server's")
