"""Prometheus metrics, read from the statistics that the parts keep: nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from candlesync.binance.pool import FeedPool
from candlesync.binance.rest import Rest
from candlesync.core.sync import State
from candlesync.hub import Hub
from candlesync.leases import SharedOwnership
from candlesync.store.redis import RedisStore
from candlesync.supervisor import Supervisor
from candlesync.web.access import Access
from candlesync.web.connections import Connections
from candlesync.web.live import Sockets


class Metrics(Collector):
    """Collects when it is asked, from the live parts."""

    def __init__(
        self,
        hub: Hub,
        supervisor: Supervisor,
        rest: Rest,
        feeds: FeedPool,
        sockets: Sockets,
        *,
        access: Access,
        connections: Connections,
        nodes: SharedOwnership | None = None,
        redis: RedisStore | None = None,
    ) -> None:
        self._hub = hub
        self._supervisor = supervisor
        self._rest = rest
        self._feeds = feeds
        self._sockets = sockets
        self._access = access
        self._connections = connections
        self._nodes = nodes
        self._redis = redis

    def registry(self) -> CollectorRegistry:
        """A registry with these metrics only."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield from self._series()
        yield from self._syncs()
        yield from self._upstream()
        yield from self._clients()
        if self._nodes is not None:
            yield from self._leases(self._nodes)
        if self._redis is not None:
            yield from self._shared(self._redis)

    def _series(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("candlesync_series", "Series followed, by state", labels=["state"])
        topics = list(self._hub)
        for state in State:
            states.add_metric([state.value], sum(topic.state is state for topic in topics))
        yield states
        yield GaugeMetricFamily("candlesync_symbols", "Symbols followed", value=self._supervisor.symbol_count)
        yield CounterMetricFamily(
            "candlesync_symbol_restarts", "Times that a symbol's task died", value=self._supervisor.restarts
        )
        commits = CounterMetricFamily("candlesync_commits", "Commits published", labels=["symbol", "interval"])
        newest = GaugeMetricFamily(
            "candlesync_newest_open_time_seconds", "Open time of the newest candle", labels=["symbol", "interval"]
        )
        for topic in topics:
            labels = [topic.series.symbol, str(topic.series.interval)]
            commits.add_metric(labels, topic.commits)
            if topic.replica.tail is not None:
                newest.add_metric(labels, topic.replica.tail.open_time / 1000)
        yield commits
        yield newest

    def _syncs(self) -> Iterator[Metric]:
        helps = {
            "gaps": "Times that the stream showed a candle that did not follow the newest",
            "backfilled": "Candles taken from REST behind the first ones",
            "filled": "Outage minutes filled",
            "corrections": "Closed candles that a final row changed",
            "dropped_frames": "Frames that told nothing new",
            "off_grid_rows": "REST rows whose open time is not on the grid",
            "begun": "Times that a series began",
        }
        for name, text in helps.items():
            family = CounterMetricFamily(f"candlesync_{name}", text, labels=["symbol", "interval"])
            for task in self._supervisor.tasks:
                for interval, synchronizer in task.synchronizers.items():
                    value = getattr(synchronizer.sync.statistics, name)
                    family.add_metric([task.symbol, str(interval)], value)
            yield family

    def _upstream(self) -> Iterator[Metric]:
        rest, weight, pool = self._rest.statistics(), self._rest.budget.statistics(), self._feeds.statistics()
        yield CounterMetricFamily("candlesync_rest_requests", "REST requests sent", value=rest.requests)
        failures = CounterMetricFamily("candlesync_rest_failures", "REST requests failed, by kind", labels=["kind"])
        for kind, count in rest.failures.items():
            failures.add_metric([kind], count)
        yield failures
        yield GaugeMetricFamily("candlesync_rest_weight_used", "Request weight used in this minute", value=weight.used)
        yield GaugeMetricFamily("candlesync_rest_weight_limit", "Request weight allowed a minute", value=weight.limit)
        hosts = GaugeMetricFamily("candlesync_host", "The host of Binance that is asked", labels=["kind", "host"])
        for kind, url in (("rest", rest.url), ("stream", pool.url)):
            hosts.add_metric([kind, urlsplit(url).netloc.rpartition("@")[2]], 1)
        yield hosts
        yield GaugeMetricFamily(
            "candlesync_rest_banned_seconds", "Seconds for which REST bans us", value=weight.banned_for
        )
        # By feed: the sum of those that there are would go down when one is let go, which a counter must not.
        for name, attribute, text in (
            ("frames", "frames", "Messages received from Binance"),
            ("unreadable_frames", "unreadable", "Messages that are not what Binance documents"),
            ("connects", "connects", "Connections opened"),
            ("connection_failures", "failures", "Connections that failed or ended"),
            ("renewals", "renewals", "Connections replaced before their end, without a break"),
        ):
            family = CounterMetricFamily(f"candlesync_stream_{name}", text, labels=["feed"])
            for feed in pool.feeds:
                family.add_metric([feed.name], getattr(feed, attribute))
            yield family
        dropped = "Frames that a symbol on a shared connection did not take in time"
        yield CounterMetricFamily("candlesync_stream_dropped_frames", dropped, value=pool.dropped)
        connected = sum(feed.connected for feed in pool.feeds)
        yield GaugeMetricFamily("candlesync_stream_connections", "Connections open", value=connected)

    def _clients(self) -> Iterator[Metric]:
        sessions = list(self._sockets.open)
        yield GaugeMetricFamily("candlesync_sockets", "WebSockets open", value=len(sessions))
        subscribers = sum(len(topic.subscribers) for topic in self._hub)
        yield GaugeMetricFamily("candlesync_subscribers", "Subscriptions on them", value=subscribers)
        sent = self._hub.written + self._sockets.messages_sent + sum(session.sent for session in sessions)
        yield CounterMetricFamily("candlesync_messages_sent", "WebSocket messages sent", value=sent)
        direct = "Of them, live candles that were written straight to clients' sockets"
        yield CounterMetricFamily("candlesync_messages_direct", direct, value=self._hub.written)
        yield GaugeMetricFamily("candlesync_connections", "Connections open", value=self._connections.open)
        yield GaugeMetricFamily("candlesync_connections_limit", "Connections allowed", value=self._connections.most)
        refused = CounterMetricFamily("candlesync_refused", "What clients were refused, by reason", labels=["reason"])
        by_reason = self._access.refused + self._connections.refused
        for reason in ("connections", "connections_per_address", "request_rate", "frame_rate", "origin", "token"):
            refused.add_metric([reason], by_reason[reason])
        late = self._sockets.messages_refused + sum(session.refused for session in sessions)
        refused.add_metric(["message_rate"], late)
        refused.add_metric(["new_series"], self._supervisor.refused_starts)
        yield refused

    def _leases(self, nodes: SharedOwnership) -> Iterator[Metric]:
        yield GaugeMetricFamily("candlesync_nodes", "Nodes that share the store", value=len(nodes.members))
        yield GaugeMetricFamily("candlesync_symbols_owned", "Symbols that this node owns", value=len(nodes.tenures))
        for name, text in (
            ("claims", "Symbols that this node became the owner of"),
            ("losses", "Symbols that this node lost against its will: its lease ended, or another node has them"),
            ("hand_overs", "Symbols that this node gave to another one"),
        ):
            yield CounterMetricFamily(f"candlesync_lease_{name}", text, value=getattr(nodes, name))

    def _shared(self, store: RedisStore) -> Iterator[Metric]:
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
        yield GaugeMetricFamily(
            "candlesync_store_commit_seconds", "How long the last commit took", value=statistics.last_latency
        )
