"""The clients' programs: each as its users write it, in the environment that ``scripts/test-clients`` has made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.whole.programs import REPOSITORY

ENVIRONMENT = REPOSITORY / ".venv-clients"
PROGRAMS = Path(__file__).parent / "programs"

STREAMS = tuple(sorted(path.name for path in PROGRAMS.glob("stream_*")))
"""Programs that print each candle that closes, for ever: ``["BTCUSDT",[open time, open, …]]``, fields as in a row of
Binance's REST, and as many of them as the client gives."""
REST = tuple(sorted(path.name for path in PROGRAMS.glob("rest_*")))
"""Programs that print all candles of a range, in the same form."""


def why_not(name: str) -> str | None:
    """Why a program cannot run here, if it cannot."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        return "scripts/test-clients makes what it needs"
    if name.endswith(".cjs") and not (shutil.which("node") and (ENVIRONMENT / "node_modules").is_dir()):
        return "it needs node and npm"
    return None


class Client:
    """A running program."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[str, list[list[Any]]] = {}
        """What it has printed, by symbol."""
        self.complaints = bytearray()
        """What it has written to its standard error."""
        self.status: int | None = None
        """Its exit status, when it has ended by itself."""

    def newest(self) -> int:
        """The open time (ms) up to which it has shown all of its symbols; 0 while it has nothing of any."""
        return min((rows[-1][0] for rows in self.rows.values()), default=0)

    async def run(self, arguments: list[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run it until it ends, or until cancelled."""
        runner = "node" if self.name.endswith(".cjs") else str(ENVIRONMENT / "bin" / "python")
        process = await trio.lowlevel.open_process(
            [runner, str(PROGRAMS / self.name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"NODE_PATH": str(ENVIRONMENT / "node_modules")},
        )
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, process)
                nursery.start_soon(self._take_complaints, process)
                self.status = await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                symbol, row = json.loads(line)
                self.rows.setdefault(symbol, []).append(row)

    async def _take_complaints(self, process: trio.Process) -> None:
        assert process.stderr is not None
        async for chunk in process.stderr:
            self.complaints.extend(chunk)


@asynccontextmanager
async def run_clients(names: tuple[str, ...], *arguments: object) -> AsyncIterator[dict[str, Client]]:
    """Run programs until the block ends."""
    clients = {name: Client(name) for name in names if why_not(name) is None}
    async with trio.open_nursery() as nursery:
        for client in clients.values():
            await nursery.start(client.run, [str(argument) for argument in arguments])
        yield clients
        nursery.cancel_scope.cancel()
