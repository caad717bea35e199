"""Node's `ws`, for the peer that is written for it: installed once, with npm, beside the environment of Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "node_ws_peer.cjs"
FOLDER = Path(sys.prefix) / "node"
_PACKAGE = "ws@^8.18"
_INSTALL_TIMEOUT = 120.0


def missing() -> str | None:
    """Install what the peer needs; what is missing when it cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node or npm is not installed"
    if version() is None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--no-save", _PACKAGE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            return f"npm did not install {_PACKAGE} within {_INSTALL_TIMEOUT:g} s"
        if done.returncode != 0:
            return f"npm could not install {_PACKAGE}: {done.stderr.strip()[-200:]}"
    return None


def version() -> str | None:
    """Of node and of `ws`; `None` before both are here."""
    package = FOLDER / "node_modules" / "ws" / "package.json"
    if shutil.which("node") is None or not package.exists():
        return None
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return f"node {node.removeprefix('v')}, ws {json.loads(package.read_text(encoding='utf-8'))['version']}"
