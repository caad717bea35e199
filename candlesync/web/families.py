"""Families of Prometheus metrics, made of what the parts have counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isinf

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from candlesync.core.histogram import Histogram


def histogram(name: str, text: str, values: Histogram) -> HistogramMetricFamily:
    """A histogram as it stands."""
    buckets = [("+Inf" if isinf(bound) else str(bound), float(count)) for bound, count in values.cumulative()]
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=values.sum)


def counter_by(
    name: str, text: str, label: str, counts: Mapping[str, int], known: Iterable[str]
) -> CounterMetricFamily:
    """A counter for each of the ``known`` values of a label: a rate needs a first value, also of what never was."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value in known:
        family.add_metric([value], counts.get(value, 0))
    return family
