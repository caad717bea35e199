"""Metrics of what stands behind this server: Binance, the other nodes, and the store that they share."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from urllib.parse import urlsplit

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from candlesync import __version__
from candlesync.archive import Archive
from candlesync.audit import Audit
from candlesync.binance.pool import FeedPool
from candlesync.binance.purpose import Purpose
from candlesync.binance.rest import Rest
from candlesync.core.candle import Series
from candlesync.leases import SharedOwnership
from candlesync.store.redis import RedisStore
from candlesync.web.families import counter_by, histogram

_FAILURES = ("timeout", "connection", "server", "rate_limited", "location", "refused", "unreadable", "impatience")
"""Kinds of `RestStatistics.failures`."""


def upstream_metrics(client: Rest, feeds: FeedPool) -> Iterator[Metric]:
    """Of Binance's REST and streams."""
    rest, weight, pool = client.statistics(), client.budget.statistics(), feeds.statistics()
    yield CounterMetricFamily("candlesync_rest_requests", "REST requests sent", value=rest.requests)
    info = GaugeMetricFamily("candlesync_info", "What runs here, and whom it follows", labels=["version", "venue"])
    info.add_metric([__version__, client.venue.name], 1)
    yield info
    yield CounterMetricFamily("candlesync_rest_retries", "Of them, those that asked again", value=rest.retries)
    kinds = dict.fromkeys((*_FAILURES, *rest.failures))
    yield counter_by("candlesync_rest_failures", "REST requests failed, by kind", "kind", rest.failures, kinds)
    yield histogram("candlesync_rest_latency_seconds", "Seconds that a whole REST answer took", rest.latencies)
    yield GaugeMetricFamily("candlesync_rest_weight_used", "Request weight used in this minute", value=weight.used)
    yield GaugeMetricFamily("candlesync_rest_weight_limit", "Request weight allowed a minute", value=weight.limit)
    text = "Request weight of what is sent and not answered yet"
    yield GaugeMetricFamily("candlesync_rest_weight_in_flight", text, value=weight.in_flight)
    spent = {purpose.value: weight.spent.get(purpose, 0) for purpose in Purpose}
    text = (
        "Request weight of all that was sent, by what it was for: series that are followed, their audit, the listing "
        "of symbols, and for clients: older candles, and what was passed on"
    )
    yield counter_by("candlesync_rest_weight_spent", text, "purpose", spent, spent)
    yield GaugeMetricFamily("candlesync_rest_waiting", "Requests that wait for weight", value=weight.waiting)
    yield GaugeMetricFamily("candlesync_rest_banned_seconds", "Seconds for which REST bans us", value=weight.banned_for)
    yield CounterMetricFamily("candlesync_rest_bans", "Times that REST told us to wait (429, 418)", value=weight.bans)
    for name, attribute, text in (
        ("frames", "frames", "Messages received from Binance"),
        ("unreadable_frames", "unreadable", "Messages that are not what Binance documents"),
        ("connects", "connects", "Connections opened"),
        ("connection_failures", "failures", "Connections that failed or ended"),
        ("renewals", "renewals", "Connections replaced before their end, without a break"),
    ):
        yield CounterMetricFamily(f"candlesync_stream_{name}", text, value=getattr(pool, attribute))
    hosts = GaugeMetricFamily("candlesync_host", "The host of Binance that is asked", labels=["kind", "host"])
    for kind, url in (("rest", rest.url), ("stream", pool.url)):
        hosts.add_metric([kind, urlsplit(url).netloc.rpartition("@")[2]], 1)
    yield hosts
    dropped = "Frames that a symbol on a shared connection did not take in time"
    yield CounterMetricFamily("candlesync_stream_dropped_frames", dropped, value=pool.dropped)
    for name, value, text in (
        ("attempts_used", pool.pace.used, "Connection attempts of the last 5 minutes, for which Binance counts them"),
        ("attempts_limit", pool.pace.limit, "Connection attempts that are made in 5 minutes at most"),
        ("attempts_waiting", pool.pace.waiting, "Connections that wait for their turn to be made"),
        ("held_seconds", pool.pace.held_for, "Seconds for which Binance has told us not to connect"),
    ):
        yield GaugeMetricFamily(f"candlesync_stream_{name}", text, value=value)
    connected = sum(feed.connected for feed in pool.feeds)
    yield GaugeMetricFamily("candlesync_stream_connections", "Connections open", value=connected)
    text = "Seconds from Binance's event time to a frame's arrival, where the clocks agree; of one frame in eight"
    yield histogram("candlesync_event_delay_seconds", text, pool.delay.delays)
    text = "Of the same frames, those whose event time this machine's clock does not agree with"
    yield CounterMetricFamily("candlesync_event_clock_disagreements", text, value=pool.delay.disagreements)


