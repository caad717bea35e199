"""Prometheus metrics, read from the statistics that the parts keep: nothing is counted twice.

Labels are bounded: pinned series are told apart, for that is what this server promises to keep live, and whoever runs
it chose them. Clients choose the others; those are counted together (``symbol="other"``), and by their state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import trio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from candlesync.core.candle import Series
from candlesync.core.record import Record
from candlesync.core.sync import State
from candlesync.hub import Hub
from candlesync.supervisor import Supervisor
from candlesync.web.families import histogram

_LABELS = ("symbol", "interval")
_OTHER = ["other", "other"]

Source = Callable[[], Iterable[Metric]]
"""Gives the metrics of some parts, as they are when it is called."""


class Metrics(Collector):
    """Collects when it is asked, from the live parts: those of the series itself, and what the ``sources`` give."""

    def __init__(self, hub: Hub, supervisor: Supervisor, record: Record, sources: Iterable[Source] = ()) -> None:
        self._hub = hub
        self._supervisor = supervisor
        self._record = record
        self._sources = tuple(sources)

    def registry(self) -> CollectorRegistry:
        """A registry with these metrics, and those of the process: memory, CPU, open files."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        return registry

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield from self._series()
        yield from self._syncs()
        yield from self._healing()
        yield from self._delays()
        for source in self._sources:
            yield from source()

    def _series(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("candlesync_series", "Series followed, by state", labels=["state"])
        topics = list(self._hub)
        for state in State:
            states.add_metric([state.value], sum(topic.state is state for topic in topics))
        yield states
        yield GaugeMetricFamily("candlesync_symbols", "Symbols followed", value=self._supervisor.symbol_count)
        text = "Symbols that may be followed at once"
        yield GaugeMetricFamily("candlesync_symbols_limit", text, value=self._supervisor.most_symbols)
        yield CounterMetricFamily(
            "candlesync_symbol_restarts", "Times that a symbol's task died", value=self._supervisor.restarts
        )
        commits = CounterMetricFamily("candlesync_commits", "Commits published", labels=_LABELS)
        live = GaugeMetricFamily("candlesync_series_live", "Whether a pinned series is live", labels=_LABELS)
        since = GaugeMetricFamily(
            "candlesync_series_not_live_seconds", "Seconds for which a pinned series has not been live", labels=_LABELS
        )
        newest = GaugeMetricFamily(
            "candlesync_newest_open_time_seconds", "Open time of a pinned series' newest candle", labels=_LABELS
        )
        of_others = self._hub.commits_gone
        for topic in topics:
            if topic.series not in self._supervisor.pinned:
                of_others += topic.commits
                continue
            labels = _labels(topic.series)
            commits.add_metric(labels, topic.commits)
            is_live = topic.state is State.LIVE
            live.add_metric(labels, is_live)
            # Of one that has never been live, since it is followed.
            began = topic.made_at if topic.left_live_at is None else topic.left_live_at
            since.add_metric(labels, 0.0 if is_live else trio.current_time() - began)
            if topic.replica.tail is not None:
                newest.add_metric(labels, topic.replica.tail.open_time / 1000)
        commits.add_metric(_OTHER, of_others)
        yield from (commits, live, since, newest)

    def _syncs(self) -> Iterator[Metric]:
        helps = {
            "gaps": "Times that the stream showed a candle that did not follow the newest",
            "backfilled": "Candles taken from REST behind the first ones",
            "missed": "Closed candles that were missing after the newest, and were put in",
            "filled": "Outage minutes filled",
            "corrections": "Closed candles that a final row changed",
            "dropped_frames": "Frames that told nothing new",
            "off_grid_rows": "REST rows whose open time is not on the grid",
            "begun": "Times that a series began",
        }
        counts = list(self._record.counts())
        for name, text in helps.items():
            family = CounterMetricFamily(f"candlesync_{name}", text, labels=_LABELS)
            for series, statistics in counts:
                family.add_metric(_OTHER if series is None else _labels(series), getattr(statistics, name))
            yield family

    def _healing(self) -> Iterator[Metric]:
        healing = self._record.healing
        found = "Gaps found: on the stream, or in what REST had after the newest candle"
        yield CounterMetricFamily("candlesync_gaps_found", found, value=healing.found)
        yield GaugeMetricFamily("candlesync_gaps_open", "Of them, those not healed yet", value=healing.open)
        left = "Of them, those that this node did not heal: their symbol went to another one, or its task died"
        yield CounterMetricFamily("candlesync_gaps_abandoned", left, value=healing.abandoned)
        yield histogram("candlesync_gap_candles", "Candles that were missing, of each gap healed", healing.lengths)
        text = "Seconds from when a gap could be seen until the series was whole again, of each gap healed"
        yield histogram("candlesync_gap_heal_seconds", text, healing.times)
        text = "Seconds for which a series was not live, each time that it was live again"
        yield histogram("candlesync_not_live_seconds", text, self._hub.statistics.not_live)

    def _delays(self) -> Iterator[Metric]:
        record = self._record
        text = "Seconds from a frame's arrival to the publishing of its commit"
        yield histogram("candlesync_frame_delay_seconds", text, record.frame_delays)
        text = "Of them, those of the frames that close a candle"
        yield histogram("candlesync_close_delay_seconds", text, record.close_delays)
        text = "Seconds that a series' question to REST took, with all its waits"
        yield histogram("candlesync_backfill_seconds", text, record.backfills)
        text = "Seconds that a commit took to be written to all clients that had everything before it"
        yield histogram("candlesync_fan_out_seconds", text, self._hub.statistics.fan_outs)


def _labels(series: Series) -> list[str]:
    return [series.symbol, str(series.interval)]
