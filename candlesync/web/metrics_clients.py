"""Metrics of the clients: what they have open, what they were sent, and what they were refused."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from candlesync.hub import Hub
from candlesync.supervisor import Supervisor
from candlesync.web.access import Access
from candlesync.web.connections import Connections
from candlesync.web.families import counter_by, histogram_by
from candlesync.web.live import Sockets
from candlesync.web.requests import STATUSES, Requests

_REFUSALS = (
    *("connections", "connections_per_address", "request_rate", "frame_rate", "origin", "token", "message_rate"),
    *("new_series", "symbols"),
)
_EVICTIONS = ("too_slow", "cut_off", "too_old", "too_many", "binary_message", "going_down")


def request_metrics(requests: Requests) -> Iterator[Metric]:
    """Of what clients ask over HTTP."""
    text = "Requests by API, and by the class of the status of their answer; none: the client left before it"
    answered = CounterMetricFamily("candlesync_requests", text, labels=["api", "status"])
    for api in requests.apis:
        for status in STATUSES:
            answered.add_metric([api, status], requests.answered[api, status])
    yield answered
    text = "Seconds from a request to the beginning of its answer"
    yield histogram_by("candlesync_request_seconds", text, "api", requests.seconds)


def client_metrics(
    hub: Hub, supervisor: Supervisor, sockets: Sockets, access: Access, connections: Connections
) -> Iterator[Metric]:
    """Of all clients."""
    sessions = list(sockets.open)
    yield GaugeMetricFamily("candlesync_sockets", "WebSockets open", value=len(sessions))
    yield CounterMetricFamily("candlesync_sockets_opened", "WebSockets opened", value=sockets.opened.total())
    text = "WebSockets that could not be opened: for what their URL asks, or because it cannot be had now"
    yield CounterMetricFamily("candlesync_sockets_refused", text, value=sockets.refused.total())
    subscribers = sum(len(topic.subscribers) for topic in hub)
    yield GaugeMetricFamily("candlesync_subscribers", "Subscriptions on them", value=subscribers)
    sent = hub.written + sockets.messages_sent + sum(session.sent for session in sessions)
    yield CounterMetricFamily("candlesync_messages_sent", "WebSocket messages sent", value=sent)
    direct = "Of them, live candles that were written straight to clients' sockets"
    yield CounterMetricFamily("candlesync_messages_direct", direct, value=hub.written)
    yield GaugeMetricFamily("candlesync_connections", "Connections open", value=connections.open)
    yield GaugeMetricFamily("candlesync_connections_limit", "Connections allowed", value=connections.most)
    late = sockets.messages_refused + sum(session.refused for session in sessions)
    refused = access.refused + connections.refused
    refused.update(message_rate=late, new_series=supervisor.refused_starts, symbols=supervisor.refused_symbols)
    text = "What clients were refused, by reason"
    yield counter_by("candlesync_refused", text, "reason", refused, _REFUSALS)
    ended = {**sockets.ended, "cut_off": connections.cut_off()}
    text = (
        "Clients that this server ended, by reason: cut_off took nothing for too long, too_slow was waited for too "
        "long, too_old fell behind the history, too_many sent too fast"
    )
    yield counter_by("candlesync_evictions", text, "reason", ended, _EVICTIONS)
