"""Ports for servers that are told theirs, or that come back to it."""

from __future__ import annotations

import random
import socket

_PORTS = range(15_000, 32_000)
"""None that the kernel gives away by itself (32768 to 60999): whoever connects in the meantime could be given it."""

_kept: list[socket.socket] = []
"""A socket at each port that was given away: bound, and not listening. A server may take the port, because both say
``SO_REUSEADDR``; `free_port` does not find it free any more, neither here nor in another test process."""


def free_port() -> int:
    """A port of this machine at which nobody listens, kept for whoever asked until this process ends."""
    while True:
        number = random.choice(_PORTS)
        kept = socket.socket()
        try:
            kept.bind(("127.0.0.1", number))
        except OSError:
            kept.close()
            continue
        # Not before: with it, this bind would have taken a port that is kept already.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _kept.append(kept)
        return number
