"""How Binance's REST API is reached: the settings of all that asks there, and the HTTP client."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

import candlesync
from candlesync.binance.venue import SPOT, Venue


@dataclass(frozen=True, slots=True)
class RestSettings:
    """How Binance's REST API is asked. Times are seconds, sizes are bytes."""

    venue: Venue = SPOT
    base_url: str = ""
    """The part before the venue's ``/api/v3/klines`` or the like. Empty: the venue's own hosts."""
    connect_timeout: float = 5.0
    """For a connection with TLS, and for a free one of ours: a few round trips around the world."""
    read_timeout: float = 10.0
    """Without a byte; Binance gives its own backends 10 s before it answers with an error (-1007)."""
    answer_timeout: float = 30.0
    """For one attempt as a whole: an answer that comes in drops must not use up all the patience."""
    attempts: int = 4
    """How often a question is asked before it is given up; waiting out a ban does not count."""
    backoff_first: float = 0.5
    """The longest pause after the first failure; it doubles with each further one."""
    backoff_cap: float = 8.0
    """The longest pause of all. Each pause is a random part, from half to the whole, of the longest it may be."""
    concurrency: int = 8
    """Requests at once: more gain nothing, and each may be counted before we know that the weight is used up."""
    page_limit: int = 1_000
    """Rows that one klines answer is asked for at most: what all venues allow, and the cheapest by the row on each."""
    klines_bytes: int = 4 * 1024 * 1024
    """Of a klines answer at most; 1,000 rows have some 170 KB."""
    exchange_info_bytes: int = 64 * 1024 * 1024
    """Of an exchangeInfo answer at most; the whole list had some 15 MB in 2025."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to ask, the best first. Who names a host is never sent to another one."""
        return (self.base_url,) if self.base_url else self.venue.rest_urls


def open_client(settings: RestSettings) -> httpx.AsyncClient:
    """A client for ``binance.rest.Rest``; the caller closes it. Raises `ValueError` for a base URL that is none."""
    url = httpx.URL(settings.urls[0])
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        before = settings.venue.prefix
        raise ValueError(f"{settings.urls[0]!r}: the REST URL is http or https, a host, and the path before {before}")
    return httpx.AsyncClient(
        base_url=url,
        headers={"User-Agent": f"candlesync/{candlesync.__version__}", "Accept": "application/json"},
        timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout, pool=settings.connect_timeout),
        limits=httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency),
        # A redirect leads to a host that nobody configured.
        follow_redirects=False,
    )
