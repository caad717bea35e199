"""That the tests' servers leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

_PROGRAM = """
from tests.store.redis_server import run_server

with run_server() as server:
    print(server.process_id, server.socket.parent, flush=True)
    input()
"""


def test_a_server_ends_with_the_process_that_started_it_however_that_ends() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        process_id, folder = parent.stdout.readline().split()
        state = Path("/proc", process_id, "stat")
        assert state.exists()
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, "it goes on without its parent"
        time.sleep(0.02)
    for left in Path(folder).iterdir():
        left.unlink()
    Path(folder).rmdir()
