"""Ports for servers that are told theirs, or that come back to it."""

from __future__ import annotations

import random
import socket

_PORTS = range(15_000, 32_000)
"""None that the kernel gives away by itself (32768 to 60999): whoever connects in the meantime could be given it."""


def free_port() -> int:
    """A port of this machine at which nobody listens now."""
    while True:
        number = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            return number
