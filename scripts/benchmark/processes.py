"""Processes of the bench's own: none of them outlives it, and each one's CPU time is known to the microsecond."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from .upstream import Order, Sent

_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2
_GRACE = 15.0
"""Seconds from SIGTERM to SIGKILL: more than candlesync's own grace time."""
_SCRIPTS = Path(__file__).parent.parent
_libc = ctypes.CDLL(None)


def cpu_time(pid: int) -> float:
    """Seconds of CPU, user and system, that all threads of a process have had.

    What ``/proc/PID/stat`` shows in ticks of 10 ms, which are too coarse for a few seconds, from the same account: the
    process's CPU clock, as ``clock_getcpuclockid(3)`` names it.
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def machine_cpu_time() -> float:
    """Seconds of CPU that the whole machine has been busy for, what was stolen from it included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """A process in a process group of its own; a context that ends it whatever happens."""

    def __init__(self, arguments: Sequence[str], log: Path, settings: Mapping[str, str] | None = None) -> None:
        """Start it. Its standard error goes to ``log``; ``settings`` are added to the environment."""
        # The caller's own settings of candlesync, or a proxy, would make another run of it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CANDLESYNC_")}
        environment |= {"PYTHONPATH": str(_SCRIPTS), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        environment |= settings or {}
        self.log = log
        with log.open("wb") as errors:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
                # Safe here, where the bench has no other threads; nothing else ends a child when the bench is killed.
                preexec_fn=_die_with_parent,  # noqa: PLW1509
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def output(self) -> IO[bytes]:
        """Its standard output."""
        if self.process.stdout is None:
            raise RuntimeError("the pipe was asked for")
        return self.process.stdout

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self) -> int:
        """End the process and all that it started; its exit status."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return self.process.returncode

    def tell(self, order: object) -> None:
        """Write a line of JSON to its standard input: the fields of ``order``."""
        if self.process.stdin is None:
            raise RuntimeError("the pipe was asked for")
        self.process.stdin.write(json.dumps(vars(order)).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next line of JSON from its standard output. Raises `RuntimeError` when it has ended."""
        line = self.output.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"a part of the bench has ended:\n{self.excerpt()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def excerpt(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]


class UpstreamProcess(Child):
    """The bench's Binance (``upstream``), seen from outside."""

    def __init__(self, log: Path, program: Sequence[str] = ("benchmark.upstream",)) -> None:
        """``program`` is the module, and its arguments: ``benchmark.exchange`` has many symbols."""
        super().__init__([sys.executable, "-m", *program], log)
        self.port = int(self.hear()["port"])

    def order(self, order: Order) -> None:
        """Have updates sent. `report` must be called before the next order."""
        self.tell(order)

    def report(self) -> Sent:
        """What it did about the order; waits until all is sent. ``output`` is readable when this will not wait."""
        return Sent(**self.hear())


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
