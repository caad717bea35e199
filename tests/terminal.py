"""A program on a real terminal: a pseudo-terminal of which the test sees all that is written, and where it may type."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

REPOSITORY = Path(__file__).parent.parent
PATIENCE = 60.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The other side of a program's terminal."""

    def __init__(self, master: int, process: trio.Process) -> None:
        self.process = process
        self.said = ""
        """All that was written, control sequences and all."""
        self._master = master

    @property
    def text(self) -> str:
        """What was written, without its control sequences."""
        return _CONTROL.sub("", self.said)

    @property
    def screen(self) -> list[str]:
        """The lines of the last whole drawing of a full screen."""
        drawings = self.said.split("\x1b[H")
        return [line.rstrip() for line in _CONTROL.sub("", drawings[-2] if len(drawings) > 1 else "").split("\n")]

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type, Ctrl-C (``\\x03``) for one."""
        os.write(self._master, text.encode())

    async def until(self, said: str) -> None:
        """Wait until something was written."""
        with trio.move_on_after(PATIENCE):
            while said not in self.text:  # noqa: ASYNC110 - another process writes
                await trio.sleep(0.02)
        assert said in self.text, self.text

    async def status(self) -> int:
        """Its exit status, once it has ended and all was read."""
        with trio.fail_after(PATIENCE):
            status = await self.process.wait()
        await trio.sleep(0.1)
        return status

    async def _read(self) -> None:
        os.set_blocking(self._master, False)
        while True:
            await trio.lowlevel.wait_readable(self._master)
            try:
                self.said += os.read(self._master, 65536).decode(errors="replace").replace("\r\n", "\n")
            except BlockingIOError:
                continue
            except OSError:  # the other side is closed
                return


@asynccontextmanager
async def on_a_terminal(
    arguments: Sequence[str], *, columns: int = 100, lines: int = 24, stdout: int | None = None, **environment: str
) -> AsyncIterator[Terminal]:
    """Run ``python -m`` with these arguments on a terminal; only its errors, if ``stdout`` is another file."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environ = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        process = await trio.lowlevel.open_process(
            ["setsid", "--ctty", sys.executable, "-m", *arguments],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            cwd=REPOSITORY,
            env=environ | {"TERM": "xterm-256color"} | environment,
        )
        os.close(slave)
        terminal = Terminal(master, process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(terminal._read)
                yield terminal
                nursery.cancel_scope.cancel()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    finally:
        os.close(master)
