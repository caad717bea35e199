"""Metrics of the doors that speak Binance's language, made of what their parts have counted."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from candlesync.doors.binance.departures import Departures
from candlesync.doors.binance.passing import Passing
from candlesync.doors.binance.session import StreamSession
from candlesync.doors.binance.streams import API
from candlesync.web.families import counter_by
from candlesync.web.live import Sockets

_STATUSES = ("2xx", "4xx", "none")
"""Keys of `PassingStatistics.answers`."""


def passing_metrics(passing: Passing) -> Iterator[Metric]:
    """Of the questions that Binance itself answers."""
    statistics = passing.statistics()
    text = (
        "Questions of clients that were passed on to Binance, by the class of its answer's status; none: there was no "
        "answer of use"
    )
    yield counter_by("candlesync_passed_on", text, "status", statistics.answers, _STATUSES)
    for name, value, text in (
        ("shared", statistics.shared, "Questions not passed on, as the same one was on its way for somebody else"),
        ("kept", statistics.kept, "Questions not passed on, as the last answer was as good"),
    ):
        yield CounterMetricFamily(f"candlesync_passed_on_{name}", text, value=value)
    refused = {"weight": statistics.refused_for_weight, "address": statistics.refused_for_address}
    text = (
        "Questions refused, by reason: weight is kept for live series, or Binance asks to wait; address: one has had "
        "all that it may have passed on"
    )
    yield counter_by("candlesync_passed_on_refused", text, "reason", refused, refused)
    text = "Answers held to be given again"
    yield GaugeMetricFamily("candlesync_passed_on_answers_held", text, value=statistics.kept_answers)
    yield GaugeMetricFamily("candlesync_passed_on_held_bytes", "Bytes of them", value=statistics.kept_bytes)


def stream_metrics(sockets: Sockets, departures: Departures) -> Iterator[Metric]:
    """Of the market streams."""
    sessions = [session for session in sockets.open if isinstance(session, StreamSession)]
    text = "Of the WebSockets open, those of Binance's market streams"
    yield GaugeMetricFamily("candlesync_binance_sockets", text, value=len(sessions))
    streams = sum(session.stream_count for session in sessions)
    yield GaugeMetricFamily("candlesync_binance_streams", "Streams on them", value=streams)
    text = "Of the WebSockets that were opened, those of Binance's market streams"
    yield CounterMetricFamily("candlesync_binance_sockets_opened", text, value=sockets.opened[API])
    text = "Of the WebSockets that could not be opened, those of Binance's market streams"
    yield CounterMetricFamily("candlesync_binance_sockets_refused", text, value=sockets.refused[API])
    statistics = departures.statistics()
    text = "Streams that ended with their socket, and whose place was remembered"
    yield CounterMetricFamily("candlesync_binance_departures", text, value=statistics.remembered)
    text = "Streams that went on where a departed one had stopped"
    yield CounterMetricFamily("candlesync_binance_departures_taken", text, value=statistics.taken)
    text = "Departed streams whose place may still be taken"
    yield GaugeMetricFamily("candlesync_binance_departures_held", text, value=statistics.held)
