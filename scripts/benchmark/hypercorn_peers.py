"""What candlesync stands on, without it: an application of a few lines under Hypercorn's own command, Trio worker."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from .servers import Contender


def _hypercorn(name: str, label: str, socket_path: str, rest_paths: Mapping[str, str]) -> Contender:
    return Contender(
        name=name,
        label=label,
        arguments=(
            *(str(Path(sys.executable).parent / "hypercorn"), "--worker-class", "trio"),
            *("--workers", "0"),  # in the process that is started, not in a child of it
            *("--bind", "127.0.0.1:{port}", f"benchmark.{name}:app"),
        ),
        socket_path=socket_path,
        rest_paths=rest_paths,
    )


BARE = _hypercorn("bare_peer", "bare ASGI on Hypercorn, ready body", "", {"": "/candles"})
QUART = _hypercorn("quart_peer", "Quart on Hypercorn, idle", "/ws/echo", {})
