"""Which of a venue's hosts is asked: the first, until it refuses the location of this machine (HTTP 451).

Binance serves spot market data from hosts that need no account, where the others answer 451. A location does not move,
so there is no way back to a host that has refused: it is tried again when the process is started again.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Hosts:
    """The hosts of one kind, REST or streams, shared by all who ask them."""

    def __init__(self, urls: Sequence[str]) -> None:
        """``urls``: the best first; at least one."""
        self._urls = tuple(urls)
        self._present = 0

    @property
    def url(self) -> str:
        """What is asked now."""
        return self._urls[self._present]

    @property
    def is_first(self) -> bool:
        """Whether no host has refused yet, or there is only one."""
        return self._present == 0

    def refused(self, url: str) -> bool:
        """``url`` has answered 451; whether there is another one to be asked in its place now."""
        if url != self.url:
            return True  # somebody else was told before, who was on the way at the same time
        if self._present + 1 == len(self._urls):
            return False
        self._present += 1
        _log.warning("location refused: the next host is asked from now on", refused=url, url=self.url)
        return True
