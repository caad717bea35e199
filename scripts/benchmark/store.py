"""What the store makes of commits, beside redis-py without any checks."""

from __future__ import annotations

import sys
from pathlib import Path

from .findings import Findings, Settings, Spent
from .meter import Meter
from .notes import Notes
from .processes import Child
from .servers import CANDLESYNC
from .store_load import PLAIN, PLAIN_ALONE, READ, SERIES, STORE, STORE_ALONE, Done, Task
from .valkey import Valkey

_LABELS = {
    STORE: CANDLESYNC.label,
    STORE_ALONE: f"{CANDLESYNC.label}, one commit a call",
    PLAIN: "redis-py, unchecked, pipelines",
    PLAIN_ALONE: "redis-py, unchecked, one commit a call",
}
_WARM_UP = 0.2
"""Seconds of each way before it counts."""
_READ = 50
"""Series that are read and checked at the end."""


def measure_store(settings: Settings, run: int, logs: Path, findings: Findings) -> None:
    """Start a Valkey and a process that commits to it, measure, stop them; what was found goes to ``findings``."""
    seconds = settings.seconds / 5
    notes = {way: Notes(label, run, findings) for way, label in _LABELS.items()}
    with Valkey(logs / f"valkey-store-{run}.log") as valkey:
        try:
            with Committer(valkey, logs / f"store-{run}.log") as committer:
                # In another order each time, as the servers.
                ways = list(notes)[run % len(notes) :] + list(notes)[: run % len(notes)]
                for way in ways:
                    committer.do(Task(way, SERIES, _WARM_UP))
                    done, spent = committer.do(Task(way, SERIES, seconds))
                    findings.commits += done.count
                    _note(notes[way], done, spent)
                for way in (STORE, PLAIN_ALONE):
                    committer.do(Task(way, 1, _WARM_UP))
                    done, spent = committer.do(Task(way, 1, seconds / 2))
                    notes[way].add("alone_p50", done.p50 * 1e3, spent)
                    notes[way].add("alone_p99", done.p99 * 1e3, spent)
                done, spent = committer.do(Task(READ, _READ, 0.0))
                notes[STORE].add("read", done.p50 * 1e3, spent)
                notes[STORE].add("series_size", committer.size / 1000, spent)
                for fault in done.faults:
                    notes[STORE].fault(fault)
        except (OSError, RuntimeError) as error:
            notes[STORE].fault(f"{error!r}")


class Committer(Child):
    """The process that commits (``store_load``), seen from outside."""

    def __init__(self, valkey: Valkey, log: Path) -> None:
        """Start it, and wait until all series are there. Raises `RuntimeError` when it ends before."""
        super().__init__([sys.executable, "-m", "benchmark.store_load", str(valkey.port)], log)
        self._valkey = valkey
        self.size: int = self.hear()["size"]
        """Bytes of a series in Redis."""

    def do(self, task: Task) -> tuple[Done, Spent]:
        """Have it done; what came of it, and what it took."""
        meter = Meter([self.pid], redis=self._valkey.pid)
        self.tell(task)
        answer = self.hear()
        return Done(**answer), meter.read()


def _note(notes: Notes, done: Done, spent: Spent) -> None:
    notes.add("commits", done.count / spent.seconds, spent)
    notes.add("commit_cpu", spent.server * spent.seconds / done.count * 1e6, spent)
    notes.add("commit_redis", spent.redis * spent.seconds / done.count * 1e6, spent)