def audit_metrics(audit: Audit, pinned: AbstractSet[Series]) -> Iterator[Metric]:
    """Of the comparison with Binance's REST."""
    statistics = audit.statistics()
    yield GaugeMetricFamily("candlesync_audit_series", "Series audited while live", value=statistics.series)
    for name, text in (
        ("questions", "Questions that the audit has put to REST"),
        ("compared", "Closed candles compared with their final rows"),
        ("differences", "Closed candles that REST shows otherwise, or not while it shows later ones"),
        ("corrections", "Candles corrected for it"),
        ("whole", "Times that a series was compared as a whole"),
        ("skipped", "Questions not put because the request weight was needed for something else"),
        ("failures", "Questions without an answer of use"),
    ):
        yield CounterMetricFamily(f"candlesync_audit_{name}", text, value=getattr(statistics, name))
    text = "Seconds since a pinned series was compared as a whole, or since it is audited"
    ages = GaugeMetricFamily("candlesync_audit_age_seconds", text, labels=["symbol", "interval"])
    for series, age in statistics.ages.items():
        if series in pinned:
            ages.add_metric([series.symbol, str(series.interval)], age)
    yield ages


def archive_metrics(archive: Archive) -> Iterator[Metric]:
    """Of the history before what the store holds."""
    statistics = archive.statistics()
    for name, attribute, text in (
        ("read", "read", "Pages of older history read from Binance"),
        ("kept", "kept", "Pages that were held when they were wanted"),
        ("shared", "shared", "Pages that were being read for somebody else when they were wanted"),
        ("refused", "refused_for_weight", "Pages not read because the request weight is kept for live series"),
        ("failures", "failures", "Pages that could not be read"),
    ):
        yield CounterMetricFamily(f"candlesync_archive_{name}", text, value=getattr(statistics, attribute))
    yield GaugeMetricFamily("candlesync_archive_pages", "Pages held", value=statistics.pages)


def lease_metrics(nodes: SharedOwnership) -> Iterator[Metric]:
    """Of the nodes that share a store."""
    yield GaugeMetricFamily("candlesync_nodes", "Nodes that share the store", value=len(nodes.members))
    yield GaugeMetricFamily("candlesync_symbols_owned", "Symbols that this node owns", value=len(nodes.tenures))
    for name, text in (
        ("claims", "Symbols that this node became the owner of"),
        ("losses", "Symbols that this node lost against its will: its lease ended, or another node has them"),
        ("hand_overs", "Symbols that this node gave to another one"),
    ):
        yield CounterMetricFamily(f"candlesync_lease_{name}", text, value=getattr(nodes, name))


def store_metrics(store: RedisStore) -> Iterator[Metric]:
    """Of the shared store."""
    statistics = store.statistics()
    for name, text in (
        ("commits", "Commits made in the store"),
        ("refused", "Commits that the store refused"),
        ("unannounced", "Commits that no node could be told of"),
        ("unreadable", "Announcements that could not be read"),
        ("failures", "Calls to the store without an answer of use"),
        ("pipelines", "Round trips to the store"),
    ):
        yield CounterMetricFamily(f"candlesync_store_{name}", text, value=getattr(statistics, name))
    yield GaugeMetricFamily("candlesync_store_waiting", "Calls not answered yet", value=statistics.waiting)
    yield histogram("candlesync_store_commit_seconds", "Seconds that a commit took in the store", statistics.latencies)
