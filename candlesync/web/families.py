"""Families of Prometheus metrics, made of what the parts have counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isinf

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from candlesync.core.histogram import Histogram


def histogram(name: str, text: str, values: Histogram) -> HistogramMetricFamily:
    """A histogram as it stands."""
    return HistogramMetricFamily(name, text, buckets=_buckets(values), sum_value=values.sum)


def histogram_by(name: str, text: str, label: str, histograms: Mapping[str, Histogram]) -> HistogramMetricFamily:
    """A histogram for each value of a label, as they stand."""
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, values in histograms.items():
        family.add_metric([value], _buckets(values), values.sum)
    return family


def counter_by(
    name: str, text: str, label: str, counts: Mapping[str, int], known: Iterable[str]
) -> CounterMetricFamily:
    """A counter for each of the ``known`` values of a label: a rate needs a first value, also of what never was."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value in known:
        family.add_metric([value], counts.get(value, 0))
    return family


def _buckets(values: Histogram) -> list[tuple[str, float]]:
    return [("+Inf" if isinf(bound) else str(bound), float(count)) for bound, count in values.cumulative()]
