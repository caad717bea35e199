"""The broadcasts that are measured: who listens, to what, and how often something is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from . import market
from .crowd import Crowd
from .findings import Settings
from .servers import Server

_ANSWERS = 2
"""Messages with which a subscription is answered: that it is one, and the state of its series."""


@dataclass(frozen=True)
class Audience:
    """One of them."""

    clients: int
    rate: float
    """Updates a second, each of every series."""
    figures: str = ""
    """Begins the names of its figures."""
    offers_deflate: bool = False
    """Whether the clients offer permessage-deflate, as browsers do."""
    series: int = 1
    """What each client listens to, on one socket."""

    @property
    def symbols(self) -> list[str]:
        """Of these."""
        return market.symbols(self.series)

    def gather(self, server: Server) -> Crowd:
        """Connect them. Raises `OSError` or `RuntimeError`."""
        contender = server.contender
        is_subscribed = self.series > 1 and bool(contender.many_path)
        crowd = Crowd(
            [server.port] * self.clients,
            contender.many_path if is_subscribed else contender.socket_path,
            symbols=self.symbols,
            offers_deflate=self.offers_deflate,
        )
        if is_subscribed:
            try:
                crowd.subscribe(_subscriptions(self.symbols), _ANSWERS * self.series)
            except BaseException:
                crowd.close()
                raise
        return crowd


def audiences(settings: Settings) -> dict[str, Audience]:
    """Each by the name of its measurement."""
    return {
        "broadcast": Audience(settings.clients, settings.rate),
        "deflate": Audience(settings.clients, settings.rate, "deflate_", offers_deflate=True),
        "many": Audience(settings.many_clients, settings.many_rate, "many_"),
        "series": Audience(settings.clients, settings.series_rate, "series_", series=settings.series),
    }


def _subscriptions(symbols: Sequence[str]) -> list[bytes]:
    requests = ({"op": "subscribe", "symbol": symbol, "interval": "1m", "replay": 0} for symbol in symbols)
    return [json.dumps(request).encode("ascii") for request in requests]
